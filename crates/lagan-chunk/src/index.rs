//! The index on disk: the one place that names sled.
//!
//! One tree, so that a merge is atomic. Keys end big endian, values are little
//! endian.
//!
//! | key | value |
//! | --- | --- |
//! | `c` chunk id (16) | generation 8, offset 4, length 4, CRC 4 |
//! | `g` generation (8) | of the segment: used 4, live 8, flags 1 (1: retiring), then per deleted-from generation: generation 8, count 4; CRC 4 |
//! | `n` set (4) | chunks of the set 8 |
//! | `s` | format 1 (2), covered generation 8, covered offset 4, next generation 8, live bytes 8, chunks 8, then generations of half-compacted segments 8 each; CRC 4 |
//!
//! A chunk's value needs no CRC of its own: the record that the value names has a
//! CRC over the same facts, and each read checks it.
//!
//! To change these values: raise `FORMAT` below. An index of another format counts as
//! missing and is built again from the segments at the next start.

use crate::error::ChunkError;
use crate::record::Position;
use crate::segment::Stats;
use lagan_types::{ChunkId, SetId};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

const FORMAT: u16 = 1;
const STATE_KEY: &[u8] = b"s";

/// The place of a chunk, with its length and CRC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    /// Start of its record.
    pub at: Position,
    /// Bytes of the chunk.
    pub len: u32,
    /// CRC-32 of the chunk.
    pub crc: u32,
}

/// All that the index knows besides the chunks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Summary {
    /// The index has the log up to here.
    pub covered: Position,
    /// The generation after the newest one ever used.
    pub next_generation: u64,
    /// Bytes of records that are named.
    pub live_bytes: u64,
    /// Chunks that are here.
    pub chunks: u64,
    /// Segments of which some chunks were moved but the file is still there.
    pub victims: BTreeSet<u64>,
}

/// All that is loaded when the index is opened.
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    /// The summary.
    pub summary: Summary,
    /// The sums of each segment.
    pub stats: BTreeMap<u64, Stats>,
    /// Chunks per set.
    pub sets: BTreeMap<SetId, u64>,
}

/// Changes to be made as one.
#[derive(Default)]
pub(crate) struct Merge {
    batch: sled::Batch,
}

/// The index on disk.
pub(crate) struct DiskIndex {
    db: sled::Db,
}

fn failed(e: sled::Error) -> ChunkError {
    ChunkError::Index(e.to_string().into())
}

fn chunk_key(id: ChunkId) -> [u8; 17] {
    let mut key = [b'c'; 17];
    key[1..].copy_from_slice(&id.0.to_be_bytes());
    key
}

fn segment_key(generation: u64) -> [u8; 9] {
    let mut key = [b'g'; 9];
    key[1..].copy_from_slice(&generation.to_be_bytes());
    key
}

fn set_key(set: SetId) -> [u8; 5] {
    let mut key = [b'n'; 5];
    key[1..].copy_from_slice(&set.0.to_be_bytes());
    key
}

/// Reads little-endian integers off the front of a value.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }
}

fn with_crc(mut bytes: Vec<u8>) -> Vec<u8> {
    let crc = crc32fast::hash(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes
}

fn without_crc(bytes: &[u8]) -> Option<Reader<'_>> {
    let (body, crc) = bytes.split_last_chunk::<4>()?;
    (crc32fast::hash(body) == u32::from_le_bytes(*crc)).then_some(Reader(body))
}

fn encode_place(place: Place) -> [u8; 20] {
    let mut out = [0; 20];
    out[..8].copy_from_slice(&place.at.generation.to_le_bytes());
    out[8..12].copy_from_slice(&place.at.offset.to_le_bytes());
    out[12..16].copy_from_slice(&place.len.to_le_bytes());
    out[16..].copy_from_slice(&place.crc.to_le_bytes());
    out
}

fn decode_place(bytes: &[u8]) -> Option<Place> {
    let mut r = Reader(bytes);
    let at = Position {
        generation: r.u64()?,
        offset: r.u32()?,
    };
    Some(Place {
        at,
        len: r.u32()?,
        crc: r.u32()?,
    })
}

