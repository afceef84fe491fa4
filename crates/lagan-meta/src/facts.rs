//! Small reads that the leader makes for heartbeats and waiting locks.

use crate::kv::{Read, StoreError, Table};
use crate::layout;
use crate::layout::rows::{ReapChunkRow, SessionRow};
use crate::load;
use crate::ops::lock;
use lagan_types::cluster::{NodeInfo, ReplicaSet};
use lagan_types::op::{LockRange, SessionIdentity};
use lagan_types::{ChunkId, Ino, NodeId, SessionId, SetId};
use std::collections::BTreeSet;

/// Rows of the reap queue that are read at a time.
const REAP_ROWS: usize = 256;

/// Whether the session is alive.
///
/// # Errors
/// [`StoreError`] stops the node.
pub fn session_exists<R: Read>(store: &R, session: SessionId) -> Result<bool, StoreError> {
    Ok(store
        .get(Table::Session, &layout::key1(session.0))?
        .is_some())
}

/// Whether a session of that identity may take the place of the other one: it is on the same
/// machine and mount point.
///
/// # Errors
/// [`StoreError`] stops the node.
pub fn succeeds(
    store: &dyn Read,
    identity: &SessionIdentity,
    predecessor: SessionId,
) -> Result<bool, StoreError> {
    let key = layout::key1(predecessor.0);
    let row: Option<SessionRow> = load::row(store, Table::Session, &key)?;
    Ok(row.is_some_and(|row| {
        let old = row.identity;
        old.machine == identity.machine && old.mount_point == identity.mount_point
    }))
}

/// Locks of other owners that stand against this one: one of each owner, at most `most`.
///
/// # Errors
/// [`StoreError`] stops the node.
pub fn lock_holders<R: Read>(
    store: &R,
    session: SessionId,
    ino: Ino,
    lock: &LockRange,
    most: usize,
) -> Result<Vec<(SessionId, LockRange)>, StoreError> {
    lock::holders(store, session, ino, lock, most)
}

/// Whether the node is a member of the set; not if there is no such set.
///
/// # Errors
/// [`StoreError`] stops the node.
pub fn is_member(store: &dyn Read, set: SetId, node: NodeId) -> Result<bool, StoreError> {
    Ok(replica_set(store, set)?.is_some_and(|row| row.nodes.contains(&node)))
}

/// The row of a set.
///
/// # Errors
/// [`StoreError`] stops the node.
pub fn replica_set(store: &dyn Read, set: SetId) -> Result<Option<ReplicaSet>, StoreError> {
    load::row(store, Table::Set, &layout::key_set(set.0))
}

/// The row of a node.
///
/// # Errors
/// [`StoreError`] stops the node.
pub fn node(store: &dyn Read, node: NodeId) -> Result<Option<NodeInfo>, StoreError> {
    load::row(store, Table::Node, &layout::key1(node.0))
}

/// Those of the chunks that stand in a row of the node's reap queue. Reads all of its rows.
///
/// # Errors
/// [`StoreError`] stops the node.
pub fn freed(
    store: &dyn Read,
    node: NodeId,
    ids: &[ChunkId],
) -> Result<BTreeSet<ChunkId>, StoreError> {
    let (start, end) = layout::prefix(node.0);
    let end = end.as_ref().map(|end| &end[..]);
    let mut start = start.to_vec();
    let mut found = BTreeSet::new();
    loop {
        let rows = store.scan(Table::ReapChunk, &start, end, REAP_ROWS)?;
        for (_, value) in &rows {
            let row: ReapChunkRow = layout::decode(Table::ReapChunk, value)?;
            found.extend(ids.iter().filter(|id| row.what.frees(**id)));
        }
        match rows.last() {
            Some((key, _)) if rows.len() == REAP_ROWS => start = [&key[..], &[0]].concat(),
            _ => return Ok(found),
        }
    }
}

/// Whether the session has had the answer to that command.
///
/// # Errors
/// [`StoreError`] stops the node.
pub fn is_answered(store: &dyn Read, session: SessionId, seq: u64) -> Result<bool, StoreError> {
    let row = store.get(Table::Answer, &layout::key2(session.0, seq))?;
    Ok(row.is_some())
}

/// The boot counter that a node registered last; `None`: there is no such node.
///
/// # Errors
/// [`StoreError`] stops the node.
pub fn node_boot(store: &dyn Read, node: NodeId) -> Result<Option<u64>, StoreError> {
    Ok(self::node(store, node)?.map(|row| row.boot))
}
