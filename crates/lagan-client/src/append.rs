//! O_APPEND: data goes to the true end of the file, as the commit finds it.
//!
//! Writes wait here in order; one commit places them all, each whole. A short
//! last extent is rewritten together with what is appended, so that a log file
//! does not get an extent per line: this is tried at the data version that is
//! known, and if somebody else wrote meanwhile, the same chunk is appended
//! from where the new bytes begin in it.

use crate::Client;
use crate::cache::{FileMap, UNIT_LEN};
use crate::commit::{Change, Committed, Slice};
use crate::fetch::ChunkSpec;
use crate::files::{Inode, Piece};
use bytes::{Bytes, BytesMut};
use lagan_types::limits::{APPEND_MERGE_LEN_MAX, CHUNK_LEN_MAX};
use lagan_types::{Content, FsError};
use std::sync::Arc;
use tokio::time::Instant;

/// A last extent up to this length is rewritten whatever is appended; a longer
/// one only if it is not many times what is appended, or appending lines would
/// write each byte hundreds of times.
const MERGE_ALWAYS_LEN: u64 = 64 * 1024;
const MERGE_FACTOR: u64 = 8;

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

/// The last extent of a file, to be rewritten with what is appended.
struct Tail {
    version: u64,
    offset: u64,
    len: u64,
    chunk: ChunkSpec,
    skip: u32,
}

/// Whether a last extent of `tail` bytes is rewritten when `new` are appended.
fn merges(tail: u64, new: u64) -> bool {
    let limit = APPEND_MERGE_LEN_MAX as u64;
    tail + new <= limit && tail <= MERGE_ALWAYS_LEN.max(new * MERGE_FACTOR)
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
        let mut slices = Vec::with_capacity(groups.len());
        let mut at = 0;
        for data in groups {
            let len = data.len() as u64;
            slices.push(Slice::new(at, Piece::new(at, data)));
            at += len;
        }
        self.store_all(&slices, until).await?;
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
        let slices = vec![Slice::new(tail.offset, piece.clone())];
        self.store_all(&slices, until).await?;
        let mut change = Change::new(inode.ino, slices);
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
        if !merges(1, new) {
            return None;
        }
        if !knows_tail(inode) {
            let size = inode.state.lock().attr.as_ref().map_or(0, |a| a.size);
            self.fetch_page(inode, size.saturating_sub(1), until)
                .await
                .ok()?;
        }
        let state = inode.state.lock();
        let map = state
            .map
            .as_ref()
            .filter(|m| m.version() == state.version)?;
        let last = map.tail()?;
        let Content::Chunk {
            id,
            skip,
            chunk_len,
            chunk_crc,
        } = last.content
        else {
            return None;
        };
        merges(last.len, new).then_some(Tail {
            version: map.version(),
            offset: last.offset,
            len: last.len,
            chunk: ChunkSpec {
                id,
                len: chunk_len,
                crc: chunk_crc,
            },
            skip,
        })
    }

    async fn tail_and(&self, tail: &Tail, new: &Bytes, until: Instant) -> Option<Bytes> {
        let mut both = BytesMut::with_capacity(tail.len as usize + new.len());
        let (mut at, end) = (tail.skip, tail.skip.checked_add(tail.len as u32)?);
        while at < end {
            let len = (end - at).min(UNIT_LEN - at % UNIT_LEN);
            let old = self.chunk_bytes(tail.chunk, at, len, false, until).await;
            both.extend_from_slice(&old.ok()?);
            at += len;
        }
        both.extend_from_slice(new);
        Some(both.freeze())
    }

    /// Keeps short appended chunks for the next append to read.
    fn keep_small(&self, change: &Change) {
        for slice in &change.slices {
            let Some(Ok(stored)) = slice.piece.stored.get() else {
                continue;
            };
            let data = crate::buffer::Placed::data(&slice.piece);
            if data.len() <= APPEND_MERGE_LEN_MAX as usize {
                self.blocks.put(stored.refer.id, 0, data.clone());
            }
        }
    }

    /// Follows a commit with what is known of the inode.
    pub(crate) fn note_commit(&self, inode: &Inode, change: &Change, done: &Committed) {
        let edits = change.edits_at(done.appended_at);
        let mut state = inode.state.lock();
        let followed = match &mut state.map {
            Some(map) if map.version() == done.before => {
                map.follow(&edits, done.attr.version, done.attr.size)
            }
            _ => false,
        };
        if !followed {
            state.map = None;
        }
        state.learn(&done.attr);
        drop(state);
        if !change.append && change.expect_version.is_none() {
            self.pages
                .committed(inode.ino, done.before, done.attr.version);
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

    #[test]
    fn short_tails_merge_and_long_ones_only_with_much_new() {
        assert!(merges(100, 1));
        assert!(merges(64 * 1024, 1));
        assert!(!merges(65 * 1024, 1));
        assert!(merges(100 * 1024, 20 * 1024));
        assert!(!merges(250 * 1024, 20 * 1024));
    }
}
