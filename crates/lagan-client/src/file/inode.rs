//! Open files: what this mount knows of each inode it has open, and the handles.
//!
//! Lock order: table of inodes, table of handles, one inode's state. None is
//! held across an await.

use crate::file::appends::Appends;
use crate::file::buffer::Buffer;
use crate::file::map::FileMap;
use crate::options::OpenOptions;
use lagan_types::access::Access;
use lagan_types::{Attr, FsError, Ino, Time};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tokio::sync::Notify;
use tokio::time::Instant;

/// An inode that is open here, or has unflushed data.
#[derive(Debug)]
pub(crate) struct Inode {
    /// Its number.
    pub ino: Ino,
    /// Held by whoever commits: one at a time, so that commits are in order.
    pub turn: tokio::sync::Mutex<()>,
    /// Everything that changes.
    pub state: Mutex<InodeState>,
    /// A background flush is under way or about to be.
    pub flushing: AtomicBool,
    /// A commit has ended.
    pub committed: Notify,
}

/// A commit of positional writes under way; it ends when this is dropped.
pub(crate) struct UnderWay<'a>(&'a Inode);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.state.lock().committing = None;
        self.0.committed.notify_waiters();
    }
}

impl Inode {
    /// A commit is about to be sent.
    pub fn begin_commit(&self) -> UnderWay<'_> {
        let mut state = self.state.lock();
        state.committing = Some(state.version);
        UnderWay(self)
    }

    /// Waits until it is known whether what was written here comes before or
    /// after that version; false if that takes too long.
    pub async fn settled(&self, version: u64, until: Instant) -> bool {
        loop {
            let ended = self.committed.notified();
            if !self.state.lock().is_unsettled(version) {
                return true;
            }
            if tokio::time::timeout_at(until, ended).await.is_err() {
                return false;
            }
        }
    }
}

/// What is known of an inode.
#[derive(Debug, Default)]
pub(crate) struct InodeState {
    /// The newest attributes seen, by ctime, which strictly rises.
    pub attr: Option<Attr>,
    /// The newest data version seen.
    pub version: u64,
    /// Extents; used only if of `version`.
    pub map: Option<FileMap>,
    /// Positional writes that are not committed.
    pub buffer: Buffer,
    /// Appends that are not committed.
    pub appends: Appends,
    /// An unprivileged caller wrote.
    pub kill_suid: bool,
    /// The version that was known when the commit under way was sent.
    pub committing: Option<u64>,
    /// Since when there is something to commit.
    pub dirty_since: Option<Instant>,
    /// Wall time of the last write that is not committed.
    pub wrote_at: Time,
    /// Errors of deferred writes, counted, and the last.
    pub errors: (u64, Option<FsError>),
    /// The read that was noted last: the ctime that was known, and the second.
    noted: Option<(Time, i64)>,
}

impl InodeState {
    /// Whether a flush has something to do or to wait for.
    pub fn is_dirty(&self) -> bool {
        !self.buffer.is_empty() || !self.appends.is_empty()
    }

    /// Whether a commit is under way that may be part of that version, or of
    /// one before: then the buffer may no longer be laid over it.
    pub fn is_unsettled(&self, version: u64) -> bool {
        self.committing.is_some_and(|known| version > known)
    }

    /// Bytes held for commits.
    pub fn held_bytes(&self) -> u64 {
        self.buffer.held_bytes() + self.appends.held_bytes()
    }

    /// Learns attributes that came from the leader.
    pub fn learn(&mut self, attr: &Attr) {
        self.version = self.version.max(attr.version);
        if self.attr.as_ref().is_none_or(|a| a.ctime <= attr.ctime) {
            self.attr = Some(attr.clone());
        }
    }

    /// Learns a page of extents.
    pub fn learn_map(&mut self, page: FileMap) {
        self.version = self.version.max(page.version());
        match &mut self.map {
            Some(map) if map.version() > page.version() => {}
            Some(map) => map.merge(page),
            None => self.map = Some(page),
        }
    }

    /// The attributes as this mount's processes see them: with what it wrote.
    /// `attr` came from the leader.
    pub fn merged(&mut self, attr: Attr) -> Attr {
        self.learn(&attr);
        let mut attr = self.attr.clone().unwrap_or(attr);
        if !self.buffer.is_empty() {
            attr.size = attr.size.max(self.buffer.end());
            attr.mtime = attr.mtime.max(self.wrote_at);
            attr.ctime = attr.ctime.max(self.wrote_at);
        }
        attr
    }

    /// The file is read. Gives what is to be told of it: nothing if that would
    /// not move the access time, or was noted in the same second.
    pub fn accessed(&mut self, now: Time) -> Option<Access> {
        let attr = self.attr.as_mut()?;
        let noted = Some((attr.ctime, now.secs));
        let atime = attr.times().accessed(now, now)?;
        if self.noted == noted {
            return None;
        }
        self.noted = noted;
        // Not again until something else is learned.
        attr.atime = atime;
        Some(Access {
            ino: attr.ino,
            ctime: attr.ctime,
            at: now,
        })
    }

    /// Learns that a promised file was made: the attributes that the leader showed
    /// before do not count any more, whatever its clock said.
    pub fn replace_attr(&mut self, promised: &Attr, made: &Attr) {
        if self.attr.as_ref() == Some(promised) {
            self.attr = None;
        }
        self.learn(made);
    }

    /// Something was written.
    pub fn wrote(&mut self, kill_suid: bool, now: Time) {
        self.kill_suid |= kill_suid;
        self.wrote_at = now;
        self.dirty_since.get_or_insert_with(Instant::now);
    }

