//! The settings of a store.

use crate::error::ChunkError;
use crate::record;
use std::path::PathBuf;

/// The settings of a store. [`Options::new`] has the defaults.
#[derive(Debug, Clone)]
pub struct Options {
    /// The directory that holds everything of this store.
    pub dir: PathBuf,
    /// Bytes of a segment file; at most 2 GiB. A chunk must fit into one.
    pub segment_len: u64,
    /// Whether zeros are written ahead of small records. That takes their bandwidth
    /// once more and triples their rate. Long records go without.
    pub prewrite: bool,
    /// Bytes kept back from chunks, for compaction and deletes. At least one
    /// segment is kept back in any case.
    pub reserve_bytes: u64,
    /// Bytes of the index's page cache.
    pub index_cache_bytes: u64,
    /// Bytes that the segment files may take; `None`: what the disk has.
    pub capacity_bytes: Option<u64>,
}

impl Options {
    /// The defaults for a store in `dir`: 64 MiB segments, small records written ahead,
    /// 256 MiB in reserve, 32 MiB of index cache, no limit but the disk.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Options {
            dir: dir.into(),
            segment_len: 64 << 20,
            prewrite: true,
            reserve_bytes: 256 << 20,
            index_cache_bytes: 32 << 20,
            capacity_bytes: None,
        }
    }

    /// Refuses settings that cannot work.
    pub(crate) fn check(&self) -> Result<(), ChunkError> {
        if self.segment_len < record::SEGMENT_LEN_MIN || self.segment_len > 2 << 30 {
            return Err(ChunkError::Invalid("segment length out of range"));
        }
        if !self.segment_len.is_multiple_of(record::PAGE_LEN as u64) {
            return Err(ChunkError::Invalid("segment length not a multiple of 4096"));
        }
        Ok(())
    }

    /// Bytes kept back from chunks.
    pub(crate) fn reserve(&self) -> u64 {
        self.reserve_bytes.max(self.segment_len)
    }
}
