//! Promises: created names that are not replicated yet, and exist by the leader's word only, or,
//! in a directory that this mount uses alone, by its own.
//!
//! Whoever promised it keeps such a name in memory (no sync); the first commit makes the
//! file, in the same step. What must hold:
//! - A close, an fsync and every call about the file but reads of its attributes
//!   come after it was made; so does an fsync of its directory.
//! - A file that stays open is made soon all the same: what a leader promised and
//!   did not replicate is lost with it.
//! - A leader of a later term is told how many promises of earlier ones are left,
//!   and lets nobody take names until none is (docs/DESIGN.md "Promises"). A promise
//!   that arrives after that was said is not taken.
//!
//! This file is the table; `make.rs` has the files made.

use lagan_types::op::{NewFile, SetAttr};
use lagan_types::{Attr, Ino, SessionId, Time};
use parking_lot::Mutex;
use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// A file that stays open without a commit is made after this.
pub(super) const MAKE_AFTER: Duration = Duration::from_millis(100);
/// Directories whose loss of a name is remembered for their fsync(2), at most. The
/// files' own handles tell in any case.
const LOST_MAX: usize = 4096;

/// A promised file.
#[derive(Debug, Clone)]
pub(crate) struct Promise {
    /// The file that is to be made.
    pub file: NewFile,
    /// The session that it was promised to, or that promised it.
    pub session: SessionId,
    /// The file as it was shown.
    pub attr: Attr,
    /// The term of the leader that promised it, or gave this mount the directory.
    pub term: u64,
    /// When the promise arrived.
    pub since: Instant,
    /// Somebody is told of the file: as it is now it is made.
    pub told: bool,
}

#[derive(Debug, Default)]
struct Inner {
    promises: HashMap<Ino, Promise>,
    /// The newest term of a leader that is known.
    term: u64,
    /// A task has files made that wait for long.
    sweeping: bool,
    /// Directories that lost a promised name since their last fsync.
    lost: BTreeSet<Ino>,
}

impl Inner {
    fn lose(&mut self, parent: Ino) {
        if self.lost.len() < LOST_MAX {
            self.lost.insert(parent);
        }
    }
}

/// The promises of this mount.
#[derive(Debug, Default)]
pub(crate) struct Promises {
    inner: Mutex<Inner>,
    /// How many promises there are, so that calls without any take no lock.
    count: AtomicUsize,
}

impl Promises {
    /// Whether nothing is promised.
    pub fn is_empty(&self) -> bool {
        self.count.load(Ordering::Acquire) == 0
    }

    /// Adds a promise, unless it is of a term that is over; false: it was not added.
    pub fn add(&self, promise: Promise) -> bool {
        let mut inner = self.inner.lock();
        if promise.term < inner.term {
            return false;
        }
        inner.term = promise.term;
        inner.promises.insert(promise.file.ino, promise);
        self.count.store(inner.promises.len(), Ordering::Release);
        true
    }

    /// The promise of that inode.
    pub fn get(&self, ino: Ino) -> Option<Promise> {
        if self.is_empty() {
            return None;
        }
        self.inner.lock().promises.get(&ino).cloned()
    }

    /// The promise of that inode, to be kept: the file stays as it is from now on.
    pub fn keep(&self, ino: Ino) -> Option<Promise> {
        if self.is_empty() {
            return None;
        }
        let mut inner = self.inner.lock();
        let promise = inner.promises.get_mut(&ino)?;
        promise.told = true;
        Some(promise.clone())
    }

    /// Sets attributes of a file that nobody was told of, in a directory that has these
    /// ([`NewFile::set`]). Returns the attributes that it has then.
    pub fn set(&self, ino: Ino, dir: &Attr, set: &SetAttr, now: Time) -> Option<Attr> {
        let mut inner = self.inner.lock();
        let promise = inner.promises.get_mut(&ino).filter(|p| !p.told)?;
        if !promise.file.set(dir, set, now) {
            return None;
        }
        promise.attr = promise.file.attr(dir);
        Some(promise.attr.clone())
    }

    /// Removes a promise that was kept, or is not wanted.
    pub fn remove(&self, ino: Ino) -> Option<Promise> {
        self.take(&mut self.inner.lock(), ino)
    }

    fn take(&self, inner: &mut Inner, ino: Ino) -> Option<Promise> {
        let promise = inner.promises.remove(&ino);
        self.count.store(inner.promises.len(), Ordering::Release);
        promise
    }

    /// Removes the promise of a file that was not made. Its directory lost a name,
    /// which is known as soon as the promise is gone. Returns whether there was one.
    pub fn lose(&self, ino: Ino) -> bool {
        let mut inner = self.inner.lock();
        let promise = self.take(&mut inner, ino);
        if let Some(promise) = &promise {
            inner.lose(promise.file.parent);
        }
        promise.is_some()
    }

