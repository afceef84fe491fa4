//! One command's changes, buffered over the store until it has succeeded.
//!
//! Rows go through [`Txn::put`]; inodes and counters are cached, so that each is read
//! and written once per command. The rows that follow from an inode's row (Due,
//! Releasable, Orphan) and the sums in the counters are kept here, at flush, and nowhere
//! else.

use crate::kv::{Read, Row, StoreError, Table};
use crate::layout::rows::{
    CounterRow, DueKey, InodeRow, MapVersion, ReapChunkRow, ReapObjectRow, UseCount,
};
use crate::layout::version::Versioned;
use crate::layout::{self, COUNTER_KEY, MAP_VERSION_KEY, key_due, key_set, key1, key2};
use crate::memory::range;
use lagan_types::attr::Time;
use lagan_types::cluster::ReplicaSet;
use lagan_types::query::{Counters, ReapChunks};
use lagan_types::{ChunkId, FsError, Ino, NodeId, Refusal, SetId};
use std::collections::{BTreeMap, BTreeSet};

/// A chunk's bytes stay this long after its last reference went, for readers that
/// hold the old map.
pub(crate) const CHUNK_GRACE_MS: u64 = 5_000;
/// An object's bytes stay this long: reads through a recall take longer.
pub(crate) const OBJECT_GRACE_MS: u64 = 60_000;
/// Chunks in one reap row, at most, so that a row fits a message.
const REAP_ROW_CHUNKS: usize = 1024;

/// Why an operation stops: an answer to the caller, or a broken store.
#[derive(Debug)]
pub(crate) enum Fail {
    /// This is the command's answer.
    Refused(Refusal),
    /// The node must stop.
    Store(StoreError),
}

impl From<FsError> for Fail {
    fn from(e: FsError) -> Self {
        Fail::Refused(e.into())
    }
}

impl From<Refusal> for Fail {
    fn from(refusal: Refusal) -> Self {
        Fail::Refused(refusal)
    }
}

impl From<StoreError> for Fail {
    fn from(e: StoreError) -> Self {
        Fail::Store(e)
    }
}

/// The result of an operation.
pub(crate) type Outcome<T> = Result<T, Fail>;

/// Rows to set (or, `None`, to delete), by table.
pub(crate) type Changes = BTreeMap<Table, BTreeMap<Vec<u8>, Option<Vec<u8>>>>;

struct CachedInode {
    before: Derived,
    row: Option<InodeRow>,
    dirty: bool,
}

/// The index rows and sums that follow from an inode's row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Derived {
    pub due: Option<DueKey>,
    pub releasable_ms: Option<u64>,
    pub orphan: bool,
    pub stats: Counters,
}

impl Derived {
    /// Derives them from a row; nothing follows from a missing one.
    pub fn of(row: Option<&InodeRow>) -> Self {
        let Some(row) = row else {
            return Derived::default();
        };
        let key = row.due_key();
        let too_large = key == Some(DueKey::TooLarge);
        let due = key.is_some() && !too_large;
        Derived {
            due: key,
            releasable_ms: row.releasable_ms(),
            orphan: row.nlink == 0,
            stats: Counters {
                inodes: 1,
                due_files: due as u64,
                due_bytes: if due { row.size } else { 0 },
                archived_files: (row.live_file() && row.archived()) as u64,
                failed_files: row.archive.failed as u64,
                orphans: (row.nlink == 0) as u64,
                lost_extents: row.lost_extents,
                too_large_files: too_large as u64,
                ..Counters::default()
            },
        }
    }
}

/// The state as one command sees it, with the command's own changes.
pub(crate) struct Txn<'a> {
    base: &'a dyn Read,
    changes: Changes,
    inodes: BTreeMap<Ino, CachedInode>,
    counters_before: CounterRow,
    freed: BTreeSet<ChunkId>,
    /// Extents that name chunks of a set, more or (negative) fewer than before.
    uses: BTreeMap<SetId, i64>,
    /// The last numbers that were given out, and sums over the tables.
    pub counters: CounterRow,
    /// A node, a set or the configuration changed.
    pub map_changed: bool,
    /// The command's time.
    pub time: Time,
}

