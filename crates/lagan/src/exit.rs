//! Exit statuses, and errors in one line that belong to them.

use std::fmt;

/// All is well.
pub const OK: u8 = 0;
/// It did not work.
pub const ERROR: u8 = 1;
/// Wrong arguments or configuration.
pub const USAGE: u8 = 2;
/// It works, but copies are missing or a person must act.
pub const DEGRADED: u8 = 3;
/// No leader could be found: a majority of the servers is away.
pub const NO_QUORUM: u8 = 4;

/// Shown below `--help`.
pub const HELP: &str = "\
Exit status:
  0  done; status: healthy; check: clean
  1  an error, said in one line; check: findings
  2  wrong arguments or configuration
  3  status, check: degraded (a server is away, copies are missing, or S3 refuses)
  4  no quorum: no metadata leader answers

A command finds its cluster by --cluster DIR|addr,addr, else by the mount that
its path or the working directory is on, else in ./lagan-demo, else in
/etc/lagan/client.toml.";

/// Why a command ends without success: one line for a person, and the status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The process's exit status.
    pub status: u8,
    /// One line, lower case, without a full stop.
    pub message: String,
}

/// The result of a command, or the failure that ends it.
pub type Outcome<T> = Result<T, Failure>;

impl Failure {
    /// Something did not work (status 1).
    pub fn error(message: impl Into<String>) -> Self {
        Failure {
            status: ERROR,
            message: message.into(),
        }
    }

    /// The command or its configuration is wrong (status 2).
    pub fn usage(message: impl Into<String>) -> Self {
        Failure {
            status: USAGE,
            message: message.into(),
        }
    }

    /// No leader answers (status 4).
    pub fn no_quorum(message: impl Into<String>) -> Self {
        Failure {
            status: NO_QUORUM,
            message: message.into(),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message.replace('\n', " "))
    }
}

/// Adds what was being done, as a verb in the present, to an error.
pub trait Doing<T> {
    /// `what`: for example `"write /x/y"`.
    ///
    /// # Errors
    /// The same error, as a [`Failure`] of status 1.
    fn doing(self, what: impl FnOnce() -> String) -> Outcome<T>;
}

impl<T, E: fmt::Display> Doing<T> for Result<T, E> {
    fn doing(self, what: impl FnOnce() -> String) -> Outcome<T> {
        self.map_err(|e| Failure::error(format!("{}: {e}", what())))
    }
}
