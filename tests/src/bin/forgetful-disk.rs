//! A disk that forgets what was not synced, as a file system of FUSE:
//! `forgetful-disk DIR BACKING SOCKET` mounts it, empty, and ends when it is unmounted.
//! The bytes are kept in the directory BACKING. See [`lagan_tests::forgetful`] for what
//! is durable, and what a power cut leaves.
//!
//! A connection to SOCKET is one command, a line that is answered by one: `forget SEED`
//! and `forget all` while no file is open, and `lie PATH`. The answer is `ok`, with the changes
//! of names and of bytes that were not synced, or an error.
//!
//! The process never looks at its own mount.

use fuser::{
    BsdFileFlags, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow, WriteFlags,
};
use lagan_tests::forgetful::{Attributes, Disk};
use lagan_tests::random::Random;
use lagan_tests::sys;
use std::ffi::OsStr;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The kernel asks again each time: a power cut changes what it knows.
const TTL: Duration = Duration::ZERO;
/// Inodes are not used again.
const GENERATION: Generation = Generation(0);
/// No handle has a state of its own.
const HANDLE: FileHandle = FileHandle(0);

fn main() -> ExitCode {
    let args: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [point, backing, socket] = &args[..] else {
        eprintln!("usage: forgetful-disk DIR BACKING SOCKET");
        return ExitCode::from(2);
    };
    match run(point, backing, socket) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("forgetful-disk: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(point: &Path, backing: &Path, socket: &Path) -> io::Result<()> {
    let disk = Shared {
        disk: Arc::new(Mutex::new(Disk::new(backing))),
        backing: backing.to_owned(),
    };
    let (listener, commanded) = (UnixListener::bind(socket)?, disk.clone());
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // who asked is gone, if anything fails here
            let _ = commanded.answer(stream);
        }
    });
    fuser::mount(disk, point, &fuser::Config::default())
}

#[derive(Clone)]
struct Shared {
    disk: Arc<Mutex<Disk>>,
    backing: PathBuf,
}

impl Shared {
    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(&self, mut stream: UnixStream) -> io::Result<()> {
        let mut line = String::new();
        BufReader::new(&stream).read_line(&mut line)?;
        let mut disk = self.disk();
        let (names, bytes) = disk.unsynced();
        let done = match line.trim().split_once(' ') {
            Some(("lie", below)) => {
                disk.lie(Path::new(below));
                Ok(())
            }
            Some(("forget", "all")) => disk.forget(None),
            Some(("forget", seed)) => match seed.parse() {
                Ok(seed) => disk.forget(Some(Random::new(seed))),
                Err(_) => Err(io::ErrorKind::InvalidInput.into()),
            },
            _ => Err(io::ErrorKind::InvalidInput.into()),
        };
        let answer = match done {
            Ok(()) => format!("ok {names} {bytes}\n"),
            Err(error) => format!("error {error}\n"),
        };
        stream.write_all(answer.as_bytes())
    }
}

