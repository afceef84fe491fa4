//! Failures of an object store's calls, sorted by what a caller may do about them.

/// The class of a failure, by which a caller decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The network, a time-out, a 5xx answer, "slow down": it may pass by itself.
    Transient,
    /// A person must act: refused credentials, no such bucket, wrong region.
    Permanent,
    /// There is no such object or upload.
    NotFound,
    /// A condition of the request did not hold (412).
    Precondition,
    /// The bytes that arrived at the endpoint do not have the checksum that was sent.
    ChecksumMismatch,
    /// The bytes to send could not be read here; the endpoint had no part in it.
    Source,
}

/// A failed call of an object store.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{op} {key}: {message}{}", code_suffix(.code))]
pub struct ObjectError {
    /// The class of the failure.
    pub kind: ErrorKind,
    /// The call, as a verb.
    pub op: &'static str,
    /// The key, prefix or bucket that the call was about.
    pub key: String,
    /// The endpoint's error code (`NoSuchBucket`, ...), if it gave one.
    pub code: Option<String>,
    /// A description in one line, without secrets.
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

    /// True if a person must act.
    pub fn is_permanent(&self) -> bool {
        self.kind == ErrorKind::Permanent
    }

    /// True if there is no such object or upload.
    pub fn is_not_found(&self) -> bool {
        self.kind == ErrorKind::NotFound
    }
}
