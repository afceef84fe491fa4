//! One file system that the steps are done on: a local directory, or one
//! directory seen through two mounts.

use super::observe::Seen;
use super::plan::{At, Op, SLOTS, Step};
use super::sys::{self, Answer, As, OnPath, OnTwo, OnXattr};
use super::{holes, said};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};

/// A file held open across steps.
#[derive(Debug)]
pub(super) struct Handle {
    pub fd: OwnedFd,
    pub mount: usize,
}

/// The directories and open files that the steps work on.
#[derive(Debug)]
pub struct World {
    tops: [OwnedFd; 2],
    pub(super) slots: [Option<Handle>; SLOTS],
    aligned: bool,
}

impl World {
    /// A directory as each of two mounts shows it; the same path twice for a
    /// local one. It exists and is empty.
    ///
    /// # Errors
    /// The errno with which it cannot be opened.
    pub fn new(dirs: [&Path; 2], aligned: bool) -> Result<Self, i32> {
        let flags = libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC;
        Ok(World {
            tops: [sys::open(dirs[0], flags, 0)?, sys::open(dirs[1], flags, 0)?],
            slots: Default::default(),
            aligned,
        })
    }

    /// Does a step; gives what it said and what can be seen afterwards.
    pub fn perform(&mut self, number: usize, step: &Step) -> Vec<Seen> {
        let result = {
            let _user = As::user(step.user);
            self.call(step)
        };
        let mut seen = vec![Seen::text(result)];
        self.observe(number, step, &mut seen);
        seen
    }

    /// The mount of a call on that path.
    pub(super) fn mount_of(&self, at: &At, mount: usize) -> usize {
        let base = at.base.and_then(|slot| self.slots[slot].as_ref());
        base.map_or(mount, |handle| handle.mount)
    }

    /// The path on a mount. What is open on the other one is no base there.
    pub(super) fn path(&self, at: &At, mount: usize) -> PathBuf {
        let base = at.base.and_then(|slot| self.slots[slot].as_ref());
        let fd = match base.filter(|handle| handle.mount == mount) {
            Some(handle) => handle.fd.as_raw_fd(),
            None => self.tops[mount].as_raw_fd(),
        };
        PathBuf::from(format!("/proc/thread-self/fd/{fd}/{}", at.path))
    }

    /// The top of the tree on a mount.
    pub(super) fn top(&self, mount: usize) -> PathBuf {
        PathBuf::from(format!(
            "/proc/thread-self/fd/{}/..",
            self.tops[mount].as_raw_fd()
        ))
    }

    pub(super) fn fd(&self, slot: usize) -> Option<RawFd> {
        self.slots[slot].as_ref().map(|h| h.fd.as_raw_fd())
    }

    fn call(&mut self, step: &Step) -> String {
        match &step.op {
            Op::Open {
                slot,
                at,
                flags,
                mode,
            } => self.open(*slot, at, step.mount, flags.0, mode.0 as u32),
            Op::Close { slot } => match self.slots[*slot].take() {
                Some(handle) => said(sys::close(handle.fd)),
                None => "nothing open".into(),
            },
            Op::Dup { from, to } => self.dup(*from, *to),
            Op::Copy {
                from,
                to,
                offsets,
                len,
            } => match (&self.slots[*from], &self.slots[*to]) {
                // between two mounts the kernel cannot know one file from another
                (Some(a), Some(b)) if a.mount == b.mount => {
                    let (a, b) = (a.fd.as_raw_fd(), b.fd.as_raw_fd());
                    let copied = sys::copy(a, b, *offsets, *len);
                    // The copy of a hole is a hole or zeros.
                    self.aligned &= !matches!(copied, Ok(1..));
                    synced(b, copied)
                }
                _ => "nothing open".into(),
            },
            op => match slot_of(op) {
                Some(slot) => match self.fd(slot) {
                    Some(fd) => self.on_handle(fd, op),
                    None => "nothing open".into(),
                },
                None => self.on_path(step.mount, op),
            },
        }
    }

