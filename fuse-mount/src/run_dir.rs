//! The run directory of a mount: its lock, the session that its successor may end, and a
//! description of the running process.
//!
//! ```text
//! RUN_DIR/lock        flock'ed while the process lives
//! RUN_DIR/session     number of the session, written before the mount answers;
//!                     removed only when the session was closed in order
//! RUN_DIR/mount.json  pid, mount point, servers, session: while the mount answers
//! RUN_DIR/mount.log   standard error of a daemon
//! ```
//!
//! A crash leaves `session`: the next process that gets the lock ends that session at once
//! instead of waiting for its time to pass. Files are replaced atomically, and not synced:
//! after a loss of power the session's time passes, as it would without them.
//!
//! umount(8) returns before the mount's process has flushed and ended, so a mount right
//! afterwards waits for it. A directory is in use only while its mount is still there.

use crate::config::MountConfig;
use crate::failure::Failure;
use lagan_host::lock;
use lagan_host::mounts::mounted_at;
use lagan_host::replace::{PUBLIC, replace_volatile};
use lagan_types::SessionId;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Longest wait for a process whose mount is gone: its last flush and more.
const PATIENCE: Duration = Duration::from_secs(30);
/// Pause between two looks whether it has ended.
const LOOK: Duration = Duration::from_millis(20);

/// A locked run directory. Dropping it lets the lock go.
#[derive(Debug)]
pub(crate) struct RunDir {
    path: PathBuf,
    _lock: File,
}

impl RunDir {
    /// Makes the directory if it is missing, and locks it; waits for a process that leaves.
    ///
    /// # Errors
    /// The directory cannot be made, or another process has it.
    pub(crate) fn lock(config: &MountConfig, mount_point: &Path) -> Result<Self, Failure> {
        let path = match &config.run_dir {
            Some(path) => std::path::absolute(path).unwrap_or_else(|_| path.clone()),
            None => Path::new("/run/lagan").join(escape(mount_point)),
        };
        match acquire(&path, PATIENCE) {
            Ok(Some(lock)) => Ok(RunDir { path, _lock: lock }),
            Ok(None) => Err(Failure::start(format!(
                "run directory {} is in use by a mount that runs: unmount it or choose another run_dir",
                path.display()
            ))),
            Err(e) => Err(Failure::start(format!(
                "run directory {}: {e}",
                path.display()
            ))),
        }
    }

    /// The session that a dead predecessor left.
    pub(crate) fn predecessor(&self) -> Option<SessionId> {
        let text = std::fs::read_to_string(self.path.join("session")).ok()?;
        text.trim().parse().ok().map(SessionId)
    }

    /// Keeps the session's number for the successor.
    pub(crate) fn keep_session(&self, session: SessionId) -> io::Result<()> {
        self.replace("session", format!("{}\n", session.0).as_bytes())
    }

    /// Writes `mount.json`: the mount answers.
    pub(crate) fn announce(
        &self,
        config: &MountConfig,
        mount_point: &Path,
        session: SessionId,
    ) -> io::Result<()> {
        let text = serde_json::to_vec_pretty(&serde_json::json!({
            "schema": 1,
            "pid": std::process::id(),
            "mount_point": mount_point.to_string_lossy(),
            "servers": config.servers,
            "volume": config.volume,
            "session": session.0,
        }))?;
        self.replace("mount.json", &text)
    }

    /// Removes `mount.json`: the mount is gone.
    pub(crate) fn withdraw(&self) {
        self.remove("mount.json");
    }

    /// Removes the session's number: the session was closed in order.
    pub(crate) fn forget_session(&self) {
        self.remove("session");
    }

    /// Opens the file that a daemon's standard error is appended to.
    pub(crate) fn log_file(&self) -> io::Result<File> {
        OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(self.path.join("mount.log"))
    }

    fn replace(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        replace_volatile(&self.path.join(name), bytes, PUBLIC)
    }

    fn remove(&self, name: &str) {
        match std::fs::remove_file(self.path.join(name)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(file = name, error = %e, "remove a file of the run directory");
            }
            _ => {}
        }
    }
}

/// Makes the directory if it is missing, and takes its lock. Waits up to `patience` for a
/// holder that has nothing mounted (any more, or yet). `None` if the holder's mount is
/// there, or the holder did not let go in time.
fn acquire(path: &Path, patience: Duration) -> io::Result<Option<File>> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)?;
    let until = Instant::now() + patience;
    loop {
        match lock::take(&path.join("lock")) {
            Ok(lock) => return Ok(Some(lock)),
            Err(e) if e.kind() != io::ErrorKind::WouldBlock => return Err(e),
            Err(_) => {}
        }
        if is_mounted(path)? || Instant::now() >= until {
            return Ok(None);
        }
        std::thread::sleep(LOOK);
    }
}

