//! Gives bytes that came with a commit another place: a member of their set is down that had
//! not got them yet.
//!
//! The commit has happened and anybody may have seen it, so it is not repeated. One chunk takes
//! the place of another with the same bytes wherever the file still names that one; what
//! somebody else has written or cut off since is his.

use crate::chunks::piece::Piece;
use crate::file::Files;
use crate::file::commit::{Change, Slice};
use crate::leader::link::{data_error, fs_error};
use lagan_types::limits::EXTENTS_PAGE_MAX;
use lagan_types::op::Rewrite;
use lagan_types::query::Extents;
use lagan_types::{Content, Extent, FsError, Ino, Refusal};
use tokio::time::Instant;

/// How often a file may change under it.
const TRIES_MAX: u32 = 16;

impl Files {
    /// Stores the bytes of a commit that was carried out as chunks of an open set, and has the
    /// file name those. `base` is where its offsets count from.
    ///
    /// # Errors
    /// Why they are not stored; [`FsError::Io`] at the deadline.
    pub(super) async fn rehome(
        &self,
        change: &Change,
        base: u64,
        until: Instant,
    ) -> Result<(), FsError> {
        for slice in &change.slices {
            let mut failed = 0;
            while let Some(extent) = self.named(change.ino(), (base, slice), until).await? {
                let replaced = self.replace(change.ino(), slice, extent, until).await?;
                failed += u32::from(!replaced);
                if failed > TRIES_MAX {
                    return Err(FsError::Io);
                }
            }
        }
        Ok(())
    }

    /// The first extent of the slice's range that still names its chunk.
    async fn named(
        &self,
        ino: Ino,
        (base, slice): (u64, &Slice),
        until: Instant,
    ) -> Result<Option<Extent>, FsError> {
        let id = slice.piece.stored()?.refer.id;
        let mut offset = base + slice.offset;
        let end = offset + slice.len;
        loop {
            let query = Extents {
                ino,
                offset,
                limit: EXTENTS_PAGE_MAX as u32,
            };
            let page = match self.leader.query_by(query, until).await {
                Ok(page) => page,
                // The file is gone.
                Err(FsError::Stale | FsError::NotFound) => return Ok(None),
                Err(error) => return Err(data_error(error)),
            };
            let names = |e: &&Extent| {
                e.offset < end
                    && matches!(e.content, Content::Chunk { id: named, .. } if named == id)
            };
            if let Some(found) = page.extents.iter().find(names) {
                return Ok(Some(found.clone()));
            }
            match page.extents.last() {
                Some(last) if page.more && last.end() < end => offset = last.end(),
                _ => return Ok(None),
            }
        }
    }

    /// Has another chunk take the extent's place; false: it has changed again, or its set has.
    async fn replace(
        &self,
        ino: Ino,
        slice: &Slice,
        extent: Extent,
        until: Instant,
    ) -> Result<bool, FsError> {
        let Content::Chunk { skip, .. } = extent.content else {
            return Ok(false);
        };
        let from = skip as usize;
        let bytes = slice.piece.bytes().slice(from..from + extent.len as usize);
        let piece = Piece::new(extent.offset, bytes);
        self.chunks.store_piece(&piece, until).await?;
        let stored = piece.stored()?;
        let op = Rewrite {
            ino,
            from: vec![extent],
            chunk: stored.refer.clone(),
        };
        let session = Some(stored.session());
        match self.leader.mutate_by(op, session, until).await {
            Ok(()) => Ok(true),
            Err(Refusal::VersionChanged) => Ok(false),
            Err(Refusal::StaleEpoch) => {
                self.leader.refresh_map(until).await.map_err(data_error)?;
                Ok(false)
            }
            Err(refusal) => Err(data_error(fs_error(refusal))),
        }
    }
}
