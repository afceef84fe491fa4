//! The calls that are compared: thin, each answer a number or an errno.

#![allow(unsafe_code, reason = "calls into libc")]

use super::plan::When;
use std::ffi::{CString, OsStr};
use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// A number, or an errno.
pub type Answer = Result<i64, i32>;

fn answer(result: i64) -> Answer {
    if result < 0 {
        Err(io::Error::last_os_error().raw_os_error().unwrap_or(0))
    } else {
        Ok(result)
    }
}

fn text(path: &OsStr) -> CString {
    CString::new(path.as_bytes()).expect("no NUL in the names of this test")
}

/// Makes this thread's calls on files those of that user and group, until dropped.
#[derive(Debug)]
pub struct As(());

impl As {
    /// Root is 0.
    pub fn user(id: u32) -> Self {
        set_ids(id);
        As(())
    }
}

impl Drop for As {
    fn drop(&mut self) {
        set_ids(0);
    }
}

fn set_ids(id: u32) {
    // SAFETY: no memory is touched; both are of this thread only.
    unsafe {
        // the group first: root's right to do so goes with the user
        libc::setfsuid(0);
        libc::setfsgid(id);
        libc::setfsuid(id);
    }
    set_admin(id == 0);
}

/// Whether this thread may do what CAP_SYS_ADMIN lets it, as to list `trusted.`
/// attributes: setfsuid(2) takes the rights on files only.
fn set_admin(on: bool) {
    const VERSION_3: u32 = 0x2008_0522;
    const CAP_SYS_ADMIN: u32 = 21;
    let header = [VERSION_3, 0];
    // effective, permitted and inheritable, twice
    let mut sets = [0u32; 6];
    // SAFETY: version 3 reads a header of two words and reads or writes six words.
    unsafe {
        let got = libc::syscall(libc::SYS_capget, header.as_ptr(), sets.as_mut_ptr());
        assert_eq!(got, 0, "capget");
        let bit = sets[1] & (1 << CAP_SYS_ADMIN);
        sets[0] = if on { sets[0] | bit } else { sets[0] & !bit };
        let set = libc::syscall(libc::SYS_capset, header.as_ptr(), sets.as_ptr());
        assert_eq!(set, 0, "capset");
    }
}

/// open(2).
///
/// # Errors
/// The errno.
pub fn open(path: &Path, flags: i32, mode: u32) -> Result<OwnedFd, i32> {
    let path = text(path.as_os_str());
    // SAFETY: the string lives through the call.
    let fd = answer(unsafe { libc::open(path.as_ptr(), flags, mode) }.into())?;
    // SAFETY: a descriptor that nobody else has.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// read(2), or pread(2) with an offset.
///
/// # Errors
/// The errno.
pub fn read(fd: RawFd, buffer: &mut [u8], offset: Option<i64>) -> Answer {
    let (at, len) = (buffer.as_mut_ptr().cast(), buffer.len());
    // SAFETY: the buffer has that length.
    answer(unsafe {
        match offset {
            Some(offset) => libc::pread(fd, at, len, offset),
            None => libc::read(fd, at, len),
        }
    } as i64)
}

/// write(2), or pwrite(2) with an offset.
///
/// # Errors
/// The errno.
pub fn write(fd: RawFd, bytes: &[u8], offset: Option<i64>) -> Answer {
    let (at, len) = (bytes.as_ptr().cast(), bytes.len());
    // SAFETY: the buffer has that length.
    answer(unsafe {
        match offset {
            Some(offset) => libc::pwrite(fd, at, len, offset),
            None => libc::write(fd, at, len),
        }
    } as i64)
}

/// writev(2) of two buffers.
///
/// # Errors
/// The errno.
pub fn write_two(fd: RawFd, first: &[u8], second: &[u8]) -> Answer {
    let vectors = [first, second].map(|bytes| libc::iovec {
        iov_base: bytes.as_ptr().cast_mut().cast(),
        iov_len: bytes.len(),
    });
    // SAFETY: two buffers of those lengths, which are only read.
    answer(unsafe { libc::writev(fd, vectors.as_ptr(), 2) } as i64)
}

/// lseek(2).
///
/// # Errors
/// The errno.
pub fn seek(fd: RawFd, offset: i64, whence: i32) -> Answer {
    // SAFETY: no memory is touched.
    answer(unsafe { libc::lseek(fd, offset, whence) })
}

/// dup(2).
///
/// # Errors
/// The errno.
pub fn dup(fd: RawFd) -> Result<OwnedFd, i32> {
    // SAFETY: no memory is touched.
    let fd = answer(unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 0) }.into())?;
    // SAFETY: a descriptor that nobody else has.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// close(2), with its error.
///
/// # Errors
/// The errno.
pub fn close(fd: OwnedFd) -> Answer {
    use std::os::fd::IntoRawFd;
    // SAFETY: the descriptor is given away.
    answer(unsafe { libc::close(fd.into_raw_fd()) }.into())
}

