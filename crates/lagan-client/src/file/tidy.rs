//! Keeps the extents of files few: after small commits, regions that have
//! become crowded are rewritten as one chunk each.
//!
//! A database or a log that is fsynced after each small write would leave an
//! extent per write. A region of 1 MiB without holes has at most
//! [`REGION_EXTENTS_MAX`] when all is quiet: each time it has more, its bytes
//! are written once more, so that a write of 4 KiB costs 32 KiB more, on
//! average, and no more. What only grows at its end costs less: long extents before
//! short ones stay as they are ([`rows`]).
//!
//! The inode's turn is held meanwhile, so that a writer that does not stop
//! cannot outrun it. It is a service, not a promise: where it fails, nothing is
//! lost, and the next commit tries again.

use crate::chunks::piece::Piece;
use crate::chunks::range::Ask;
use crate::chunks::spec::{ChunkSpec, Missing};
use crate::file::Files;
use crate::file::commit::Change;
use crate::file::inode::Inode;
use crate::file::regions::{REGION_EXTENTS_MAX, range_of, regions, rows};
use bytes::{Bytes, BytesMut};
use lagan_types::extent::Edit;
use lagan_types::op::Rewrite;
use lagan_types::{Extent, FsError, Refusal};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// How long the file's other writers wait for one rewrite.
const PATIENCE: Duration = Duration::from_secs(10);

impl Files {
    /// Follows a commit whose slices went to those places behind `base`: regions that may be
    /// crowded are tidied in the background.
    pub(super) fn tidy_after(&self, inode: &Arc<Inode>, change: &Change, base: u64) {
        let slices = change.slices.iter();
        let mut touched = regions(slices.map(|s| (base.saturating_add(s.offset), s.len)));
        let state = inode.state.lock();
        touched.retain(|region| {
            let map = state.map.as_ref().filter(|m| m.version() == state.version);
            let count = map.and_then(|m| m.count_in(&range_of(*region)));
            // One that is not known is looked at.
            count.is_none_or(|count| count > REGION_EXTENTS_MAX)
        });
        drop(state);
        if touched.is_empty() || !self.regions.add(inode.ino, touched) {
            return;
        }
        let inode = inode.clone();
        self.tasks.spawn(&self.me, |files| async move {
            while let Some(region) = files.regions.next(inode.ino) {
                let until = files.leader.deadline().min(Instant::now() + PATIENCE);
                if let Err(error) = files.tidy_region(&inode, region, until).await {
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
    ) -> Result<(), Refusal> {
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

    /// The region's extents; only the first ones if it has very many.
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
    ) -> Result<(), Refusal> {
        let offset = row.first().map_or(0, |e| e.offset);
        let data = self.bytes_of(&row, until).await?;
        let piece = Piece::new(offset, data);
        self.chunks.store_piece(&piece, until).await?;
        let stored = piece.stored()?;
        let op = Rewrite {
            ino: inode.ino,
            from: row,
            chunk: stored.refer.clone(),
        };
        let done = self
            .leader
            .mutate_by(op, Some(stored.session()), until)
            .await;
        let mut state = inode.state.lock();
        if let Err(refusal) = done {
            // Somebody else changed it, or what was known was old.
            state.map = None;
            return Err(refusal);
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
            let (files, extent) = (me.clone(), extent.clone());
            reads.spawn(async move { (n, files.extent_bytes(&extent, until).await) });
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
