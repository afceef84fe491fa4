//! The errors of the store.

use lagan_types::{ChunkId, FsError};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// The reason why the store did not do what it was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ChunkError {
    /// No such chunk here. Never a sign of a bad replica.
    #[error("chunk {0} not found")]
    NotFound(ChunkId),
    /// A chunk of that id with other content is here already.
    #[error("chunk {0} exists with other content")]
    Conflict(ChunkId),
    /// The record on disk is not what was written.
    #[error("chunk {0} is corrupt on disk")]
    Corrupt(ChunkId),
    /// The bytes to write do not have the CRCs that came with them.
    #[error("chunk {0} came with wrong block crcs")]
    WrongCrc(ChunkId),
    /// The caller asked for something that makes no sense.
    #[error("invalid request: {0}")]
    Invalid(&'static str),
    /// No space left for chunks (deletes still work).
    #[error("no space left for chunks")]
    NoSpace,
    /// Too many bytes in flight for too long.
    #[error("too many writes in flight")]
    Busy,
    /// A write or sync failed earlier; the store takes no more writes.
    #[error("store has failed: {0}")]
    Failed(Arc<str>),
    /// The store is closed.
    #[error("store is closed")]
    Closed,
    /// The directory is of a format that this build does not know.
    #[error("chunk store {path} has {found}, this build knows format {known}")]
    Format {
        /// The store's directory.
        path: PathBuf,
        /// The content of its format file, in words.
        found: String,
        /// The format that this build reads.
        known: u32,
    },
    /// The operating system refused.
    #[error("{action}: {source}")]
    Io {
        /// The action that failed, a verb in the present tense.
        action: &'static str,
        /// The error of the operating system.
        source: Arc<io::Error>,
    },
    /// The index refused.
    #[error("chunk index: {0}")]
    Index(Arc<str>),
}

impl ChunkError {
    /// An error of the operating system during `action`; a full disk is
    /// [`ChunkError::NoSpace`].
    pub(crate) fn io(action: &'static str, source: io::Error) -> Self {
        match source.raw_os_error() {
            Some(libc::ENOSPC | libc::EDQUOT) => ChunkError::NoSpace,
            _ => ChunkError::Io {
                action,
                source: Arc::new(source),
            },
        }
    }
}

impl From<ChunkError> for FsError {
    fn from(e: ChunkError) -> FsError {
        match e {
            ChunkError::NotFound(_) => FsError::NotFound,
            ChunkError::Conflict(_) => FsError::Exists,
            ChunkError::Corrupt(_) | ChunkError::WrongCrc(_) => FsError::Corrupt,
            ChunkError::Invalid(_) => FsError::Invalid,
            ChunkError::NoSpace => FsError::NoSpace,
            ChunkError::Busy => FsError::WouldBlock,
            ChunkError::Failed(_)
            | ChunkError::Closed
            | ChunkError::Format { .. }
            | ChunkError::Io { .. }
            | ChunkError::Index(_) => FsError::Io,
        }
    }
}
