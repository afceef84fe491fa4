//! O_APPEND: data goes to the true end of the file, as the commit finds it.
//!
//! Writes wait here in order; one commit places them all, each whole. Short
//! last extents are rewritten together with what is appended, so that a log file
//! does not get an extent per line: this is tried at the data version that is
//! known, and if somebody else wrote meanwhile, the same chunk is appended
//! from where the new bytes begin in it.
//!
//! An extent is rewritten only with as much behind it as it is long itself:
//! lengths halve from one extent to the next, few of them are short, and each
//! byte is written about once for each time that its extent doubles.

use crate::Client;
use crate::chunks::piece::Piece;
use crate::chunks::range::Ask;
use crate::chunks::spec::ChunkSpec;
use crate::file::commit::{Change, Slice};
use crate::file::inode::Inode;
use crate::file::map::FileMap;
use bytes::{Bytes, BytesMut};
use lagan_types::limits::{APPEND_MERGE_LEN_MAX, CHUNK_LEN_MAX};
use lagan_types::{Extent, FsError};
use std::sync::Arc;
use tokio::time::Instant;

/// A last extent up to this length is rewritten whatever is appended: that
/// costs a page either way.
const MERGE_ALWAYS_LEN: u64 = 4 * 1024;

/// Appended bytes of one file that are not committed. Pure.
#[derive(Debug, Default)]
pub(crate) struct Appends {
    /// Each at most a chunk, each a whole number of writes.
    groups: Vec<BytesMut>,
    waiting_bytes: u64,
    /// Bytes that a commit is placing now.
    placing_bytes: u64,
}

impl Appends {
    /// Whether nothing waits and nothing is being placed.
    pub fn is_empty(&self) -> bool {
        self.held_bytes() == 0
    }

    /// Bytes that wait or are being placed.
    pub fn held_bytes(&self) -> u64 {
        self.waiting_bytes + self.placing_bytes
    }

    /// Adds one write.
    pub fn push(&mut self, data: &[u8]) {
        self.waiting_bytes += data.len() as u64;
        match self.groups.last_mut() {
            Some(last) if last.len() + data.len() <= CHUNK_LEN_MAX as usize => {
                last.extend_from_slice(data);
            }
            _ => {
                for part in data.chunks(CHUNK_LEN_MAX as usize) {
                    self.groups.push(part.into());
                }
            }
        }
    }

    /// Takes what waits, to be placed; ended by [`Appends::placed`].
    pub fn take(&mut self) -> Vec<Bytes> {
        self.placing_bytes += self.waiting_bytes;
        self.waiting_bytes = 0;
        self.groups.drain(..).map(BytesMut::freeze).collect()
    }

    /// That many bytes were placed or given up.
    pub fn placed(&mut self, bytes: u64) -> u64 {
        let bytes = bytes.min(self.placing_bytes);
        self.placing_bytes -= bytes;
        bytes
    }

    /// Forgets everything; returns how many bytes that were.
    pub fn clear(&mut self) -> u64 {
        let bytes = self.held_bytes();
        *self = Appends::default();
        bytes
    }
}

/// The last extents of a file, to be rewritten with what is appended.
struct Tail {
    version: u64,
    offset: u64,
    len: u64,
    /// In order of offset: chunk, first byte in it, bytes.
    parts: Vec<(ChunkSpec, u32, u64)>,
}

/// How many of the last extents are rewritten when `new` bytes are appended:
/// one as long as those behind it and `new` together. `lens` are the extents'
/// lengths, the last one first.
fn rewritten(lens: impl Iterator<Item = u64>, new: u64) -> usize {
    let mut sum = new;
    lens.take_while(|&len| {
        let fits = sum + len <= APPEND_MERGE_LEN_MAX as u64;
        let take = fits && len <= sum.max(MERGE_ALWAYS_LEN);
        sum += len;
        take
    })
    .count()
}

