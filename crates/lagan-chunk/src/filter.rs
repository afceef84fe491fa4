//! A cache of the chunks that are here, for the blocks of ids that were used lately.
//!
//! A new chunk's id must be looked up before it is written. Ids come in blocks
//! of 1,024 to one writer, so one index scan for a block's first chunk answers
//! for the rest.

use lagan_types::ChunkId;
use lagan_types::limits::BLOCK_IDS;
use std::collections::HashMap;

/// Blocks in each half of the cache: 128 bytes each.
const HALF_LEN: usize = 4096;

/// One bit per id of a block.
pub(crate) type Bits = [u64; BLOCK_IDS as usize / 64];

/// A cache of blocks: the older half is dropped when the newer one is full.
#[derive(Debug, Default)]
pub(crate) struct BlockFilter {
    young: HashMap<u128, Bits>,
    old: HashMap<u128, Bits>,
}

/// The key of an id's block, and the id's bit; `None` for an index that no
/// block has.
fn split(id: ChunkId) -> Option<(u128, usize)> {
    (id.index() < BLOCK_IDS).then(|| (id.0 >> 16, id.index() as usize))
}

impl BlockFilter {
    /// Whether the id may be here; `None` if its block is not known.
    pub(crate) fn get(&mut self, id: ChunkId) -> Option<bool> {
        let (block, bit) = split(id)?;
        if let Some(bits) = self.old.remove(&block) {
            self.load(block, bits);
        }
        let bits = self.young.get(&block)?;
        Some(bits[bit / 64] >> (bit % 64) & 1 == 1)
    }

    /// Notes that the id is here.
    pub(crate) fn set(&mut self, id: ChunkId) {
        let Some((block, bit)) = split(id) else {
            return;
        };
        for half in [&mut self.young, &mut self.old] {
            if let Some(bits) = half.get_mut(&block) {
                bits[bit / 64] |= 1 << (bit % 64);
            }
        }
    }

    /// Takes in a block: `ids` are all that are here of the block of `id`.
    pub(crate) fn load_block(&mut self, id: ChunkId, ids: impl Iterator<Item = ChunkId>) {
        let Some((block, _)) = split(id) else {
            return;
        };
        let mut bits = Bits::default();
        for (other, bit) in ids.filter_map(split) {
            if other == block {
                bits[bit / 64] |= 1 << (bit % 64);
            }
        }
        self.load(block, bits);
    }

    fn load(&mut self, block: u128, bits: Bits) {
        if self.young.len() >= HALF_LEN {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(block, bits);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_block_answers_for_each_of_its_ids() {
        let id = |n: u128| ChunkId(7 << 16 | n);
        let mut filter = BlockFilter::default();
        assert_eq!(filter.get(id(3)), None);
        filter.load_block(id(3), [id(0), id(1023), ChunkId(9 << 16)].into_iter());
        assert_eq!(filter.get(id(0)), Some(true));
        assert_eq!(filter.get(id(1023)), Some(true));
        assert_eq!(filter.get(id(3)), Some(false));
        filter.set(id(3));
        assert_eq!(filter.get(id(3)), Some(true));
        assert_eq!(filter.get(id(1024)), None);
    }

    #[test]
    fn number_of_blocks_is_bounded() {
        let mut filter = BlockFilter::default();
        for block in 0..3 * HALF_LEN as u128 {
            filter.load_block(ChunkId(block << 16), std::iter::empty());
        }
        assert!(filter.young.len() + filter.old.len() <= 2 * HALF_LEN);
        assert_eq!(filter.get(ChunkId(0)), None);
    }
}
