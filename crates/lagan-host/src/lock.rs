//! Lock files: which one process has a directory.
//!
//! Every daemon keeps an flock on a file `lock` in its data (or run) directory, with
//! its pid as the content. The rule for users: two processes never share a directory,
//! and a lock file that a dead process left keeps nobody out.
//!
//! A pid alone proves nothing, since it may be stale and used again. So a process counts
//! as the holder only if it has that very file open. [`holder`] never takes the lock
//! itself, not even for a moment: it would refuse a daemon that starts at that moment.
//!
//! A crash leaves the file. Its holder never removes it, so that all lock the same one.

use crate::process::{LOOK, Process};
use std::fs::{File, Metadata};
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

/// The process that still holds the lock file after `patience`: one that is about to
/// leave gets this time to do so.
pub fn staying_holder(lock: &Path, patience: Duration) -> Option<u32> {
    let end = Instant::now() + patience;
    loop {
        let pid = holder(lock)?;
        if Instant::now() >= end {
            return Some(pid);
        }
        std::thread::sleep(LOOK);
    }
}

/// The holder as a process that can be watched until it has ended.
pub fn holding_process(lock: &Path) -> Option<Process> {
    let pid = holder(lock)?;
    let process = Process::find(pid)?;
    // The number may have gone to another process in between.
    (holder(lock) == Some(pid)).then_some(process)
}

/// The process that holds the lock file, if one lives.
pub fn holder(lock: &Path) -> Option<u32> {
    let meta = std::fs::metadata(lock).ok()?;
    let written = read_pid(lock);
    match written.filter(|&pid| has_open(pid, &meta)) {
        Some(pid) => Some(pid),
        None => {
            let table = std::fs::read_to_string("/proc/locks").ok()?;
            locked_by(&table, meta.dev(), meta.ino()).filter(|&pid| has_open(pid, &meta))
        }
    }
}

/// Takes an flock on `path` for as long as the returned file lives, and writes
/// this process's pid into it.
///
/// # Errors
/// `WouldBlock` while another process holds it; otherwise why the file cannot be made.
pub fn take(path: &Path) -> std::io::Result<File> {
    let mut file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .read(true)
        .mode(0o600)
        .open(path)?;
    file.try_lock().map_err(std::io::Error::from)?;
    file.set_len(0)?;
    writeln!(file, "{}", std::process::id())?;
    Ok(file)
}

/// Takes the lock as [`take`] does, but waits up to `patience` for another holder to go.
///
/// # Errors
/// The same as those of [`take`]; `WouldBlock` comes after `patience`.
pub fn take_within(path: &Path, patience: Duration) -> std::io::Result<File> {
    let end = Instant::now() + patience;
    loop {
        match take(path) {
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock && Instant::now() < end => {
                std::thread::sleep(LOOK);
            }
            other => return other,
        }
    }
}

fn read_pid(lock: &Path) -> Option<u32> {
    let mut text = String::new();
    File::open(lock)
        .ok()?
        .take(64)
        .read_to_string(&mut text)
        .ok()?;
    text.split_whitespace().next()?.parse().ok()
}

/// Whether the process has the file open. The first thread that has any file open decides:
/// threads share their files, but one that has ended has none.
fn has_open(pid: u32, file: &Metadata) -> bool {
    let entries = |path: String| std::fs::read_dir(path).into_iter().flatten().flatten();
    let own = format!("/proc/{pid}");
    let tasks = entries(format!("{own}/task"));
    let tasks = tasks.map(|task| task.path().to_string_lossy().into_owned());
    let mut fds = std::iter::once(own)
        .chain(tasks)
        .map(|thread| entries(format!("{thread}/fd")).peekable());
    let Some(mut fds) = fds.find_map(|mut fds| fds.peek().is_some().then_some(fds)) else {
        return false;
    };
    fds.any(|fd| {
        // Reading a link touches no mount; only a regular file named `lock` is looked up, and
        // that of a daemon is on no network file system.
        let named_lock = std::fs::read_link(fd.path())
            .is_ok_and(|target| target.file_name().is_some_and(|n| n == "lock"));
        named_lock
            && std::fs::metadata(fd.path())
                .is_ok_and(|m| m.dev() == file.dev() && m.ino() == file.ino())
    })
}

/// The pid that the table of /proc/locks (proc_locks(5)) names as the holder of that file.
fn locked_by(table: &str, dev: u64, ino: u64) -> Option<u32> {
    let wanted = format!("{:02x}:{:02x}:{ino}", libc::major(dev), libc::minor(dev));
    table.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let at = fields.iter().position(|f| *f == wanted)?;
        (fields.get(1) != Some(&"->"))
            .then(|| fields.get(at.checked_sub(1)?)?.parse().ok())
            .flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holder_is_the_process_that_has_the_lock_open() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        assert_eq!(holder(&path), None);
        let file = take(&path).unwrap();
        assert_eq!(holder(&path), Some(std::process::id()));
        let refused = take(&path).unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::WouldBlock);
        assert_eq!(staying_holder(&path, LOOK), Some(std::process::id()));
        drop(file);
        assert_eq!(holder(&path), None, "a stale pid is nobody");
    }

    #[test]
    fn holder_without_a_written_pid_is_found_by_the_kernel() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let file = take(&path).unwrap();
        std::fs::write(&path, "").unwrap();
        assert_eq!(holder(&path), Some(std::process::id()));
        drop(file);
    }

    #[test]
    fn lines_of_waiters_and_other_files_are_skipped() {
        let table = "1: POSIX  ADVISORY  WRITE 3 fe:01:11 0 EOF\n\
                     2: FLOCK  ADVISORY  WRITE 7 fe:01:12 0 EOF\n\
                     2: -> FLOCK  ADVISORY  WRITE 8 fe:01:12 0 EOF\n";
        let dev = libc::makedev(0xfe, 1);
        assert_eq!(locked_by(table, dev, 12), Some(7));
        assert_eq!(locked_by(table, dev, 13), None);
    }
}
