//! Turns the kernel's terms into ours, and back.

use fuser::{FileAttr, FileType, FopenFlags, INodeNo, TimeOrNow};
use lagan_client::{Caller, OpenOptions, Opened};
use lagan_types::limits::NAME_LEN_MAX;
use lagan_types::op::{LockKind, LockRange, SetTime, XattrMode};
use lagan_types::{Attr, FsError, Ino, Kind, Time};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// st_blksize, bytes. Programs that follow it make fewer and larger requests than with
/// a page.
const FILE_BLKSIZE: u32 = 128 * 1024;
/// The kernel's last byte of a lock that goes to the end of the file (OFFSET_MAX).
const LOCK_END: u64 = i64::MAX as u64;

/// Turns a FUSE node id into an inode number: they are the same.
pub(crate) fn ino(node: INodeNo) -> Ino {
    Ino(node.0)
}

/// Turns a name of a request into ours.
///
/// # Errors
/// `NameTooLong` above 255 bytes: the kernel's own limit for FUSE is higher.
pub(crate) fn name(name: &OsStr) -> Result<Vec<u8>, FsError> {
    if name.len() > NAME_LEN_MAX {
        return Err(FsError::NameTooLong);
    }
    Ok(name.as_bytes().to_vec())
}

/// Turns attributes into those that stat(2) shows.
pub(crate) fn file_attr(attr: &Attr) -> FileAttr {
    FileAttr {
        ino: INodeNo(attr.ino.0),
        size: attr.size,
        blocks: attr.allocated.div_ceil(512),
        atime: system_time(attr.atime),
        mtime: system_time(attr.mtime),
        ctime: system_time(attr.ctime),
        crtime: system_time(attr.btime),
        kind: file_type(attr.kind),
        perm: attr.permissions(),
        nlink: attr.nlink,
        uid: attr.uid,
        gid: attr.gid,
        rdev: attr.rdev,
        blksize: if attr.kind == Kind::File {
            FILE_BLKSIZE
        } else {
            4096
        },
        flags: 0,
    }
}

