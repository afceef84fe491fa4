//! Many small extents become one: the same bytes in one chunk.
//!
//! What must hold: the bytes do not change, so neither do version and times, and
//! an archived file stays archived. Chunks never change either: if the range
//! names the same chunks as when they were read, the new one has its bytes.

use super::commit::{check_sets, name_chunks};
use crate::extents::{self, join, slice};
use crate::txn::{Outcome, Txn};
use lagan_types::attr::Kind;
use lagan_types::extent::Edit;
use lagan_types::limits::{CHUNK_LEN_MAX, REWRITE_EXTENTS_MAX};
use lagan_types::op::{Commit, Inline, Rewrite};
use lagan_types::{Content, Extent, FsError, Refusal, SessionId};
use std::ops::Range;

/// Replaces the range's extents, if they are still those.
pub(crate) fn rewrite(txn: &mut Txn<'_>, session: SessionId, rewrite: &Rewrite) -> Outcome<()> {
    let ino = rewrite.ino;
    let mut row = txn.inode(ino)?;
    if row.kind != Kind::File {
        return Err(FsError::Invalid.into());
    }
    let range = check(rewrite)?;
    let found = extents::overlapping(txn, ino, range.clone(), REWRITE_EXTENTS_MAX + 1)?;
    let found = found.iter().map(|e| {
        let part = e.offset.max(range.start)..e.end().min(range.end);
        slice(e, part)
    });
    if join(found.collect()) != join(rewrite.from.clone()) {
        return Err(Refusal::VersionChanged.into());
    }
    let commit = as_commit(rewrite, &range);
    check_sets(txn, &commit)?;
    name_chunks(txn, session, &commit)?;
    extents::cut(txn, ino, &mut row, range.clone())?;
    let chunk = &rewrite.chunk;
    let extent = Extent {
        offset: range.start,
        len: range.end - range.start,
        content: Content::Chunk {
            id: chunk.id,
            skip: 0,
            chunk_len: chunk.chunk_len,
            chunk_crc: chunk.chunk_crc,
        },
    };
    extents::insert(txn, ino, &mut row, &extent);
    txn.set_inode(ino, row)?;
    Ok(())
}

/// The range: chunks without a gap, as long as the new one.
fn check(rewrite: &Rewrite) -> Result<Range<u64>, FsError> {
    let (from, chunk) = (&rewrite.from, &rewrite.chunk);
    let start = from.first().ok_or(FsError::Invalid)?.offset;
    let mut end = start;
    for extent in from {
        let chunk = matches!(extent.content, Content::Chunk { .. });
        if !chunk || extent.offset != end || extent.len == 0 {
            return Err(FsError::Invalid);
        }
        end = end.checked_add(extent.len).ok_or(FsError::Invalid)?;
    }
    let fits = end - start == chunk.chunk_len as u64
        && chunk.chunk_len <= CHUNK_LEN_MAX
        && chunk.skip == 0
        && from.len() <= REWRITE_EXTENTS_MAX;
    if fits {
        Ok(start..end)
    } else {
        Err(FsError::Invalid)
    }
}

/// The same as a commit, to be checked as one.
fn as_commit(rewrite: &Rewrite, range: &Range<u64>) -> Commit {
    Commit {
        ino: rewrite.ino,
        edits: vec![Edit {
            offset: range.start,
            len: range.end - range.start,
            content: Some(rewrite.chunk.clone()),
        }],
        append: false,
        size_min: 0,
        expect_version: None,
        kill_suid: false,
        mtime: None,
        inline: Inline::Stored,
    }
}
