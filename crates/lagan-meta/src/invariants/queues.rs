//! Indexes agree with the inodes, attempts with their files, counters with the tables;
//! times in the reap queues do not fall.

use super::Walk;
use crate::kv::{StoreError, Table};
use crate::layout::rows::{AttemptRow, CounterRow, InodeRow, ReapChunkRow, ReapObjectRow};
use crate::layout::{COUNTER_KEY, key_due, part};
use crate::load::row;
use crate::ops::cluster::all_sets;
use crate::txn::Derived;
use lagan_types::Ino;
use lagan_types::query::{Counters, ReapChunks};
use std::collections::{BTreeMap, BTreeSet};

impl Walk<'_> {
    pub(super) fn reap_rows(&mut self) -> Result<(), StoreError> {
        let mut ready: BTreeMap<u64, u64> = BTreeMap::new();
        for (key, reap) in self.decoded::<ReapChunkRow>(Table::ReapChunk)? {
            let node = part(Table::ReapChunk, &key, 0)?;
            let before = ready.insert(node, reap.ready_ms).unwrap_or(0);
            self.expect(before <= reap.ready_ms, || {
                format!("n{node}: chunks to delete are out of order")
            });
            if let ReapChunks::Chunks(ids) = reap.what {
                self.reaped.extend(ids);
            }
        }
        let mut before = 0;
        for (_, reap) in self.decoded::<ReapObjectRow>(Table::ReapObject)? {
            self.expect(before <= reap.ready_ms, || {
                format!("{}: objects to delete are out of order", reap.key)
            });
            before = reap.ready_ms;
        }
        Ok(())
    }

    pub(super) fn queues(&mut self) -> Result<(), StoreError> {
        let derived: Vec<(Ino, Derived)> = self
            .inodes
            .iter()
            .map(|(ino, row)| (*ino, Derived::of(Some(row))))
            .collect();
        self.due(&derived)?;
        let releasable = derived
            .iter()
            .filter_map(|(i, d)| Some((d.releasable_ms?, i.0)));
        self.index(Table::Releasable, releasable.collect())?;
        let orphans: BTreeSet<u64> = derived
            .iter()
            .filter_map(|(i, d)| d.orphan.then_some(i.0))
            .collect();
        let mut rows = BTreeSet::new();
        for (key, _) in self.rows(Table::Orphan)? {
            rows.insert(part(Table::Orphan, &key, 0)?);
        }
        self.expect(rows == orphans, || {
            format!("orphans are {orphans:?}, the table says {rows:?}")
        });
        self.attempts()
    }

    fn due(&mut self, derived: &[(Ino, Derived)]) -> Result<(), StoreError> {
        let wanted: BTreeSet<Vec<u8>> = derived
            .iter()
            .filter_map(|(ino, d)| Some(key_due(d.due?, ino.0).to_vec()))
            .collect();
        let rows: BTreeSet<Vec<u8>> = self.rows(Table::Due)?.into_iter().map(|r| r.0).collect();
        for key in wanted.symmetric_difference(&rows) {
            self.say(format!("Due: key {key:?} is on one side only"));
        }
        Ok(())
    }

    fn index(&mut self, table: Table, wanted: BTreeSet<(u64, u64)>) -> Result<(), StoreError> {
        let mut rows = BTreeSet::new();
        for (key, _) in self.rows(table)? {
            rows.insert((part(table, &key, 0)?, part(table, &key, 8)?));
        }
        for (ms, ino) in wanted.symmetric_difference(&rows) {
            self.say(format!("{table:?}: i{ino} at {ms} is on one side only"));
        }
        Ok(())
    }

    fn attempts(&mut self) -> Result<(), StoreError> {
        let mut attempts = BTreeMap::new();
        for (key, attempt) in self.decoded::<AttemptRow>(Table::Attempt)? {
            attempts.insert(part(Table::Attempt, &key, 0)?, attempt);
        }
        for (ino, inode) in self.inodes.clone() {
            if let Some(number) = inode.archive.attempt {
                let fits = attempts
                    .get(&number)
                    .is_some_and(|a| a.ino == ino && a.version == inode.version);
                self.expect(fits, || format!("{ino}: attempt {number} is not its own"));
            }
            let stations = stations(&inode);
            let wanted = inode.live_file() as usize;
            self.expect(!inode.live_file() || stations == wanted, || {
                format!("{ino}: in {stations} places of the archive's cycle")
            });
            let idle = inode.live_file() || inode.archive.due.is_none();
            self.expect(idle, || format!("{ino}: due, but no live file"));
        }
        Ok(())
    }

    pub(super) fn counters(&mut self) -> Result<(), StoreError> {
        let kept: Option<CounterRow> = row(self.store, Table::Counter, COUNTER_KEY)?;
        let kept = kept.unwrap_or_default();
        let mut real = Counters {
            attempts: self.rows(Table::Attempt)?.len() as u64,
            reap_chunks: self.rows(Table::ReapChunk)?.len() as u64,
            reap_objects: self.rows(Table::ReapObject)?.len() as u64,
            ..Counters::default()
        };
        for row in self.inodes.values() {
            let one = Derived::of(Some(row)).stats;
            real.inodes += one.inodes;
            real.due_files += one.due_files;
            real.due_bytes += one.due_bytes;
            real.archived_files += one.archived_files;
            real.failed_files += one.failed_files;
            real.orphans += one.orphans;
            real.lost_extents += one.lost_extents;
            real.too_large_files += one.too_large_files;
        }
        self.expect(real == kept.stats, || {
            format!("counters are {real:?}, the row says {:?}", kept.stats)
        });
        let last = self.inodes.keys().next_back().map_or(0, |i| i.0);
        self.expect(last <= kept.ino, || {
            format!("inode {last} was never drawn: counter {}", kept.ino)
        });
        let sets = all_sets(self.store)?;
        let last = sets.last().map_or(0, |s| s.id.0);
        self.expect(last <= kept.set, || {
            format!("set {last} was never made: counter {}", kept.set)
        });
        Ok(())
    }
}

/// In how many of these states the file is: due, being uploaded, archived.
fn stations(inode: &InodeRow) -> usize {
    inode.archive.due.is_some() as usize
        + inode.archive.attempt.is_some() as usize
        + inode.archived() as usize
}
