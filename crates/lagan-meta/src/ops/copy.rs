//! copy_file_range(2): the target names the source's chunks.
//!
//! What must hold: each chunk that two places name has all its places in the
//! table Shared, so that it is freed with the last of them, whatever takes
//! that one away. Objects are not shared: they belong to one inode's archive.

use crate::extents::{self, home, slice};
use crate::layout::rows::InodeRow;
use crate::ops::xattr::drop_capability;
use crate::txn::{Outcome, Txn};
use lagan_types::answer::Copied;
use lagan_types::attr::Kind;
use lagan_types::limits::{COPY_EXTENTS_MAX, FILE_LEN_MAX};
use lagan_types::op::CopyRange;
use lagan_types::{Content, Extent, FsError, Ino};
use std::ops::Range;

/// The part of the source that can be shared.
struct Plan {
    /// Bytes, from the start on.
    len: u64,
    /// Their extents, cut to them.
    extents: Vec<Extent>,
    /// Bytes after them that are in an object.
    through: u64,
}

/// Copies as much as one command may.
pub(crate) fn copy(txn: &mut Txn<'_>, copy: &CopyRange) -> Outcome<Copied> {
    let source = file(txn, copy.from)?;
    let mut row = file(txn, copy.to)?;
    let range = range(copy, &source)?;
    let plan = plan(txn, copy.from, range)?;
    let before = row.version;
    if plan.len > 0 {
        place(txn, copy, &mut row, &plan)?;
        row.touch_file(txn.time);
        drop_capability(txn, copy.to, &mut row)?;
        if copy.kill_suid {
            row.clear_suid();
        }
    }
    let attr = row.attr(copy.to);
    txn.set_inode(copy.to, row)?;
    Ok(Copied {
        len: plan.len,
        through: plan.through,
        before,
        attr,
    })
}

fn file(txn: &mut Txn<'_>, ino: Ino) -> Outcome<InodeRow> {
    let row = txn.inode(ino)?;
    match row.kind {
        Kind::File => Ok(row),
        Kind::Directory => Err(FsError::IsDirectory.into()),
        _ => Err(FsError::Invalid.into()),
    }
}

/// The source's range, cut at its end.
fn range(copy: &CopyRange, source: &InodeRow) -> Result<Range<u64>, FsError> {
    let from = copy.from_offset;
    let len = copy.len.min(source.size.saturating_sub(from));
    let end = copy.to_offset.checked_add(len);
    if end.is_none_or(|end| len > 0 && end > FILE_LEN_MAX) {
        return Err(FsError::FileTooLarge);
    }
    if copy.from == copy.to && from.abs_diff(copy.to_offset) < len {
        return Err(FsError::Invalid);
    }
    Ok(from..from.saturating_add(len))
}

fn plan(txn: &Txn<'_>, ino: Ino, mut range: Range<u64>) -> Outcome<Plan> {
    let found = extents::overlapping(txn, ino, range.clone(), COPY_EXTENTS_MAX)?;
    if found.len() == COPY_EXTENTS_MAX {
        range.end = found.last().map_or(range.end, Extent::end).min(range.end);
    }
    let start = range.start;
    let mut extents = Vec::with_capacity(found.len());
    let mut through = 0;
    for extent in &found {
        let part = extent.offset.max(start)..extent.end().min(range.end);
        match extent.content {
            Content::Chunk { .. } => extents.push(slice(extent, part)),
            Content::Object { .. } => {
                through = part.end - part.start;
                range.end = part.start;
                break;
            }
            Content::Lost if part.start == start => return Err(FsError::Corrupt.into()),
            Content::Lost => {
                range.end = part.start;
                break;
            }
        }
    }
    Ok(Plan {
        len: range.end - start,
        extents,
        through,
    })
}

/// Puts the extents into the target, instead of what is there.
fn place(txn: &mut Txn<'_>, copy: &CopyRange, row: &mut InodeRow, plan: &Plan) -> Outcome<()> {
    let end = copy.to_offset + plan.len;
    extents::cut(txn, copy.to, row, copy.to_offset..end)?;
    let mut placed = Vec::with_capacity(plan.extents.len());
    for extent in &plan.extents {
        let copied = Extent {
            offset: extent.offset - copy.from_offset + copy.to_offset,
            ..extent.clone()
        };
        if let (Some(old), Some(new)) = (home(extent), home(&copied)) {
            extents::share(txn, old.id, [(copy.from, old.at), (copy.to, new.at)]);
        }
        placed.push(copied);
    }
    extents::insert_joined(txn, copy.to, row, extents::join(placed))?;
    row.size = row.size.max(end);
    Ok(())
}
