//! The requests of the kernel. Each method turns arguments into a call of the client, and
//! its result into the reply.
//!
//! This file is longer than others, since Rust wants a trait implemented in one block.

use super::LaganFs;
use super::call::Call;
use super::convert::{
    fopen_flags, ino, lock, lock_reply, name, node_kind, open_options, permissions, set_time,
    xattr_list, xattr_mode,
};
use super::dir::{Item, Listing};
use super::lent::{look_at, look_up, unlent};
use super::profile;
use super::reply::{
    ACCESS_LIST, PLUS_ITEMS_MAX, TRUSTED, attributes, created, entry, fill, fill_plus, fits, found,
    ok, statfs, xattr, xattr_name,
};
use crate::rights::Rights;
use crate::waiter;
use bytes::Bytes;
use fuser::{
    AccessFlags, BsdFileFlags, CopyFileRangeFlags, Errno, FileHandle, Filesystem, FopenFlags,
    INodeNo, IoctlFlags, KernelConfig, LockOwner, OpenFlags, PollEvents, PollFlags, PollNotifier,
    RenameFlags, ReplyAttr, ReplyBmap, ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus,
    ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLock, ReplyLseek, ReplyOpen, ReplyPoll, ReplyStatfs,
    ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use lagan_client::{Caller, CopySpan, NewInode, Seek, Waiter};
use lagan_types::op::SetAttr;
use lagan_types::{FsError, Kind};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Instant, SystemTime};

/// Most bytes of one copy_file_range: whole pages whose number fits the reply.
const COPY_LEN_MAX: u64 = u32::MAX as u64 & !4095;

fn caller(req: &Request) -> Caller {
    Caller {
        uid: req.uid(),
        gid: req.gid(),
        pid: req.pid(),
    }
}

fn new_inode(req: &Request, kind: Kind, mode: u32, umask: u32) -> NewInode {
    NewInode {
        kind,
        mode: permissions(mode),
        umask: permissions(umask) & 0o777,
        uid: req.uid(),
        gid: req.gid(),
        rdev: 0,
        target: Vec::new(),
    }
}

impl LaganFs {
    /// Makes an entry: mknod, mkdir and symlink.
    fn make(
        &self,
        call: Call,
        parent: INodeNo,
        at: &OsStr,
        new: Result<NewInode, FsError>,
        reply: ReplyEntry,
    ) {
        let client = self.client.clone();
        let at = name(at);
        let work = async move { client.make(ino(parent), &at?, new?).await };
        self.runner.run(call, reply, work, entry);
    }
}

