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
pub use options::{
    AccessTimes, Caller, DirPage, Invalidate, NewInode, OpenOptions, Opened, Options, Seek, StatFs,
};
