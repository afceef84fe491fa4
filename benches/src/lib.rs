//! What the programs of `benches/` share: [`upload`] is the plain uploader that
//! the mover is measured against, [`million`] fills a server's stores, [`cpu`] tells
//! the processor time that was used. The programs are in `src/bin`: what fills and
//! uploads for the scripts, and what measures one crate alone (`chunk-rate`,
//! `net-rate`, `raft-rate`).
//!
//! `README.md` beside this crate has the measured tables and the commands.

pub mod cpu;
pub mod million;
pub mod upload;