    /// Removes all promises, since the session is over. Returns the inodes that had one.
    pub fn clear(&self) -> Vec<Ino> {
        let mut inner = self.inner.lock();
        self.count.store(0, Ordering::Release);
        let promises = std::mem::take(&mut inner.promises);
        for promise in promises.values() {
            inner.lose(promise.file.parent);
        }
        promises.into_keys().collect()
    }

    /// Whether the directory lost a name since the last call for it.
    pub fn take_lost(&self, directory: Ino) -> bool {
        self.inner.lock().lost.remove(&directory)
    }

    /// Learns a leader's term. Returns the newest term, and how many promises of earlier ones are left.
    pub fn learn_term(&self, term: u64) -> (u64, u32) {
        let mut inner = self.inner.lock();
        inner.term = inner.term.max(term);
        let newest = inner.term;
        let older = inner.promises.values().filter(|p| p.term < newest).count();
        (newest, u32::try_from(older).unwrap_or(u32::MAX))
    }

    /// The promised files that a call touches.
    pub fn touched(&self, touches: impl Fn(&NewFile) -> bool) -> Vec<Ino> {
        let inner = self.inner.lock();
        let files = inner.promises.values().map(|p| &p.file);
        files.filter(|f| touches(f)).map(|f| f.ino).collect()
    }

    /// Begins a sweep; true for the one caller that is to sweep.
    pub fn begin_sweep(&self) -> bool {
        !std::mem::replace(&mut self.inner.lock().sweeping, true)
    }

    /// The files that wait for long. `None`: nothing is promised, and the sweep is over.
    pub fn sweep(&self) -> Option<Vec<Ino>> {
        let mut inner = self.inner.lock();
        if inner.promises.is_empty() {
            inner.sweeping = false;
            return None;
        }
        let old = inner
            .promises
            .values()
            .filter(|p| p.since.elapsed() >= MAKE_AFTER);
        Some(old.map(|p| p.file.ino).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lagan_types::Kind;
    use lagan_types::attr::ArchiveState;

    fn promise(ino: u64, term: u64) -> Promise {
        let time = Time::default();
        let attr = Attr {
            ino: Ino(ino),
            kind: Kind::File,
            mode: 0o644,
            uid: 0,
            gid: 0,
            nlink: 1,
            size: 0,
            allocated: 0,
            rdev: 0,
            atime: time,
            mtime: time,
            ctime: time,
            btime: time,
            version: 1,
            archive: ArchiveState::Local,
        };
        Promise {
            file: NewFile {
                ino: Ino(ino),
                parent: Ino(1),
                name: ino.to_string().into_bytes(),
                mode: 0o644,
                uid: 0,
                gid: 0,
                time,
                set: None,
            },
            session: SessionId(1),
            attr,
            term,
            since: Instant::now(),
            told: false,
        }
    }

    #[test]
    fn promise_of_a_leader_that_is_over_is_not_taken() {
        let promises = Promises::default();
        assert!(promises.add(promise(5, 3)));
        assert_eq!(promises.learn_term(3), (3, 0));
        assert_eq!(promises.learn_term(4), (4, 1));
        assert!(!promises.add(promise(6, 3)));
        assert!(promises.add(promise(7, 4)));
        promises.remove(Ino(5));
        assert_eq!(promises.learn_term(0), (4, 0));
        assert!(promises.get(Ino(7)).is_some());
    }

    #[test]
    fn directory_hears_once_of_each_way_to_lose_a_name() {
        let promises = Promises::default();
        assert!(!promises.take_lost(Ino(1)));
        promises.add(promise(5, 3));
        promises.remove(Ino(5));
        assert!(!promises.take_lost(Ino(1)), "it was made");
        promises.add(promise(6, 3));
        assert!(promises.lose(Ino(6)) && !promises.lose(Ino(6)));
        assert!(!promises.take_lost(Ino(2)), "another directory");
        assert!(promises.take_lost(Ino(1)) && !promises.take_lost(Ino(1)));
        promises.add(promise(7, 3));
        assert_eq!(promises.clear(), [Ino(7)]);
        assert!(promises.take_lost(Ino(1)) && !promises.take_lost(Ino(1)));
    }

    #[test]
    fn sweep_ends_when_nothing_is_promised() {
        let promises = Promises::default();
        promises.add(promise(5, 3));
        assert!(promises.begin_sweep());
        assert!(!promises.begin_sweep());
        assert_eq!(promises.sweep(), Some(vec![]));
        promises.remove(Ino(5));
        assert_eq!(promises.sweep(), None);
        assert!(promises.begin_sweep());
    }
}
