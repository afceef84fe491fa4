//! Reads of the queues and of sessions.

use crate::kv::{Read, StoreError, Table};
use crate::layout::rows::{
    AttemptRow, BlockRow, ObjectRow, ReapChunkRow, ReapObjectRow, SessionRow,
};
use crate::layout::{self, key1, key2, part, prefix};
use crate::load::{find_inode, row};
use crate::txn::Outcome;
use lagan_types::op::SessionIdentity;
use lagan_types::query::{AttemptRow as Attempt, Object, ObjectsPage, ReapChunks, ReleasableFile};
use lagan_types::{BlockId, Ino, NodeId, SessionId};

/// Rows in one answer of a queue, at most: some 64 bytes each.
pub(super) const QUEUE_PAGE_MAX: u32 = 4096;
/// Reap rows in one answer: each may name a thousand chunks.
const REAP_PAGE_MAX: u32 = 128;
/// Sessions in one answer.
const SESSIONS_MAX: usize = 16_384;
/// Blocks in one question.
const BLOCKS_MAX: usize = 1024;

pub(super) fn attempts(store: &dyn Read, from: u64, limit: u32) -> Outcome<Vec<Attempt>> {
    let limit = limit.min(QUEUE_PAGE_MAX) as usize;
    let mut attempts = Vec::new();
    for (key, value) in store.scan(Table::Attempt, &key1(from), None, limit)? {
        let row: AttemptRow = layout::decode(Table::Attempt, &value)?;
        attempts.push(Attempt {
            number: part(Table::Attempt, &key, 0)?,
            ino: row.ino,
            version: row.version,
            node: row.node,
            key: row.key,
            started_ms: row.started_ms,
        });
    }
    Ok(attempts)
}

pub(super) fn chunk_reap(
    store: &dyn Read,
    (node, from): (NodeId, u64),
    now_ms: u64,
    limit: u32,
) -> Outcome<Vec<(u64, ReapChunks)>> {
    let (_, end) = prefix(node.0);
    let end = end.as_ref().map(|e| &e[..]);
    let start = key2(node.0, from);
    let limit = limit.min(REAP_PAGE_MAX) as usize;
    let mut rows = Vec::new();
    for (key, value) in store.scan(Table::ReapChunk, &start, end, limit)? {
        let row: ReapChunkRow = layout::decode(Table::ReapChunk, &value)?;
        if row.ready_ms > now_ms {
            break;
        }
        rows.push((part(Table::ReapChunk, &key, 8)?, row.what));
    }
    Ok(rows)
}

pub(super) fn object_reap(
    store: &dyn Read,
    now_ms: u64,
    limit: u32,
) -> Outcome<Vec<(u64, String)>> {
    let limit = limit.min(QUEUE_PAGE_MAX) as usize;
    let mut rows = Vec::new();
    for (key, value) in store.scan(Table::ReapObject, &[], None, limit)? {
        let row: ReapObjectRow = layout::decode(Table::ReapObject, &value)?;
        if row.ready_ms > now_ms {
            break;
        }
        rows.push((part(Table::ReapObject, &key, 0)?, row.key));
    }
    Ok(rows)
}

pub(super) fn objects_to_delete(
    store: &dyn Read,
    from: u64,
    limit: u32,
) -> Outcome<Vec<(u64, String)>> {
    let limit = limit.min(QUEUE_PAGE_MAX) as usize;
    let mut rows = Vec::new();
    for (key, value) in store.scan(Table::ReapObject, &key1(from), None, limit)? {
        let row: ReapObjectRow = layout::decode(Table::ReapObject, &value)?;
        rows.push((part(Table::ReapObject, &key, 0)?, row.key));
    }
    Ok(rows)
}

pub(super) fn objects(store: &dyn Read, from: (Ino, u64), limit: u32) -> Outcome<ObjectsPage> {
    let limit = limit.clamp(1, QUEUE_PAGE_MAX) as usize;
    let rows = store.scan(Table::Object, &key2(from.0.0, from.1), None, limit + 1)?;
    let mut objects = Vec::with_capacity(rows.len());
    for (key, value) in &rows {
        let row: ObjectRow = layout::decode(Table::Object, value)?;
        let object = Object {
            version: part(Table::Object, key, 8)?,
            key: row.key,
            size: row.size,
            crc: row.crc,
        };
        objects.push((Ino(part(Table::Object, key, 0)?), object));
    }
    let next = match objects.len() > limit {
        true => objects.pop().map(|(ino, object)| (ino, object.version)),
        false => None,
    };
    Ok(ObjectsPage { objects, next })
}

pub(super) fn orphans(store: &dyn Read, from: Ino, limit: u32) -> Outcome<Vec<Ino>> {
    let limit = limit.min(QUEUE_PAGE_MAX) as usize;
    let rows = store.scan(Table::Orphan, &key1(from.0), None, limit)?;
    let inos: Result<Vec<_>, StoreError> = rows
        .iter()
        .map(|(key, _)| part(Table::Orphan, key, 0).map(Ino))
        .collect();
    Ok(inos?)
}

pub(super) fn sessions(store: &dyn Read) -> Outcome<Vec<(SessionId, SessionIdentity)>> {
    let mut sessions = Vec::new();
    for (key, value) in store.scan(Table::Session, &[], None, SESSIONS_MAX)? {
        let row: SessionRow = layout::decode(Table::Session, &value)?;
        let session = SessionId(part(Table::Session, &key, 0)?);
        sessions.push((session, row.identity));
    }
    Ok(sessions)
}

pub(super) fn releasable(
    store: &dyn Read,
    from: (u64, Ino),
    limit: u32,
) -> Outcome<Vec<ReleasableFile>> {
    let limit = limit.min(QUEUE_PAGE_MAX) as usize;
    let start = key2(from.0, from.1.0);
    let mut files = Vec::new();
    for (key, _) in store.scan(Table::Releasable, &start, None, limit)? {
        let ms = part(Table::Releasable, &key, 0)?;
        let ino = Ino(part(Table::Releasable, &key, 8)?);
        if let Some(inode) = find_inode(store, ino)? {
            files.push(ReleasableFile {
                archived_ms: ms,
                ino,
                version: inode.version,
                bytes: inode.chunk_bytes,
            });
        }
    }
    Ok(files)
}

pub(super) fn blocks(store: &dyn Read, blocks: &[BlockId]) -> Outcome<Vec<Option<Vec<u8>>>> {
    if blocks.len() > BLOCKS_MAX {
        return Err(lagan_types::FsError::Invalid.into());
    }
    let mut answer = Vec::with_capacity(blocks.len());
    for block in blocks {
        let found: Option<BlockRow> = row(store, Table::Block, &key1(block.0))?;
        answer.push(found.map(|b| b.named));
    }
    Ok(answer)
}
