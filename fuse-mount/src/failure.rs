//! Why a mount did not start, and the exit status that says so.

use std::process::ExitCode;

/// One line for the person who tried to mount.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Failure {
    /// The command line or the configuration is wrong: exit status 2.
    #[error("{0}")]
    Usage(String),
    /// The machine or the cluster does not allow the mount now: exit status 1.
    #[error("{0}")]
    Start(String),
}

impl Failure {
    /// A failure of the first kind.
    pub(crate) fn usage(text: impl Into<String>) -> Self {
        Failure::Usage(text.into())
    }

    /// A failure of the second kind.
    pub(crate) fn start(text: impl Into<String>) -> Self {
        Failure::Start(text.into())
    }

    /// The exit status.
    pub(crate) fn status(&self) -> u8 {
        match self {
            Failure::Usage(_) => 2,
            Failure::Start(_) => 1,
        }
    }

    /// The exit status, for `main`.
    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.status())
    }
}