    /// Devices and pipes are closed again: what they do is not the file system's.
    fn open(&mut self, slot: usize, at: &At, mount: usize, flags: i32, mode: u32) -> String {
        let mount = self.mount_of(at, mount);
        let fd = match sys::open(&self.path(at, mount), flags, mode) {
            Ok(fd) => fd,
            Err(errno) => return said(Err(errno)),
        };
        let kind = sys::stat(fd.as_raw_fd(), Path::new("")).map(|s| s.st_mode & libc::S_IFMT);
        let kept = matches!(kind, Ok(libc::S_IFREG | libc::S_IFDIR));
        let old = std::mem::replace(&mut self.slots[slot], kept.then_some(Handle { fd, mount }));
        let closed = old.map_or(Ok(0), |old| sys::close(old.fd));
        format!("opened {kind:?}, old one closed: {}", said(closed))
    }

    fn dup(&mut self, from: usize, to: usize) -> String {
        let Some(handle) = &self.slots[from] else {
            return "nothing open".into();
        };
        let mount = handle.mount;
        match sys::dup(handle.fd.as_raw_fd()) {
            Ok(fd) => {
                let old = self.slots[to].replace(Handle { fd, mount });
                said(old.map_or(Ok(0), |old| sys::close(old.fd)))
            }
            Err(errno) => said(Err(errno)),
        }
    }

    fn on_handle(&mut self, fd: RawFd, op: &Op) -> String {
        match op {
            Op::Read { len, .. } => read(fd, *len, None),
            Op::ReadAt { len, offset, .. } => read(fd, *len, Some(*offset)),
            Op::Write { len, fill, .. } => synced(fd, sys::write(fd, &bytes(*len, *fill), None)),
            Op::WriteAt {
                len, offset, fill, ..
            } => synced(fd, sys::write(fd, &bytes(*len, *fill), Some(*offset))),
            Op::WriteTwo { lens, fill, .. } => {
                let [first, second] = lens.map(|len| bytes(len, *fill));
                synced(fd, sys::write_two(fd, &first, &second))
            }
            Op::Seek { offset, whence, .. } => seek(fd, *offset, *whence),
            Op::Holes { .. } => holes::describe(fd, self.aligned),
            Op::SetLen { len, .. } => said(sys::set_len(fd, *len)),
            Op::Allocate {
                mode, offset, len, ..
            } => said(sys::allocate(fd, *mode, *offset, *len)),
            Op::Sync { data, .. } => said(sys::sync(fd, *data)),
            Op::Append { on, .. } => said(set_append(fd, *on)),
            // The kernel keeps those of directories itself, each mount its own.
            Op::Flock { .. } if is_directory(fd) => "not tried".into(),
            Op::Flock { operation, .. } => said(sys::flock(fd, *operation)),
            Op::Lock { kind, range, .. } => match sys::lock(fd, libc::F_OFD_SETLK, *kind, *range) {
                Ok(_) => "locked".into(),
                Err(errno) => said(Err(errno)),
            },
            Op::GetLock { kind, range, .. } => {
                match sys::lock(fd, libc::F_OFD_GETLK, *kind, *range) {
                    Ok(found) => format!("found {found:?}"),
                    Err(errno) => said(Err(errno)),
                }
            }
            Op::FdMode { mode, .. } => said(sys::fd_mode(fd, mode.0 as u32)),
            Op::FdOwner { uid, gid, .. } => said(sys::fd_owner(fd, *uid, *gid)),
            Op::FdTimes { times, .. } => said(sys::fd_times(fd, *times)),
            Op::FdList { .. } => list(fd),
            _ => String::new(),
        }
    }

    fn on_path(&mut self, mount: usize, op: &Op) -> String {
        match op {
            Op::Link { from, to, follow } => self.on_two(from, to, mount, OnTwo::Link(*follow)),
            Op::Rename { from, to, flags } => self.on_two(from, to, mount, OnTwo::Rename(*flags)),
            op => {
                let Some(at) = paths_of(op).next() else {
                    return String::new();
                };
                let path = self.path(at, self.mount_of(at, mount));
                on_one_path(&path, op)
            }
        }
    }

