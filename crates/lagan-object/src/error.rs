//! What can go wrong with an object, and what the mover may do about it.

/// The class of a failure: what a caller decides by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The network, a time-out, a 5xx answer, "slow down": may pass by itself.
    Transient,
    /// A person must act: refused credentials, no such bucket, wrong region.
    Permanent,
    /// There is no such object or upload.
    NotFound,
    /// A condition of the request did not hold (412).
    Precondition,
    /// The bytes that arrived there were not those that were meant.
    ChecksumMismatch,
    /// The bytes to send could not be read here; says nothing of the endpoint.
    Source,
}

/// A failed call of an object store.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{op} {key}: {message}{}", code_suffix(.code))]
pub struct ObjectError {
    /// Its class.
    pub kind: ErrorKind,
    /// The call, as a verb.
    pub op: &'static str,
    /// The key, prefix or bucket it was about.
    pub key: String,
    /// The endpoint's error code (`NoSuchBucket`, ...), if it gave one.
    pub code: Option<String>,
    /// What happened, one line, no secrets.
    pub message: String,
}

fn code_suffix(code: &Option<String>) -> String {
    code.as_ref().map(|c| format!(" ({c})")).unwrap_or_default()
}

impl ObjectError {
    /// An error without an endpoint's code.
    pub fn new(
        kind: ErrorKind,
        op: &'static str,
        key: impl Into<String>,
        message: impl Into<String>,
    ) -> Self {
        ObjectError {
            kind,
            op,
            key: key.into(),
            code: None,
            message: message.into(),
        }
    }

    /// Whether a person must act.
    pub fn is_permanent(&self) -> bool {
        self.kind == ErrorKind::Permanent
    }

    /// Whether the object is not there.
    pub fn is_not_found(&self) -> bool {
        self.kind == ErrorKind::NotFound
    }
}
