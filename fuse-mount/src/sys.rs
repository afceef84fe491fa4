//! System calls that std does not offer: mount, umount, fork.
//!
//! This must hold: a process never looks at its own mount, or at one that may be
//! dead, from its own threads, since such a call can wait for ever in the
//! kernel. [`in_child`] makes the call in a short-lived child instead, which
//! holds none of our descriptors (a child stuck with /dev/fuse open would keep
//! a dead mount alive) and dies with us.

#![allow(unsafe_code, reason = "calls into libc")]

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// End of a child's call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ChildEnd {
    /// It returned 0.
    Done,
    /// It failed with this errno.
    Errno(i32),
    /// It did not return in time.
    TimedOut,
}

/// Runs statfs(2) on the path in a child. The kernel asks the mount's process each time, while
/// it may answer stat(2) from what it was lent, even after that process has died.
pub(crate) fn ask_in_child(path: &Path, deadline: Duration) -> io::Result<ChildEnd> {
    let path = c_path(path)?;
    in_child(deadline, || {
        // SAFETY: `path` ends with NUL, `found` has the right type; statfs(2) may
        // be called in a child of a threaded process.
        unsafe {
            let mut found: libc::statfs = std::mem::zeroed();
            libc::statfs(path.as_ptr(), &mut found)
        }
    })
}

/// Unmounts in a child: at once (`lazy`), or only if nobody uses the mount.
pub(crate) fn unmount_in_child(
    path: &Path,
    lazy: bool,
    deadline: Duration,
) -> io::Result<ChildEnd> {
    let path = c_path(path)?;
    let flags = libc::UMOUNT_NOFOLLOW | if lazy { libc::MNT_DETACH } else { 0 };
    // SAFETY: `path` ends with NUL; umount2(2) may be called in a child of a
    // threaded process.
    in_child(deadline, || unsafe { libc::umount2(path.as_ptr(), flags) })
}

/// Runs one system call in a child and waits for its end, for a limited time.
fn in_child(deadline: Duration, call: impl FnOnce() -> libc::c_int) -> io::Result<ChildEnd> {
    // SAFETY: the child calls nothing but system calls and leaves by _exit.
    let child = unsafe { libc::fork() };
    match child {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            // SAFETY: as above; descriptors from 3 on are not used any more.
            unsafe {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0);
                let code = if call() == 0 {
                    0
                } else {
                    *libc::__errno_location()
                };
                libc::_exit(code.clamp(0, 255));
            }
        }
        child => wait(child, deadline),
    }
}

/// Waits for a child and kills it when the time is over.
fn wait(child: libc::pid_t, deadline: Duration) -> io::Result<ChildEnd> {
    let end = Instant::now() + deadline;
    let mut pause = Duration::from_micros(200);
    loop {
        if let Some(ended) = reap(child)? {
            return Ok(ended);
        }
        if Instant::now() >= end {
            // SAFETY: the child was not reaped, so its id is still its own.
            unsafe { libc::kill(child, libc::SIGKILL) };
            std::thread::sleep(Duration::from_millis(50));
            reap(child)?;
            return Ok(ChildEnd::TimedOut);
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

/// The child's end, if it has ended.
fn reap(child: libc::pid_t) -> io::Result<Option<ChildEnd>> {
    let mut status = 0;
    // SAFETY: `status` is an int; the child is ours.
    match unsafe { libc::waitpid(child, &mut status, libc::WNOHANG) } {
        0 => Ok(None),
        -1 => {
            let error = io::Error::last_os_error();
            match error.kind() {
                io::ErrorKind::Interrupted => Ok(None),
                _ => Err(error),
            }
        }
        _ if libc::WIFEXITED(status) => Ok(Some(match libc::WEXITSTATUS(status) {
            0 => ChildEnd::Done,
            errno => ChildEnd::Errno(errno),
        })),
        _ => Ok(Some(ChildEnd::TimedOut)),
    }
}

/// Mounts an opened /dev/fuse as `fuse.lagan`.
///
/// # Errors
/// Those of mount(2).
pub(crate) fn mount_fuse(
    source: &str,
    target: &Path,
    flags: libc::c_ulong,
    options: &str,
) -> io::Result<()> {
    let source = CString::new(source)?;
    let target = c_path(target)?;
    let options = CString::new(options)?;
    let kind: &CStr = c"fuse.lagan";
    // SAFETY: all strings end with NUL and live until the call returns.
    let rc = unsafe {
        libc::mount(
            source.as_ptr(),
            target.as_ptr(),
            kind.as_ptr(),
            flags,
            options.as_ptr().cast(),
        )
    };
    if rc == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// The two sides of [`fork_daemon`].
pub(crate) enum Side {
    /// The process that was called: it reads the daemon's report here.
    Parent(File),
    /// The daemon, in a session of its own: it writes its report here.
    Daemon(File),
}

/// Forks. The process must have a single thread and no file of its own open: the
/// daemon closes everything that it inherited (locks, pipes of scripts).
pub(crate) fn fork_daemon() -> io::Result<Side> {
    let mut ends: [RawFd; 2] = [-1; 2];
    // SAFETY: `ends` has room for two descriptors.
    if unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: pipe2 made them, nobody else owns them.
    let (reader, writer) =
        unsafe { (OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1])) };
    // SAFETY: the process has one thread (the caller's promise), so the child may go on as it is.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            let kept = libc::c_uint::try_from(writer.as_raw_fd()).unwrap_or(3);
            drop(reader);
            // SAFETY: no pointers; nobody here owns the descriptors (the caller's promise).
            unsafe {
                libc::setsid();
                if kept > 3 {
                    libc::syscall(libc::SYS_close_range, 3, kept - 1, 0);
                }
                libc::syscall(libc::SYS_close_range, kept + 1, libc::c_uint::MAX, 0);
            }
            Ok(Side::Daemon(File::from(writer)))
        }
        _ => Ok(Side::Parent(File::from(reader))),
    }
}

/// Points standard input and output at `null`, standard error at `log`.
pub(crate) fn redirect(null: &File, log: &File) -> io::Result<()> {
    for (from, to) in [(null, 0), (null, 1), (log, 2)] {
        // SAFETY: both descriptors are open; 0 to 2 belong to the process as a whole.
        if unsafe { libc::dup2(from.as_raw_fd(), to) } == -1 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Whether this process may mount.
pub(crate) fn is_root() -> bool {
    // SAFETY: no pointers, cannot fail.
    unsafe { libc::geteuid() == 0 }
}

fn c_path(path: &Path) -> io::Result<CString> {
    Ok(CString::new(path.as_os_str().as_bytes())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_secs(10);

    #[test]
    fn a_child_tells_the_errno() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(ask_in_child(dir.path(), SHORT).unwrap(), ChildEnd::Done);
        assert_eq!(
            ask_in_child(&dir.path().join("x"), SHORT).unwrap(),
            ChildEnd::Errno(libc::ENOENT)
        );
        assert_eq!(
            unmount_in_child(&dir.path().join("x"), false, SHORT).unwrap(),
            ChildEnd::Errno(libc::ENOENT)
        );
    }

    #[test]
    fn a_child_that_hangs_is_given_up() {
        let begin = Instant::now();
        let end = in_child(Duration::from_millis(50), || {
            // SAFETY: no pointers.
            unsafe { libc::pause() }
        });
        assert_eq!(end.unwrap(), ChildEnd::TimedOut);
        assert!(begin.elapsed() < SHORT);
    }
}
