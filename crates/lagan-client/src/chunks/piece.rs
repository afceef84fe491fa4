//! Bytes of a file on their way to become a chunk.

use crate::leader::ids::IdTicket;
use bytes::Bytes;
use lagan_types::extent::ChunkRef;
use lagan_types::{FsError, SessionId};
use std::sync::Arc;
use tokio::sync::OnceCell;

/// Bytes that become one chunk; sent once, by the caller that comes first.
#[derive(Debug)]
pub(crate) struct Piece {
    offset: u64,
    data: Bytes,
    /// The chunk, once it is durable, or why it is not.
    pub(super) stored: OnceCell<Result<Arc<Stored>, FsError>>,
}

impl Piece {
    /// Takes bytes that nobody has sent yet: not empty, and at most
    /// [`lagan_types::limits::CHUNK_LEN_MAX`].
    pub fn new(offset: u64, data: Bytes) -> Arc<Self> {
        Arc::new(Piece {
            offset,
            data,
            stored: OnceCell::new(),
        })
    }

    /// Takes bytes that have the id of a chunk already.
    pub(super) fn placed(offset: u64, data: Bytes, stored: Stored) -> Arc<Self> {
        Arc::new(Piece {
            offset,
            data,
            stored: OnceCell::new_with(Some(Ok(Arc::new(stored)))),
        })
    }

    /// Whether nobody has sent it, or is about to.
    pub fn is_unsent(&self) -> bool {
        self.stored.get().is_none()
    }

    /// First byte in the file.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// First byte after the piece.
    pub fn end(&self) -> u64 {
        self.offset + self.data.len() as u64
    }

    /// The bytes.
    pub fn bytes(&self) -> &Bytes {
        &self.data
    }

    /// How many bytes there are.
    pub fn len(&self) -> u64 {
        self.data.len() as u64
    }

    /// The chunk.
    ///
    /// # Errors
    /// Why it could not be stored; [`FsError::Io`] if nobody has tried yet.
    pub fn stored(&self) -> Result<&Arc<Stored>, FsError> {
        match self.stored.get() {
            Some(Ok(stored)) => Ok(stored),
            Some(Err(error)) => Err(*error),
            None => Err(FsError::Io),
        }
    }
}

/// A chunk that no commit names yet: durable on all members of its set, or to come with the
/// commit.
#[derive(Debug)]
pub(crate) struct Stored {
    /// The chunk as a commit names it; `skip` is 0.
    pub refer: ChunkRef,
    pub(super) ticket: IdTicket,
}

impl Stored {
    /// The session that must commit it.
    pub fn session(&self) -> SessionId {
        self.ticket.session
    }
}
