//! Access times: which reads move one (relatime), and how the leader hears of them.
//!
//! ```text
//! read -> is it due? -> waiting -- every second, many at once --> told --> forgotten
//! ```
//!
//! A read never waits for this. What cannot be told is lost, as with a crash of
//! a local machine: access times are best effort. What a read moved is shown by
//! this mount at once, as long as nothing has changed since, and by others when
//! the leader has it. The leader looks at the same rule again, so that many
//! mounts that read a file move its time once.
//!
//! Of files that are open the rule is looked at with what is known of them, so
//! that a READ needs no lock but its inode's. Directories and symbolic links are
//! remembered when the kernel gets their attributes, right before it reads them.

use crate::Client;
use crate::file::inode::{Inode, wall_time};
use crate::options::AccessTimes;
use lagan_types::access::Access;
use lagan_types::limits::ACCESSES_MAX;
use lagan_types::{Attr, FsError, Ino, Kind, Op, Time};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::time::Duration;
use tokio::time::Instant;

/// Between two rounds of telling.
pub(super) const EVERY: Duration = Duration::from_secs(1);
/// Patience of one round: through changes of the leader. Nobody waits for it.
pub(super) const DEADLINE: Duration = Duration::from_secs(30);
/// Reads that wait, at most: a megabyte; more are dropped.
const WAITING_MAX: usize = 32 * ACCESSES_MAX;
/// Directories and symbolic links remembered, at most.
const PLACES: u64 = 4096;

/// See the module.
#[derive(Debug)]
pub(crate) struct Accesses {
    whose: AccessTimes,
    inner: Mutex<Inner>,
    /// Held by whoever tells: one round at a time.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Inner {
    /// Not told yet.
    waiting: HashMap<Ino, Access>,
    /// Told in the last round, or about to be: answers that are on their way may
    /// be older.
    told: HashMap<Ino, Access>,
    /// Directories and symbolic links whose access time a read would move, and
    /// their ctime; each has one place by its number.
    due: HashMap<u64, (Ino, Time)>,
}

impl Inner {
    /// A read of the inode as it was at that change.
    fn noted(&self, ino: Ino, ctime: Time) -> Option<&Access> {
        let noted = [&self.waiting, &self.told].map(|m| m.get(&ino));
        noted.into_iter().flatten().find(|a| a.ctime == ctime)
    }

    /// Notes a read, unless it is noted, or older than what is, or there is no room.
    fn note(&mut self, read: Access) {
        let room = match self.waiting.get(&read.ino) {
            Some(old) => old.ctime < read.ctime,
            None => self.waiting.len() < WAITING_MAX,
        };
        if room && self.noted(read.ino, read.ctime).is_none() {
            self.waiting.insert(read.ino, read);
        }
    }
}

impl Accesses {
    /// Nothing was read.
    pub fn new(whose: AccessTimes) -> Self {
        Accesses {
            whose,
            inner: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
        }
    }

    /// Attributes came from the leader and are about to be shown: puts what was
    /// read here over them.
    pub fn shown(&self, attr: &mut Attr) {
        if self.whose == AccessTimes::None {
            return;
        }
        let mut inner = self.inner.lock();
        let noted = inner.noted(attr.ino, attr.ctime).map(|read| read.at);
        // As the leader will, if it has not yet.
        let atime = noted.and_then(|at| attr.times().accessed(at, at));
        attr.atime = atime.unwrap_or(attr.atime);
        let remember = match attr.kind {
            Kind::Directory => self.whose == AccessTimes::All,
            Kind::Symlink => true,
            _ => false,
        };
        if !remember {
            return;
        }
        let (now, place) = (wall_time(), attr.ino.0 % PLACES);
        if attr.times().accessed(now, now).is_some() {
            inner.due.insert(place, (attr.ino, attr.ctime));
        } else if inner.due.get(&place).is_some_and(|p| p.0 == attr.ino) {
            inner.due.remove(&place);
        }
    }

    /// Whether a read of that file would have to be noted. The attributes were
    /// [`Accesses::shown`].
    pub fn is_due(&self, attr: &Attr) -> bool {
        if self.whose == AccessTimes::None {
            return false;
        }
        let now = wall_time();
        attr.times().accessed(now, now).is_some()
            && self.inner.lock().noted(attr.ino, attr.ctime).is_none()
    }

    /// A directory or a symbolic link was read.
    pub fn note_known(&self, ino: Ino) {
        if self.whose == AccessTimes::None {
            return;
        }
        let mut inner = self.inner.lock();
        let place = ino.0 % PLACES;
        let known = inner.due.get(&place).filter(|p| p.0 == ino);
        let Some(&(ino, ctime)) = known else {
            return;
        };
        inner.due.remove(&place);
        let at = wall_time();
        inner.note(Access { ino, ctime, at });
    }

    /// What is to be told in one call; empty: nothing. It counts as told from here on.
    fn take(&self) -> Vec<Access> {
        let mut inner = self.inner.lock();
        let some = inner.waiting.values().take(ACCESSES_MAX);
        let mut reads: Vec<Access> = some.copied().collect();
        for read in &reads {
            inner.waiting.remove(&read.ino);
            inner.told.insert(read.ino, *read);
        }
        // Neighbours in the leader's tables.
        reads.sort_unstable_by_key(|read| read.ino);
        reads
    }

    /// A round begins: what the last one told is in every answer by now.
    fn forget_told(&self) {
        self.inner.lock().told.clear();
    }

    /// These could not be told: a later read is noted again.
    fn lost(&self, reads: &[Access]) {
        let mut inner = self.inner.lock();
        for read in reads {
            inner.told.remove(&read.ino);
        }
    }

    /// Nothing that waits will be told.
    fn lose_all(&self) {
        self.inner.lock().waiting.clear();
    }
}

impl Client {
    /// A file was read.
    pub(crate) fn note_read(&self, inode: &Inode) {
        if self.accesses.whose == AccessTimes::None {
            return;
        }
        let read = inode.state.lock().accessed(wall_time());
        if let Some(read) = read {
            self.accesses.inner.lock().note(read);
        }
    }

    /// Tells the leader of the reads that wait, before `until`. A call that it does
    /// not take in time is lost, and all that waits if the session has ended.
    pub(crate) async fn tell_accesses(&self, until: Instant) {
        let turn = tokio::time::timeout_at(until, self.accesses.turn.lock());
        let Ok(_turn) = turn.await else {
            return;
        };
        self.accesses.forget_told();
        for _ in 0..WAITING_MAX / ACCESSES_MAX {
            let reads = self.accesses.take();
            if reads.is_empty() {
                return;
            }
            // A file that is only promised need not be made for this.
            let op = Op::Accesses(reads.clone());
            let told = self
                .leader
                .mutate_now(op, Some(self.leader.session()), until)
                .await;
            let Err(error) = told else {
                continue;
            };
            tracing::debug!(%error, reads = reads.len(), "access times are lost");
            self.accesses.lost(&reads);
            if error == FsError::SessionEnded {
                self.accesses.lose_all();
            }
            return;
        }
    }
}

#[cfg(test)]
mod tests;