fn attr_of(from: Attributes) -> FileAttr {
    FileAttr {
        ino: INodeNo(from.inode),
        size: from.size,
        blocks: from.size.div_ceil(512),
        atime: from.modified,
        mtime: from.modified,
        ctime: from.modified,
        crtime: UNIX_EPOCH,
        kind: kind_of(from),
        perm: from.mode as u16,
        nlink: if from.is_dir { 2 } else { 1 },
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

fn kind_of(from: Attributes) -> FileType {
    match from.is_dir {
        true => FileType::Directory,
        false => FileType::RegularFile,
    }
}

fn entry(reply: ReplyEntry, result: io::Result<Attributes>) {
    match result {
        Ok(found) => reply.entry(&TTL, &attr_of(found), GENERATION),
        Err(error) => reply.error(Errno::from(error)),
    }
}

fn empty(reply: ReplyEmpty, result: io::Result<()>) {
    match result {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(Errno::from(error)),
    }
}

impl Filesystem for Shared {
    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        entry(reply, self.disk().lookup(parent.0, name));
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        match self.disk().stat(ino.0) {
            Ok(found) => reply.attr(&TTL, &attr_of(found)),
            Err(error) => reply.error(Errno::from(error)),
        }
    }

    fn setattr(
        &self,
        _req: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        size: Option<u64>,
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
        let mut disk = self.disk();
        let done = mode.map_or(Ok(()), |mode| disk.set_mode(ino.0, mode & 0o7777));
        let done = done.and_then(|()| size.map_or(Ok(()), |size| disk.set_len(ino.0, size)));
        match done.and_then(|()| disk.stat(ino.0)) {
            Ok(found) => reply.attr(&TTL, &attr_of(found)),
            Err(error) => reply.error(Errno::from(error)),
        }
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
        let mut disk = self.disk();
        let made = disk.make(parent.0, name, true, mode);
        entry(reply, made.and_then(|inode| disk.stat(inode)));
    }

    fn unlink(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        empty(reply, self.disk().remove(parent.0, name));
    }

    fn rmdir(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        empty(reply, self.disk().remove(parent.0, name));
    }

    fn rename(
        &self,
        _req: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        if !flags.is_empty() {
            return reply.error(Errno::EINVAL);
        }
        let (from, to) = ((parent.0, name), (newparent.0, newname));
        empty(reply, self.disk().rename(from, to));
    }

    fn create(
        &self,
        _req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        let mut disk = self.disk();
        let made = disk.make(parent.0, name, false, mode);
        let opened = made.and_then(|inode| disk.open(inode).and_then(|()| disk.stat(inode)));
        match opened {
            Ok(found) => {
                let attr = attr_of(found);
                reply.created(&TTL, &attr, GENERATION, HANDLE, FopenFlags::empty());
            }
            Err(error) => reply.error(Errno::from(error)),
        }
    }

    fn open(&self, _req: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        match self.disk().open(ino.0) {
            // the kernel drops what it has of the file: it may be from before a power cut
            Ok(()) => reply.opened(HANDLE, FopenFlags::empty()),
            Err(error) => reply.error(Errno::from(error)),
        }
    }

    fn read(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.disk().read(ino.0, offset, size.into()) {
            Ok(bytes) => reply.data(&bytes),
            Err(error) => reply.error(Errno::from(error)),
        }
    }

    fn write(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match self.disk().write(ino.0, offset, data) {
            Ok(()) => reply.written(data.len() as u32),
            Err(error) => reply.error(Errno::from(error)),
        }
    }

    fn flush(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _lock_owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        reply.ok();
    }

    fn release(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        self.disk().close(ino.0);
        reply.ok();
    }

    fn fsync(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        empty(reply, self.disk().sync(ino.0));
    }

    fn fsyncdir(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        empty(reply, self.disk().sync(ino.0));
    }

    fn readdir(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        // a place in a listing is an inode, so that it stays when others come and go
        let mut all = self.disk().list(ino.0);
        all.retain(|(_, found)| found.inode > offset);
        all.sort_by_key(|(_, found)| found.inode);
        for (name, found) in all {
            if reply.add(INodeNo(found.inode), found.inode, kind_of(found), name) {
                break;
            }
        }
        reply.ok();
    }

    fn statfs(&self, _req: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        match sys::statvfs(&self.backing) {
            Ok(space) => reply.statfs(
                space.f_blocks,
                space.f_bfree,
                space.f_bavail,
                space.f_files,
                space.f_ffree,
                space.f_bsize as u32,
                255,
                space.f_frsize as u32,
            ),
            Err(error) => reply.error(Errno::from(error)),
        }
    }

    fn access(&self, _req: &Request, _ino: INodeNo, _mask: fuser::AccessFlags, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fallocate(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        if mode != 0 {
            return reply.error(Errno::EOPNOTSUPP);
        }
        // room is not reserved: the backing directory has enough
        let mut disk = self.disk();
        let size = disk.stat(ino.0).map(|found| found.size);
        let done = size.and_then(|size| disk.set_len(ino.0, size.max(offset + length)));
        empty(reply, done);
    }
}
