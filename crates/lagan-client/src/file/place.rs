//! O_APPEND: data goes to the true end of the file, as the commit finds it.
//!
//! Writes wait in order ([`crate::file::appends`]); one commit places them all, each
//! whole. Short last extents are rewritten together with what is appended, so that a
//! log file does not get an extent per line: this is tried at the data version that
//! is known, and if somebody else wrote meanwhile, the same chunk is appended
//! from where the new bytes begin in it.
//!
//! Short bytes come with the commit, alone, and what has become crowded by them is rewritten
//! afterwards ([`crate::file::tidy`]). What is rewritten with others is stored first: those may
//! be acknowledged bytes, and must be on every member of their set before anything names the new
//! chunk (INV-1), also where this mount dies meanwhile.

use crate::chunks::piece::Piece;
use crate::chunks::range::Ask;
use crate::chunks::spec::ChunkSpec;
use crate::file::Files;
use crate::file::appends::rewritten;
use crate::file::commit::{Change, Slice};
use crate::file::inode::Inode;
use crate::leader::link::{data_error, fs_error};
use bytes::{Bytes, BytesMut};
use lagan_types::limits::APPEND_MERGE_LEN_MAX;
use lagan_types::{Extent, FsError, Refusal};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How long the old tail is read: long enough to pass over two silent replicas. After that
/// the data is appended as it is, which needs no server of the tail, and the rest of the
/// flush's time is left for it.
const TAIL_PATIENCE: Duration = Duration::from_secs(3);

/// The last extents of a file, to be rewritten with what is appended.
struct Tail {
    version: u64,
    offset: u64,
    len: u64,
    /// Chunk, first byte in it, and length of each, in order of offset.
    parts: Vec<(ChunkSpec, u32, u64)>,
}

impl Files {
    /// Commits the bytes that [`crate::file::appends::Appends::take`] gave. The caller
    /// holds the inode's turn.
    ///
    /// # Errors
    /// Those of [`Files::commit`] and [`crate::chunks::Chunks::store_all`].
    pub(super) async fn place(
        &self,
        inode: &Arc<Inode>,
        groups: Vec<Bytes>,
        kill_suid: bool,
        until: Instant,
    ) -> Result<(), FsError> {
        let mut end = 0;
        let pieces: Vec<_> = groups
            .iter()
            .map(|data| {
                let at = end;
                end += data.len() as u64;
                Piece::new(at, data.clone())
            })
            .collect();
        let mut change = match self.inline_change(inode.ino, &pieces, until).await? {
            Some(change) => change,
            None => {
                if let [only] = groups.as_slice()
                    && let Some(tail) = self.mergeable_tail(inode, end, until).await
                    && self.merge(inode, &tail, only, kill_suid, until).await?
                {
                    return Ok(());
                }
                self.stored_change(inode.ino, &pieces, until).await?
            }
        };
        change.append = true;
        change.kill_suid = kill_suid;
        let done = self.commit(&mut change, until).await?;
        self.keep_small(&change);
        self.note_commit(inode, &change, &done);
        self.tidy_after(inode, &change, done.appended_at);
        Ok(())
    }

    /// Rewrites the tail with `new` behind it; false if nothing was committed
    /// because the old bytes could not be read within [`TAIL_PATIENCE`].
    async fn merge(
        &self,
        inode: &Arc<Inode>,
        tail: &Tail,
        new: &Bytes,
        kill_suid: bool,
        until: Instant,
    ) -> Result<bool, FsError> {
        let Some(both) = self.tail_and(tail, new, until).await else {
            return Ok(false);
        };
        let piece = Piece::new(tail.offset, both);
        self.chunks.store_piece(&piece, until).await?;
        let mut change = Change::new(inode.ino, vec![Slice::new(tail.offset, piece)]);
        change.expect_version = Some(tail.version);
        change.kill_suid = kill_suid;
        let done = match self.try_commit(&mut change, until).await {
            Err(Refusal::VersionChanged) => {
                change.slices = vec![Slice {
                    offset: 0,
                    skip: tail.len as u32,
                    len: new.len() as u64,
                    ..change.slices.remove(0)
                }];
                change.expect_version = None;
                change.append = true;
                self.commit(&mut change, until).await?
            }
            other => other.map_err(|refusal| data_error(fs_error(refusal)))?,
        };
        self.keep_small(&change);
        self.note_commit(inode, &change, &done);
        Ok(true)
    }

    async fn mergeable_tail(&self, inode: &Arc<Inode>, new: u64, until: Instant) -> Option<Tail> {
        if new >= APPEND_MERGE_LEN_MAX as u64 {
            return None;
        }
        // If there are too many extents for one page, the last one must do.
        for back in [APPEND_MERGE_LEN_MAX as u64, 1] {
            if !knows_tail(inode) {
                let size = inode.state.lock().attr.as_ref().map_or(0, |a| a.size);
                let from = size.saturating_sub(back);
                self.fetch_page(inode, from, until).await.ok()?;
            }
        }
        let state = inode.state.lock();
        let map = state
            .map
            .as_ref()
            .filter(|m| m.version() == state.version)?;
        let count = rewritten(map.tail().map(|e| e.len), new);
        let part = |extent: &Extent| {
            let (chunk, skip) = ChunkSpec::of(&extent.content)?;
            Some((chunk, skip, extent.len))
        };
        let mut parts: Vec<_> = map.tail().map_while(part).take(count).collect();
        parts.reverse();
        let len = parts.iter().map(|(_, _, len)| len).sum();
        (len > 0).then_some(Tail {
            version: map.version(),
            offset: map.size() - len,
            len,
            parts,
        })
    }

    /// The tail's bytes with `new` behind them; `None` if they cannot be read, or not soon.
    async fn tail_and(&self, tail: &Tail, new: &Bytes, until: Instant) -> Option<Bytes> {
        let until = until.min(Instant::now() + TAIL_PATIENCE);
        let mut both = BytesMut::with_capacity(tail.len as usize + new.len());
        for &(chunk, skip, len) in &tail.parts {
            let (ask, len) = (Ask::replicas(until), u32::try_from(len).ok()?);
            let old = self.chunks.range(ask, chunk, skip, len, &mut both);
            old.await.ok()?;
        }
        both.extend_from_slice(new);
        Some(both.freeze())
    }

    /// Keeps short appended chunks for the next append to read.
    fn keep_small(&self, change: &Change) {
        for slice in &change.slices {
            if slice.piece.len() <= APPEND_MERGE_LEN_MAX as u64 {
                self.chunks.keep(&slice.piece);
            }
        }
    }
}

fn knows_tail(inode: &Inode) -> bool {
    let state = inode.state.lock();
    state
        .map
        .as_ref()
        .is_some_and(|m| m.version() == state.version && m.knows_tail())
}
