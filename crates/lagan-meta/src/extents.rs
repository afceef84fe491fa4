//! A file's extent map: cut a range out of it, put an extent in.
//!
//! What must hold: extents of a file do not overlap and end at or before its
//! size; the sums in the inode's row are theirs. A chunk is freed when the last
//! extent that names it goes; its pieces all lie where it was first put.

use crate::kv::{Read, StoreError, Table};
use crate::layout::rows::{ExtentRow, InodeRow};
use crate::layout::{self, key2, malformed, part};
use crate::txn::{Outcome, Txn};
use lagan_types::{ChunkId, Content, Extent, Ino};
use std::collections::BTreeMap;
use std::ops::Range;

/// Rows that one scan takes.
const PAGE: usize = 256;

/// An extent out of its row.
pub(crate) fn decode(key: &[u8], value: &[u8]) -> Result<(Ino, Extent), StoreError> {
    let ino = Ino(part(Table::Extent, key, 0)?);
    let offset = part(Table::Extent, key, 8)?;
    let row: ExtentRow = layout::decode(Table::Extent, value)?;
    let extent = row
        .at(offset)
        .ok_or_else(|| malformed(Table::Extent, format!("extent of {ino} at {offset}")))?;
    Ok((ino, extent))
}

/// Extents of the file that overlap the range, at most `limit`, in order.
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

/// Extents of the file that start in the range, at most `limit`, in order.
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

/// Makes a hole of the range; frees chunks that lose their last extent.
pub(crate) fn cut(
    txn: &mut Txn<'_>,
    ino: Ino,
    row: &mut InodeRow,
    range: Range<u64>,
) -> Outcome<()> {
    let mut touched: BTreeMap<ChunkId, Range<u64>> = BTreeMap::new();
    let mut page = overlapping(txn, ino, range.clone(), PAGE)?;
    while let Some(next) = page.last().map(Extent::end) {
        for extent in &page {
            remove(txn, ino, row, extent);
            if let Some((id, home)) = home(extent) {
                touched.insert(id, home);
            }
            if extent.offset < range.start {
                let piece = slice(extent, extent.offset..range.start);
                insert(txn, ino, row, &piece);
            }
            if extent.end() > range.end {
                let piece = slice(extent, range.end..extent.end());
                insert(txn, ino, row, &piece);
            }
        }
        // From here on nothing reaches over the start: no look back over what was removed.
        page = starting_in(txn, ino, next..range.end, PAGE)?;
    }
    for (id, home) in touched {
        free_if_unnamed(txn, ino, id, home)?;
    }
    Ok(())
}

/// The chunk of an extent and the range of the file where pieces of it can be.
pub(crate) fn home(extent: &Extent) -> Option<(ChunkId, Range<u64>)> {
    match extent.content {
        Content::Chunk {
            id,
            skip,
            chunk_len,
            ..
        } => {
            let end = extent
                .offset
                .saturating_add(chunk_len as u64)
                .saturating_sub(skip as u64);
            Some((id, extent.offset.saturating_sub(skip as u64)..end))
        }
        _ => None,
    }
}

/// Frees the chunk if no extent in its home range names it.
pub(crate) fn free_if_unnamed(
    txn: &mut Txn<'_>,
    ino: Ino,
    id: ChunkId,
    mut home: Range<u64>,
) -> Result<(), StoreError> {
    loop {
        let page = starting_in(txn, ino, home.clone(), PAGE)?;
        let named = page
            .iter()
            .any(|e| matches!(e.content, Content::Chunk { id: other, .. } if other == id));
        if named {
            return Ok(());
        }
        match page.last() {
            Some(last) if page.len() == PAGE => home.start = last.end(),
            _ => break,
        }
    }
    txn.free_chunk(id);
    Ok(())
}

/// The part of an extent that covers `range`, which lies within it.
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