fn encode_stats(stats: &Stats) -> Vec<u8> {
    let mut out = Vec::with_capacity(17 + 12 * stats.deletes.len());
    out.extend_from_slice(&stats.used.to_le_bytes());
    out.extend_from_slice(&stats.live.to_le_bytes());
    out.push(stats.retiring as u8);
    for (generation, count) in &stats.deletes {
        out.extend_from_slice(&generation.to_le_bytes());
        out.extend_from_slice(&count.to_le_bytes());
    }
    with_crc(out)
}

fn decode_stats(bytes: &[u8]) -> Option<Stats> {
    let mut r = without_crc(bytes)?;
    let mut stats = Stats {
        used: r.u32()?,
        live: r.u64()?,
        retiring: r.take::<1>()? == [1],
        deletes: BTreeMap::new(),
    };
    while !r.0.is_empty() {
        stats.deletes.insert(r.u64()?, r.u32()?);
    }
    Some(stats)
}

fn encode_summary(summary: &Summary) -> Vec<u8> {
    let mut out = FORMAT.to_le_bytes().to_vec();
    out.extend_from_slice(&summary.covered.generation.to_le_bytes());
    out.extend_from_slice(&summary.covered.offset.to_le_bytes());
    out.extend_from_slice(&summary.next_generation.to_le_bytes());
    out.extend_from_slice(&summary.live_bytes.to_le_bytes());
    out.extend_from_slice(&summary.chunks.to_le_bytes());
    for generation in &summary.victims {
        out.extend_from_slice(&generation.to_le_bytes());
    }
    with_crc(out)
}

fn decode_summary(bytes: &[u8]) -> Option<Summary> {
    let mut r = without_crc(bytes)?;
    if u16::from_le_bytes(r.take()?) != FORMAT {
        return None;
    }
    let covered = Position {
        generation: r.u64()?,
        offset: r.u32()?,
    };
    let mut summary = Summary {
        covered,
        next_generation: r.u64()?,
        live_bytes: r.u64()?,
        chunks: r.u64()?,
        victims: BTreeSet::new(),
    };
    while !r.0.is_empty() {
        summary.victims.insert(r.u64()?);
    }
    Some(summary)
}

impl Merge {
    /// Sets a chunk's new place; `None`: the chunk is gone.
    pub fn chunk(&mut self, id: ChunkId, place: Option<Place>) {
        match place {
            Some(place) => self.batch.insert(&chunk_key(id), &encode_place(place)),
            None => self.batch.remove(&chunk_key(id)),
        }
    }

    /// Sets a segment's new sums; `None`: the segment is gone.
    pub fn segment(&mut self, generation: u64, stats: Option<&Stats>) {
        match stats {
            Some(stats) => self
                .batch
                .insert(&segment_key(generation), encode_stats(stats)),
            None => self.batch.remove(&segment_key(generation)),
        }
    }

    /// Sets the number of chunks of a set.
    pub fn set(&mut self, set: SetId, count: u64) {
        match count {
            0 => self.batch.remove(&set_key(set)),
            n => self.batch.insert(&set_key(set), &n.to_le_bytes()),
        }
    }

    /// Sets the summary, which has to fit the other changes.
    pub fn summary(&mut self, summary: &Summary) {
        self.batch.insert(STATE_KEY, encode_summary(summary));
    }
}

impl DiskIndex {
    /// Opens the index in `dir` and makes it if it is missing. sled is known to
    /// panic on some damage; such a panic is returned as an error.
    pub fn open(dir: &Path, cache_bytes: u64) -> Result<DiskIndex, ChunkError> {
        let config = sled::Config::new()
            .path(dir)
            .cache_capacity(cache_bytes)
            .flush_every_ms(None);
        match catch_unwind(AssertUnwindSafe(|| config.open())) {
            Ok(opened) => Ok(DiskIndex {
                db: opened.map_err(failed)?,
            }),
            Err(_) => Err(ChunkError::Index("panic while opening".into())),
        }
    }

