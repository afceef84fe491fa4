//! A file's extent map: cut a range out of it, put an extent in.
//!
//! These rules hold. Extents of a file do not overlap and end at or before its size,
//! and the sums in the inode's row are theirs. A chunk is freed when the last extent
//! that names it goes. All its pieces lie at its [`Home`], the place where it was
//! first put. A copy gives it one more home; a chunk with two or more homes has each
//! of them in the table Shared.

use crate::kv::{Read, StoreError, Table};
use crate::layout::rows::{ExtentRow, InodeRow};
use crate::layout::{self, key_shared, key2, malformed, part};
use crate::txn::{Outcome, Txn};
use lagan_types::{ChunkId, Content, Extent, Ino};
use std::collections::BTreeSet;
use std::ops::Range;

/// Rows that one scan takes.
const PAGE: usize = 256;

/// Decodes an extent's row.
pub(crate) fn decode(key: &[u8], value: &[u8]) -> Result<(Ino, Extent), StoreError> {
    let ino = Ino(part(Table::Extent, key, 0)?);
    let offset = part(Table::Extent, key, 8)?;
    let row: ExtentRow = layout::decode(Table::Extent, value)?;
    let extent = row
        .at(offset)
        .ok_or_else(|| malformed(Table::Extent, format!("extent of {ino} at {offset}")))?;
    Ok((ino, extent))
}

/// Returns the file's extents that overlap the range, in order, at most `limit`.
pub(crate) fn overlapping(
    store: &dyn Read,
    ino: Ino,
    range: Range<u64>,
    limit: usize,
) -> Result<Vec<Extent>, StoreError> {
    let mut found = Vec::new();
    if range.is_empty() || limit == 0 {
        return Ok(found);
    }
    let start = key2(ino.0, range.start);
    if let Some((key, value)) = store.last(Table::Extent, &key2(ino.0, 0), Some(&start))? {
        let (_, extent) = decode(&key, &value)?;
        if extent.end() > range.start {
            found.push(extent);
        }
    }
    let left = limit - found.len();
    found.extend(starting_in(store, ino, range, left)?);
    Ok(found)
}

/// Returns the file's extents that start in the range, in order, at most `limit`.
pub(crate) fn starting_in(
    store: &dyn Read,
    ino: Ino,
    range: Range<u64>,
    limit: usize,
) -> Result<Vec<Extent>, StoreError> {
    let (start, end) = (key2(ino.0, range.start), key2(ino.0, range.end));
    store
        .scan(Table::Extent, &start, Some(&end), limit)?
        .iter()
        .map(|(key, value)| decode(key, value).map(|(_, extent)| extent))
        .collect()
}

/// Puts an extent where none is.
pub(crate) fn insert(txn: &mut Txn<'_>, ino: Ino, row: &mut InodeRow, extent: &Extent) {
    let (bytes, lost) = sums(row, &extent.content);
    *bytes = bytes.saturating_add(extent.len);
    if let Some(lost) = lost {
        *lost = lost.saturating_add(1);
    }
    if let Content::Chunk { id, .. } = extent.content {
        txn.count_use(id.set(), 1);
    }
    let value = ExtentRow {
        len: extent.len,
        content: extent.content.clone(),
    };
    txn.put(Table::Extent, &key2(ino.0, extent.offset), &value);
}

/// Takes an extent away.
pub(crate) fn remove(txn: &mut Txn<'_>, ino: Ino, row: &mut InodeRow, extent: &Extent) {
    let (bytes, lost) = sums(row, &extent.content);
    *bytes = bytes.saturating_sub(extent.len);
    if let Some(lost) = lost {
        *lost = lost.saturating_sub(1);
    }
    if let Content::Chunk { id, .. } = extent.content {
        txn.count_use(id.set(), -1);
    }
    txn.delete(Table::Extent, &key2(ino.0, extent.offset));
}

fn sums<'a>(row: &'a mut InodeRow, content: &Content) -> (&'a mut u64, Option<&'a mut u64>) {
    match content {
        Content::Chunk { .. } => (&mut row.chunk_bytes, None),
        Content::Object { .. } => (&mut row.object_bytes, None),
        Content::Lost => (&mut row.lost_bytes, Some(&mut row.lost_extents)),
    }
}

/// Makes the range a hole, and frees chunks that lose their last extent.
pub(crate) fn cut(
    txn: &mut Txn<'_>,
    ino: Ino,
    row: &mut InodeRow,
    range: Range<u64>,
) -> Outcome<()> {
    let mut touched: BTreeSet<Home> = BTreeSet::new();
    let mut page = overlapping(txn, ino, range.clone(), PAGE)?;
    while let Some(next) = page.last().map(Extent::end) {
        for extent in &page {
            remove(txn, ino, row, extent);
            touched.extend(home(extent));
            if extent.offset < range.start {
                let piece = slice(extent, extent.offset..range.start);
                insert(txn, ino, row, &piece);
            }
            if extent.end() > range.end {
                let piece = slice(extent, range.end..extent.end());
                insert(txn, ino, row, &piece);
            }
        }
        // No extent reaches over the start of the next page: nothing to look back for.
        page = starting_in(txn, ino, next..range.end, PAGE)?;
    }
    for home in touched {
        free_if_unnamed(txn, ino, &home)?;
    }
    Ok(())
}

