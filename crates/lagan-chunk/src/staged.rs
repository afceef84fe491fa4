//! Chunks in memory: they came with replicated commands, whose log has them on disk.
//!
//! ```text
//!  hold (the command is in the log) --stage (it was carried out)--> lazy write --> on disk
//!    '--let_go (it was void, or refused, or is for others)            '-- only then forgotten
//! ```
//! They are read from memory until they are on disk, so that a reader finds them as soon as
//! anybody may know of them. The log keeps the bytes until the lazy write is done; after a
//! crash whoever reads the log stages them again.

use bytes::Bytes;
use lagan_types::{ChunkId, SetId};
use parking_lot::Mutex;
use std::collections::BTreeMap;

/// One chunk: a single block.
struct Held {
    data: Bytes,
    crc: u32,
    /// Commands in the log that brought it and were not carried out yet.
    holds: usize,
    /// It is on its way to disk.
    staged: bool,
}

#[derive(Default)]
struct Table {
    chunks: BTreeMap<ChunkId, Held>,
    /// Bytes of all of them.
    len: usize,
}

/// The chunks in memory.
#[derive(Default)]
pub(crate) struct Staged {
    table: Mutex<Table>,
}

impl Staged {
    /// A command in the log has it.
    pub fn hold(&self, id: ChunkId, data: Bytes, crc: u32) {
        self.table.lock().enter(id, data, crc).holds += 1;
    }

    /// A command that held it is over.
    pub fn let_go(&self, id: ChunkId) {
        self.table.lock().leave(id, |held| {
            held.holds = held.holds.saturating_sub(1);
        });
    }

    /// It is on its way to disk.
    pub fn stage(&self, id: ChunkId, data: Bytes, crc: u32) {
        self.table.lock().enter(id, data, crc).staged = true;
    }

    /// It is on disk, or will never be.
    pub fn end(&self, id: ChunkId) {
        self.table.lock().leave(id, |held| held.staged = false);
    }

    /// Bytes in memory.
    pub fn len(&self) -> usize {
        self.table.lock().len
    }

    /// Whether it is on its way to disk.
    pub fn is_staged(&self, id: ChunkId) -> bool {
        self.table.lock().chunks.get(&id).is_some_and(|h| h.staged)
    }

    /// Its length and CRC.
    pub fn content(&self, id: ChunkId) -> Option<(u32, u32)> {
        let table = self.table.lock();
        let held = table.chunks.get(&id)?;
        Some((held.data.len() as u32, held.crc))
    }

    /// Its bytes, all one block, and their CRC.
    pub fn get(&self, id: ChunkId) -> Option<(Bytes, u32)> {
        let table = self.table.lock();
        let held = table.chunks.get(&id)?;
        Some((held.data.clone(), held.crc))
    }

    /// Those after `after`, only those of `set` if it is given, with their lengths.
    pub fn list(&self, set: Option<SetId>, after: Option<ChunkId>) -> BTreeMap<ChunkId, u32> {
        let table = self.table.lock();
        let wanted = |id: &ChunkId| {
            set.is_none_or(|set| id.set() == set) && after.is_none_or(|after| *id > after)
        };
        let found = table.chunks.iter().filter(|(id, _)| wanted(id));
        found.map(|(id, h)| (*id, h.data.len() as u32)).collect()
    }
}

impl Table {
    fn enter(&mut self, id: ChunkId, data: Bytes, crc: u32) -> &mut Held {
        let len = &mut self.len;
        self.chunks.entry(id).or_insert_with(|| {
            *len += data.len();
            Held {
                data,
                crc,
                holds: 0,
                staged: false,
            }
        })
    }

    fn leave(&mut self, id: ChunkId, change: impl FnOnce(&mut Held)) {
        let Some(held) = self.chunks.get_mut(&id) else {
            return;
        };
        change(held);
        if held.holds == 0 && !held.staged {
            self.len -= held.data.len();
            self.chunks.remove(&id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lagan_types::{BlockId, VolumeId};

    fn id(index: u16) -> ChunkId {
        ChunkId::new(VolumeId::ONLY, SetId(3), BlockId(7), index)
    }

    #[test]
    fn chunk_is_in_memory_until_nobody_needs_it_there() {
        let staged = Staged::default();
        let data = Bytes::from_static(b"some bytes");
        staged.hold(id(1), data.clone(), 5);
        staged.hold(id(1), data.clone(), 5);
        staged.stage(id(1), data, 5);
        staged.let_go(id(1));
        assert_eq!(staged.content(id(1)), Some((10, 5)));
        staged.end(id(1));
        assert!(!staged.is_staged(id(1)));
        assert_eq!(staged.len(), 10, "the other command still holds it");
        staged.let_go(id(1));
        assert_eq!((staged.content(id(1)), staged.len()), (None, 0));
        staged.let_go(id(1));
    }

    #[test]
    fn list_has_those_of_a_set_after_an_id() {
        let staged = Staged::default();
        for index in [1, 2, 3] {
            staged.stage(id(index), Bytes::from_static(b"abc"), 9);
        }
        let all: Vec<_> = staged.list(None, None).into_iter().collect();
        assert_eq!(all, [(id(1), 3), (id(2), 3), (id(3), 3)]);
        assert_eq!(staged.list(Some(SetId(3)), Some(id(2))).len(), 1);
        assert!(staged.list(Some(SetId(4)), None).is_empty());
    }
}