/// Attributes of `.` and `..` in a listing; the kernel uses only number and type.
pub(crate) fn dot_attr(node: Ino) -> FileAttr {
    FileAttr {
        ino: INodeNo(node.0),
        size: 4096,
        blocks: 0,
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind: FileType::Directory,
        perm: 0o755,
        nlink: 2,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

/// Turns a kind into the S_IFMT of the kernel's reply.
pub(crate) fn file_type(kind: Kind) -> FileType {
    match kind {
        Kind::File => FileType::RegularFile,
        Kind::Directory => FileType::Directory,
        Kind::Symlink => FileType::Symlink,
        Kind::Fifo => FileType::NamedPipe,
        Kind::Socket => FileType::Socket,
        Kind::CharDevice => FileType::CharDevice,
        Kind::BlockDevice => FileType::BlockDevice,
    }
}

/// Turns the S_IFMT of mknod(2) into a kind; no bit of it means a regular file.
///
/// # Errors
/// `Invalid` for directories, links and nonsense.
pub(crate) fn node_kind(mode: u32) -> Result<Kind, FsError> {
    match mode & libc::S_IFMT {
        0 | libc::S_IFREG => Ok(Kind::File),
        libc::S_IFIFO => Ok(Kind::Fifo),
        libc::S_IFSOCK => Ok(Kind::Socket),
        libc::S_IFCHR => Ok(Kind::CharDevice),
        libc::S_IFBLK => Ok(Kind::BlockDevice),
        _ => Err(FsError::Invalid),
    }
}

/// Cuts a mode down to its 12 permission bits.
pub(crate) fn permissions(mode: u32) -> u16 {
    (mode & 0o7777) as u16
}

fn system_time(time: Time) -> SystemTime {
    let secs = Duration::from_secs(time.secs.unsigned_abs());
    let whole = if time.secs < 0 {
        UNIX_EPOCH.checked_sub(secs)
    } else {
        UNIX_EPOCH.checked_add(secs)
    };
    whole
        .and_then(|t| t.checked_add(Duration::from_nanos(u64::from(time.nanos))))
        .unwrap_or(UNIX_EPOCH)
}

/// Turns a time of utimensat(2) into ours.
pub(crate) fn set_time(time: TimeOrNow) -> SetTime {
    match time {
        TimeOrNow::Now => SetTime::Now,
        TimeOrNow::SpecificTime(at) => SetTime::At(time_of(at)),
    }
}

fn time_of(at: SystemTime) -> Time {
    match at.duration_since(UNIX_EPOCH) {
        Ok(after) => Time {
            secs: i64::try_from(after.as_secs()).unwrap_or(i64::MAX),
            nanos: after.subsec_nanos(),
        },
        Err(before) => {
            // The kernel's seconds may be negative while its nanoseconds count up. The library
            // gives 1970 less both.
            let before = before.duration();
            Time {
                secs: 0_i64.saturating_sub_unsigned(before.as_secs()),
                nanos: before.subsec_nanos(),
            }
        }
    }
}

/// Turns the flags of open(2) into ours.
pub(crate) fn open_options(caller: Caller, flags: i32) -> OpenOptions {
    let access = flags & libc::O_ACCMODE;
    OpenOptions {
        read: access != libc::O_WRONLY,
        write: access != libc::O_RDONLY,
        append: flags & libc::O_APPEND != 0,
        truncate: flags & libc::O_TRUNC != 0,
        kill_suid: !caller.privileged(),
        direct: flags & libc::O_DIRECT != 0,
        // O_SYNC contains O_DSYNC.
        sync: flags & libc::O_DSYNC != 0,
        no_atime: flags & libc::O_NOATIME != 0,
    }
}

/// Tells the kernel how to treat the open file.
pub(crate) fn fopen_flags(opened: &Opened) -> FopenFlags {
    let mut flags = FopenFlags::empty();
    flags.set(FopenFlags::FOPEN_DIRECT_IO, opened.direct_io);
    flags.set(FopenFlags::FOPEN_KEEP_CACHE, opened.keep_cache);
    flags
}

/// Turns the flags of setxattr(2) into ours.
///
/// # Errors
/// `Invalid` for any other flag.
pub(crate) fn xattr_mode(flags: i32) -> Result<XattrMode, FsError> {
    match flags {
        0 => Ok(XattrMode::Any),
        libc::XATTR_CREATE => Ok(XattrMode::Create),
        libc::XATTR_REPLACE => Ok(XattrMode::Replace),
        _ => Err(FsError::Invalid),
    }
}

/// Turns a lock of fcntl(2) into ours; the kernel's `end` is inclusive.
///
/// # Errors
/// `Invalid` for an unknown kind of lock.
pub(crate) fn lock(
    owner: u64,
    range: (u64, u64),
    typ: i32,
    pid: u32,
) -> Result<LockRange, FsError> {
    let kind = match typ {
        libc::F_RDLCK => LockKind::Read,
        libc::F_WRLCK => LockKind::Write,
        libc::F_UNLCK => LockKind::Unlock,
        _ => return Err(FsError::Invalid),
    };
    let (start, end) = range;
    if start > end {
        return Err(FsError::Invalid);
    }
    Ok(LockRange {
        owner,
        start,
        end: if end >= LOCK_END { u64::MAX } else { end },
        kind,
        pid,
    })
}

/// Turns a lock into the kernel's terms: first byte, last byte, kind, process.
pub(crate) fn lock_reply(found: Option<LockRange>) -> (u64, u64, i32, u32) {
    let Some(lock) = found else {
        return (0, LOCK_END, libc::F_UNLCK, 0);
    };
    let typ = match lock.kind {
        LockKind::Read => libc::F_RDLCK,
        LockKind::Write => libc::F_WRLCK,
        LockKind::Unlock => libc::F_UNLCK,
    };
    (lock.start, lock.end.min(LOCK_END), typ, lock.pid)
}

/// Writes names as listxattr(2) wants them: each ends with NUL.
pub(crate) fn xattr_list(names: &[Vec<u8>]) -> Vec<u8> {
    let len = names.iter().map(|n| n.len() + 1).sum();
    let mut list = Vec::with_capacity(len);
    for name in names {
        list.extend_from_slice(name);
        list.push(0);
    }
    list
}

#[cfg(test)]
mod tests;
