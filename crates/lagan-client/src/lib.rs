//! The file system of a mount, without FUSE.
//!
//! [`Client`] is a session with a cluster. Each call of the kernel is one method; none
//! of them blocks a thread, and each ends within [`Options::timeout`].
//!
//! # Storeys
//!
//! Each storey is a type that owns its fields and holds the ones below it:
//!
//! ```text
//! calls/   Client   the public methods           may use  file  chunks  leader
//!            |
//! file/    Files    open files                   may use        chunks  leader  <--+
//!            |                                                                     |
//! chunks/  Chunks   bytes, there and back        may use                leader     | OpenFiles
//!            |                                                                     |
//! leader/  Leader   all that is said to the      may use nothing above, but ask  --+
//!                   leader, and the cluster      and tell by one trait
//! ```
//!
//! A write goes down: `calls/io`, `file/write` (buffer), later `file/flush`,
//! `chunks/store`, `file/commit`, `leader/ask`. A read asks `file/map` what the
//! range consists of, and `chunks/range` for the bytes. Promises, created names that are
//! not replicated yet, are in `leader/promises`; the calls that need such a file
//! have it made before (`leader/make`).
//!
//! Within a storey, data without I/O and the methods over it are files of their
//! own, and no two files use each other. [`Client`], `Files`, `Chunks` and `Leader` start
//! their background tasks in `tasks`, which all end together.
//!
//! # What must hold
//!
//! - Bytes before pointer: a commit names only chunks that are on every member of
//!   their set.
//! - Every later call of any mount sees what a close or fsync has answered.
//! - An error of deferred writes reaches each handle that is open, once.
//! - When a session is lost, its handles fail before their data is dropped
//!   (`leader/renew`).
//!
//! A crash of the mount loses what no flush, fsync or close has committed. Chunks that
//! were written for it are garbage, and freed when the session ends.

mod calls;
mod chunks;
pub mod error;
mod file;
mod leader;
pub mod options;
mod tasks;
mod wall;

pub use calls::Client;
pub use calls::copy::CopySpan;
pub use calls::locks::Waiter;
pub use error::ConnectError;
pub use lagan_net::spent;
pub use options::{
    AccessTimes, Caller, DirPage, Forget, Invalidate, NewInode, OpenOptions, Opened, Options, Seek,
    StatFs,
};