    fn on_two(&self, from: &At, to: &At, mount: usize, call: OnTwo) -> String {
        let mount = self.mount_of(from, mount);
        said(sys::on_two(
            &self.path(from, mount),
            &self.path(to, mount),
            call,
        ))
    }
}

fn on_one_path(path: &Path, op: &Op) -> String {
    let call = match op {
        Op::Truncate { len, .. } => OnPath::Truncate(*len),
        Op::Mode { mode, .. } => OnPath::Mode(mode.0 as u32),
        Op::Owner {
            uid, gid, follow, ..
        } => OnPath::Owner(*uid, *gid, *follow),
        Op::Times { times, follow, .. } => OnPath::Times(*times, *follow),
        Op::Access { mode, .. } => OnPath::Access(*mode),
        Op::Unlink { .. } => OnPath::Unlink,
        Op::MakeDir { mode, .. } => OnPath::MakeDir(mode.0 as u32),
        Op::RemoveDir { .. } => OnPath::RemoveDir,
        Op::MakeNode { mode, device, .. } => OnPath::MakeNode(mode.0 as u32, *device),
        op => return ask_path(path, op),
    };
    said(sys::on_path(path, call))
}

fn ask_path(path: &Path, op: &Op) -> String {
    let (name, call) = match op {
        Op::SetXattr {
            name, len, flags, ..
        } => (name.as_str(), OnXattr::Set(&[b'v'; 256][..*len], *flags)),
        Op::GetXattr { name, len, .. } => (name.as_str(), OnXattr::Get(*len)),
        Op::RemoveXattr { name, .. } => (name.as_str(), OnXattr::Remove),
        Op::ListXattrs { len, .. } => return list_xattrs(path, *len),
        Op::Symlink { target, .. } => {
            return said(sys::on_two(Path::new(target), path, OnTwo::Symlink));
        }
        Op::ReadLink { .. } => {
            return match sys::read_link(path) {
                Ok(target) => format!("to {:?}", String::from_utf8_lossy(&target)),
                Err(errno) => said(Err(errno)),
            };
        }
        Op::List { .. } => {
            let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC;
            return match sys::open(path, flags, 0) {
                Ok(fd) => list(fd.as_raw_fd()),
                Err(errno) => said(Err(errno)),
            };
        }
        Op::Space { .. } => {
            return match sys::space(path) {
                Ok(s) => format!(
                    "names to {}, adds up: {}",
                    s.f_namemax,
                    s.f_bavail <= s.f_bfree && s.f_bfree <= s.f_blocks && s.f_blocks > 0
                ),
                Err(errno) => said(Err(errno)),
            };
        }
        _ => return String::new(),
    };
    match sys::on_xattr(path, name, call) {
        Ok((len, value)) => format!("{len}: {:?}", String::from_utf8_lossy(&value)),
        Err(errno) => said(Err(errno)),
    }
}

/// Sorted: their order is the file system's own.
fn list_xattrs(path: &Path, len: usize) -> String {
    match sys::on_xattr(path, "", OnXattr::List(len)) {
        Ok((len, names)) => {
            let text = String::from_utf8_lossy(&names).into_owned();
            let mut names: Vec<&str> = text.split('\0').collect();
            names.sort_unstable();
            format!("{len}: {names:?}")
        }
        Err(errno) => said(Err(errno)),
    }
}

/// Positions in a directory are the file system's own.
fn seek(fd: RawFd, offset: i64, whence: i32) -> String {
    match sys::stat(fd, Path::new("")) {
        Ok(stat) if stat.st_mode & libc::S_IFMT == libc::S_IFDIR => "a directory".into(),
        _ => said(sys::seek(fd, offset, whence)),
    }
}

fn is_directory(fd: RawFd) -> bool {
    let kind = sys::stat(fd, Path::new("")).map(|s| s.st_mode & libc::S_IFMT);
    kind == Ok(libc::S_IFDIR)
}

fn set_append(fd: RawFd, on: bool) -> Answer {
    let flags = sys::flags(fd)? as i32 & !libc::O_APPEND;
    let flag = if on { libc::O_APPEND } else { 0 };
    sys::set_flags(fd, flags | flag)?;
    Ok(sys::flags(fd)? & i64::from(libc::O_APPEND | libc::O_ACCMODE))
}

