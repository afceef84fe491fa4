//! The store's knowledge in memory, and how each record changes it.
//!
//! Pure but for look-ups in the index on disk. One lock guards all of it.

use crate::error::ChunkError;
use crate::filter::BlockFilter;
use crate::index::{DiskIndex, Loaded, Merge, Place, Summary};
use crate::record::{self, Position};
use crate::segment::{Segment, Stats};
use lagan_types::limits::BLOCK_IDS;
use lagan_types::{ChunkId, SetId};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

/// Changes to the index; `None` stands for a chunk that is gone.
pub(crate) type Delta = BTreeMap<ChunkId, Option<Place>>;

/// Changes in one merge, about. A merge holds up reads of the index, and from some
/// 1,000 changes on sled leaks a kilobyte for each (measured).
const MERGE_LEN: usize = 256;

/// Changes set aside for one merge.
pub(crate) struct Frozen {
    pub delta: Delta,
    /// `None` while the merge thread applies it.
    merge: Option<Merge>,
}

/// The answer to a chunk that is to be written.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// The chunk is new, and from now on noted as pending.
    New,
    /// The same chunk is on its way to disk.
    Waiting,
    /// The same chunk is on disk.
    Here,
    /// Another chunk has this id.
    Conflict,
}

/// The store's knowledge in memory.
#[derive(Default)]
pub(crate) struct State {
    /// Changes since the last merge.
    pub delta: Delta,
    /// Changes on their way into the index, oldest first.
    pub frozen: VecDeque<Frozen>,
    /// The files of the log.
    pub segments: BTreeMap<u64, Arc<Segment>>,
    /// The sums of each of them.
    pub stats: BTreeMap<u64, Stats>,
    /// Index and delta together have the log up to here.
    pub published: Position,
    /// Chunks per set.
    pub sets: BTreeMap<SetId, u64>,
    /// Chunks in all.
    pub chunks: u64,
    /// Bytes of their records.
    pub live_bytes: u64,
    /// Segments of which some chunks were moved but the file is still there.
    pub victims: BTreeSet<u64>,
    /// Chunks on their way to disk: length and CRC.
    pub pending: HashMap<ChunkId, (u32, u32)>,
    /// Whether the index is being made anew: it has no summary yet, and a
    /// crash makes it start over.
    pub rebuilding: bool,
    filter: BlockFilter,
    dirty_stats: BTreeSet<u64>,
    dirty_sets: BTreeSet<SetId>,
}

impl State {
    /// Begins with what the index on disk says.
    pub fn new(loaded: Loaded) -> Self {
        State {
            stats: loaded.stats,
            sets: loaded.sets,
            published: loaded.summary.covered,
            chunks: loaded.summary.chunks,
            live_bytes: loaded.summary.live_bytes,
            rebuilding: loaded.summary.next_generation == 0,
            victims: loaded.summary.victims,
            ..State::default()
        }
    }

    /// The place of a chunk, or that it is gone, if memory knows; else `None`.
    pub fn get(&self, id: ChunkId) -> Option<Option<Place>> {
        let frozen = || self.frozen.iter().rev().find_map(|f| f.delta.get(&id));
        self.delta.get(&id).or_else(frozen).copied()
    }

    /// The place of a chunk. Looks on disk only if the id's block has chunks.
    pub fn load(&mut self, id: ChunkId, index: &DiskIndex) -> Result<Option<Place>, ChunkError> {
        if let Some(place) = self.get(id) {
            return Ok(place);
        }
        match self.filter.get(id) {
            Some(false) => return Ok(None),
            Some(true) => {}
            None => {
                self.load_block(id, index)?;
                if self.filter.get(id) == Some(false) {
                    return Ok(None);
                }
            }
        }
        index.get(id)
    }

    fn load_block(&mut self, id: ChunkId, index: &DiskIndex) -> Result<(), ChunkError> {
        if id.index() >= BLOCK_IDS {
            return Ok(());
        }
        let (first, last) = (ChunkId(id.0 & !0xffff), ChunkId(id.0 | 0xffff));
        let mut ids = Vec::new();
        for row in index.range(Bound::Included(first)) {
            let (id, _) = row?;
            if id > last {
                break;
            }
            ids.push(id);
        }
        ids.extend(self.delta.range(first..=last).map(|(id, _)| *id));
        for frozen in &self.frozen {
            ids.extend(frozen.delta.range(first..=last).map(|(id, _)| *id));
        }
        self.filter.load_block(id, ids.into_iter());
        Ok(())
    }

    /// Judges a chunk that is to be written; a new one is pending from now on.
    pub fn admit(
        &mut self,
        id: ChunkId,
        content: (u32, u32),
        index: &DiskIndex,
    ) -> Result<Admission, ChunkError> {
        if let Some(pending) = self.pending.get(&id) {
            return Ok(match *pending == content {
                true => Admission::Waiting,
                false => Admission::Conflict,
            });
        }
        Ok(match self.load(id, index)? {
            Some(place) if (place.len, place.crc) == content => Admission::Here,
            Some(_) => Admission::Conflict,
            None => {
                self.pending.insert(id, content);
                Admission::New
            }
        })
    }

    /// A segment joins the log.
    pub fn add_segment(&mut self, segment: Arc<Segment>) {
        let generation = segment.generation;
        self.segments.insert(generation, segment);
        self.stats.entry(generation).or_default();
        self.dirty_stats.insert(generation);
    }

    fn stats_mut(&mut self, generation: u64) -> &mut Stats {
        self.dirty_stats.insert(generation);
        self.stats.entry(generation).or_default()
    }

    /// Records up to `end` of its segment are in the index now.
    pub fn publish_end(&mut self, end: Position) {
        self.stats_mut(end.generation).used = end.offset;
        self.published = self.published.max(end);
    }

