//! A cache of chunks' bytes; the least recently used leave it first.

use bytes::Bytes;
use lagan_types::ChunkId;
use lagan_types::limits::BLOCK_LEN;
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap};

/// Chunks are fetched and kept in units of this many bytes: what the kernel
/// asks for at most in one read.
pub const UNIT_LEN: u32 = 1024 * 1024;
/// Shorter bytes are copied: they may be a part of a received buffer, and would
/// keep all of it in memory.
const COPY_LEN: usize = 64 * 1024;
/// Memory that one entry costs beside its bytes, roughly.
const ENTRY_OVERHEAD_BYTES: usize = 256;

type Key = (ChunkId, u32);

/// Cuts `at..at + len` of a chunk at the ends of units: first bytes and lengths.
pub fn by_units(at: u32, len: u32) -> impl Iterator<Item = (u32, u32)> {
    let end = at.saturating_add(len);
    let first = (at < end).then_some(at);
    let starts = std::iter::successors(first, move |at| {
        let next = (at / UNIT_LEN + 1).checked_mul(UNIT_LEN)?;
        (next < end).then_some(next)
    });
    starts.map(move |at| (at, (end - at).min(UNIT_LEN - at % UNIT_LEN)))
}

/// A bounded cache of verified chunk bytes. Chunks never change, so nothing in
/// it is ever stale.
#[derive(Debug)]
pub struct BlockCache {
    limit_bytes: usize,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    entries: HashMap<Key, Entry>,
    by_age: BTreeMap<u64, Key>,
    clock: u64,
    bytes: usize,
}

#[derive(Debug)]
struct Entry {
    /// First byte in the chunk.
    at: u32,
    data: Bytes,
    age: u64,
}

impl BlockCache {
    /// An empty cache that holds at most that many bytes.
    pub fn new(limit_bytes: usize) -> Self {
        BlockCache {
            limit_bytes,
            inner: Mutex::default(),
        }
    }

    /// Bytes `at..at + len` of a chunk, which must lie in one unit.
    pub fn get(&self, id: ChunkId, at: u32, len: u32) -> Option<Bytes> {
        let key = (id, at / UNIT_LEN);
        let mut inner = self.inner.lock();
        let Inner {
            entries,
            by_age,
            clock,
            ..
        } = &mut *inner;
        let entry = entries.get_mut(&key)?;
        let from = at.checked_sub(entry.at)? as usize;
        if from + len as usize > entry.data.len() {
            return None;
        }
        by_age.remove(&entry.age);
        *clock += 1;
        entry.age = *clock;
        by_age.insert(*clock, key);
        Some(entry.data.slice(from..from + len as usize))
    }

    /// Keeps verified bytes that start at `at`, which must be a block's start,
    /// and lie in one unit. A longer entry of the unit is not replaced.
    pub fn put(&self, id: ChunkId, at: u32, data: Bytes) {
        debug_assert!(at.is_multiple_of(BLOCK_LEN));
        let key = (id, at / UNIT_LEN);
        let cost = data.len() + ENTRY_OVERHEAD_BYTES;
        if cost > self.limit_bytes {
            return;
        }
        let mut inner = self.inner.lock();
        if inner
            .entries
            .get(&key)
            .is_some_and(|old| old.data.len() > data.len())
        {
            return;
        }
        let data = match data.len() {
            len if len < COPY_LEN => Bytes::copy_from_slice(&data),
            _ => data,
        };
        inner.remove(key);
        while inner.bytes + cost > self.limit_bytes {
            let Some((_, &oldest)) = inner.by_age.first_key_value() else {
                break;
            };
            inner.remove(oldest);
        }
        inner.clock += 1;
        let age = inner.clock;
        inner.by_age.insert(age, key);
        inner.entries.insert(key, Entry { at, data, age });
        inner.bytes += cost;
    }
}

impl Inner {
    fn remove(&mut self, key: Key) {
        if let Some(entry) = self.entries.remove(&key) {
            self.by_age.remove(&entry.age);
            self.bytes -= entry.data.len() + ENTRY_OVERHEAD_BYTES;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lagan_types::{BlockId, SetId, VolumeId};

    fn id(n: u16) -> ChunkId {
        ChunkId::new(VolumeId::ONLY, SetId(1), BlockId(1), n)
    }

    #[test]
    fn a_range_is_cut_at_the_ends_of_units() {
        let cut = |at, len| by_units(at, len).collect::<Vec<_>>();
        assert_eq!(cut(5, 0), []);
        assert_eq!(cut(UNIT_LEN, UNIT_LEN), [(UNIT_LEN, UNIT_LEN)]);
        let three = [(UNIT_LEN - 1, 1), (UNIT_LEN, UNIT_LEN), (2 * UNIT_LEN, 7)];
        assert_eq!(cut(UNIT_LEN - 1, UNIT_LEN + 8), three);
    }

    #[test]
    fn only_what_is_held_whole_is_found() {
        let cache = BlockCache::new(1 << 20);
        cache.put(id(1), UNIT_LEN + BLOCK_LEN, Bytes::from(vec![3; 100]));
        assert!(cache.get(id(1), UNIT_LEN + BLOCK_LEN + 50, 50).is_some());
        assert!(cache.get(id(1), UNIT_LEN + BLOCK_LEN + 50, 51).is_none());
        assert!(cache.get(id(1), UNIT_LEN, 1).is_none());
        assert!(cache.get(id(2), UNIT_LEN + BLOCK_LEN, 1).is_none());
    }

    #[test]
    fn a_short_entry_does_not_keep_the_buffer_that_it_came_in() {
        let cache = BlockCache::new(1 << 20);
        let received = Bytes::from(vec![7; COPY_LEN]);
        cache.put(id(1), 0, received.slice(100..200));
        assert!(received.is_unique());
        assert_eq!(cache.get(id(1), 0, 100).unwrap(), [7; 100][..]);
    }

    #[test]
    fn the_least_recently_used_goes_first_and_the_limit_holds() {
        let cache = BlockCache::new(3 * (1000 + ENTRY_OVERHEAD_BYTES));
        for n in 0..3 {
            cache.put(id(n), 0, Bytes::from(vec![0; 1000]));
        }
        assert!(cache.get(id(0), 0, 1).is_some());
        cache.put(id(3), 0, Bytes::from(vec![0; 1000]));
        assert!(cache.get(id(1), 0, 1).is_none());
        assert!(cache.get(id(0), 0, 1).is_some());
        assert!(cache.inner.lock().bytes <= cache.limit_bytes);
    }
}