impl Filesystem for LaganFs {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        self.negotiate(config);
        Ok(())
    }

    fn lookup(&self, req: &Request, parent: INodeNo, at: &OsStr, reply: ReplyEntry) {
        let client = self.client.clone();
        let at = name(at);
        let work = async move { look_up(&client, ino(parent), &at?).await };
        let call = Call::names("lookup", req, parent);
        self.runner.run(call, reply, work, found);
    }

    fn getattr(&self, req: &Request, node: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        let client = self.client.clone();
        let work = async move { look_at(&client, ino(node)).await };
        let call = Call::names("getattr", req, node);
        self.runner.run(call, reply, work, attributes);
    }

    fn setattr(
        &self,
        req: &Request,
        node: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let caller = caller(req);
        let set = SetAttr {
            mode: mode.map(permissions),
            uid,
            gid,
            size,
            atime: atime.map(set_time),
            mtime: mtime.map(set_time),
            kill_suid: size.is_some() && !caller.privileged(),
        };
        let client = self.client.clone();
        let work = async move {
            let node = ino(node);
            if set == SetAttr::default() {
                return client.change_nothing(caller, node).await.map(unlent);
            }
            client.setattr(caller, node, set).await.map(unlent)
        };
        let call = Call::names("setattr", req, node);
        self.runner.run(call, reply, work, attributes);
    }

    fn readlink(&self, req: &Request, node: INodeNo, reply: ReplyData) {
        let client = self.client.clone();
        let work = async move { client.readlink(ino(node)).await };
        let call = Call::names("readlink", req, node);
        self.runner
            .run(call, reply, work, |reply, target| reply.data(&target));
    }

    fn mknod(
        &self,
        req: &Request,
        parent: INodeNo,
        at: &OsStr,
        mode: u32,
        umask: u32,
        rdev: u32,
        reply: ReplyEntry,
    ) {
        let new = node_kind(mode).map(|kind| NewInode {
            rdev: match kind {
                Kind::CharDevice | Kind::BlockDevice => rdev,
                _ => 0,
            },
            ..new_inode(req, kind, mode, umask)
        });
        self.make(Call::names("mknod", req, parent), parent, at, new, reply);
    }

    fn mkdir(
        &self,
        req: &Request,
        parent: INodeNo,
        at: &OsStr,
        mode: u32,
        umask: u32,
        reply: ReplyEntry,
    ) {
        let new = Ok(new_inode(req, Kind::Directory, mode, umask));
        self.make(Call::names("mkdir", req, parent), parent, at, new, reply);
    }

    fn symlink(
        &self,
        req: &Request,
        parent: INodeNo,
        at: &OsStr,
        target: &Path,
        reply: ReplyEntry,
    ) {
        let new = Ok(NewInode {
            target: target.as_os_str().as_bytes().to_vec(),
            ..new_inode(req, Kind::Symlink, 0o777, 0)
        });
        self.make(Call::names("symlink", req, parent), parent, at, new, reply);
    }

    fn unlink(&self, req: &Request, parent: INodeNo, at: &OsStr, reply: ReplyEmpty) {
        let client = self.client.clone();
        let at = name(at);
        let work = async move { client.unlink(ino(parent), &at?).await };
        let call = Call::names("unlink", req, parent);
        self.runner.run(call, reply, work, ok);
    }

    fn rmdir(&self, req: &Request, parent: INodeNo, at: &OsStr, reply: ReplyEmpty) {
        let client = self.client.clone();
        let at = name(at);
        let work = async move { client.rmdir(ino(parent), &at?).await };
        let call = Call::names("rmdir", req, parent);
        self.runner.run(call, reply, work, ok);
    }

    fn rename(
        &self,
        req: &Request,
        parent: INodeNo,
        at: &OsStr,
        new_parent: INodeNo,
        new_at: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let client = self.client.clone();
        let names = name(at).and_then(|old| Ok((old, name(new_at)?)));
        let no_replace = flags.contains(RenameFlags::RENAME_NOREPLACE);
        let exchange = flags.contains(RenameFlags::RENAME_EXCHANGE);
        let known = RenameFlags::RENAME_NOREPLACE | RenameFlags::RENAME_EXCHANGE;
        let bits = flags.bits() & !known.bits();
        let work = async move {
            let (old, new) = names?;
            if bits != 0 {
                return Err(FsError::Invalid);
            }
            let (from, to) = (ino(parent), ino(new_parent));
            client
                .rename(from, &old, to, &new, no_replace, exchange)
                .await
        };
        let call = Call::names("rename", req, parent);
        self.runner.run(call, reply, work, ok);
    }

    fn link(
        &self,
        req: &Request,
        node: INodeNo,
        new_parent: INodeNo,
        new_at: &OsStr,
        reply: ReplyEntry,
    ) {
        let client = self.client.clone();
        let at = name(new_at);
        let work = async move { client.link(ino(node), ino(new_parent), &at?).await };
        let call = Call::names("link", req, node);
        self.runner.run(call, reply, work, entry);
    }

    fn open(&self, req: &Request, node: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let client = self.client.clone();
        let opens = self.opens.clone();
        let track = self.options.readdirplus;
        let options = open_options(caller(req), flags.0);
        let work = async move {
            let opened = client.open(ino(node), options).await?;
            if track {
                opens.opened(ino(node));
            }
            Ok(opened)
        };
        let call = Call::names("open", req, node);
        self.runner.run(call, reply, work, |reply, opened| {
            reply.opened(FileHandle(opened.fh), fopen_flags(&opened));
        });
    }

    fn read(
        &self,
        req: &Request,
        node: INodeNo,
        fh: FileHandle,
        offset: u64,
        size: u32,
        flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let client = self.client.clone();
        // The flag of this request counts: F_SETFL may have changed it since the open.
        let no_atime = flags.0 & libc::O_NOATIME != 0;
        let work = async move {
            match no_atime {
                true => client.read_unnoted(fh.0, offset, size).await,
                false => client.read(fh.0, offset, size).await,
            }
        };
        let call = Call::data("read", req, node, fh.0).range(offset, size.into());
        self.runner
            .run(call, reply, work, |reply, bytes| reply.data(&bytes));
    }

    fn write(
        &self,
        req: &Request,
        node: INodeNo,
        fh: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let client = self.client.clone();
        let caller = caller(req);
        // The library uses its buffer again for the next request.
        let data = Bytes::copy_from_slice(data);
        let call = Call::data("write", req, node, fh.0).range(offset, data.len() as u64);
        // The flag of this request counts: F_SETFL may have changed it since the open.
        let append = flags.0 & libc::O_APPEND != 0;
        let place = (!append).then_some(offset);
        let work = async move { client.write_at(caller, fh.0, place, data).await };
        self.runner
            .run(call, reply, work, |reply, len| reply.written(len));
    }

    fn flush(
        &self,
        req: &Request,
        node: INodeNo,
        fh: FileHandle,
        lock_owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        let client = self.client.clone();
        let work = async move { client.flush(fh.0, lock_owner.0).await };
        let call = Call::data("flush", req, node, fh.0);
        self.runner.run(call, reply, work, ok);
    }

    fn release(
        &self,
        req: &Request,
        node: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        let client = self.client.clone();
        let opens = self.opens.clone();
        let track = self.options.readdirplus;
        let owner = lock_owner.map(|owner| owner.0);
        let work = async move {
            client.release(fh.0, owner).await;
            if track {
                opens.released(ino(node));
            }
            Ok(())
        };
        let call = Call::data("release", req, node, fh.0);
        self.runner.run(call, reply, work, ok);
    }

    fn fsync(
        &self,
        req: &Request,
        node: INodeNo,
        fh: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        let client = self.client.clone();
        let work = async move { client.fsync(fh.0).await };
        let call = Call::data("fsync", req, node, fh.0);
        self.runner.run(call, reply, work, ok);
    }

    fn opendir(&self, req: &Request, node: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let client = self.client.clone();
        let options = open_options(caller(req), flags.0);
        let work = async move { client.opendir(ino(node), options).await };
        let call = Call::names("opendir", req, node);
        self.runner.run(call, reply, work, |reply, fh| {
            reply.opened(FileHandle(fh), FopenFlags::empty());
        });
    }

    fn readdir(
        &self,
        req: &Request,
        node: INodeNo,
        fh: FileHandle,
        offset: u64,
        reply: ReplyDirectory,
    ) {
        let dirs = self.dirs.clone();
        let work = async move { dirs.list(fh.0, offset, false).await };
        let call = Call::names("readdir", req, node).range(offset, 0);
        self.runner
            .run(call, reply, work, move |reply, listing: Listing| {
                fill(reply, &listing, ino(node));
            });
    }

    fn readdirplus(
        &self,
        req: &Request,
        node: INodeNo,
        fh: FileHandle,
        offset: u64,
        reply: ReplyDirectoryPlus,
    ) {
        let dirs = self.dirs.clone();
        let client = self.client.clone();
        let opens = self.opens.clone();
        let work = async move {
            let listing = dirs.list(fh.0, offset, true).await?;
            // A file that is open here may have grown by writes that only this
            // mount knows, and may be newer than a page fetched before.
            let mut own = Vec::new();
            for item in listing.items(ino(node)).take(PLUS_ITEMS_MAX) {
                if let Item::Entry(entry, _) = item
                    && opens.is_open(entry.ino)
                {
                    match client.getattr(entry.ino).await {
                        Ok(attr) => own.push((entry.ino, attr)),
                        // Somebody removed it since the page was fetched.
                        Err(FsError::Stale | FsError::NotFound) => {}
                        Err(error) => return Err(error),
                    }
                }
            }
            Ok((listing, own))
        };
        let call = Call::names("readdirplus", req, node).range(offset, 0);
        self.runner
            .run(call, reply, work, move |reply, (listing, own)| {
                fill_plus(reply, &listing, &own, ino(node));
            });
    }

    fn releasedir(
        &self,
        req: &Request,
        node: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        reply: ReplyEmpty,
    ) {
        self.dirs.forget(fh.0);
        let client = self.client.clone();
        let work = async move {
            client.releasedir(fh.0).await;
            Ok(())
        };
        let call = Call::names("releasedir", req, node);
        self.runner.run(call, reply, work, ok);
    }

    fn fsyncdir(
        &self,
        req: &Request,
        node: INodeNo,
        fh: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        let client = self.client.clone();
        let work = async move { client.fsyncdir(fh.0).await };
        let call = Call::names("fsyncdir", req, node);
        self.runner.run(call, reply, work, ok);
    }

    fn statfs(&self, req: &Request, node: INodeNo, reply: ReplyStatfs) {
        let client = self.client.clone();
        let work = async move { client.statfs().await };
        let call = Call::names("statfs", req, node);
        self.runner.run(call, reply, work, statfs);
    }

    fn setxattr(
        &self,
        req: &Request,
        node: INodeNo,
        at: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        let client = self.client.clone();
        let at = xattr_name(at);
        let value = value.to_vec();
        let mode = xattr_mode(flags);
        let caller = caller(req);
        let work = async move {
            let (at, node) = (at?, ino(node));
            if at == ACCESS_LIST {
                let rights = Rights::of(caller);
                if !rights.fsetid {
                    let in_group = |gid| rights.groups.contains(&gid);
                    return client.set_access_list(node, &value, in_group).await;
                }
            }
            client.setxattr(node, &at, &value, mode?).await
        };
        let call = Call::names("setxattr", req, node);
        self.runner.run(call, reply, work, ok);
    }

    fn getxattr(&self, req: &Request, node: INodeNo, at: &OsStr, size: u32, reply: ReplyXattr) {
        let client = self.client.clone();
        let (at, profile) = (xattr_name(at), self.runner.profile());
        let work = async move {
            let value = profile::xattr(&client, &profile, ino(node), &at?).await?;
            fits(value, size)
        };
        let call = Call::names("getxattr", req, node);
        self.runner
            .run(call, reply, work, move |reply, v| xattr(reply, &v, size));
    }

    fn listxattr(&self, req: &Request, node: INodeNo, size: u32, reply: ReplyXattr) {
        let client = self.client.clone();
        let root = caller(req).privileged();
        let work = async move {
            let mut names = client.listxattr(ino(node)).await?;
            names.retain(|name| root || !name.starts_with(TRUSTED));
            fits(xattr_list(&names), size)
        };
        let call = Call::names("listxattr", req, node);
        self.runner
            .run(call, reply, work, move |reply, v| xattr(reply, &v, size));
    }

    fn removexattr(&self, req: &Request, node: INodeNo, at: &OsStr, reply: ReplyEmpty) {
        let client = self.client.clone();
        let at = xattr_name(at);
        let work = async move { client.removexattr(ino(node), &at?).await };
        let call = Call::names("removexattr", req, node);
        self.runner.run(call, reply, work, ok);
    }

    fn access(&self, _req: &Request, _node: INodeNo, _mask: AccessFlags, reply: ReplyEmpty) {
        // The kernel checks by itself (default_permissions) and does not ask.
        reply.ok();
    }

    fn create(
        &self,
        req: &Request,
        parent: INodeNo,
        at: &OsStr,
        mode: u32,
        umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let client = self.client.clone();
        let opens = self.opens.clone();
        let track = self.options.readdirplus;
        let at = name(at);
        let new = new_inode(req, Kind::File, mode, umask);
        let exclusive = flags & libc::O_EXCL != 0;
        let options = open_options(caller(req), flags);
        let work = async move {
            let made = client
                .create(ino(parent), &at?, new, exclusive, options)
                .await?;
            if track {
                opens.opened(made.0.ino);
            }
            Ok(made)
        };
        let call = Call::names("create", req, parent);
        self.runner.run(call, reply, work, created);
    }

    fn getlk(
        &self,
        req: &Request,
        node: INodeNo,
        fh: FileHandle,
        owner: LockOwner,
        start: u64,
        end: u64,
        typ: i32,
        pid: u32,
        reply: ReplyLock,
    ) {
        let client = self.client.clone();
        let lock = lock(owner.0, (start, end), typ, pid);
        let work = async move { client.getlk(ino(node), lock?).await };
        let call = Call::data("getlk", req, node, fh.0).range(start, end);
        self.runner.run(call, reply, work, |reply, found| {
            let (start, end, typ, pid) = lock_reply(found);
            reply.locked(start, end, typ, pid);
        });
    }

    fn setlk(
        &self,
        req: &Request,
        node: INodeNo,
        fh: FileHandle,
        owner: LockOwner,
        start: u64,
        end: u64,
        typ: i32,
        pid: u32,
        sleep: bool,
        reply: ReplyEmpty,
    ) {
        let client = self.client.clone();
        let lock = lock(owner.0, (start, end), typ, pid);
        // The header's id is the thread that waits, `pid` the lock's process.
        let waiting = req.pid();
        let patience = self.runner.deadline();
        let work = async move {
            let since = Instant::now();
            let ask = move || Waiter {
                interrupted: waiter::interrupted(waiting)
                    || waiter::unseen(waiting, since, patience),
                process_lock: waiter::waits_as_process(waiting),
            };
            client
                .setlk_through(fh.0, ino(node), lock?, sleep, ask)
                .await
        };
        let call = Call::data("setlk", req, node, fh.0).range(start, end);
        let call = if sleep { call.unbounded() } else { call };
        self.runner.run(call, reply, work, ok);
    }

    fn fallocate(
        &self,
        req: &Request,
        node: INodeNo,
        fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let caller = caller(req);
        let client = self.client.clone();
        let work = async move { client.fallocate(caller, fh.0, offset, length, mode).await };
        let call = Call::data("fallocate", req, node, fh.0).range(offset, length);
        self.runner.run(call, reply, work, ok);
    }

    fn lseek(
        &self,
        req: &Request,
        node: INodeNo,
        fh: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        let client = self.client.clone();
        let at = u64::try_from(offset).map_err(|_| FsError::NoSuchOffset);
        let seek = match whence {
            libc::SEEK_DATA => Ok(Seek::Data),
            libc::SEEK_HOLE => Ok(Seek::Hole),
            _ => Err(FsError::Invalid),
        };
        let work = async move {
            let found = client.lseek(fh.0, at?, seek?).await?;
            i64::try_from(found).map_err(|_| FsError::FileTooLarge)
        };
        let call = Call::data("lseek", req, node, fh.0).range(offset.unsigned_abs(), 0);
        self.runner
            .run(call, reply, work, |reply, found| reply.offset(found));
    }

    fn copy_file_range(
        &self,
        req: &Request,
        node_in: INodeNo,
        fh_in: FileHandle,
        offset_in: u64,
        _node_out: INodeNo,
        fh_out: FileHandle,
        offset_out: u64,
        len: u64,
        flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        let client = self.client.clone();
        let caller = caller(req);
        let span = CopySpan {
            from: fh_in.0,
            from_offset: offset_in,
            to: fh_out.0,
            to_offset: offset_out,
            // A reply can say no more.
            len: len.min(COPY_LEN_MAX),
        };
        let work = async move {
            if !flags.is_empty() {
                return Err(FsError::Invalid);
            }
            let done = client.copy_file_range(caller, span).await?;
            u32::try_from(done).map_err(|_| FsError::FileTooLarge)
        };
        let call = Call::data("copy_file_range", req, node_in, fh_in.0).range(offset_in, len);
        self.runner
            .run(call, reply, work, |reply, done| reply.written(done));
    }

    // These answers make the kernel do the work itself, or refuse the call, and not
    // ask again.

    fn bmap(&self, _req: &Request, _node: INodeNo, _blocksize: u32, _idx: u64, reply: ReplyBmap) {
        reply.error(Errno::ENOSYS);
    }

    fn ioctl(
        &self,
        _req: &Request,
        _node: INodeNo,
        _fh: FileHandle,
        _flags: IoctlFlags,
        _cmd: u32,
        _in_data: &[u8],
        _out_size: u32,
        reply: ReplyIoctl,
    ) {
        reply.error(Errno::ENOTTY);
    }

    fn poll(
        &self,
        _req: &Request,
        _node: INodeNo,
        _fh: FileHandle,
        _ph: PollNotifier,
        _events: PollEvents,
        _flags: PollFlags,
        reply: ReplyPoll,
    ) {
        reply.error(Errno::ENOSYS);
    }
}