/// Whether the mount point in `mount.json` is in the table of mounts.
fn is_mounted(path: &Path) -> io::Result<bool> {
    let Ok(text) = std::fs::read(path.join("mount.json")) else {
        return Ok(false);
    };
    let said: serde_json::Value = serde_json::from_slice(&text).unwrap_or_default();
    match said["mount_point"].as_str() {
        Some(point) => Ok(mounted_at(Path::new(point))?.is_some()),
        None => Ok(false),
    }
}

/// Turns a path into one name without slashes, as systemd does for the names of units
/// (systemd-escape(1), --path).
fn escape(path: &Path) -> String {
    let bytes = path.as_os_str().as_bytes();
    let trimmed: Vec<u8> = bytes.strip_prefix(b"/").unwrap_or(bytes).to_vec();
    if trimmed.is_empty() {
        return "-".into();
    }
    let mut out = String::new();
    for (at, byte) in trimmed.into_iter().enumerate() {
        match byte {
            b'/' => out.push('-'),
            b'.' if at > 0 => out.push('.'),
            b'_' | b':' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => out.push(byte as char),
            _ => out.push_str(&format!("\\x{byte:02x}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(dir: &Path) -> MountConfig {
        let mut config = MountConfig::new(vec!["a:1".into()], "v".into(), "/m".into());
        config.run_dir = Some(dir.join("run"));
        config
    }

    #[test]
    fn whose_mount_is_there_keeps_its_run_directory() {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path());
        let first = RunDir::lock(&config, Path::new("/proc")).unwrap();
        first
            .announce(&config, Path::new("/proc"), SessionId(1))
            .unwrap();
        let second = RunDir::lock(&config, Path::new("/proc")).unwrap_err();
        assert!(second.to_string().contains("in use"), "{second}");
        drop(first);
        // a child that another test forks has the lock until it has closed what it inherited
        let again = (0..1000).find_map(|_| {
            let lock = RunDir::lock(&config, Path::new("/proc")).ok();
            if lock.is_none() {
                std::thread::sleep(LOOK);
            }
            lock
        });
        assert!(again.is_some(), "nobody has it");
    }

    #[test]
    fn who_is_leaving_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path());
        let gone = dir.path().join("gone");
        let first = RunDir::lock(&config, &gone).unwrap();
        first.announce(&config, &gone, SessionId(1)).unwrap();
        let path = dir.path().join("run");
        let soon = acquire(&path, Duration::ZERO);
        assert!(soon.unwrap().is_none());
        let second = std::thread::scope(|scope| {
            let second = scope.spawn(|| RunDir::lock(&config, &gone));
            std::thread::sleep(LOOK * 3);
            drop(first);
            second.join().unwrap()
        });
        second.unwrap();
    }

    #[test]
    fn a_session_is_found_by_the_successor_until_it_was_closed() {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path());
        let run = RunDir::lock(&config, Path::new("/m")).unwrap();
        assert_eq!(run.predecessor(), None);
        run.keep_session(SessionId(7)).unwrap();
        drop(run);
        let run = RunDir::lock(&config, Path::new("/m")).unwrap();
        assert_eq!(run.predecessor(), Some(SessionId(7)));
        run.announce(&config, Path::new("/m"), SessionId(8))
            .unwrap();
        let text = std::fs::read(dir.path().join("run/mount.json")).unwrap();
        let json: serde_json::Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(json["session"], 8);
        assert_eq!(json["pid"], std::process::id());
        run.withdraw();
        run.forget_session();
        assert!(!dir.path().join("run/mount.json").exists());
        assert_eq!(run.predecessor(), None);
    }

    #[test]
    fn a_damaged_session_file_names_no_predecessor() {
        let dir = tempfile::tempdir().unwrap();
        let run = RunDir::lock(&config(dir.path()), Path::new("/m")).unwrap();
        std::fs::write(dir.path().join("run/session"), b"\xff\xfe").unwrap();
        assert_eq!(run.predecessor(), None);
    }

    #[test]
    fn paths_become_one_name() {
        assert_eq!(escape(Path::new("/srv/mail")), "srv-mail");
        assert_eq!(escape(Path::new("/srv/a-b c")), "srv-a\\x2db\\x20c");
        assert_eq!(escape(Path::new("/.x")), "\\x2ex");
        assert_eq!(escape(Path::new("/")), "-");
    }
}
