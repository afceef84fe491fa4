//! Parts of the programs in `benches/`: [`upload`] is the plain uploader that the
//! mover is measured against, [`million`] fills a server's stores, [`cpu`] tells the
//! processor time that was used. The programs are in `src/bin`: three work for the
//! scripts (`million`, `sync-floor`, `upload`), three measure one crate each
//! (`chunk-rate`, `net-rate`, `raft-rate`).
//!
//! `README.md` beside this crate has the measured tables and the commands.

pub mod cpu;
pub mod million;
pub mod upload;
