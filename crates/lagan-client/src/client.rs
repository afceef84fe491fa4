//! A session with a cluster.

use crate::error::ConnectError;
use crate::options::{
    Caller, DirPage, Invalidate, NewInode, OpenOptions, Opened, Options, Seek, StatFs,
};
use bytes::Bytes;
use lagan_types::op::{LockRange, SetAttr, XattrMode};
use lagan_types::{Attr, FsError, Ino, SessionId};
use std::sync::Arc;
use std::time::Duration;

/// The file system of one mount.
pub struct Client;

#[allow(unused_variables)]
impl Client {
    /// Opens a session.
    ///
    /// # Errors
    /// The text says what to do.
    pub async fn connect(options: Options) -> Result<Arc<Client>, ConnectError> {
        Err(ConnectError::NoServers)
    }
    /// Sets what is called, off the callers' threads, when kernel pages are stale; it may block.
    pub fn on_invalidate(&self, f: Box<dyn Fn(Invalidate) + Send + Sync>) {}
    /// This mount's session.
    pub fn session(&self) -> SessionId {
        SessionId::SYSTEM
    }
    /// Flushes everything and closes the session.
    pub async fn shutdown(&self, deadline: Duration) -> Result<(), FsError> {
        Err(FsError::Unsupported)
    }
    /// lookup.
    pub async fn lookup(&self, parent: Ino, name: &[u8]) -> Result<Attr, FsError> {
        Err(FsError::Unsupported)
    }
    /// getattr, merged with this mount's unflushed writes.
    pub async fn getattr(&self, ino: Ino) -> Result<Attr, FsError> {
        Err(FsError::Unsupported)
    }
    /// setattr.
    pub async fn setattr(&self, caller: Caller, ino: Ino, set: SetAttr) -> Result<Attr, FsError> {
        Err(FsError::Unsupported)
    }
    /// mknod, mkdir, symlink.
    pub async fn make(&self, parent: Ino, name: &[u8], new: NewInode) -> Result<Attr, FsError> {
        Err(FsError::Unsupported)
    }
    /// create and open.
    pub async fn create(
        &self,
        parent: Ino,
        name: &[u8],
        new: NewInode,
        exclusive: bool,
        open: OpenOptions,
    ) -> Result<(Attr, Opened), FsError> {
        Err(FsError::Unsupported)
    }
    /// readlink.
    pub async fn readlink(&self, ino: Ino) -> Result<Vec<u8>, FsError> {
        Err(FsError::Unsupported)
    }
    /// link.
    pub async fn link(&self, ino: Ino, parent: Ino, name: &[u8]) -> Result<Attr, FsError> {
        Err(FsError::Unsupported)
    }
    /// unlink.
    pub async fn unlink(&self, parent: Ino, name: &[u8]) -> Result<(), FsError> {
        Err(FsError::Unsupported)
    }
    /// rmdir.
    pub async fn rmdir(&self, parent: Ino, name: &[u8]) -> Result<(), FsError> {
        Err(FsError::Unsupported)
    }
    /// rename.
    pub async fn rename(
        &self,
        parent: Ino,
        name: &[u8],
        new_parent: Ino,
        new_name: &[u8],
        no_replace: bool,
        exchange: bool,
    ) -> Result<(), FsError> {
        Err(FsError::Unsupported)
    }
    /// open.
    pub async fn open(&self, ino: Ino, open: OpenOptions) -> Result<Opened, FsError> {
        Err(FsError::Unsupported)
    }
    /// read; short only at the end.
    pub async fn read(&self, fh: u64, offset: u64, len: u32) -> Result<Bytes, FsError> {
        Err(FsError::Unsupported)
    }
    /// write.
    pub async fn write(
        &self,
        caller: Caller,
        fh: u64,
        offset: u64,
        data: Bytes,
    ) -> Result<u32, FsError> {
        Err(FsError::Unsupported)
    }
    /// close(2) of one descriptor.
    pub async fn flush(&self, fh: u64, lock_owner: u64) -> Result<(), FsError> {
        Err(FsError::Unsupported)
    }
    /// fsync.
    pub async fn fsync(&self, fh: u64) -> Result<(), FsError> {
        Err(FsError::Unsupported)
    }
    /// The last descriptor of a handle is gone.
    pub async fn release(&self, fh: u64, flock_owner: Option<u64>) {}
    /// opendir.
    pub async fn opendir(&self, ino: Ino) -> Result<u64, FsError> {
        Err(FsError::Unsupported)
    }
    /// readdir.
    pub async fn readdir(&self, fh: u64, cookie: u64, attrs: bool) -> Result<DirPage, FsError> {
        Err(FsError::Unsupported)
    }
    /// closedir.
    pub async fn releasedir(&self, fh: u64) {}
    /// fsync of a directory.
    pub async fn fsyncdir(&self, fh: u64) -> Result<(), FsError> {
        Err(FsError::Unsupported)
    }
    /// statfs.
    pub async fn statfs(&self) -> Result<StatFs, FsError> {
        Err(FsError::Unsupported)
    }
    /// getxattr.
    pub async fn getxattr(&self, ino: Ino, name: &[u8]) -> Result<Vec<u8>, FsError> {
        Err(FsError::Unsupported)
    }
    /// setxattr.
    pub async fn setxattr(
        &self,
        ino: Ino,
        name: &[u8],
        value: &[u8],
        mode: XattrMode,
    ) -> Result<(), FsError> {
        Err(FsError::Unsupported)
    }
    /// listxattr.
    pub async fn listxattr(&self, ino: Ino) -> Result<Vec<Vec<u8>>, FsError> {
        Err(FsError::Unsupported)
    }
    /// removexattr.
    pub async fn removexattr(&self, ino: Ino, name: &[u8]) -> Result<(), FsError> {
        Err(FsError::Unsupported)
    }
    /// fallocate.
    pub async fn fallocate(
        &self,
        fh: u64,
        offset: u64,
        len: u64,
        mode: i32,
    ) -> Result<(), FsError> {
        Err(FsError::Unsupported)
    }
    /// lseek.
    pub async fn lseek(&self, fh: u64, offset: u64, whence: Seek) -> Result<u64, FsError> {
        Err(FsError::Unsupported)
    }
    /// F_GETLK.
    pub async fn getlk(&self, ino: Ino, lock: LockRange) -> Result<Option<LockRange>, FsError> {
        Err(FsError::Unsupported)
    }
    /// F_SETLK, F_SETLKW.
    pub async fn setlk(
        &self,
        ino: Ino,
        lock: LockRange,
        wait: bool,
        interrupted: impl Fn() -> bool + Send + Sync,
    ) -> Result<(), FsError> {
        Err(FsError::Unsupported)
    }
}
