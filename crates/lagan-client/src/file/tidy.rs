//! Keeps the extents of files few: after small commits, regions that have
//! become crowded are rewritten as one chunk each.
//!
//! A database or a log that is fsynced after each small write would leave an
//! extent per write. A region of 1 MiB without holes has at most
//! [`REGION_EXTENTS_MAX`] when all is quiet: each time that is passed its bytes
//! are written once more, so that a write of 4 KiB costs 32 KiB more, on
//! average, and no more.
//!
//! The inode's turn is held meanwhile, so that a writer that does not stop
//! cannot outrun it. It is a service, not a promise: where it fails, nothing is
//! lost, and the next commit tries again.

use crate::Client;
use crate::chunks::piece::Piece;
use crate::chunks::range::Ask;
use crate::chunks::spec::{ChunkSpec, Missing};
use crate::file::commit::Change;
use crate::file::inode::Inode;
use bytes::{Bytes, BytesMut};
use lagan_types::extent::Edit;
use lagan_types::limits::REWRITE_EXTENTS_MAX;
use lagan_types::op::Rewrite;
use lagan_types::{Content, Extent, FsError, Ino, Op};
use parking_lot::Mutex;
use std::collections::{BTreeSet, HashMap};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Bytes of a region.
const REGION_LEN: u64 = 1024 * 1024;
/// Extents that a region may have.
const REGION_EXTENTS_MAX: usize = 64;
/// Writes of this length crowd no region.
const SMALL_LEN: u64 = 256 * 1024;
/// Extents in a row that are worth a rewrite: holes cut a region into rows.
const RUN_EXTENTS_MIN: usize = 8;
/// How long the file's other writers wait for one rewrite.
const PATIENCE: Duration = Duration::from_secs(10);
/// Regions of one file that wait.
const WAITING_MAX: usize = 1024;

/// Regions that wait for their rewrite; a file that has an entry has a task.
#[derive(Debug, Default)]
pub(crate) struct Tidy {
    waiting: Mutex<HashMap<Ino, BTreeSet<u64>>>,
}

impl Tidy {
    /// Adds regions; true if a task must be started for them.
    fn add(&self, ino: Ino, regions: BTreeSet<u64>) -> bool {
        let mut waiting = self.waiting.lock();
        let new = !waiting.contains_key(&ino);
        let all = waiting.entry(ino).or_default();
        all.extend(regions);
        while all.len() > WAITING_MAX {
            all.pop_last();
        }
        new
    }

    /// The task's next region; `None`: there is none, and no task any more.
    fn next(&self, ino: Ino) -> Option<u64> {
        let mut waiting = self.waiting.lock();
        let region = waiting.get_mut(&ino)?.pop_first();
        if region.is_none() {
            waiting.remove(&ino);
        }
        region
    }
}

fn range_of(region: u64) -> Range<u64> {
    let start = region * REGION_LEN;
    start..start + REGION_LEN
}

/// The regions of small slices.
fn regions(slices: impl Iterator<Item = (u64, u64)>) -> BTreeSet<u64> {
    let small = slices.filter(|(_, len)| (1..SMALL_LEN).contains(len));
    small
        .flat_map(|(offset, len)| [offset / REGION_LEN, (offset + len - 1) / REGION_LEN])
        .collect()
}

/// The rows of chunks without a gap that are worth a rewrite.
fn rows(extents: Vec<Extent>) -> Vec<Vec<Extent>> {
    let mut rows: Vec<Vec<Extent>> = Vec::new();
    let mut end = None;
    for extent in extents {
        if !matches!(extent.content, Content::Chunk { .. }) {
            end = None;
            continue;
        }
        let next = Some(extent.end());
        match rows.last_mut() {
            Some(row) if end == Some(extent.offset) && row.len() < REWRITE_EXTENTS_MAX => {
                row.push(extent);
            }
            _ => rows.push(vec![extent]),
        }
        end = next;
    }
    rows.retain(|row| row.len() >= RUN_EXTENTS_MIN);
    rows
}

impl Client {
    /// Follows a commit of positional writes.
    pub(crate) fn tidy_after(&self, inode: &Arc<Inode>, change: &Change) {
        let mut touched = regions(change.slices.iter().map(|s| (s.offset, s.len)));
        let state = inode.state.lock();
        touched.retain(|region| {
            let map = state.map.as_ref().filter(|m| m.version() == state.version);
            let count = map.and_then(|m| m.count_in(&range_of(*region)));
            // What is not known is looked at.
            count.is_none_or(|count| count > REGION_EXTENTS_MAX)
        });
        drop(state);
        if touched.is_empty() || !self.tidy.add(inode.ino, touched) {
            return;
        }
        let inode = inode.clone();
        self.tasks.spawn(&self.me, |client| async move {
            while let Some(region) = client.tidy.next(inode.ino) {
                let until = client.leader.deadline().min(Instant::now() + PATIENCE);
                if let Err(error) = client.tidy_region(&inode, region, until).await {
                    tracing::debug!(ino = %inode.ino, region, %error, "extents stay as they are");
                }
            }
        });
    }

    async fn tidy_region(
        &self,
        inode: &Arc<Inode>,
        region: u64,
        until: Instant,
    ) -> Result<(), FsError> {
        let turn = tokio::time::timeout_at(until, inode.turn.lock());
        let _turn = turn.await.map_err(|_| FsError::Io)?;
        let extents = self.extents_of(inode, range_of(region), until).await?;
        if extents.len() <= REGION_EXTENTS_MAX {
            return Ok(());
        }
        for row in rows(extents) {
            self.rewrite(inode, row, until).await?;
        }
        Ok(())
    }

