//! The processes that a start runs.

use crate::exit::{Doing, Failure, Outcome};
use crate::record::Process;
use crate::sys;
use std::fs::{File, Permissions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Bytes at the end of a log that hold the last words of a process.
const LOG_TAIL_BYTES: u64 = 16 * 1024;

/// A process that this one started.
pub struct Running {
    /// Its name in the record.
    pub name: String,
    child: Child,
    log: PathBuf,
    /// Offset in the log where the lines of this run begin.
    log_from: u64,
    ended: Option<ExitStatus>,
}

/// Starts a process in a group of its own, without input; its output is appended to its log.
///
/// # Errors
/// When the program or its log cannot be opened.
pub fn spawn(process: &Process) -> Outcome<Running> {
    let log = File::options()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(&process.log)
        .doing(|| format!("open {}", process.log.display()))?;
    // The log of an earlier program may be open to others.
    log.set_permissions(Permissions::from_mode(0o600))
        .doing(|| format!("close {} to others", process.log.display()))?;
    let log_from = log.metadata().map_or(0, |m| m.len());
    let errors = log.try_clone().doing(|| "share the log".into())?;
    let (program, args) = process
        .argv
        .split_first()
        .ok_or_else(|| Failure::error(format!("{} has no command", process.name)))?;
    let child = Command::new(program)
        .args(args)
        .envs(&process.env)
        .current_dir(&process.cwd)
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(errors)
        .process_group(0)
        .spawn()
        .doing(|| format!("start {program}"))?;
    Ok(Running {
        name: process.name.clone(),
        child,
        log: process.log.clone(),
        log_from,
        ended: None,
    })
}

impl Running {
    /// Its pid.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its exit status, if it has ended. Reaps the dead process.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().ok().flatten();
        }
        self.ended
    }

    /// Fails if it has ended, with its last words.
    ///
    /// # Errors
    /// Status 1, or 2 if the process ended so.
    pub fn check(&mut self) -> Outcome<()> {
        let Some(status) = self.ended() else {
            return Ok(());
        };
        let said = last_line(&self.log, self.log_from);
        let said = said.unwrap_or_else(|| format!("ended with {status}"));
        let message = format!("{}: {said} (log: {})", self.name, self.log.display());
        Err(match status.code() {
            Some(2) => Failure::usage(message),
            _ => Failure::error(message),
        })
    }

    /// Ends it by SIGTERM, and after `patience` by SIGKILL.
    pub fn stop(&mut self, patience: Duration) {
        if self.ended().is_some() {
            return;
        }
        let _ = sys::kill(self.pid(), libc::SIGTERM);
        let end = Instant::now() + patience;
        while self.ended().is_none() {
            if Instant::now() >= end {
                let _ = self.child.kill();
                self.ended = self.child.wait().ok();
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// The last line of the log after the offset `from`, cut to 300 characters.
fn last_line(log: &Path, from: u64) -> Option<String> {
    let mut file = File::open(log).ok()?;
    let len = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(
        from.max(len.saturating_sub(LOG_TAIL_BYTES)),
    ))
    .ok()?;
    let mut tail = Vec::new();
    file.take(LOG_TAIL_BYTES).read_to_end(&mut tail).ok()?;
    let tail = String::from_utf8_lossy(&tail);
    let line = tail.lines().rev().find(|l| !l.trim().is_empty())?.trim();
    Some(line.chars().take(300).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::Role;
    use std::collections::BTreeMap;

    fn process(dir: &Path, script: &str) -> Process {
        Process {
            name: "server-1".into(),
            role: Role::Server,
            pid: 0,
            argv: vec!["/bin/sh".into(), "-c".into(), script.into()],
            env: BTreeMap::from([("WORD".into(), "brim".into())]),
            cwd: dir.to_owned(),
            log: dir.join("log"),
            addr: None,
            peer_addr: None,
            http: None,
            data: dir.to_owned(),
            config: dir.join("c"),
        }
    }

    #[test]
    fn dead_process_is_reported_with_its_last_words() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("log"), "an older run\n").unwrap();
        let script = "echo first; echo address $WORD taken >&2; exit 2";
        let mut running = spawn(&process(dir.path(), script)).unwrap();
        while running.ended().is_none() {
            std::thread::sleep(Duration::from_millis(5));
        }
        let failure = running.check().unwrap_err();
        assert_eq!(failure.status, 2);
        assert!(
            failure.message.starts_with("server-1: address brim taken"),
            "{failure}"
        );
        let text = std::fs::read_to_string(dir.path().join("log")).unwrap();
        assert!(text.starts_with("an older run\nfirst\n"));
        let meta = std::fs::metadata(dir.path().join("log")).unwrap();
        assert_eq!(meta.permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn process_that_does_not_listen_is_killed() {
        let dir = tempfile::tempdir().unwrap();
        let mut running =
            spawn(&process(dir.path(), "trap '' TERM; sleep 60 & wait; wait")).unwrap();
        assert!(running.check().is_ok());
        running.stop(Duration::from_millis(50));
        assert!(running.ended().is_some());
        // Its child is in the same group, and nobody else is.
        let _ = std::process::Command::new("kill")
            .args(["-KILL", "--", &format!("-{}", running.pid())])
            .status();
    }
}
