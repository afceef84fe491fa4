//! Which process holds a daemon's data directory.
//!
//! Every daemon keeps an flock on a file `lock` in its data (or run) directory,
//! with its pid as the content. A pid alone proves nothing: it may be stale and
//! used again. So a process counts as the holder only if it has that very file
//! open. [`holder`] never takes the lock itself, not even for a moment: a daemon
//! that starts at that moment would be refused.
//!
//! A killed process goes in steps: its first thread may be a zombie while others
//! still hold its lock and its sockets. It has ended when no thread is left.

use std::fs::{File, Metadata};
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

#[cfg(test)]
mod sys;

/// How long a process that was killed, or has been told to end, may take to let
/// go of its locks and ports. On a busy machine an exit takes its time.
pub const LEAVING_PATIENCE: Duration = Duration::from_secs(5);
/// Between two looks at who is leaving.
const LOOK: Duration = Duration::from_millis(20);

/// A process that held a lock when it was looked at. Its start time tells it from
/// a later one of the same number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Its number.
    pub pid: u32,
    /// In clock ticks since the machine's start, see proc_pid_stat(5).
    start: u64,
}

impl Holder {
    /// The process that holds the lock file now, if one lives.
    pub fn of(lock: &Path) -> Option<Self> {
        let pid = holder(lock)?;
        let start = stat_of(pid)?.start;
        // The number may have gone to another process in between.
        (holder(lock) == Some(pid)).then_some(Holder { pid, start })
    }

    /// Whether the process is gone, with all its threads: its files and sockets are
    /// closed. Nobody need have asked how it ended.
    pub fn has_ended(&self) -> bool {
        match stat_of(self.pid) {
            Some(stat) if stat.start == self.start => stat.is_zombie && threads(self.pid) <= 1,
            _ => true,
        }
    }
}

/// What /proc says of a process.
struct Stat {
    /// Its first thread has ended.
    is_zombie: bool,
    start: u64,
}

fn stat_of(pid: u32) -> Option<Stat> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in brackets, may contain anything.
    let (_, rest) = text.rsplit_once(") ")?;
    let mut fields = rest.split_whitespace();
    let state = fields.next()?;
    // State is the third field, the start time the twenty-second.
    let start = fields.nth(18)?.parse().ok()?;
    let is_zombie = matches!(state, "Z" | "X");
    Some(Stat { is_zombie, start })
}

fn threads(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/task")).map_or(0, |tasks| tasks.flatten().count())
}

/// As [`holder`], but gives a process that is about to leave the time to do so.
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
                std::thread::sleep(LOOK);
            }
            other => return other,
        }
    }
}

/// Listens by `bind`, waiting up to `patience` for a predecessor that has the address.
///
/// # Errors
/// Those of `bind`.
pub async fn listen_within<T>(
    patience: Duration,
    mut bind: impl FnMut() -> std::io::Result<T>,
) -> std::io::Result<T> {
    let end = Instant::now() + patience;
    loop {
        match bind() {
            Err(e) if e.kind() == std::io::ErrorKind::AddrInUse && Instant::now() < end => {
                tokio::time::sleep(LOOK).await;
            }
            bound => return bound,
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

/// Whether the process has the file open. The first thread that has any file tells:
/// they share them, but one that has ended has none.
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

    #[tokio::test]
    async fn address_is_waited_for_while_its_last_owner_leaves() {
        let taken = std::net::TcpListener::bind("127.78.3.1:0").unwrap();
        let addr = taken.local_addr().unwrap();
        let listen = || std::net::TcpListener::bind(addr);
        let refused = listen_within(Duration::ZERO, listen).await.unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::AddrInUse);
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(100)).await;
            drop(taken);
        });
        let patience = Duration::from_secs(60);
        listen_within(patience, listen).await.unwrap();
    }

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
    fn process_holds_its_lock_until_its_last_thread_has_ended() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let mut child = zombie_first_thread(&path);
        let stat = stat_of(child.id()).unwrap();
        assert!(stat.is_zombie && threads(child.id()) > 1);
        let found = Holder::of(&path).unwrap();
        assert_eq!((found.pid, found.has_ended()), (child.id(), false));
        child.kill().unwrap();
        while !found.has_ended() {
            std::thread::sleep(LOOK);
        }
        assert!(take(&path).is_ok(), "ended, though nobody asked how");
        child.wait().unwrap();
        assert!(found.has_ended());
    }

    /// A process that has the lock, whose first thread has ended and another has not:
    /// this very test program, running [`lives_on_in_a_thread`].
    fn zombie_first_thread(lock: &Path) -> std::process::Child {
        let mut child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "tests::lives_on_in_a_thread"])
            .env("LAGAN_TEST_LOCK", lock)
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        while !stat_of(child.id()).is_some_and(|s| s.is_zombie) {
            assert!(child.try_wait().unwrap().is_none(), "it lives on");
            std::thread::sleep(LOOK);
        }
        child
    }

    #[test]
    fn lives_on_in_a_thread() {
        let Some(lock) = std::env::var_os("LAGAN_TEST_LOCK") else {
            return;
        };
        let held = take(Path::new(&lock)).unwrap();
        // Tests run in threads of their own.
        crate::sys::end_first_thread();
        std::thread::sleep(Duration::from_secs(600));
        drop(held);
    }

    #[test]
    fn another_process_of_the_same_number_is_another() {
        let pid = std::process::id();
        let start = stat_of(pid).unwrap().start;
        assert!(!Holder { pid, start }.has_ended());
        let start = start + 1;
        assert!(Holder { pid, start }.has_ended());
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
