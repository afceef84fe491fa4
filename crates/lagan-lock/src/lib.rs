//! Which process holds a daemon's data directory.
//!
//! Every daemon keeps an flock on a file `lock` in its data (or run) directory,
//! with its pid as the content. A pid alone proves nothing: it may be stale and
//! used again. So a process counts as the holder only if it has that very file
//! open. To look for the holder, nothing takes the lock itself, not even for a
//! moment: a daemon that starts at that moment would be refused.
//!
//! A process that was killed holds its lock until the last of its threads has
//! ended, which is later than `kill` returns and may be later than its first
//! thread is gone. So whoever takes a directory waits for [`ENDING`].

use std::fs::{File, Metadata};
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

/// How long a process that was killed may take to end.
pub const ENDING: Duration = Duration::from_secs(5);
/// How often a lock that is held is tried again.
const AGAIN: Duration = Duration::from_millis(20);

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
/// `WouldBlock` while another process holds it; whatever creating it gives.
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

/// As [`take`], but waits up to `patience` for another holder.
///
/// # Errors
/// As [`take`].
pub fn take_within(path: &Path, patience: Duration) -> std::io::Result<File> {
    let end = Instant::now() + patience;
    loop {
        match take(path) {
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock && Instant::now() < end => {
                std::thread::sleep(AGAIN);
            }
            other => return other,
        }
    }
}

/// The process that holds the lock file and goes on holding it for `patience`.
pub fn holder_after(lock: &Path, patience: Duration) -> Option<u32> {
    let end = Instant::now() + patience;
    loop {
        let found = holder(lock)?;
        if Instant::now() >= end {
            return Some(found);
        }
        std::thread::sleep(AGAIN);
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

/// Whether the process has the file open. A zombie has no open files.
fn has_open(pid: u32, file: &Metadata) -> bool {
    let Ok(fds) = std::fs::read_dir(format!("/proc/{pid}/fd")) else {
        return false;
    };
    fds.flatten().any(|fd| {
        // Only a regular file can be it, and its target is on no network file system:
        // look at the link first, so that no foreign mount is ever touched.
        let named_lock = std::fs::read_link(fd.path())
            .is_ok_and(|target| target.file_name().is_some_and(|n| n == "lock"));
        named_lock
            && std::fs::metadata(fd.path())
                .is_ok_and(|m| m.dev() == file.dev() && m.ino() == file.ino())
    })
}

/// The pid in a line of /proc/locks (proc_locks(5)) for that file.
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
        assert_eq!(holder_after(&path, AGAIN), Some(std::process::id()));
        drop(file);
        assert_eq!(holder(&path), None, "a stale pid is nobody");
    }

    #[test]
    fn who_is_ending_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let file = take(&path).unwrap();
        let taken = std::thread::scope(|scope| {
            let next = scope.spawn(|| take_within(&path, Duration::from_secs(60)));
            std::thread::sleep(AGAIN * 3);
            drop(file);
            next.join().unwrap()
        });
        let second = taken.unwrap();
        let gone = std::thread::scope(|scope| {
            let gone = scope.spawn(|| holder_after(&path, Duration::from_secs(60)));
            std::thread::sleep(AGAIN * 3);
            drop(second);
            gone.join().unwrap()
        });
        assert_eq!(gone, None);
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