impl Client {
    /// Commits what `Appends::take` gave; the inode's turn is held.
    pub(crate) async fn place(
        &self,
        inode: &Arc<Inode>,
        groups: Vec<Bytes>,
        kill_suid: bool,
        until: Instant,
    ) -> Result<(), FsError> {
        let new: u64 = groups.iter().map(|g| g.len() as u64).sum();
        if let [only] = groups.as_slice()
            && let Some(tail) = self.mergeable_tail(inode, new, until).await
            && self.merge(inode, &tail, only, kill_suid, until).await?
        {
            return Ok(());
        }
        let mut end = 0;
        let pieces: Vec<_> = groups
            .into_iter()
            .map(|data| {
                let at = end;
                end += data.len() as u64;
                Piece::new(at, data)
            })
            .collect();
        self.chunks.store_all(&pieces, until).await?;
        let slices = pieces.into_iter().map(|p| Slice::new(p.offset(), p));
        let slices = slices.collect();
        let mut change = Change::new(inode.ino, slices);
        change.append = true;
        change.kill_suid = kill_suid;
        let done = self.commit(&mut change, until).await?;
        self.keep_small(&change);
        self.note_commit(inode, &change, &done);
        Ok(())
    }

    /// Rewrites the tail with `new` behind it; false if nothing was committed
    /// because the old bytes could not be read.
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
        let done = match self.commit(&mut change, until).await {
            Err(FsError::VersionChanged) => {
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
            other => other?,
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

    async fn tail_and(&self, tail: &Tail, new: &Bytes, until: Instant) -> Option<Bytes> {
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
        .is_some_and(|m: &FileMap| m.version() == state.version && m.knows_tail())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_is_never_split_between_groups() {
        let mut appends = Appends::default();
        let write = vec![1u8; 3 * 1024 * 1024];
        for _ in 0..3 {
            appends.push(&write);
        }
        let lens: Vec<_> = appends.take().iter().map(Bytes::len).collect();
        assert_eq!(lens, [write.len(); 3]);
    }

    #[test]
    fn small_writes_share_a_group_and_keep_their_order() {
        let mut appends = Appends::default();
        appends.push(b"one ");
        appends.push(b"two");
        assert_eq!(appends.take(), [Bytes::from_static(b"one two")]);
        assert!(!appends.is_empty());
        assert_eq!(appends.placed(7), 7);
        assert!(appends.is_empty());
    }

    /// The extents' lengths after appends, in order of offset.
    fn after(appends: impl Iterator<Item = u64>) -> (Vec<u64>, u64) {
        let (mut lens, mut written) = (Vec::<u64>::new(), 0);
        for new in appends {
            let count = rewritten(lens.iter().rev().copied(), new);
            let tail: u64 = lens.split_off(lens.len() - count).iter().sum();
            written += tail + new;
            lens.push(tail + new);
        }
        (lens, written)
    }

    #[test]
    fn an_extent_is_rewritten_with_as_much_behind_it() {
        let count = |lens: &[u64], new| rewritten(lens.iter().copied(), new);
        assert_eq!(count(&[4096], 1), 1);
        assert_eq!(count(&[5000], 4999), 0);
        assert_eq!(count(&[5000, 10_000, 20_001], 5000), 2);
        assert_eq!(count(&[128 * 1024], 128 * 1024), 1);
        assert_eq!(count(&[128 * 1024], 128 * 1024 + 1), 0);
    }

    #[test]
    fn appended_lines_leave_few_extents_and_are_written_few_times() {
        for line in [80, 1000, 30_000] {
            let bytes = 20 * 1024 * 1024;
            let (lens, written) = after((0..bytes / line).map(|_| line));
            let short = lens.iter().filter(|&&l| l < 100 * 1024).count();
            assert!(short <= 8, "{line}: {short} short extents");
            assert!(lens.len() <= 250, "{line}: {} extents", lens.len());
            let times = written / bytes;
            assert!(times <= 4096 / line + 12, "{line}: written {times} times");
        }
    }
}
