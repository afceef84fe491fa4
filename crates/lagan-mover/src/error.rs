//! Failures of a file on its way to S3 and back.

use lagan_object::{ErrorKind, ObjectError, OwnerError};
use lagan_types::{FsError, Refusal};

/// Why a step of the mover failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MoverError {
    /// The metadata refused it.
    #[error("metadata: {0}")]
    Refused(#[from] Refusal),
    /// The leader could not be asked: why, in words.
    #[error("metadata: {0}")]
    NoLeader(String),
    /// The extents of a file make no sense: why, in words.
    #[error("metadata: {0}")]
    Extents(String),
    /// The metadata does not hear how work ended, although it was told many times.
    #[error("metadata: {0} could not be reported")]
    NotReported(&'static str),
    /// Bytes could not be read from any replica.
    #[error("read chunk: {0}")]
    Chunk(String),
    /// S3 refused or failed.
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
    /// True if the metadata says that there is no such file.
    pub(crate) fn is_gone(&self) -> bool {
        matches!(
            self,
            MoverError::Refused(Refusal::Fs(FsError::NotFound | FsError::Stale))
        )
    }
}

/// Why bytes could not be recalled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct RecallError {
    /// One line.
    pub reason: String,
    /// The reader's next step.
    pub failure: RecallFailure,
}

/// The reader's next step after a recall that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecallFailure {
    /// Fetch the extents again: that version's object is not the file's any more.
    Gone,
    /// Ask again later.
    Transient,
    /// Nothing: a person must act.
    Permanent,
}

impl RecallError {
    pub(crate) fn gone(reason: impl Into<String>) -> Self {
        RecallError::new(RecallFailure::Gone, reason)
    }

    pub(crate) fn transient(reason: impl Into<String>) -> Self {
        RecallError::new(RecallFailure::Transient, reason)
    }

    pub(crate) fn permanent(reason: impl Into<String>) -> Self {
        RecallError::new(RecallFailure::Permanent, reason)
    }

    fn new(failure: RecallFailure, reason: impl Into<String>) -> Self {
        let reason = reason.into();
        RecallError { reason, failure }
    }
}

impl From<MoverError> for RecallError {
    fn from(error: MoverError) -> Self {
        if error.is_gone() {
            return RecallError::gone(error.to_string());
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