/// Different bytes at different places, so that a shift is seen.
fn bytes(len: usize, fill: u8) -> Vec<u8> {
    (0..len)
        .map(|i| fill ^ (i as u8) ^ ((i >> 8) as u8))
        .collect()
}

fn read(fd: RawFd, len: usize, offset: Option<i64>) -> String {
    let mut buffer = vec![0; len];
    match sys::read(fd, &mut buffer, offset) {
        Ok(got) => format!(
            "{got} bytes, {:x}",
            crc32fast::hash(&buffer[..got as usize])
        ),
        Err(errno) => said(Err(errno)),
    }
}

/// A write becomes visible everywhere by the fsync that follows. Where it leaves
/// the position after O_APPEND is the kernel's guess: it counts from the size
/// that it knew.
fn synced(fd: RawFd, written: Answer) -> String {
    match written {
        Ok(len) => {
            if sys::flags(fd).is_ok_and(|flags| flags as i32 & libc::O_APPEND != 0) {
                let _ = sys::seek(fd, 0, libc::SEEK_END);
            }
            format!("{len}, fsync {}", said(sys::sync(fd, false)))
        }
        Err(errno) => said(Err(errno)),
    }
}

/// All entries of an open directory, sorted.
fn list(fd: RawFd) -> String {
    if let Err(errno) = sys::seek(fd, 0, libc::SEEK_SET) {
        return said(Err(errno));
    }
    let entries = sys::entries(fd);
    // where the end is, is the file system's own affair
    let back = sys::seek(fd, 0, libc::SEEK_SET);
    match back.and(entries) {
        Ok(mut entries) => {
            entries.sort();
            let names = entries
                .iter()
                .map(|(name, kind)| format!("{}:{kind}", String::from_utf8_lossy(name)));
            names.collect::<Vec<_>>().join(" ")
        }
        Err(errno) => said(Err(errno)),
    }
}

/// The open file that a call is about, for calls about one.
pub(super) fn slot_of(op: &Op) -> Option<usize> {
    match op {
        Op::Read { slot, .. }
        | Op::Write { slot, .. }
        | Op::ReadAt { slot, .. }
        | Op::WriteAt { slot, .. }
        | Op::WriteTwo { slot, .. }
        | Op::Seek { slot, .. }
        | Op::Holes { slot }
        | Op::SetLen { slot, .. }
        | Op::Allocate { slot, .. }
        | Op::Sync { slot, .. }
        | Op::Append { slot, .. }
        | Op::Flock { slot, .. }
        | Op::Lock { slot, .. }
        | Op::GetLock { slot, .. }
        | Op::FdStat { slot }
        | Op::FdMode { slot, .. }
        | Op::FdOwner { slot, .. }
        | Op::FdTimes { slot, .. }
        | Op::FdList { slot } => Some(*slot),
        _ => None,
    }
}

/// The paths that a call is about.
pub(super) fn paths_of(op: &Op) -> impl Iterator<Item = &At> {
    let (first, second) = match op {
        Op::Link { from, to, .. } | Op::Rename { from, to, .. } => (Some(from), Some(to)),
        Op::Open { at, .. }
        | Op::Stat { at }
        | Op::Truncate { at, .. }
        | Op::Mode { at, .. }
        | Op::Owner { at, .. }
        | Op::Times { at, .. }
        | Op::Access { at, .. }
        | Op::Symlink { at, .. }
        | Op::ReadLink { at }
        | Op::Unlink { at }
        | Op::MakeDir { at, .. }
        | Op::RemoveDir { at }
        | Op::MakeNode { at, .. }
        | Op::List { at }
        | Op::SetXattr { at, .. }
        | Op::GetXattr { at, .. }
        | Op::RemoveXattr { at, .. }
        | Op::ListXattrs { at, .. }
        | Op::Space { at } => (Some(at), None),
        _ => (None, None),
    };
    first.into_iter().chain(second)
}
