//! A file system of FUSE with next to nothing in it: names, links and permission bits,
//! in memory. `trivial-fs DIR` mounts it and ends when it is unmounted.
//!
//! A test that fails here meets a limit of FUSE or of the C library, and none of ours.
//! The process never looks at its own mount.

use fuser::{
    BsdFileFlags, Errno, FileAttr, FileHandle, FileType, Filesystem, Generation, INodeNo,
    ReplyAttr, ReplyDirectory, ReplyEmpty, ReplyEntry, Request, TimeOrNow,
};
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::process::ExitCode;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Links of one file, at most: what ext4 allows.
const LINK_MAX: u32 = 65_000;
/// The kernel asks again each time.
const TTL: Duration = Duration::ZERO;
const GENERATION: Generation = Generation(0);

fn main() -> ExitCode {
    let Some(point) = std::env::args_os().nth(1) else {
        eprintln!("usage: trivial-fs DIR");
        return ExitCode::from(2);
    };
    match fuser::mount(Trivial::new(), point, &fuser::Config::default()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mount: {error}");
            ExitCode::FAILURE
        }
    }
}

struct Trivial(Mutex<Tree>);

/// All inodes and names.
struct Tree {
    inodes: BTreeMap<u64, FileAttr>,
    /// By directory and name: the inode, and where listings show it.
    names: BTreeMap<(u64, OsString), (INodeNo, u64)>,
    /// Next number of an inode or of a place in a listing.
    next: u64,
}

impl Trivial {
    fn new() -> Self {
        let root = INodeNo::ROOT;
        let top = new_attr(root, FileType::Directory, 0o755);
        Trivial(Mutex::new(Tree {
            inodes: BTreeMap::from([(root.0, top)]),
            names: BTreeMap::new(),
            next: root.0 + 1,
        }))
    }

    fn tree(&self) -> MutexGuard<'_, Tree> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn new_attr(ino: INodeNo, kind: FileType, mode: u32) -> FileAttr {
    FileAttr {
        ino,
        size: 0,
        blocks: 0,
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind,
        perm: (mode & 0o7777) as u16,
        nlink: if kind == FileType::Directory { 2 } else { 1 },
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

impl Tree {
    fn find(&self, dir: INodeNo, name: &OsStr) -> Result<FileAttr, Errno> {
        match self.names.get(&(dir.0, name.to_owned())) {
            Some((ino, _)) => self.get(*ino),
            None => Err(Errno::ENOENT),
        }
    }

    fn get(&self, ino: INodeNo) -> Result<FileAttr, Errno> {
        self.inodes.get(&ino.0).copied().ok_or(Errno::ENOENT)
    }

    fn make(
        &mut self,
        dir: INodeNo,
        name: &OsStr,
        (kind, mode): (FileType, u32),
    ) -> Result<FileAttr, Errno> {
        if self.find(dir, name).is_ok() {
            return Err(Errno::EEXIST);
        }
        let attr = new_attr(INodeNo(self.next), kind, mode);
        self.inodes.insert(attr.ino.0, attr);
        self.name(dir, name, attr.ino);
        Ok(attr)
    }

    fn name(&mut self, dir: INodeNo, name: &OsStr, ino: INodeNo) {
        self.next += 1;
        let place = (ino, self.next);
        self.names.insert((dir.0, name.to_owned()), place);
    }

    fn link(&mut self, ino: INodeNo, dir: INodeNo, name: &OsStr) -> Result<FileAttr, Errno> {
        if self.find(dir, name).is_ok() {
            return Err(Errno::EEXIST);
        }
        let attr = self.inodes.get_mut(&ino.0).ok_or(Errno::ENOENT)?;
        if attr.nlink >= LINK_MAX {
            return Err(Errno::EMLINK);
        }
        attr.nlink += 1;
        let attr = *attr;
        self.name(dir, name, ino);
        Ok(attr)
    }

    fn remove(&mut self, dir: INodeNo, name: &OsStr, from: u32) -> Result<(), Errno> {
        let attr = self.find(dir, name)?;
        if self.list(attr.ino).next().is_some() {
            return Err(Errno::ENOTEMPTY);
        }
        self.names.remove(&(dir.0, name.to_owned()));
        if attr.nlink <= from {
            self.inodes.remove(&attr.ino.0);
        } else if let Some(attr) = self.inodes.get_mut(&attr.ino.0) {
            attr.nlink -= 1;
        }
        Ok(())
    }

    fn list(&self, dir: INodeNo) -> impl Iterator<Item = (&OsString, (INodeNo, u64))> {
        let names = self.names.range((dir.0, OsString::new())..);
        let names = names.take_while(move |((parent, _), _)| *parent == dir.0);
        names.map(|((_, name), place)| (name, *place))
    }
}

fn entry(reply: ReplyEntry, result: Result<FileAttr, Errno>) {
    match result {
        Ok(attr) => reply.entry(&TTL, &attr, GENERATION),
        Err(errno) => reply.error(errno),
    }
}

fn attributes(reply: ReplyAttr, result: Result<FileAttr, Errno>) {
    match result {
        Ok(attr) => reply.attr(&TTL, &attr),
        Err(errno) => reply.error(errno),
    }
}

fn empty(reply: ReplyEmpty, result: Result<(), Errno>) {
    match result {
        Ok(()) => reply.ok(),
        Err(errno) => reply.error(errno),
    }
}

impl Filesystem for Trivial {
    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        entry(reply, self.tree().find(parent, name));
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        attributes(reply, self.tree().get(ino));
    }

    fn setattr(
        &self,
        _req: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        _size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let mut tree = self.tree();
        if let (Some(attr), Some(mode)) = (tree.inodes.get_mut(&ino.0), mode) {
            attr.perm = (mode & 0o7777) as u16;
        }
        attributes(reply, tree.get(ino));
    }

    fn mknod(
        &self,
        _req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        _rdev: u32,
        reply: ReplyEntry,
    ) {
        let new = (FileType::RegularFile, mode);
        entry(reply, self.tree().make(parent, name, new));
    }

    fn mkdir(
        &self,
        _req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        reply: ReplyEntry,
    ) {
        let new = (FileType::Directory, mode);
        entry(reply, self.tree().make(parent, name, new));
    }

    fn unlink(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        empty(reply, self.tree().remove(parent, name, 1));
    }

    fn rmdir(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        empty(reply, self.tree().remove(parent, name, 2));
    }

    fn link(
        &self,
        _req: &Request,
        ino: INodeNo,
        new_parent: INodeNo,
        new_name: &OsStr,
        reply: ReplyEntry,
    ) {
        entry(reply, self.tree().link(ino, new_parent, new_name));
    }

    fn readdir(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let tree = self.tree();
        let later = tree.list(ino).filter(|(_, (_, place))| *place > offset);
        let mut later: Vec<_> = later.collect();
        later.sort_by_key(|(_, (_, place))| *place);
        for (name, (ino, place)) in later {
            let Ok(attr) = tree.get(ino) else { continue };
            if reply.add(ino, place, attr.kind, name) {
                break;
            }
        }
        reply.ok();
    }
}