impl<'a> Txn<'a> {
    /// A transaction without changes, over `base`, for a command of that time.
    pub fn new(base: &'a dyn Read, time: Time) -> Result<Self, StoreError> {
        let counters: CounterRow = match base.get(Table::Counter, COUNTER_KEY)? {
            Some(value) => layout::decode(Table::Counter, &value)?,
            None => CounterRow::default(),
        };
        Ok(Txn {
            base,
            changes: Changes::new(),
            inodes: BTreeMap::new(),
            counters_before: counters.clone(),
            freed: BTreeSet::new(),
            uses: BTreeMap::new(),
            counters,
            map_changed: false,
            time,
        })
    }

    /// The command's time in milliseconds.
    pub fn now_ms(&self) -> u64 {
        self.time.as_millis()
    }

    // -- rows -------------------------------------------------------------

    /// Sets a row to these bytes.
    pub fn put_bytes(&mut self, table: Table, key: &[u8], value: Vec<u8>) {
        self.changes
            .entry(table)
            .or_default()
            .insert(key.to_vec(), Some(value));
    }

    /// Sets a row.
    pub fn put<T: Versioned>(&mut self, table: Table, key: &[u8], row: &T) {
        self.put_bytes(table, key, layout::encode(row));
    }

    /// Sets a row that is only a key.
    pub fn put_mark(&mut self, table: Table, key: &[u8]) {
        self.put_bytes(table, key, layout::encode_raw(&[]));
    }

    /// Removes a row.
    pub fn delete(&mut self, table: Table, key: &[u8]) {
        self.changes
            .entry(table)
            .or_default()
            .insert(key.to_vec(), None);
    }

    /// Returns a row, decoded.
    pub fn row<T: Versioned>(&self, table: Table, key: &[u8]) -> Result<Option<T>, StoreError> {
        self.get(table, key)?
            .map(|value| layout::decode(table, &value))
            .transpose()
    }

    // -- inodes -----------------------------------------------------------

    /// Returns an inode's row; `None` if there is no such inode.
    pub fn find_inode(&mut self, ino: Ino) -> Result<Option<InodeRow>, StoreError> {
        if let Some(cached) = self.inodes.get(&ino) {
            return Ok(cached.row.clone());
        }
        let row: Option<InodeRow> = match self.base.get(Table::Inode, &key1(ino.0))? {
            Some(value) => Some(layout::decode(Table::Inode, &value)?),
            None => None,
        };
        let cached = CachedInode {
            before: Derived::of(row.as_ref()),
            row: row.clone(),
            dirty: false,
        };
        self.inodes.insert(ino, cached);
        Ok(row)
    }

    /// Returns an inode's row, or fails with `Stale` if it is gone.
    pub fn inode(&mut self, ino: Ino) -> Outcome<InodeRow> {
        Ok(self.find_inode(ino)?.ok_or(FsError::Stale)?)
    }

    /// Sets an inode's row.
    pub fn set_inode(&mut self, ino: Ino, row: InodeRow) -> Result<(), StoreError> {
        self.replace_inode(ino, Some(row))
    }

    /// Removes an inode's row.
    pub fn remove_inode(&mut self, ino: Ino) -> Result<(), StoreError> {
        self.replace_inode(ino, None)
    }

    /// Sets the row of an inode number that was just drawn.
    pub fn add_inode(&mut self, ino: Ino, row: InodeRow) {
        let cached = CachedInode {
            before: Derived::default(),
            row: Some(row),
            dirty: true,
        };
        self.inodes.insert(ino, cached);
    }

    /// Changes an inode that must be there.
    pub fn edit<T>(&mut self, ino: Ino, change: impl FnOnce(&mut InodeRow) -> T) -> Outcome<T> {
        let mut row = self.inode(ino)?;
        let result = change(&mut row);
        self.set_inode(ino, row)?;
        Ok(result)
    }

