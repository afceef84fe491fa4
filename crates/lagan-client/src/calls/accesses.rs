//! Access times: which reads move one (relatime), and which of them the leader has not heard of. Pure.
//!
//! ```text
//! read -> is it due? -> waiting -- every second, many at once --> told --> forgotten
//! ```
//!
//! A read never waits for this. A read that cannot be told is lost, as in a crash of
//! a local machine: access times are best effort. This mount shows at once what a
//! read moved, as long as nothing has changed since; others show it when
//! the leader has it. The leader looks at the same rule again, so that many
//! mounts that read a file move its time once.
//!
//! For an open file the rule is applied to what is known of it, so that a READ
//! needs no lock but its inode's. Directories and symbolic links are
//! remembered when the kernel gets their attributes, right before it reads them.

use crate::options::AccessTimes;
use crate::wall::wall_time;
use lagan_types::access::Access;
use lagan_types::limits::ACCESSES_MAX;
use lagan_types::{Attr, Ino, Kind, Time};
use parking_lot::Mutex;
use std::collections::HashMap;

/// Reads that wait, at most: a megabyte; more are dropped.
pub(super) const WAITING_MAX: usize = 32 * ACCESSES_MAX;
/// Directories and symbolic links remembered, at most.
const PLACES: u64 = 4096;

/// Reads that the leader is to hear of.
#[derive(Debug)]
pub(crate) struct Accesses {
    whose: AccessTimes,
    inner: Mutex<Inner>,
    /// Held by the call that tells: one round at a time.
    pub(super) turn: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Inner {
    /// Reads that were not told yet.
    waiting: HashMap<Ino, Access>,
    /// Reads that were told in the last round, or are about to be: answers that are
    /// on their way may be older.
    told: HashMap<Ino, Access>,
    /// Directories and symbolic links whose access time a read would move, and
    /// their ctime; each has one place by its number.
    due: HashMap<u64, (Ino, Time)>,
}

impl Inner {
    /// The read that was noted of the inode as it was at that change.
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
    /// Starts with no read.
    pub fn new(whose: AccessTimes) -> Self {
        Accesses {
            whose,
            inner: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
        }
    }

    /// Puts over attributes that came from the leader, and are about to be shown,
    /// what was read here.
    pub fn shown(&self, attr: &mut Attr) {
        if self.are_off() {
            return;
        }
        let mut inner = self.inner.lock();
        let noted = inner.noted(attr.ino, attr.ctime).map(|read| read.at);
        // The leader will do the same, if it has not yet.
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

    /// Whether a read of that file would have to be noted. [`Accesses::shown`] has
    /// seen the attributes.
    pub fn is_due(&self, attr: &Attr) -> bool {
        if self.are_off() {
            return false;
        }
        let now = wall_time();
        attr.times().accessed(now, now).is_some()
            && self.inner.lock().noted(attr.ino, attr.ctime).is_none()
    }

    /// Notes that a directory or a symbolic link was read.
    pub fn note_known(&self, ino: Ino) {
        if self.are_off() {
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

    /// Whether no read is of interest.
    pub fn are_off(&self) -> bool {
        self.whose == AccessTimes::None
    }

    /// Notes that a file was read.
    pub fn note(&self, read: Access) {
        self.inner.lock().note(read);
    }

    /// Takes the reads to tell in one call; empty: nothing waits. They count as told from here on.
    pub fn take(&self) -> Vec<Access> {
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

    /// Begins a round: what the last one told is in every answer by now.
    pub fn forget_told(&self) {
        self.inner.lock().told.clear();
    }

    /// Notes that these could not be told: a later read is noted again.
    pub fn lost(&self, reads: &[Access]) {
        let mut inner = self.inner.lock();
        for read in reads {
            inner.told.remove(&read.ino);
        }
    }

    /// Forgets all reads that wait.
    pub fn lose_all(&self) {
        self.inner.lock().waiting.clear();
    }
}

#[cfg(test)]
mod tests;
