//! One step of a file's content (docs/DESIGN.md "Immutable chunks"): validate all, then switch.

use crate::extents;
use crate::kv::{StoreError, Table};
use crate::layout::rows::{BlockRow, InodeRow};
use crate::layout::{key_set, key1};
use crate::ops::xattr::drop_capability;
use crate::txn::{Outcome, Txn};
use lagan_types::answer::Committed;
use lagan_types::attr::Kind;
use lagan_types::cluster::ReplicaSet;
use lagan_types::extent::{ChunkRef, Edit};
use lagan_types::limits::{CHUNK_LEN_MAX, COMMIT_EDITS_MAX, FILE_LEN_MAX};
use lagan_types::op::{Commit, Inline};
use lagan_types::{BlockId, Content, Extent, FsError, Ino, Refusal, SessionId, SetId, VolumeId};
use std::collections::BTreeMap;

/// Switches parts of the file's map.
pub(crate) fn commit(txn: &mut Txn<'_>, session: SessionId, commit: &Commit) -> Outcome<Committed> {
    if commit.inline == Inline::Refused {
        return Err(Refusal::NotInline.into());
    }
    let ino = commit.ino;
    let mut row = txn.inode(ino)?;
    match row.kind {
        Kind::File => {}
        Kind::Directory => return Err(FsError::IsDirectory.into()),
        _ => return Err(FsError::Invalid.into()),
    }
    if commit.expect_version.is_some_and(|v| v != row.version) {
        return Err(Refusal::VersionChanged.into());
    }
    let base = if commit.append { row.size } else { 0 };
    check_edits(commit, base)?;
    check_sets(txn, commit)?;
    name_chunks(txn, session, commit)?;
    let before = row.version;
    if !commit.edits.is_empty() || commit.size_min > row.size {
        for edit in &commit.edits {
            switch(txn, ino, &mut row, base, edit)?;
        }
        row.size = row.size.max(commit.size_min);
        let set = commit.mtime.filter(|time| *time == row.mtime);
        row.touch_file(txn.time);
        row.mtime = set.unwrap_or(row.mtime);
        drop_capability(txn, ino, &mut row)?;
    }
    if commit.kill_suid {
        row.clear_suid();
    }
    let attr = row.attr(ino);
    txn.set_inode(ino, row)?;
    Ok(Committed {
        before,
        appended_at: base,
        attr,
    })
}

/// Order, lengths and bounds.
fn check_edits(commit: &Commit, base: u64) -> Result<(), FsError> {
    if commit.edits.len() > COMMIT_EDITS_MAX {
        return Err(FsError::Invalid);
    }
    if commit.size_min > FILE_LEN_MAX {
        return Err(FsError::FileTooLarge);
    }
    let mut from = base;
    for edit in &commit.edits {
        let start = base.checked_add(edit.offset).ok_or(FsError::FileTooLarge)?;
        let end = start.checked_add(edit.len).ok_or(FsError::FileTooLarge)?;
        if end > FILE_LEN_MAX {
            return Err(FsError::FileTooLarge);
        }
        if edit.len == 0 || start < from {
            return Err(FsError::Invalid);
        }
        if let Some(chunk) = &edit.content {
            check_chunk(chunk, edit.len)?;
        }
        from = end;
    }
    Ok(())
}

fn check_chunk(chunk: &ChunkRef, len: u64) -> Result<(), FsError> {
    let fits = chunk.skip as u64 + len.min(u32::MAX as u64) <= chunk.chunk_len as u64;
    if fits && len <= CHUNK_LEN_MAX as u64 && chunk.chunk_len <= CHUNK_LEN_MAX {
        Ok(())
    } else {
        Err(FsError::Invalid)
    }
}

/// Each set is as it was when the chunk was written, and open.
pub(super) fn check_sets(txn: &Txn<'_>, commit: &Commit) -> Outcome<()> {
    let mut seen: BTreeMap<SetId, Option<ReplicaSet>> = BTreeMap::new();
    for chunk in commit.edits.iter().filter_map(|e| e.content.as_ref()) {
        let id = chunk.id.set();
        if let std::collections::btree_map::Entry::Vacant(entry) = seen.entry(id) {
            entry.insert(txn.row(Table::Set, &key_set(id.0))?);
        }
        let open = seen
            .get(&id)
            .and_then(Option::as_ref)
            .is_some_and(|set| !set.sealed && set.epoch == chunk.set_epoch);
        if !open {
            return Err(Refusal::StaleEpoch.into());
        }
    }
    Ok(())
}

/// Each id is of an open block of the session and was never named; now it is.
pub(super) fn name_chunks(txn: &mut Txn<'_>, session: SessionId, commit: &Commit) -> Outcome<()> {
    let mut blocks: BTreeMap<BlockId, BlockRow> = BTreeMap::new();
    for chunk in commit.edits.iter().filter_map(|e| e.content.as_ref()) {
        let id = chunk.id;
        if id.volume() != VolumeId::ONLY {
            return Err(FsError::Invalid.into());
        }
        let mut row = match blocks.remove(&id.block()) {
            Some(row) => row,
            None => load_block(txn, id.block())?.ok_or(FsError::Invalid)?,
        };
        if row.session != session || id.index() >= row.count || row.is_named(id) {
            return Err(FsError::Invalid.into());
        }
        row.set_named(id);
        blocks.insert(id.block(), row);
    }
    for (block, row) in blocks {
        txn.put(Table::Block, &key1(block.0), &row);
    }
    Ok(())
}

fn load_block(txn: &Txn<'_>, block: BlockId) -> Result<Option<BlockRow>, StoreError> {
    txn.row(Table::Block, &key1(block.0))
}

/// One edit of the map.
fn switch(txn: &mut Txn<'_>, ino: Ino, row: &mut InodeRow, base: u64, edit: &Edit) -> Outcome<()> {
    let offset = base + edit.offset;
    let end = offset + edit.len;
    if offset < row.size {
        extents::cut(txn, ino, row, offset..end)?;
    }
    let Some(chunk) = &edit.content else {
        return Ok(());
    };
    let extent = Extent {
        offset,
        len: edit.len,
        content: Content::Chunk {
            id: chunk.id,
            skip: chunk.skip,
            chunk_len: chunk.chunk_len,
            chunk_crc: chunk.chunk_crc,
        },
    };
    extents::insert(txn, ino, row, &extent);
    row.size = row.size.max(end);
    Ok(())
}
