//! System calls that the standard library does not have, safely wrapped.

#![allow(unsafe_code, reason = "calls into libc")]

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

fn path_of(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| io::ErrorKind::InvalidInput.into())
}

fn check(result: i64) -> io::Result<i64> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// From here on this thread, not its process, is nobody but that user to file systems:
/// neither root nor a member of root's group.
pub fn become_user(uid: u32) {
    // SAFETY: numbers only; of the calling thread alone. Root's rights go with its uid
    // (setfsuid(2)), so the group comes first.
    unsafe {
        libc::syscall(libc::SYS_setgroups, 0, std::ptr::null::<libc::gid_t>());
        libc::setfsgid(uid);
        libc::setfsuid(uid);
    }
}

/// From here on the files that this thread opens are its own, and those of threads
/// that it starts; of the process' files it has the three standard ones only.
///
/// A program that another thread starts gets a copy of all files of that thread's table,
/// and closes them: on a mount that is a flush, which may wait, take the error that the
/// owner should see, or hold a lock that the owner has let go of.
///
/// # Panics
/// When the kernel has no close_range(2) (before Linux 5.9).
pub fn leave_shared_files() {
    // SAFETY: closes nothing of others: the table is copied first, without what would
    // be closed. Nothing of this thread's own is open yet.
    let done = unsafe {
        libc::syscall(
            libc::SYS_close_range,
            libc::STDERR_FILENO + 1,
            libc::c_uint::MAX,
            libc::CLOSE_RANGE_UNSHARE,
        )
    };
    check(done).expect("a table of files for a thread");
}

/// Sends a signal to one process.
///
/// # Errors
/// ESRCH: it is gone.
pub fn kill(pid: u32, signal: i32) -> io::Result<()> {
    assert!(pid > 1, "no process to signal");
    // SAFETY: no memory is touched.
    check(unsafe { libc::kill(pid as i32, signal) }.into()).map(drop)
}

/// Kills the process group that a child leads.
pub fn kill_group(pid: u32) {
    assert!(pid > 1, "no group to signal");
    // SAFETY: no memory is touched.
    unsafe { libc::kill(-(pid as i32), libc::SIGKILL) };
}

/// Unmounts, lazily if asked to.
///
/// # Errors
/// EBUSY: somebody uses it. EINVAL: it is no mount.
pub fn unmount(path: &Path, lazily: bool) -> io::Result<()> {
    let path = path_of(path)?;
    let flags = if lazily { libc::MNT_DETACH } else { 0 };
    // SAFETY: `path` is a C string that lives through the call.
    check(unsafe { libc::umount2(path.as_ptr(), flags) }.into()).map(drop)
}

/// fallocate(2).
///
/// # Errors
/// The call's.
pub fn fallocate(file: &File, mode: i32, offset: u64, len: u64) -> io::Result<()> {
    let fd = file.as_raw_fd();
    // SAFETY: the descriptor lives through the call.
    check(unsafe { libc::fallocate(fd, mode, offset as i64, len as i64) }.into()).map(drop)
}

/// copy_file_range(2); how many bytes were copied.
///
/// # Errors
/// The call's.
pub fn copy_range(from: (&File, u64), to: (&File, u64), len: usize) -> io::Result<usize> {
    let (mut start, mut place) = (from.1 as i64, to.1 as i64);
    let (source, target) = (from.0.as_raw_fd(), to.0.as_raw_fd());
    // SAFETY: the descriptors and both offsets live through the call.
    let done =
        check(
            unsafe { libc::copy_file_range(source, &mut start, target, &mut place, len, 0) } as i64,
        )?;
    Ok(done as usize)
}

/// lseek(2) with SEEK_DATA or SEEK_HOLE.
///
/// # Errors
/// ENXIO: no data behind `offset`.
pub fn seek(file: &File, offset: u64, whence: i32) -> io::Result<u64> {
    // SAFETY: the descriptor lives through the call.
    let at = check(unsafe { libc::lseek(file.as_raw_fd(), offset as i64, whence) })?;
    Ok(at as u64)
}

/// flock(2).
///
/// # Errors
/// EWOULDBLOCK with LOCK_NB: somebody else has it.
pub fn flock(file: &File, operation: i32) -> io::Result<()> {
    // SAFETY: the descriptor lives through the call.
    check(unsafe { libc::flock(file.as_raw_fd(), operation) }.into()).map(drop)
}

