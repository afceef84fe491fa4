//! Orphans, and the queues of what is to be deleted elsewhere.

use crate::extents;
use crate::kv::{Read, Table};
use crate::layout::rows::{InodeRow, ObjectRow};
use crate::layout::{key1, key2, prefix};
use crate::ops::{lock, session};
use crate::txn::{Outcome, Txn};
use lagan_types::attr::Kind;
use lagan_types::limits::FILE_LEN_MAX;
use lagan_types::{Content, Ino, NodeId};
use std::collections::BTreeSet;

/// Rows that one scan takes.
const PAGE: usize = 512;

/// Removes orphans; what has a name (again) or is gone is left alone.
pub(crate) fn reap(txn: &mut Txn<'_>, inos: &[Ino]) -> Outcome<()> {
    for &ino in inos {
        if let Some(row) = txn.find_inode(ino)?
            && row.nlink == 0
        {
            reap_one(txn, ino, &row)?;
        }
    }
    Ok(())
}

fn reap_one(txn: &mut Txn<'_>, ino: Ino, row: &InodeRow) -> Outcome<()> {
    let mut gone = BTreeSet::new();
    let mut from = 0;
    loop {
        let page = extents::starting_in(txn, ino, from..FILE_LEN_MAX, PAGE)?;
        for extent in &page {
            txn.delete(Table::Extent, &key2(ino.0, extent.offset));
            if let Content::Chunk { id, .. } = extent.content {
                txn.count_use(id.set(), -1);
            }
            gone.extend(extents::home(extent));
        }
        match page.last() {
            Some(last) if page.len() == PAGE => from = last.end(),
            _ => break,
        }
    }
    for home in gone {
        extents::left(txn, ino, &home)?;
    }
    if let Some(version) = row.archive.object {
        let key = key2(ino.0, version);
        let object: Option<ObjectRow> = txn.row(Table::Object, &key)?;
        txn.delete(Table::Object, &key);
        if let Some(object) = object {
            txn.free_object(object.key);
        }
    }
    if row.xattr_len > 0 {
        session::delete_prefix(txn, Table::Xattr, ino.0)?;
    }
    if row.kind == Kind::Symlink {
        txn.delete(Table::Symlink, &key1(ino.0));
    }
    lock::drop_inode(txn, ino)?;
    txn.remove_inode(ino)?;
    Ok(())
}

/// A node deleted the chunks of its rows up to that one.
pub(crate) fn chunks_reaped(txn: &mut Txn<'_>, node: NodeId, through: u64) -> Outcome<()> {
    let mut start = key2(node.0, 0).to_vec();
    let end = match through.checked_add(1) {
        Some(next) => Some(key2(node.0, next).to_vec()),
        None => prefix(node.0).1.map(|e| e.to_vec()),
    };
    loop {
        let rows = txn.scan(Table::ReapChunk, &start, end.as_deref(), PAGE)?;
        for (key, _) in &rows {
            txn.delete(Table::ReapChunk, key);
        }
        let stats = &mut txn.counters.stats;
        stats.reap_chunks = stats.reap_chunks.saturating_sub(rows.len() as u64);
        match rows.last() {
            Some((key, _)) if rows.len() == PAGE => {
                start.clone_from(key);
                start.push(0);
            }
            _ => return Ok(()),
        }
    }
}

/// Objects of those rows were deleted.
pub(crate) fn objects_deleted(txn: &mut Txn<'_>, rows: &[u64]) -> Outcome<()> {
    for &row in rows {
        let key = key1(row);
        if txn.get(Table::ReapObject, &key)?.is_some() {
            txn.delete(Table::ReapObject, &key);
            let stats = &mut txn.counters.stats;
            stats.reap_objects = stats.reap_objects.saturating_sub(1);
        }
    }
    Ok(())
}
