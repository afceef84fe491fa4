//! The file system of a mount, without FUSE.
//!
//! [`Client`] is a session with a cluster. Each call of the kernel is one
//! method; none of them blocks a thread, and each ends within
//! [`Options::timeout`].

pub mod client;
pub mod error;
pub mod options;

pub use client::Client;
pub use error::ConnectError;
pub use options::{
    Caller, DirPage, Invalidate, NewInode, OpenOptions, Opened, Options, Seek, StatFs,
};