    /// Loads all but the chunks. `None` if the index is empty or makes no sense.
    pub fn load(&self) -> Option<Loaded> {
        catch_unwind(AssertUnwindSafe(|| self.try_load()))
            .ok()
            .flatten()
    }

    fn try_load(&self) -> Option<Loaded> {
        let mut loaded = Loaded {
            summary: decode_summary(&self.db.get(STATE_KEY).ok()??)?,
            ..Loaded::default()
        };
        for row in self.db.scan_prefix(b"g") {
            let (key, value) = row.ok()?;
            let generation = u64::from_be_bytes(key.get(1..)?.try_into().ok()?);
            loaded.stats.insert(generation, decode_stats(&value)?);
        }
        for row in self.db.scan_prefix(b"n") {
            let (key, value) = row.ok()?;
            let set = SetId(u32::from_be_bytes(key.get(1..)?.try_into().ok()?));
            loaded.sets.insert(set, Reader(&value).u64()?);
        }
        Some(loaded)
    }

    /// The place of a chunk.
    pub fn get(&self, id: ChunkId) -> Result<Option<Place>, ChunkError> {
        match self.db.get(chunk_key(id)).map_err(failed)? {
            None => Ok(None),
            Some(value) => decode_place(&value).map(Some).ok_or_else(malformed),
        }
    }

    /// The chunks from `from` on, in order of id.
    pub fn range(
        &self,
        from: Bound<ChunkId>,
    ) -> impl Iterator<Item = Result<(ChunkId, Place), ChunkError>> {
        let start = match from {
            Bound::Included(id) => Bound::Included(chunk_key(id)),
            Bound::Excluded(id) => Bound::Excluded(chunk_key(id)),
            Bound::Unbounded => Bound::Included(chunk_key(ChunkId(0))),
        };
        let end = Bound::Included(chunk_key(ChunkId(u128::MAX)));
        self.db.range((start, end)).map(|row| {
            let (key, value) = row.map_err(failed)?;
            let id = key.get(1..).and_then(|k| k.try_into().ok());
            let id = ChunkId(u128::from_be_bytes(id.ok_or_else(malformed)?));
            Ok((id, decode_place(&value).ok_or_else(malformed)?))
        })
    }

    /// Makes all changes of `merge` or none.
    pub fn apply(&self, merge: Merge) -> Result<(), ChunkError> {
        self.db.apply_batch(merge.batch).map_err(failed)
    }

    /// Makes all applied changes durable.
    pub fn flush(&self) -> Result<(), ChunkError> {
        self.db.flush().map(|_| ()).map_err(failed)
    }
}

fn malformed() -> ChunkError {
    ChunkError::Index("malformed entry".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_back_and_damage_is_seen() {
        let stats = Stats {
            used: 1,
            live: 2,
            retiring: true,
            deletes: BTreeMap::from([(7, 8)]),
        };
        let bytes = encode_stats(&stats);
        assert_eq!(decode_stats(&bytes), Some(stats));
        let summary = Summary {
            covered: Position {
                generation: 3,
                offset: 4,
            },
            next_generation: 5,
            live_bytes: 6,
            chunks: 7,
            victims: BTreeSet::from([1, 2]),
        };
        let mut bytes = encode_summary(&summary);
        assert_eq!(decode_summary(&bytes), Some(summary));
        bytes[9] ^= 1;
        assert_eq!(decode_summary(&bytes), None);
    }

    #[test]
    fn golden_bytes_of_a_place() {
        let place = Place {
            at: Position {
                generation: 0x0102,
                offset: 64,
            },
            len: 5,
            crc: 6,
        };
        let expected = [2, 1, 0, 0, 0, 0, 0, 0, 64, 0, 0, 0, 5, 0, 0, 0, 6, 0, 0, 0];
        assert_eq!(encode_place(place), expected);
        assert_eq!(decode_place(&expected), Some(place));
    }
}