    fn replace_inode(&mut self, ino: Ino, row: Option<InodeRow>) -> Result<(), StoreError> {
        if !self.inodes.contains_key(&ino) {
            self.find_inode(ino)?;
        }
        if let Some(cached) = self.inodes.get_mut(&ino) {
            cached.row = row;
            cached.dirty = true;
        }
        Ok(())
    }

    // -- queues -----------------------------------------------------------

    /// Queues a chunk that nothing names any more: the members of its set shall delete it.
    pub fn free_chunk(&mut self, id: ChunkId) {
        self.freed.insert(id);
    }

    /// Counts an extent that names a chunk of the set: it came (1) or went (-1).
    pub fn count_use(&mut self, set: SetId, change: i64) {
        *self.uses.entry(set).or_default() += change;
    }

    /// Queues an object that nothing names any more.
    pub fn free_object(&mut self, key: String) {
        let ready = self.now_ms().saturating_add(OBJECT_GRACE_MS);
        let ready_ms = ready.max(self.counters.objects_ready_ms);
        self.counters.objects_ready_ms = ready_ms;
        self.counters.reap += 1;
        self.counters.stats.reap_objects += 1;
        let seq = self.counters.reap;
        self.put(
            Table::ReapObject,
            &key1(seq),
            &ReapObjectRow { ready_ms, key },
        );
    }

    /// Queues chunks for a node to delete.
    pub fn reap_at(&mut self, node: NodeId, what: ReapChunks) {
        let ready = self.now_ms().saturating_add(CHUNK_GRACE_MS);
        let ready_ms = ready.max(self.counters.chunks_ready_ms);
        self.counters.chunks_ready_ms = ready_ms;
        self.counters.reap += 1;
        self.counters.stats.reap_chunks += 1;
        let key = key2(node.0, self.counters.reap);
        self.put(Table::ReapChunk, &key, &ReapChunkRow { ready_ms, what });
    }

    fn flush_freed(&mut self) -> Result<(), StoreError> {
        let mut by_set: BTreeMap<SetId, Vec<ChunkId>> = BTreeMap::new();
        for id in std::mem::take(&mut self.freed) {
            by_set.entry(id.set()).or_default().push(id);
        }
        for (set, chunks) in by_set {
            let row: Option<ReplicaSet> = self.row(Table::Set, &key_set(set.0))?;
            let Some(row) = row else { continue };
            for node in row.nodes.iter().chain(&row.joining) {
                for part in chunks.chunks(REAP_ROW_CHUNKS) {
                    self.reap_at(*node, ReapChunks::Chunks(part.to_vec()));
                }
            }
        }
        Ok(())
    }

    fn flush_uses(&mut self) -> Result<(), StoreError> {
        for (set, change) in std::mem::take(&mut self.uses) {
            if change == 0 {
                continue;
            }
            let key = key_set(set.0);
            let before: Option<UseCount> = self.row(Table::SetUse, &key)?;
            match before.unwrap_or_default().0.saturating_add_signed(change) {
                0 => self.delete(Table::SetUse, &key),
                after => self.put(Table::SetUse, &key, &UseCount(after)),
            }
        }
        Ok(())
    }

    // -- the end ----------------------------------------------------------

    /// Returns all changed rows.
    pub fn finish(mut self) -> Result<Changes, StoreError> {
        self.flush_freed()?;
        self.flush_uses()?;
        for (ino, cached) in std::mem::take(&mut self.inodes) {
            if cached.dirty {
                self.flush_inode(ino, cached);
            }
        }
        if self.map_changed {
            let version: Option<MapVersion> = self.row(Table::Config, MAP_VERSION_KEY)?;
            let next = MapVersion(version.unwrap_or_default().0.saturating_add(1));
            self.put(Table::Config, MAP_VERSION_KEY, &next);
        }
        if self.counters != self.counters_before {
            let counters = self.counters.clone();
            self.put(Table::Counter, COUNTER_KEY, &counters);
        }
        Ok(self.changes)
    }