    fn add_live(&mut self, place: Place) {
        let len = record::chunk_record_len(place.len);
        self.stats_mut(place.at.generation).live += len;
        self.live_bytes += len;
    }

    fn sub_live(&mut self, place: Place) {
        let len = record::chunk_record_len(place.len);
        let stats = self.stats_mut(place.at.generation);
        stats.live = stats.live.saturating_sub(len);
        self.live_bytes = self.live_bytes.saturating_sub(len);
    }

    /// A new chunk is at `place`.
    pub fn insert(&mut self, id: ChunkId, place: Place) {
        self.pending.remove(&id);
        self.filter.set(id);
        self.delta.insert(id, Some(place));
        self.add_live(place);
        self.chunks += 1;
        *self.sets.entry(id.set()).or_default() += 1;
        self.dirty_sets.insert(id.set());
    }

    /// A chunk moved from one place to another.
    pub fn relocate(&mut self, id: ChunkId, from: Place, to: Place) {
        self.delta.insert(id, Some(to));
        self.sub_live(from);
        self.add_live(to);
    }

    /// A chunk that was at `place` is gone.
    pub fn remove(&mut self, id: ChunkId, place: Place) {
        self.delta.insert(id, None);
        self.sub_live(place);
        self.chunks = self.chunks.saturating_sub(1);
        let count = self.sets.entry(id.set()).or_default();
        *count = count.saturating_sub(1);
        if *count == 0 {
            self.sets.remove(&id.set());
        }
        self.dirty_sets.insert(id.set());
    }

    /// A deletes record in segment `generation` has these entries.
    pub fn count_deletes(&mut self, generation: u64, items: &[(ChunkId, u64)]) {
        for (_, target) in items {
            if self.stats.contains_key(target) {
                *self
                    .stats_mut(generation)
                    .deletes
                    .entry(*target)
                    .or_default() += 1;
            }
        }
    }

    /// Replays a chunk's record found in the log.
    pub fn replay_chunk(
        &mut self,
        id: ChunkId,
        place: Place,
        index: &DiskIndex,
    ) -> Result<(), ChunkError> {
        match self.load(id, index)? {
            None => self.insert(id, place),
            Some(old) if old.at == place.at => {}
            Some(old) => {
                self.victims.insert(old.at.generation);
                self.relocate(id, old, place);
            }
        }
        Ok(())
    }

    /// Replays a deletes record found in segment `generation`. An entry deletes the
    /// records of its chunk up to the generation that it names. A newer record stays:
    /// the chunk was lost here and brought back, and a compaction then carried the
    /// old entry behind it.
    pub fn replay_deletes(
        &mut self,
        generation: u64,
        items: &[(ChunkId, u64)],
        index: &DiskIndex,
    ) -> Result<(), ChunkError> {
        self.count_deletes(generation, items);
        for (id, held_by) in items {
            let place = self.load(*id, index)?;
            if let Some(place) = place.filter(|p| p.at.generation <= *held_by) {
                self.remove(*id, place);
            }
        }
        Ok(())
    }

    /// Nothing names the content of a segment any more. Its file may go once the
    /// index on disk says so durably.
    pub fn begin_retire(&mut self, generation: u64) -> Option<Arc<Segment>> {
        self.stats_mut(generation).retiring = true;
        self.segments.remove(&generation)
    }

    /// A segment's file has left the log.
    pub fn end_retire(&mut self, generation: u64) {
        self.stats.remove(&generation);
        self.victims.remove(&generation);
        self.dirty_stats.insert(generation);
        for (other, stats) in &mut self.stats {
            if stats.deletes.remove(&generation).is_some() {
                self.dirty_stats.insert(*other);
            }
        }
    }

    /// Whether changes should be frozen now, so that no merge grows long.
    pub fn freeze_due(&self) -> bool {
        self.delta.len() >= MERGE_LEN && !self.rebuilding
    }

    /// Sets the changes so far aside as one merge with its summary.
    ///
    /// While the index is made anew a merge has only a part of the delta. The last
    /// part brings the summary; an index without one counts as missing.
    pub fn freeze(&mut self, next_generation: u64) {
        if self.delta.is_empty() && self.dirty_stats.is_empty() {
            return;
        }
        if self.rebuilding && self.delta.len() > MERGE_LEN {
            let part = std::iter::from_fn(|| self.delta.pop_first());
            let part = part.take(MERGE_LEN).collect();
            return self.push_frozen(part, Merge::default());
        }
        self.rebuilding = false;
        let mut merge = Merge::default();
        for generation in std::mem::take(&mut self.dirty_stats) {
            merge.segment(generation, self.stats.get(&generation));
        }
        for set in std::mem::take(&mut self.dirty_sets) {
            merge.set(set, self.sets.get(&set).copied().unwrap_or(0));
        }
        merge.summary(&Summary {
            covered: self.published,
            next_generation,
            live_bytes: self.live_bytes,
            chunks: self.chunks,
            victims: self.victims.clone(),
        });
        let delta = std::mem::take(&mut self.delta);
        self.push_frozen(delta, merge);
    }

    fn push_frozen(&mut self, delta: Delta, mut merge: Merge) {
        for (id, place) in &delta {
            merge.chunk(*id, *place);
        }
        let merge = Some(merge);
        self.frozen.push_back(Frozen { delta, merge });
    }

    /// The oldest merge that waits. Its changes stay visible here until
    /// [`State::end_merge`].
    pub fn begin_merge(&mut self) -> Option<Merge> {
        self.frozen.front_mut()?.merge.take()
    }

    /// The oldest merge is in the index.
    pub fn end_merge(&mut self) {
        self.frozen.pop_front();
    }
}