/// A POSIX record lock that belongs to the open file (F_OFD_SETLK): `kind` is
/// F_RDLCK, F_WRLCK or F_UNLCK.
///
/// # Errors
/// EAGAIN or EACCES: somebody else has it.
pub fn record_lock(file: &File, kind: i32, start: u64, len: u64, wait: bool) -> io::Result<()> {
    let mut lock = lock_of(kind, start, len);
    let command = if wait {
        libc::F_OFD_SETLKW
    } else {
        libc::F_OFD_SETLK
    };
    // SAFETY: `lock` is a whole flock structure that lives through the call.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), command, &raw mut lock) };
    check(result.into()).map(drop)
}

/// A record lock that belongs to this process (F_SETLK).
///
/// # Errors
/// EAGAIN or EACCES: another process has it.
pub fn process_lock(file: &File, kind: i32, start: u64, len: u64) -> io::Result<()> {
    set_process_lock(file, libc::F_SETLK, lock_of(kind, start, len))
}

/// Takes a lock like [`process_lock`], but waits for it (F_SETLKW).
///
/// # Errors
/// EDEADLK if the lock's holder waits for this process; EINTR.
pub fn await_process_lock(file: &File, kind: i32, start: u64, len: u64) -> io::Result<()> {
    set_process_lock(file, libc::F_SETLKW, lock_of(kind, start, len))
}

fn set_process_lock(file: &File, command: i32, mut lock: libc::flock) -> io::Result<()> {
    // SAFETY: `lock` is a whole flock structure that lives through the call.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), command, &raw mut lock) };
    check(result.into()).map(drop)
}

/// Sets or clears O_APPEND of an open file (F_SETFL).
///
/// # Errors
/// The call's.
pub fn set_append(file: &File, on: bool) -> io::Result<()> {
    let fd = file.as_raw_fd();
    // SAFETY: the descriptor lives through the call.
    let flags = check(unsafe { libc::fcntl(fd, libc::F_GETFL) }.into())? as i32;
    let flags = match on {
        true => flags | libc::O_APPEND,
        false => flags & !libc::O_APPEND,
    };
    // SAFETY: as above.
    check(unsafe { libc::fcntl(fd, libc::F_SETFL, flags) }.into()).map(drop)
}

/// Finds a lock that is in the way of one of that kind (F_GETLK): its kind, start and
/// length.
///
/// # Errors
/// The call's.
pub fn lock_in_the_way(
    file: &File,
    kind: i32,
    start: u64,
    len: u64,
) -> io::Result<(i32, u64, u64)> {
    let mut lock = lock_of(kind, start, len);
    // SAFETY: as above.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETLK, &raw mut lock) };
    check(result.into())?;
    Ok((lock.l_type.into(), lock.l_start as u64, lock.l_len as u64))
}

fn lock_of(kind: i32, start: u64, len: u64) -> libc::flock {
    // SAFETY: a structure of integers, for which zeros are values.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = kind as i16;
    lock.l_whence = libc::SEEK_SET as i16;
    lock.l_start = start as i64;
    lock.l_len = len as i64;
    lock
}

/// Value of an extended attribute.
///
/// # Errors
/// ENODATA: there is none of that name.
pub fn get_xattr(path: &Path, name: &str) -> io::Result<Vec<u8>> {
    let (path, name) = (path_of(path)?, CString::new(name)?);
    let mut value = vec![0u8; 65536];
    // SAFETY: both strings and the buffer, of the length given, live through the call.
    let len = check(unsafe {
        libc::lgetxattr(
            path.as_ptr(),
            name.as_ptr(),
            value.as_mut_ptr().cast(),
            value.len(),
        )
    } as i64)?;
    value.truncate(len as usize);
    Ok(value)
}

/// Sets an extended attribute; `flags` may be XATTR_CREATE or XATTR_REPLACE.
///
/// # Errors
/// The call's.
pub fn set_xattr(path: &Path, name: &str, value: &[u8], flags: i32) -> io::Result<()> {
    let (path, name) = (path_of(path)?, CString::new(name)?);
    // SAFETY: as above.
    check(unsafe {
        libc::lsetxattr(
            path.as_ptr(),
            name.as_ptr(),
            value.as_ptr().cast(),
            value.len(),
            flags,
        )
    } as i64)
    .map(drop)
}

