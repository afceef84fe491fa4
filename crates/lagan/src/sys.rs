//! System calls that the standard library does not offer.

#![allow(unsafe_code, reason = "calls into libc")]

use std::ffi::{CStr, CString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

/// Sends `signal` to the process.
///
/// # Errors
/// ESRCH when there is none, EPERM when it is not ours to signal.
pub fn kill(pid: u32, signal: i32) -> io::Result<()> {
    let pid = i32::try_from(pid).map_err(|_| io::ErrorKind::InvalidInput)?;
    if pid <= 0 {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: plain integers; a positive pid names one process.
    check(unsafe { libc::kill(pid, signal) })
}

/// Unmounts the mount at `path`, without following a symbolic link there. `lazily` detaches
/// it at once; it ends with its last user.
///
/// # Errors
/// EBUSY while it is in use; EINVAL when nothing is mounted there; EPERM.
pub fn unmount(path: &Path, lazily: bool) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let flags = libc::UMOUNT_NOFOLLOW | if lazily { libc::MNT_DETACH } else { 0 };
    // SAFETY: the path is a live NUL-terminated string.
    check(unsafe { libc::umount2(path.as_ptr(), flags) })
}

/// Returns the value of an extended attribute, of 64 KiB at most.
///
/// # Errors
/// ENODATA when there is none; EOPNOTSUPP when the file system has no such attributes.
pub fn xattr(path: &Path, name: &CStr) -> io::Result<Vec<u8>> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut value = vec![0u8; 64 * 1024];
    // SAFETY: both names are live NUL-terminated strings; the buffer has that many bytes.
    let len = unsafe {
        libc::getxattr(
            path.as_ptr(),
            name.as_ptr(),
            value.as_mut_ptr().cast(),
            value.len(),
        )
    };
    let len = usize::try_from(len).map_err(|_| io::Error::last_os_error())?;
    value.truncate(len);
    Ok(value)
}

/// Whether the effective user is root.
pub fn is_root() -> bool {
    // SAFETY: no arguments, cannot fail.
    unsafe { libc::geteuid() == 0 }
}

/// Marks every descriptor from 3 on close-on-exec, so that daemons do not inherit the
/// files that a script left open (locks, pipes).
pub fn close_inherited_on_exec() {
    // SAFETY: plain integers; only flags of descriptors change. An old kernel refuses the call.
    unsafe {
        libc::syscall(
            libc::SYS_close_range,
            3u32,
            u32::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        );
    }
}

/// Lets the allocator keep up to 64 MiB of freed memory, instead of giving each buffer of a
/// few MiB back to the kernel: taking it again costs a page fault for every 4 KiB. There
/// are two arenas, so that not every thread keeps memory of its own. To be called before
/// there are threads.
pub fn keep_freed_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: plain integers; a value that is refused changes nothing.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 32 << 20);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 64 << 20);
        libc::mallopt(libc::M_ARENA_MAX, 2);
    }
}

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

extern "C" fn note_signal(_: libc::c_int) {
    INTERRUPTED.store(true, Ordering::SeqCst);
}

/// Makes SIGINT, SIGTERM and (unless it is ignored, as by nohup) SIGHUP only set a flag, see
/// [`interrupted`]. Processes that are started later are not affected.
pub fn note_interrupts() {
    // SAFETY: the handler only stores to an atomic, and the actions are plain
    // structures that live for the calls.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = note_signal as *const () as libc::sighandler_t;
        action.sa_flags = libc::SA_RESTART;
        for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
            let mut before: libc::sigaction = std::mem::zeroed();
            libc::sigaction(signal, std::ptr::null(), &mut before);
            if signal == libc::SIGHUP && before.sa_sigaction == libc::SIG_IGN {
                continue;
            }
            libc::sigaction(signal, &action, std::ptr::null_mut());
        }
    }
}

/// Whether one of these signals came.
pub fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::SeqCst)
}

fn check(result: libc::c_int) -> io::Result<()> {
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
