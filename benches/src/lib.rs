//! What the programs of `benches/` share: [`upload`] is the plain uploader that
//! the mover is measured against, [`million`] fills a server's stores.
//!
//! `README.md` beside this crate has the measured tables and the commands.

pub mod million;
pub mod upload;