/// Removes an extended attribute.
///
/// # Errors
/// ENODATA: there is none of that name.
pub fn remove_xattr(path: &Path, name: &str) -> io::Result<()> {
    let (path, name) = (path_of(path)?, CString::new(name)?);
    // SAFETY: both strings live through the call.
    check(unsafe { libc::lremovexattr(path.as_ptr(), name.as_ptr()) }.into()).map(drop)
}

/// The length that lgetxattr(2) gives for a buffer of `room` bytes.
///
/// # Errors
/// ERANGE: the value is longer.
pub fn xattr_len(path: &Path, name: &str, room: usize) -> io::Result<usize> {
    let (path, name) = (path_of(path)?, CString::new(name)?);
    let mut value = vec![0u8; room];
    // SAFETY: both strings and the buffer, of the length given, live through the call.
    let len = check(unsafe {
        libc::lgetxattr(
            path.as_ptr(),
            name.as_ptr(),
            value.as_mut_ptr().cast(),
            room,
        )
    } as i64)?;
    Ok(len as usize)
}

/// mkdirat(2) below an open directory, which is returned open.
///
/// # Errors
/// The calls'.
pub fn make_dir_in(dir: &File, name: &str) -> io::Result<File> {
    use std::os::fd::FromRawFd;
    let (fd, name) = (dir.as_raw_fd(), CString::new(name)?);
    // SAFETY: the descriptor and the string live through the call.
    check(unsafe { libc::mkdirat(fd, name.as_ptr(), 0o755) }.into())?;
    let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC;
    // SAFETY: as above.
    let made = check(unsafe { libc::openat(fd, name.as_ptr(), flags) }.into())?;
    // SAFETY: the descriptor was just opened and is nobody else's.
    Ok(unsafe { File::from_raw_fd(made as i32) })
}

/// Names of all extended attributes.
///
/// # Errors
/// The call's.
pub fn list_xattrs(path: &Path) -> io::Result<Vec<String>> {
    let path = path_of(path)?;
    let mut names = vec![0u8; 65536];
    // SAFETY: the string and the buffer, of the length given, live through the call.
    let len =
        check(
            unsafe { libc::llistxattr(path.as_ptr(), names.as_mut_ptr().cast(), names.len()) }
                as i64,
        )?;
    let names = names[..len as usize]
        .split(|&b| b == 0)
        .filter(|n| !n.is_empty());
    Ok(names
        .map(|n| String::from_utf8_lossy(n).into_owned())
        .collect())
}

/// renameat2(2) with flags.
///
/// # Errors
/// The call's.
pub fn rename(from: &Path, to: &Path, flags: u32) -> io::Result<()> {
    let (from, to) = (path_of(from)?, path_of(to)?);
    // SAFETY: both strings live through the call.
    check(
        unsafe {
            libc::renameat2(
                libc::AT_FDCWD,
                from.as_ptr(),
                libc::AT_FDCWD,
                to.as_ptr(),
                flags,
            )
        }
        .into(),
    )
    .map(drop)
}

/// mknod(2) with that mode (type and permissions).
///
/// # Errors
/// The call's.
pub fn mknod(path: &Path, mode: u32, device: u64) -> io::Result<()> {
    let path = path_of(path)?;
    // SAFETY: the string lives through the call.
    check(unsafe { libc::mknod(path.as_ptr(), mode, device) }.into()).map(drop)
}

/// The kind of file system, by its number (statfs(2)).
///
/// # Errors
/// The call's.
pub fn file_system(path: &Path) -> io::Result<i64> {
    let path = path_of(path)?;
    // SAFETY: a structure of integers, for which zeros are values.
    let mut answer: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: the string and the structure live through the call.
    check(unsafe { libc::statfs(path.as_ptr(), &raw mut answer) }.into())?;
    Ok(answer.f_type)
}

/// statvfs(3).
///
/// # Errors
/// The call's.
pub fn statvfs(path: &Path) -> io::Result<libc::statvfs> {
    let path = path_of(path)?;
    // SAFETY: a structure of integers, for which zeros are values.
    let mut answer: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: the string and the structure live through the call.
    check(unsafe { libc::statvfs(path.as_ptr(), &raw mut answer) }.into())?;
    Ok(answer)
}

/// A mapping of a file.
#[derive(Debug)]
pub struct Mapping {
    at: *mut u8,
    len: usize,
}

impl Mapping {
    /// Maps the first `len` bytes for reading and writing, shared.
    ///
    /// # Errors
    /// The call's.
    pub fn new(file: &File, len: usize) -> io::Result<Self> {
        Self::map(file, len, libc::MAP_SHARED)
    }