    /// The region's extents; of a region with very many the first.
    async fn extents_of(
        &self,
        inode: &Inode,
        mut range: Range<u64>,
        until: Instant,
    ) -> Result<Vec<Extent>, FsError> {
        let known = |range: &Range<u64>| {
            let state = inode.state.lock();
            let map = state.map.as_ref().filter(|m| m.version() == state.version);
            (
                map.and_then(|m| m.extents_in(range)),
                map.map(|m| m.known_to()),
            )
        };
        if let (Some(extents), _) = known(&range) {
            return Ok(extents);
        }
        self.fetch_page(inode, range.start, until).await?;
        match known(&range) {
            (Some(extents), _) => Ok(extents),
            (None, known_to) => {
                range.end = known_to.unwrap_or(0).min(range.end).max(range.start);
                Ok(known(&range).0.unwrap_or_default())
            }
        }
    }

    /// Makes one extent of a row.
    async fn rewrite(
        &self,
        inode: &Arc<Inode>,
        row: Vec<Extent>,
        until: Instant,
    ) -> Result<(), FsError> {
        let offset = row.first().map_or(0, |e| e.offset);
        let data = self.bytes_of(&row, until).await?;
        let piece = Piece::new(offset, data);
        self.chunks.store_piece(&piece, until).await?;
        let stored = piece.stored()?;
        let op = Op::Rewrite(Rewrite {
            ino: inode.ino,
            from: row,
            chunk: stored.refer.clone(),
        });
        let done = self
            .leader
            .mutate_by(op, Some(stored.session()), until)
            .await;
        let mut state = inode.state.lock();
        if let Err(error) = done {
            // Somebody else changed it, or what was known was old.
            state.map = None;
            return Err(error);
        }
        let edit = Edit {
            offset,
            len: piece.len(),
            content: Some(stored.refer.clone()),
        };
        let followed = state.map.as_mut().is_some_and(|map| {
            let (version, size) = (map.version(), map.size());
            map.follow(&[edit], version, size)
        });
        if !followed {
            state.map = None;
        }
        Ok(())
    }

    /// The bytes of a row, several extents at a time.
    async fn bytes_of(&self, row: &[Extent], until: Instant) -> Result<Bytes, FsError> {
        let me = self.me.upgrade().ok_or(FsError::Io)?;
        let mut reads = JoinSet::new();
        for (n, extent) in row.iter().enumerate() {
            let (client, extent) = (me.clone(), extent.clone());
            reads.spawn(async move { (n, client.extent_bytes(&extent, until).await) });
        }
        let mut parts = vec![Bytes::new(); row.len()];
        while let Some(read) = reads.join_next().await {
            let (n, bytes) = read.map_err(|_| FsError::Io)?;
            if let Some(part) = parts.get_mut(n) {
                *part = bytes.map_err(|_| FsError::Io)?;
            }
        }
        let mut all = BytesMut::with_capacity(parts.iter().map(Bytes::len).sum());
        parts.iter().for_each(|part| all.extend_from_slice(part));
        Ok(all.freeze())
    }

    async fn extent_bytes(&self, extent: &Extent, until: Instant) -> Result<Bytes, Missing> {
        let invalid = Missing::Failed(FsError::Invalid);
        let (chunk, skip) = ChunkSpec::of(&extent.content).ok_or(invalid)?;
        let mut bytes = BytesMut::with_capacity(extent.len as usize);
        let (ask, len) = (Ask::replicas(until), extent.len as u32);
        self.chunks.range(ask, chunk, skip, len, &mut bytes).await?;
        Ok(bytes.freeze())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lagan_types::{BlockId, ChunkId, SetId, VolumeId};

    fn extent(offset: u64, len: u64, chunk: bool) -> Extent {
        let content = match chunk {
            true => Content::Chunk {
                id: ChunkId::new(VolumeId(1), SetId(1), BlockId(1), 1),
                skip: 0,
                chunk_len: len as u32,
                chunk_crc: 0,
            },
            false => Content::Lost,
        };
        Extent {
            offset,
            len,
            content,
        }
    }

    #[test]
    fn rows_end_at_gaps_and_at_what_is_no_chunk() {
        let mut extents: Vec<_> = (0..10).map(|n| extent(n * 10, 10, true)).collect();
        extents.extend((0..20).map(|n| extent(200 + n * 10, 10, n != 9)));
        extents.extend((0..3).map(|n| extent(900 + n * 10, 10, true)));
        let found = rows(extents);
        let shape: Vec<_> = found.iter().map(|r| (r[0].offset, r.len())).collect();
        assert_eq!(shape, [(0, 10), (200, 9), (300, 10)]);
    }

    #[test]
    fn only_small_writes_crowd_their_regions() {
        let mib = REGION_LEN;
        let slices = [(5, 10), (mib - 1, 2), (7 * mib, SMALL_LEN), (9 * mib, 0)];
        assert_eq!(regions(slices.into_iter()), BTreeSet::from([0, 1]));
    }

    #[test]
    fn a_file_has_one_task_at_a_time() {
        let tidy = Tidy::default();
        assert!(tidy.add(Ino(1), BTreeSet::from([3])));
        assert!(!tidy.add(Ino(1), BTreeSet::from([2, 3])));
        assert_eq!((tidy.next(Ino(1)), tidy.next(Ino(1))), (Some(2), Some(3)));
        assert_eq!(tidy.next(Ino(1)), None);
        assert!(tidy.add(Ino(1), BTreeSet::from([3])));
    }
}