/// The place in a file where a chunk was put. All its pieces there keep their
/// distance from the chunk's first byte.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Home {
    /// The chunk.
    pub id: ChunkId,
    /// Offset in the file of the chunk's first byte, modulo 2^64: if only a later part
    /// of the chunk is in the file, this may lie before the file's start.
    pub at: u64,
    chunk_len: u32,
}

impl Home {
    /// The range of the file where pieces of the chunk can be.
    fn range(&self) -> Range<u64> {
        let end = self.at.wrapping_add(self.chunk_len as u64);
        let start = if end < self.at { 0 } else { self.at };
        start..end
    }
}

/// Returns the home of an extent's chunk; `None` for an object or lost bytes.
pub(crate) fn home(extent: &Extent) -> Option<Home> {
    match extent.content {
        Content::Chunk {
            id,
            skip,
            chunk_len,
            ..
        } => Some(Home {
            id,
            at: extent.offset.wrapping_sub(skip as u64),
            chunk_len,
        }),
        _ => None,
    }
}

/// Whether `next` continues `extent` in the file and in its chunk.
fn continues(extent: &Extent, next: &Extent) -> bool {
    extent.end() == next.offset && home(extent).is_some_and(|h| home(next) == Some(h))
}

/// Joins each extent to the one before it where it continues that one.
pub(crate) fn join(extents: Vec<Extent>) -> Vec<Extent> {
    let mut joined: Vec<Extent> = Vec::with_capacity(extents.len());
    for extent in extents {
        match joined.last_mut() {
            Some(last) if continues(last, &extent) => last.len += extent.len,
            _ => joined.push(extent),
        }
    }
    joined
}

/// Puts extents, in order, where none is, and joins them to the neighbours that they
/// continue.
pub(crate) fn insert_joined(
    txn: &mut Txn<'_>,
    ino: Ino,
    row: &mut InodeRow,
    extents: Vec<Extent>,
) -> Result<(), StoreError> {
    let (Some(first), Some(last)) = (extents.first(), extents.last()) else {
        return Ok(());
    };
    let (start, end) = (key2(ino.0, first.offset), key2(ino.0, last.end()));
    let before = match txn.last(Table::Extent, &key2(ino.0, 0), Some(&start))? {
        Some((key, value)) => Some(decode(&key, &value)?.1).filter(|e| continues(e, first)),
        None => None,
    };
    let behind = match txn.get(Table::Extent, &end)? {
        Some(value) => Some(decode(&end, &value)?.1).filter(|e| continues(last, e)),
        None => None,
    };
    for old in before.iter().chain(&behind) {
        remove(txn, ino, row, old);
    }
    let all = before.into_iter().chain(extents).chain(behind).collect();
    for extent in join(all) {
        insert(txn, ino, row, &extent);
    }
    Ok(())
}

/// Notes that two places name the chunk.
pub(crate) fn share(txn: &mut Txn<'_>, id: ChunkId, places: [(Ino, u64); 2]) {
    for (ino, at) in places {
        txn.put_mark(Table::Shared, &key_shared(id.0, ino.0, at));
    }
}

/// Frees the chunk if no extent names it, at this home or at another.
pub(crate) fn free_if_unnamed(txn: &mut Txn<'_>, ino: Ino, home: &Home) -> Result<(), StoreError> {
    let mut range = home.range();
    loop {
        let page = starting_in(txn, ino, range.clone(), PAGE)?;
        if page.iter().any(|e| self::home(e).as_ref() == Some(home)) {
            return Ok(());
        }
        match page.last() {
            Some(last) if page.len() == PAGE => range.start = last.end(),
            _ => return left(txn, ino, home),
        }
    }
}

/// Call when no extent at that home names the chunk any more. Frees the chunk, unless
/// another home names it; a chunk that one home alone still names leaves Shared.
pub(crate) fn left(txn: &mut Txn<'_>, ino: Ino, home: &Home) -> Result<(), StoreError> {
    let key = key_shared(home.id.0, ino.0, home.at);
    if txn.get(Table::Shared, &key)?.is_none() {
        txn.free_chunk(home.id);
        return Ok(());
    }
    txn.delete(Table::Shared, &key);
    let first = key_shared(home.id.0, 0, 0);
    let end = home.id.0.checked_add(1).map(|next| key_shared(next, 0, 0));
    let end = end.as_ref().map(|e| &e[..]);
    if let [(only, _)] = txn.scan(Table::Shared, &first, end, 2)?.as_slice() {
        txn.delete(Table::Shared, only);
    }
    Ok(())
}

/// Returns the part of an extent that covers `range`, which lies within it.
pub(crate) fn slice(extent: &Extent, range: Range<u64>) -> Extent {
    let by = range.start - extent.offset;
    let content = match &extent.content {
        Content::Chunk {
            id,
            skip,
            chunk_len,
            chunk_crc,
        } => Content::Chunk {
            id: *id,
            skip: *skip + by as u32,
            chunk_len: *chunk_len,
            chunk_crc: *chunk_crc,
        },
        Content::Object { version, offset } => Content::Object {
            version: *version,
            offset: offset + by,
        },
        Content::Lost => Content::Lost,
    };
    Extent {
        offset: range.start,
        len: range.end - range.start,
        content,
    }
}

#[cfg(test)]
mod tests;
