//! Becoming a daemon: the process that was called stays until the mount
//! answers or has failed, and exits accordingly.
//!
//! ```text
//! called process: fork ---- waits ----> "ready" -> exit 0 | "1 text" -> prints text, exit 1
//! daemon:            '--> locks, connects, mounts, answers --> runs until it is unmounted
//! ```
//! A daemon that dies before its report closes the pipe: that is a failure too.

use crate::failure::Failure;
use crate::sys::{self, Side};
use std::fs::File;
use std::io::{Read, Write};
use std::process::ExitCode;

/// The receiver of the report on a start.
pub(crate) enum Report {
    /// Nobody: the process stays in the foreground.
    Foreground,
    /// The process that was called, through this pipe.
    Daemon(File),
}

/// Forks if a daemon is wanted. Only the daemon returns with `Ok`; `Err` is the exit
/// status of the process that was called.
pub(crate) fn start(foreground: bool) -> Result<Report, ExitCode> {
    if foreground {
        return Ok(Report::Foreground);
    }
    match sys::fork_daemon() {
        Ok(Side::Daemon(pipe)) => Ok(Report::Daemon(pipe)),
        Ok(Side::Parent(pipe)) => Err(wait(pipe)),
        Err(e) => {
            eprintln!("lagan-mount: become a daemon: {e}");
            Err(ExitCode::from(1))
        }
    }
}

impl Report {
    /// Reports that the mount answers. A daemon lets go of the terminal; from here on it logs
    /// to `log`.
    pub(crate) fn ready(self, log: std::io::Result<File>) {
        let Report::Daemon(mut pipe) = self else {
            return;
        };
        let null = File::options().read(true).write(true).open("/dev/null");
        let redirected = null.and_then(|null| sys::redirect(&null, &log?));
        if let Err(e) = redirected {
            tracing::warn!(error = %e, "redirect standard error to the run directory");
        }
        // Somebody may want to unmount the directory that the daemon was started from.
        if let Err(e) = std::env::set_current_dir("/") {
            tracing::warn!(error = %e, "leave the working directory");
        }
        // The parent may have been killed; the mount is there all the same.
        drop(pipe.write_all(b"ready"));
    }

    /// Reports that the start failed.
    pub(crate) fn failed(self, failure: &Failure) -> ExitCode {
        match self {
            Report::Foreground => eprintln!("lagan-mount: {failure}"),
            Report::Daemon(mut pipe) => {
                let line = format!("{} {failure}", failure.status());
                drop(pipe.write_all(line.as_bytes()));
            }
        }
        failure.exit_code()
    }
}

/// Waits for the daemon's report and turns it into the exit status.
fn wait(mut pipe: File) -> ExitCode {
    let mut report = Vec::new();
    let read = pipe.read_to_end(&mut report);
    let report = String::from_utf8_lossy(&report);
    if report == "ready" {
        return ExitCode::SUCCESS;
    }
    let (status, text) = report.split_once(' ').unwrap_or_default();
    match (read, status.parse::<u8>()) {
        (Ok(_), Ok(status)) if status != 0 => {
            eprintln!("lagan-mount: {text}");
            ExitCode::from(status)
        }
        _ => {
            eprintln!("lagan-mount: the mount process died before the mount answered");
            ExitCode::from(1)
        }
    }
}
