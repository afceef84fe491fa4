//! What can go wrong with a file on its way to S3 and back.

use lagan_object::{ErrorKind, ObjectError, OwnerError};
use lagan_types::FsError;

/// Why a step of the mover failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MoverError {
    /// The metadata refused it.
    #[error("metadata: {0}")]
    Fs(#[from] FsError),
    /// The metadata could not be asked.
    #[error("metadata: {0}")]
    Meta(String),
    /// Bytes could not be read from any replica.
    #[error("read chunk: {0}")]
    Chunk(String),
    /// S3's.
    #[error(transparent)]
    Object(#[from] ObjectError),
    /// The prefix cannot be used.
    #[error(transparent)]
    Owner(OwnerError),
    /// The file has another data version by now.
    #[error("file changed since")]
    Changed,
    /// The object that was stored is not what was sent.
    #[error("object {0} reads back with other bytes")]
    ReadBack(String),
    /// The metadata answered something else than was asked.
    #[error("unexpected answer to {0}")]
    Answer(&'static str),
}

impl From<OwnerError> for MoverError {
    fn from(error: OwnerError) -> Self {
        match error {
            OwnerError::Store(error) => MoverError::Object(error),
            other => MoverError::Owner(other),
        }
    }
}

impl MoverError {
    /// Whether the metadata says that there is no such file.
    pub(crate) fn is_gone(&self) -> bool {
        let gone = [FsError::NotFound, FsError::Stale];
        match self {
            MoverError::Fs(error) => gone.contains(error),
            MoverError::Meta(text) => gone.iter().any(|e| e.to_string() == *text),
            _ => false,
        }
    }
}

/// Why bytes could not be recalled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct RecallError {
    /// One line.
    pub reason: String,
    /// It may work later.
    pub transient: bool,
    /// That version's object is not the file's any more: fetch the extents again.
    pub not_found: bool,
}

impl RecallError {
    pub(crate) fn not_found(reason: impl Into<String>) -> Self {
        RecallError {
            reason: reason.into(),
            transient: false,
            not_found: true,
        }
    }

    pub(crate) fn transient(reason: impl Into<String>) -> Self {
        RecallError {
            reason: reason.into(),
            transient: true,
            not_found: false,
        }
    }

    pub(crate) fn permanent(reason: impl Into<String>) -> Self {
        RecallError {
            reason: reason.into(),
            transient: false,
            not_found: false,
        }
    }
}

impl From<MoverError> for RecallError {
    fn from(error: MoverError) -> Self {
        if error.is_gone() {
            return RecallError::not_found(error.to_string());
        }
        match &error {
            MoverError::Object(e)
                if matches!(e.kind, ErrorKind::Permanent | ErrorKind::NotFound) =>
            {
                RecallError::permanent(error.to_string())
            }
            _ => RecallError::transient(error.to_string()),
        }
    }
}