    /// The same, but what is written stays in this process.
    ///
    /// # Errors
    /// The call's.
    pub fn private(file: &File, len: usize) -> io::Result<Self> {
        Self::map(file, len, libc::MAP_PRIVATE)
    }

    fn map(file: &File, len: usize, flags: i32) -> io::Result<Self> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let fd = file.as_raw_fd();
        // SAFETY: the kernel chooses the place; the mapping is owned by the value returned.
        let at = unsafe { libc::mmap(std::ptr::null_mut(), len, protection, flags, fd, 0) };
        if at == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Mapping { at: at.cast(), len })
    }

    /// The bytes as they are now: another mount may change them.
    pub fn read(&self, from: usize, len: usize) -> Vec<u8> {
        assert!(from + len <= self.len, "behind the mapping");
        // SAFETY: inside the mapping; each byte is read once.
        (from..from + len)
            .map(|i| unsafe { self.at.add(i).read_volatile() })
            .collect()
    }

    /// Changes bytes.
    pub fn write(&mut self, at: usize, bytes: &[u8]) {
        assert!(at + bytes.len() <= self.len, "behind the mapping");
        // SAFETY: inside the mapping, which is writable and ours alone in this process.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.at.add(at), bytes.len()) };
    }

    /// msync(2), waiting.
    ///
    /// # Errors
    /// EIO: it could not be written.
    pub fn sync(&self) -> io::Result<()> {
        // SAFETY: the mapping lives as long as `self`.
        check(unsafe { libc::msync(self.at.cast(), self.len, libc::MS_SYNC) }.into()).map(drop)
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped in `new`, and nobody holds a reference into it.
        unsafe { libc::munmap(self.at.cast(), self.len) };
    }
}

/// Names and types of the entries of an open directory (getdents64(2)).
///
/// # Errors
/// The call's; ENOENT: the directory was removed.
pub fn entries(dir: &File) -> io::Result<Vec<(Vec<u8>, u8)>> {
    crate::differ::sys::entries(dir.as_raw_fd()).map_err(io::Error::from_raw_os_error)
}

/// A directory read entry by entry (readdir(3)).
#[derive(Debug)]
pub struct Listing(*mut libc::DIR);

impl Listing {
    /// opendir(3).
    ///
    /// # Errors
    /// The call's.
    pub fn open(path: &Path) -> io::Result<Self> {
        let path = path_of(path)?;
        // SAFETY: the string lives through the call; the stream is owned by the value returned.
        let stream = unsafe { libc::opendir(path.as_ptr()) };
        if stream.is_null() {
            return Err(io::Error::last_os_error());
        }
        Ok(Listing(stream))
    }

    /// Where it is (telldir(3)).
    pub fn place(&self) -> i64 {
        // SAFETY: the stream is open as long as `self` lives.
        unsafe { libc::telldir(self.0) }
    }

    /// Goes back to a place that [`Listing::place`] gave (seekdir(3)).
    pub fn go_to(&mut self, place: i64) {
        // SAFETY: as above.
        unsafe { libc::seekdir(self.0, place) }
    }
}

impl Iterator for Listing {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        // SAFETY: the stream is open; the entry is valid until its next use.
        let entry = unsafe { libc::readdir(self.0).as_ref() }?;
        // SAFETY: the name ends with a zero byte.
        let name = unsafe { std::ffi::CStr::from_ptr(entry.d_name.as_ptr()) };
        Some(name.to_bytes().to_vec())
    }
}

impl Drop for Listing {
    fn drop(&mut self) {
        // SAFETY: opened in `open`, and closed nowhere else.
        unsafe { libc::closedir(self.0) };
    }
}

/// close(2), whose error is where deferred writes report.
///
/// # Errors
/// EIO, ENOSPC, ...: something written before did not get there.
pub fn close(fd: std::os::fd::RawFd) -> io::Result<()> {
    // SAFETY: the caller gives the descriptor away.
    check(unsafe { libc::close(fd) }.into()).map(drop)
}

/// Lets this process have as many files open.
///
/// # Errors
/// The errno of setrlimit(2).
pub fn allow_files(count: u64) -> io::Result<()> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the structure is valid for both calls.
    let result = unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit);
        limit.rlim_cur = limit.rlim_cur.max(count);
        limit.rlim_max = limit.rlim_max.max(count);
        libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit)
    };
    check(result.into()).map(drop)
}
