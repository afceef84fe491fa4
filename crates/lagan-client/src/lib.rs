//! The file system of a mount, without FUSE.
//!
//! [`Client`] is a session with a cluster. Each call of the kernel is one
//! method; none of them blocks a thread, and each ends within
//! [`Options::timeout`].
//!
//! ```text
//! names, attrs, xattrs, dirs, locks, space --- one call each ---> session --> leader
//! open, read, write --> files (inodes, handles)
//!     write --> buffer, append --> flush --> store (chunks) --> commit --> leader
//!     read  --> cache (extents, bytes, kernel pages) --> fetch (chunks, objects)
//! access: reads that move an access time --- many in one call, once a second --> leader
//! ```
//!
//! What must hold: bytes before pointer (a commit names only chunks that are
//! on every member of their set); what a close or fsync has answered is seen
//! by every later call of any mount; an error of deferred writes reaches each
//! handle that is open, once.
//!
//! A crash of the mount loses what no flush, fsync or close has committed;
//! chunks that were written for it are garbage, freed when the session ends.

mod access;
mod append;
mod attrs;
mod buffer;
mod cache;
pub mod client;
mod cluster;
mod commit;
mod copy;
mod dirs;
pub mod error;
mod fetch;
mod files;
mod flush;
mod heartbeat;
mod ids;
mod link;
mod lists;
mod locks;
mod mend;
mod names;
mod open;
pub mod options;
mod placement;
mod read;
mod reserved;
mod session;
mod space;
mod store;
mod tidy;
mod window;
mod write;
mod xattrs;

pub use client::Client;
pub use copy::CopySpan;
pub use error::ConnectError;
pub use locks::Waiter;
pub use options::{
    AccessTimes, Caller, DirPage, Invalidate, NewInode, OpenOptions, Opened, Options, Seek, StatFs,
};