/// fsync(2) or fdatasync(2).
///
/// # Errors
/// The errno.
pub fn sync(fd: RawFd, data: bool) -> Answer {
    // SAFETY: no memory is touched.
    answer(
        unsafe {
            if data {
                libc::fdatasync(fd)
            } else {
                libc::fsync(fd)
            }
        }
        .into(),
    )
}

/// ftruncate(2).
///
/// # Errors
/// The errno.
pub fn set_len(fd: RawFd, len: i64) -> Answer {
    // SAFETY: no memory is touched.
    answer(unsafe { libc::ftruncate(fd, len) }.into())
}

/// fallocate(2).
///
/// # Errors
/// The errno.
pub fn allocate(fd: RawFd, mode: i32, offset: i64, len: i64) -> Answer {
    // SAFETY: no memory is touched.
    answer(unsafe { libc::fallocate(fd, mode, offset, len) }.into())
}

/// copy_file_range(2).
///
/// # Errors
/// The errno.
pub fn copy(from: RawFd, to: RawFd, mut offsets: [i64; 2], len: usize) -> Answer {
    let [start, end] = &mut offsets;
    // SAFETY: both offsets live through the call.
    answer(unsafe { libc::copy_file_range(from, start, to, end, len, 0) } as i64)
}

/// F_GETFL.
///
/// # Errors
/// The errno.
pub fn flags(fd: RawFd) -> Answer {
    // SAFETY: no memory is touched.
    answer(unsafe { libc::fcntl(fd, libc::F_GETFL) }.into())
}

/// F_SETFL.
///
/// # Errors
/// The errno.
pub fn set_flags(fd: RawFd, flags: i32) -> Answer {
    // SAFETY: no memory is touched.
    answer(unsafe { libc::fcntl(fd, libc::F_SETFL, flags) }.into())
}

/// flock(2).
///
/// # Errors
/// The errno.
pub fn flock(fd: RawFd, operation: i32) -> Answer {
    // SAFETY: no memory is touched.
    answer(unsafe { libc::flock(fd, operation) }.into())
}

/// F_OFD_SETLK or F_OFD_GETLK; gives what the structure has afterwards.
///
/// # Errors
/// The errno.
pub fn lock(
    fd: RawFd,
    command: i32,
    kind: i32,
    (start, len): (i64, i64),
) -> Result<(i32, i64, i64), i32> {
    // SAFETY: a structure of integers, for which zeros are values.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = kind as i16;
    lock.l_whence = libc::SEEK_SET as i16;
    lock.l_start = start;
    lock.l_len = len;
    // SAFETY: the structure lives through the call.
    answer(unsafe { libc::fcntl(fd, command, &raw mut lock) }.into())?;
    Ok((lock.l_type.into(), lock.l_start, lock.l_len))
}

/// fstatat(2): of a path, not followed, or of a descriptor.
///
/// # Errors
/// The errno.
pub fn stat(fd: RawFd, path: &Path) -> Result<libc::stat, i32> {
    let path = text(path.as_os_str());
    let flags = if path.is_empty() {
        libc::AT_EMPTY_PATH
    } else {
        libc::AT_SYMLINK_NOFOLLOW
    };
    // SAFETY: a structure of integers, for which zeros are values.
    let mut stat: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: string and structure live through the call.
    answer(unsafe { libc::fstatat(fd, path.as_ptr(), &raw mut stat, flags) }.into())?;
    Ok(stat)
}

/// statvfs(3).
///
/// # Errors
/// The errno.
pub fn space(path: &Path) -> Result<libc::statvfs, i32> {
    let path = text(path.as_os_str());
    // SAFETY: a structure of integers, for which zeros are values.
    let mut space: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: string and structure live through the call.
    answer(unsafe { libc::statvfs(path.as_ptr(), &raw mut space) }.into())?;
    Ok(space)
}

/// fchmod(2).
///
/// # Errors
/// The errno.
pub fn fd_mode(fd: RawFd, mode: u32) -> Answer {
    // SAFETY: no memory is touched.
    answer(unsafe { libc::fchmod(fd, mode) }.into())
}

/// fchown(2).
///
/// # Errors
/// The errno.
pub fn fd_owner(fd: RawFd, uid: u32, gid: u32) -> Answer {
    // SAFETY: no memory is touched.
    answer(unsafe { libc::fchown(fd, uid, gid) }.into())
}

fn timespecs(times: [When; 2]) -> [libc::timespec; 2] {
    times.map(|(tv_sec, tv_nsec)| libc::timespec { tv_sec, tv_nsec })
}

/// futimens(3).
///
/// # Errors
/// The errno.
pub fn fd_times(fd: RawFd, times: [When; 2]) -> Answer {
    // SAFETY: the array lives through the call.
    answer(unsafe { libc::futimens(fd, timespecs(times).as_ptr()) }.into())
}

/// A call on one path.
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs)] // the calls of those names
pub enum OnPath {
    Truncate(i64),
    Mode(u32),
    Owner(u32, u32, bool),
    Times([When; 2], bool),
    Access(i32),
    Unlink,
    MakeDir(u32),
    RemoveDir,
    MakeNode(u32, u64),
}

