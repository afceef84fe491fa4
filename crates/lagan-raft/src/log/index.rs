//! The log's content in memory: an id and a place for each entry, the youngest entries
//! themselves, the vote, the committed and the purged id.

use super::record::Kind;
use super::segment::RECORD_HEADER_LEN;
use super::syncs::Syncs;
use crate::staging::Staging;
use crate::types::alias::{Entry, LogId, Vote};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::Notify;

/// The agreement between log and state store. The state store raises the index up to which
/// a durable commit of the state covers the log, and the chunk store what came with it; the
/// log purges no further. The log
/// says how far it is on disk; the state store applies nothing beyond.
#[derive(Debug)]
pub struct Floor {
    next: AtomicU64,
    raised: Notify,
    /// How far the log is on disk.
    pub syncs: Syncs,
    /// The place for what comes with the commands.
    pub staging: Arc<dyn Staging>,
}

#[cfg(test)]
impl Default for Floor {
    fn default() -> Self {
        Floor::new(Arc::new(crate::staging::NoChunks(lagan_types::NodeId(1))))
    }
}

impl Floor {
    /// The agreement of a node that puts what comes with the commands there.
    pub fn new(staging: Arc<dyn Staging>) -> Self {
        Floor {
            next: AtomicU64::default(),
            raised: Notify::default(),
            syncs: Syncs::default(),
            staging,
        }
    }

    /// All entries with an index below `next` are durable in the state, and all that came with
    /// them is in the chunk store.
    pub fn raise(&self, next: u64) {
        self.next.fetch_max(next, Ordering::AcqRel);
        self.raised.notify_waiters();
    }

    /// Waits until the log may forget all entries with an index below `next`.
    pub async fn reaches(&self, next: u64) {
        loop {
            let raised = self.raised.notified();
            tokio::pin!(raised);
            raised.as_mut().enable();
            if self.next() >= next {
                return;
            }
            raised.await;
        }
    }

    /// The first index that the log must keep.
    pub fn next(&self) -> u64 {
        self.next.load(Ordering::Acquire)
    }
}

/// The place of a record on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub segment: u64,
    pub offset: u64,
    pub len: u32,
    pub seed: u32,
}

/// One entry.
#[derive(Debug, Clone)]
pub(super) struct Slot {
    pub id: LogId,
    pub kind: Kind,
    /// `None` until it is written.
    pub place: Option<Place>,
    /// The entry, if it is in memory; always while it has no place.
    pub entry: Option<Entry>,
    pub payload_len: u32,
}

impl Slot {
    /// Bytes of its record.
    pub fn bytes(&self) -> u64 {
        (RECORD_HEADER_LEN + self.payload_len as usize) as u64
    }
}

/// The log's content; under one lock, which is never held over I/O.
#[derive(Debug, Default)]
pub(super) struct Index {
    pub slots: VecDeque<Slot>,
    /// The last entry that openraft was told is gone: no slot is at or below it.
    pub purged: Option<LogId>,
    /// The last entry that is gone according to the disk: at most `purged`.
    pub purged_on_disk: Option<LogId>,
    pub committed: Option<LogId>,
    pub vote: Option<Vote>,
    /// The purged id lies beyond the written entries: the disk must learn that before
    /// another entry is written.
    pub hole: bool,
    cached_bytes: usize,
    /// Index of the first slot that may be cached.
    cached_from: u64,
}

impl Index {
    pub fn first_index(&self) -> u64 {
        self.slots.front().map_or(0, |s| s.id.index)
    }

    pub fn last(&self) -> Option<LogId> {
        self.slots.back().map(|s| s.id).or(self.purged)
    }

    /// Whether an entry with that index may come next: only the one after the last; in
    /// an empty log any that leaves no hole behind the purged entries.
    pub fn takes(&self, index: u64) -> bool {
        match (self.slots.back(), self.purged) {
            (Some(last), _) => index == last.id.index + 1,
            (None, Some(purged)) => index <= purged.index + 1,
            (None, None) => true,
        }
    }

    fn position(&self, index: u64) -> Option<usize> {
        let at = index.checked_sub(self.first_index())?;
        usize::try_from(at).ok().filter(|&at| at < self.slots.len())
    }

    pub fn get(&self, index: u64) -> Option<&Slot> {
        self.slots.get(self.position(index)?)
    }

    pub fn push(&mut self, slot: Slot) {
        if slot.entry.is_some() {
            self.cached_bytes += slot.payload_len as usize;
        }
        self.slots.push_back(slot);
    }

    /// Notes the place of an entry that was written, unless it was truncated meanwhile.
    pub fn placed(&mut self, id: &LogId, place: Place) {
        let Some(at) = self.position(id.index) else {
            return;
        };
        if let Some(slot) = self.slots.get_mut(at).filter(|s| s.id == *id) {
            slot.place = Some(place);
        }
    }

    /// Forgets entries, oldest first, until at most `limit` bytes are cached.
    pub fn evict(&mut self, limit: usize) {
        self.cached_from = self.cached_from.max(self.first_index());
        while self.cached_bytes > limit {
            let Some(at) = self.position(self.cached_from) else {
                return;
            };
            let slot = &mut self.slots[at];
            if slot.place.is_none() {
                return;
            }
            if slot.entry.take().is_some() {
                self.cached_bytes -= slot.payload_len as usize;
            }
            self.cached_from += 1;
        }
    }

    fn uncount(&mut self, slot: Option<Slot>) {
        if let Some(slot) = slot.filter(|s| s.entry.is_some()) {
            self.cached_bytes -= slot.payload_len as usize;
        }
    }

    /// Drops the entries from `since` on.
    pub fn truncate(&mut self, since: u64) {
        while self.slots.back().is_some_and(|s| s.id.index >= since) {
            let slot = self.slots.pop_back();
            self.uncount(slot);
        }
        self.cached_from = self.cached_from.min(since);
    }

    /// Drops the entries up to `id`; all of them if `id` is beyond the last.
    pub fn purge(&mut self, id: LogId) {
        let all = self.last().is_none_or(|last| id > last);
        self.hole |= all;
        while self
            .slots
            .front()
            .is_some_and(|s| all || s.id.index <= id.index)
        {
            let slot = self.slots.pop_front();
            self.uncount(slot);
        }
        self.purged = self.purged.max(Some(id));
    }

    /// The id of a committed index, from what is still known.
    pub fn id_of(&self, index: u64) -> Option<LogId> {
        match self.get(index) {
            Some(slot) => Some(slot.id),
            None => self.purged.filter(|p| p.index >= index),
        }
    }
}