    fn flush_inode(&mut self, ino: Ino, cached: CachedInode) {
        let (before, after) = (cached.before, Derived::of(cached.row.as_ref()));
        match &cached.row {
            Some(row) => self.put(Table::Inode, &key1(ino.0), row),
            None => self.delete(Table::Inode, &key1(ino.0)),
        }
        if before.due != after.due {
            if let Some(due) = before.due {
                self.delete(Table::Due, &key_due(due, ino.0));
            }
            if let Some(due) = after.due {
                self.put_mark(Table::Due, &key_due(due, ino.0));
            }
        }
        self.flush_index(
            Table::Releasable,
            ino,
            before.releasable_ms,
            after.releasable_ms,
        );
        match (before.orphan, after.orphan) {
            (false, true) => self.put_mark(Table::Orphan, &key1(ino.0)),
            (true, false) => self.delete(Table::Orphan, &key1(ino.0)),
            _ => {}
        }
        let stats = &mut self.counters.stats;
        let (b, a) = (before.stats, after.stats);
        for (sum, before, after) in [
            (&mut stats.inodes, b.inodes, a.inodes),
            (&mut stats.due_files, b.due_files, a.due_files),
            (&mut stats.due_bytes, b.due_bytes, a.due_bytes),
            (
                &mut stats.archived_files,
                b.archived_files,
                a.archived_files,
            ),
            (&mut stats.failed_files, b.failed_files, a.failed_files),
            (&mut stats.orphans, b.orphans, a.orphans),
            (&mut stats.lost_extents, b.lost_extents, a.lost_extents),
            (
                &mut stats.too_large_files,
                b.too_large_files,
                a.too_large_files,
            ),
        ] {
            *sum = sum.saturating_add(after).saturating_sub(before);
        }
    }

    fn flush_index(&mut self, table: Table, ino: Ino, before: Option<u64>, after: Option<u64>) {
        if before == after {
            return;
        }
        if let Some(ms) = before {
            self.delete(table, &key2(ms, ino.0));
        }
        if let Some(ms) = after {
            self.put_mark(table, &key2(ms, ino.0));
        }
    }
}

/// Reads rows with the changes so far, without the cached inodes.
impl Read for Txn<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        match self.changes.get(&table).and_then(|t| t.get(key)) {
            Some(change) => Ok(change.clone()),
            None => self.base.get(table, key),
        }
    }

    fn scan(
        &self,
        table: Table,
        start: &[u8],
        end: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Row>, StoreError> {
        let (Some(changes), Some(range)) = (self.changes.get(&table), range(start, end)) else {
            return self.base.scan(table, start, end, limit);
        };
        // As many more as could be hidden by changes: then the first `limit`
        // of the merge are right even if the base has more rows.
        let hidden = changes.range::<[u8], _>(range).count();
        let base = self
            .base
            .scan(table, start, end, limit.saturating_add(hidden))?;
        if hidden == 0 {
            return Ok(base);
        }
        let mut merged: BTreeMap<Vec<u8>, Vec<u8>> = base.into_iter().collect();
        for (key, change) in changes.range::<[u8], _>(range) {
            match change {
                Some(value) => merged.insert(key.clone(), value.clone()),
                None => merged.remove(key),
            };
        }
        Ok(merged.into_iter().take(limit).collect())
    }

    fn last(
        &self,
        table: Table,
        start: &[u8],
        end: Option<&[u8]>,
    ) -> Result<Option<Row>, StoreError> {
        let (Some(changes), Some(range)) = (self.changes.get(&table), range(start, end)) else {
            return self.base.last(table, start, end);
        };
        let put = changes
            .range::<[u8], _>(range)
            .rev()
            .find_map(|(k, v)| v.as_ref().map(|v| (k.clone(), v.clone())));
        let mut base = self.base.last(table, start, end)?;
        while let Some((key, _)) = &base {
            if !changes.contains_key(key) {
                break;
            }
            let key = key.clone();
            base = self.base.last(table, start, Some(&key))?;
        }
        Ok(match (put, base) {
            (Some(put), Some(base)) => Some(if put.0 > base.0 { put } else { base }),
            (put, base) => put.or(base),
        })
    }
}

#[cfg(test)]
mod tests;
