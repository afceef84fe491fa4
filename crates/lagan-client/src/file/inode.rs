//! An open inode: what this mount knows of it, and what it wrote and did not commit.
//!
//! The lock of an inode's state comes after those of [`crate::file::table`]. Under it
//! only these are taken: that of [`crate::file::pages`] and, when pieces are dropped,
//! that of the chunk ids. It is not held across an await.

use crate::file::appends::Appends;
use crate::file::buffer::Buffer;
use crate::file::map::FileMap;
use lagan_types::access::Access;
use lagan_types::{Attr, FsError, Ino, Time};
use parking_lot::Mutex;
use std::sync::atomic::AtomicBool;
use tokio::sync::Notify;
use tokio::time::Instant;

/// An inode that is open here, or has unflushed data.
#[derive(Debug)]
pub(crate) struct Inode {
    /// The inode's number.
    pub ino: Ino,
    /// Held by the call that commits: one at a time, so that commits are in order.
    pub(super) turn: tokio::sync::Mutex<()>,
    /// Everything that changes.
    pub(super) state: Mutex<InodeState>,
    /// A background flush is under way or about to be.
    pub(super) flushing: AtomicBool,
    /// Told whenever a commit has ended.
    committed: Notify,
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
    /// Starts without knowing anything of the inode.
    pub fn new(ino: Ino) -> Self {
        Inode {
            ino,
            turn: tokio::sync::Mutex::default(),
            state: Mutex::default(),
            flushing: AtomicBool::new(false),
            committed: Notify::new(),
        }
    }

    /// Whether appends wait for their commit.
    pub fn has_appends(&self) -> bool {
        !self.state.lock().appends.is_empty()
    }

    /// Learns attributes that came from the leader.
    pub fn learn(&self, attr: &Attr) {
        self.state.lock().learn(attr);
    }

    /// Learns attributes and a page of extents that came in one answer of the leader.
    pub fn learn_both(&self, attr: &Attr, page: FileMap) {
        let mut state = self.state.lock();
        state.learn_map(page);
        state.learn(attr);
    }

    /// Forgets the extents: they are asked for when they are needed.
    pub fn forget_map(&self) {
        self.state.lock().map = None;
    }

    /// The attributes as this mount's processes see them: with what it wrote.
    /// `attr` came from the leader.
    pub fn merged(&self, attr: Attr) -> Attr {
        self.state.lock().merged(attr)
    }

    /// Notes a read of the file; see [`InodeState::accessed`].
    pub fn accessed(&self, now: Time) -> Option<Access> {
        self.state.lock().accessed(now)
    }

    /// Begins a commit: it is about to be sent.
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

/// The knowledge of an inode, and its data that is not committed.
#[derive(Debug, Default)]
pub(crate) struct InodeState {
    /// The newest attributes seen, by ctime, which strictly rises.
    pub attr: Option<Attr>,
    /// The newest data version seen.
    pub version: u64,
    /// Extents; they are used only if they are of `version`.
    pub map: Option<FileMap>,
    /// Positional writes that are not committed.
    pub buffer: Buffer,
    /// Appends that are not committed.
    pub appends: Appends,
    /// An unprivileged caller wrote: the commit clears setuid and setgid.
    pub kill_suid: bool,
    /// The version that was known when the commit under way was sent.
    pub committing: Option<u64>,
    /// When the oldest bytes that are not committed were written, or the last commit
    /// ended, if that was later.
    pub dirty_since: Option<Instant>,
    /// Wall time of the last write that is not committed.
    pub wrote_at: Time,
    /// The time of the content's last change, if it was set after the last write, and that was
    /// not committed then.
    pub set_mtime: Option<Time>,
    /// How many deferred writes failed, and the error of the last.
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
            // It was set since, and by nobody else after that.
            if self.set_mtime != Some(attr.mtime) {
                attr.mtime = attr.mtime.max(self.wrote_at);
            }
            attr.ctime = attr.ctime.max(self.wrote_at);
        }
        attr
    }

    /// Notes a read of the file. Returns what the leader is to hear: nothing if the
    /// read does not move the access time, or was noted in the same second.
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

    /// Notes that something was written.
    pub fn wrote(&mut self, kill_suid: bool, now: Time) {
        self.kill_suid |= kill_suid;
        self.wrote_at = now;
        self.set_mtime = None;
        self.dirty_since.get_or_insert_with(Instant::now);
    }

    /// Notes that a deferred write failed.
    pub fn failed(&mut self, error: FsError) {
        self.errors = (self.errors.0 + 1, Some(error));
    }

    /// Drops all bytes that are not committed; returns how many these were.
    pub fn discard(&mut self) -> u64 {
        self.kill_suid = false;
        self.dirty_since = None;
        self.buffer.clear() + self.appends.clear()
    }
}