    /// A deferred write failed.
    pub fn failed(&mut self, error: FsError) {
        self.errors = (self.errors.0 + 1, Some(error));
    }

    /// Forgets all that is not committed; returns how many bytes that were.
    pub fn discard(&mut self) -> u64 {
        self.kill_suid = false;
        self.dirty_since = None;
        self.buffer.clear() + self.appends.clear()
    }
}

/// An open file.
#[derive(Debug)]
pub(crate) struct Handle {
    /// Its inode.
    pub inode: Arc<Inode>,
    /// How it was opened.
    pub options: OpenOptions,
    /// Errors of the inode that were reported through it or were there before.
    seen_errors: AtomicU64,
    /// What it wrote or locked was lost with the session.
    ended: AtomicBool,
    /// The reader's place.
    pub ahead: Mutex<ReadAhead>,
}

/// Where a sequential reader is.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct ReadAhead {
    /// Where the last read ended.
    pub next: u64,
    /// Bytes read in a row.
    pub run: u64,
    /// What was asked for ahead ends here.
    pub asked_to: u64,
}

impl Handle {
    /// # Errors
    /// [`FsError::SessionEnded`] if the handle must be opened again.
    pub fn check(&self) -> Result<(), FsError> {
        if self.ended.load(Ordering::Acquire) {
            return Err(FsError::SessionEnded);
        }
        Ok(())
    }

    /// An error of deferred writes, once per handle.
    pub fn take_error(&self) -> Result<(), FsError> {
        let (count, last) = self.inode.state.lock().errors;
        match last {
            Some(error) if self.seen_errors.swap(count, Ordering::AcqRel) < count => Err(error),
            _ => Ok(()),
        }
    }

    /// Whether reads and writes do not go through the kernel's pages.
    pub fn is_direct(&self) -> bool {
        self.options.direct || self.options.append
    }
}

/// The tables.
#[derive(Debug, Default)]
pub(crate) struct Files {
    inodes: Mutex<HashMap<Ino, (Arc<Inode>, u64)>>,
    handles: Mutex<HashMap<u64, Arc<Handle>>>,
    next_fh: AtomicU64,
}

impl Files {
    /// A number for a new handle, of files or directories.
    pub fn next_fh(&self) -> u64 {
        self.next_fh.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Counts an open of the inode, before the leader is asked: from now on it
    /// is not reported as closed. Undone by [`Files::unpin`].
    pub fn pin(&self, ino: Ino) -> Arc<Inode> {
        let mut inodes = self.inodes.lock();
        let entry = inodes.entry(ino).or_insert_with(|| {
            let inode = Inode {
                ino,
                turn: tokio::sync::Mutex::default(),
                state: Mutex::default(),
                flushing: AtomicBool::new(false),
                committed: Notify::new(),
            };
            (Arc::new(inode), 0)
        });
        entry.1 += 1;
        entry.0.clone()
    }

    /// Undoes [`Files::pin`]. The last time it gives the inode, which may hold
    /// what could not be flushed.
    pub fn unpin(&self, ino: Ino) -> Option<Arc<Inode>> {
        let mut inodes = self.inodes.lock();
        let entry = inodes.get_mut(&ino)?;
        entry.1 -= 1;
        if entry.1 > 0 {
            return None;
        }
        inodes.remove(&ino).map(|(inode, _)| inode)
    }

    /// The inode, if it is open.
    pub fn inode(&self, ino: Ino) -> Option<Arc<Inode>> {
        self.inodes.lock().get(&ino).map(|(i, _)| i.clone())
    }

    /// Whether it is open, or being opened.
    pub fn is_open(&self, ino: Ino) -> bool {
        self.inodes.lock().contains_key(&ino)
    }

    /// How many opens count.
    pub fn opens(&self, ino: Ino) -> u64 {
        self.inodes.lock().get(&ino).map_or(0, |(_, n)| *n)
    }

    /// All open inodes.
    pub fn inodes(&self) -> Vec<Arc<Inode>> {
        let inodes = self.inodes.lock();
        inodes.values().map(|(i, _)| i.clone()).collect()
    }

    /// Makes a handle of a pinned inode.
    pub fn insert(&self, inode: Arc<Inode>, options: OpenOptions) -> u64 {
        let fh = self.next_fh();
        let seen = inode.state.lock().errors.0;
        let handle = Handle {
            inode,
            options,
            seen_errors: AtomicU64::new(seen),
            ended: AtomicBool::new(false),
            ahead: Mutex::default(),
        };
        self.handles.lock().insert(fh, Arc::new(handle));
        fh
    }

    /// # Errors
    /// [`FsError::Stale`] for a handle that is not open.
    pub fn handle(&self, fh: u64) -> Result<Arc<Handle>, FsError> {
        self.handles.lock().get(&fh).cloned().ok_or(FsError::Stale)
    }

    /// Takes a handle out; its inode stays pinned.
    pub fn remove(&self, fh: u64) -> Option<Arc<Handle>> {
        self.handles.lock().remove(&fh)
    }

    /// All handles of the inode must be opened again.
    pub fn end_handles(&self, ino: Ino) {
        for handle in self.handles.lock().values() {
            if handle.inode.ino == ino {
                handle.ended.store(true, Ordering::Release);
            }
        }
    }
}

/// The local wall clock: what a user sees of a write before its commit.
pub(crate) fn wall_time() -> Time {
    Time::after_1970(lagan_host::wall::since_1970())
}