/// Makes a call on one path.
///
/// # Errors
/// The errno.
pub fn on_path(path: &Path, call: OnPath) -> Answer {
    let path = text(path.as_os_str());
    let (at, cwd) = (path.as_ptr(), libc::AT_FDCWD);
    let follow = |follow: bool| if follow { 0 } else { libc::AT_SYMLINK_NOFOLLOW };
    // SAFETY: the string and the times live through each of the calls.
    let result = unsafe {
        match call {
            OnPath::Truncate(len) => libc::truncate(at, len),
            OnPath::Mode(mode) => libc::chmod(at, mode),
            OnPath::Owner(uid, gid, f) => libc::fchownat(cwd, at, uid, gid, follow(f)),
            OnPath::Times(times, f) => {
                libc::utimensat(cwd, at, timespecs(times).as_ptr(), follow(f))
            }
            OnPath::Access(mode) => libc::faccessat(cwd, at, mode, libc::AT_EACCESS),
            OnPath::Unlink => libc::unlink(at),
            OnPath::MakeDir(mode) => libc::mkdir(at, mode),
            OnPath::RemoveDir => libc::rmdir(at),
            OnPath::MakeNode(mode, device) => libc::mknod(at, mode, device),
        }
    };
    answer(result.into())
}

/// A call on two paths.
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs)] // the calls of those names
pub enum OnTwo {
    Link(bool),
    Symlink,
    Rename(u32),
}

/// Makes a call on two paths.
///
/// # Errors
/// The errno.
pub fn on_two(from: &Path, to: &Path, call: OnTwo) -> Answer {
    let (from, to) = (text(from.as_os_str()), text(to.as_os_str()));
    let (from, to, cwd) = (from.as_ptr(), to.as_ptr(), libc::AT_FDCWD);
    // SAFETY: both strings live through each of the calls.
    let result = unsafe {
        match call {
            OnTwo::Link(follow) => {
                let flags = if follow { libc::AT_SYMLINK_FOLLOW } else { 0 };
                libc::linkat(cwd, from, cwd, to, flags)
            }
            OnTwo::Symlink => libc::symlink(from, to),
            OnTwo::Rename(flags) => libc::renameat2(cwd, from, cwd, to, flags),
        }
    };
    answer(result.into())
}

/// readlink(2).
///
/// # Errors
/// The errno.
pub fn read_link(path: &Path) -> Result<Vec<u8>, i32> {
    let path = text(path.as_os_str());
    let mut target = vec![0u8; 5000];
    let (at, len) = (target.as_mut_ptr().cast(), target.len());
    // SAFETY: string and buffer, of that length, live through the call.
    let len = answer(unsafe { libc::readlink(path.as_ptr(), at, len) } as i64)?;
    target.truncate(len as usize);
    Ok(target)
}

/// A call on an extended attribute.
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs)] // the calls of those names
pub enum OnXattr<'a> {
    Set(&'a [u8], i32),
    Get(usize),
    Remove,
    List(usize),
}

/// Does it (links are not followed); gives the bytes that came.
///
/// # Errors
/// The errno.
pub fn on_xattr(path: &Path, name: &str, call: OnXattr<'_>) -> Result<(i64, Vec<u8>), i32> {
    let (path, name) = (text(path.as_os_str()), text(OsStr::new(name)));
    let (path, name) = (path.as_ptr(), name.as_ptr());
    let mut room = vec![
        0u8;
        match call {
            OnXattr::Get(len) | OnXattr::List(len) => len,
            _ => 0,
        }
    ];
    let (at, len) = (room.as_mut_ptr(), room.len());
    // SAFETY: strings and buffers, of the lengths given, live through each of the calls.
    let got = answer(unsafe {
        match call {
            OnXattr::Set(value, flags) => {
                libc::lsetxattr(path, name, value.as_ptr().cast(), value.len(), flags) as i64
            }
            OnXattr::Get(_) => libc::lgetxattr(path, name, at.cast(), len) as i64,
            OnXattr::Remove => libc::lremovexattr(path, name) as i64,
            OnXattr::List(_) => libc::llistxattr(path, at.cast(), len) as i64,
        }
    })?;
    room.truncate(got as usize);
    Ok((got, room))
}

/// Names and types of the entries that are left in an open directory
/// (getdents64(2)).
///
/// # Errors
/// The errno.
pub fn entries(fd: RawFd) -> Result<Vec<(Vec<u8>, u8)>, i32> {
    let mut found = Vec::new();
    let mut buffer = vec![0u8; 32768];
    loop {
        let (at, len) = (buffer.as_mut_ptr(), buffer.len());
        // SAFETY: the buffer has that length.
        let got = answer(unsafe { libc::syscall(libc::SYS_getdents64, fd, at, len) })?;
        let mut rest = &buffer[..got as usize];
        if rest.is_empty() {
            return Ok(found);
        }
        // inode 8, offset 8, length 2, type 1, name with NUL
        while rest.len() > 19 {
            let len = usize::from(u16::from_ne_bytes([rest[16], rest[17]]));
            let name = rest[19..len].split(|&b| b == 0).next().unwrap_or_default();
            found.push((name.to_vec(), rest[18]));
            rest = &rest[len..];
        }
    }
}
