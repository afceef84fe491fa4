//! Open files.

pub(crate) mod appends;
pub(crate) mod buffer;
pub(crate) mod commit;
pub(crate) mod flush;
pub(crate) mod inode;
pub(crate) mod map;
mod open_files;
pub(crate) mod pages;
pub(crate) mod read;
pub(crate) mod tidy;
pub(crate) mod write;
