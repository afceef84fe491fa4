//! Small reads that the leader makes for heartbeats and waiting locks.

use crate::kv::{Read, StoreError, Table};
use crate::layout;
use crate::layout::rows::SessionRow;
use crate::load;
use crate::ops::lock;
use lagan_types::cluster::NodeInfo;
use lagan_types::op::{LockRange, SessionIdentity};
use lagan_types::{Ino, NodeId, SessionId};

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

/// The boot counter that a node registered last; `None`: there is no such node.
///
/// # Errors
/// [`StoreError`] stops the node.
pub fn node_boot<R: Read>(store: &R, node: NodeId) -> Result<Option<u64>, StoreError> {
    match store.get(Table::Node, &layout::key1(node.0))? {
        Some(value) => Ok(Some(layout::decode::<NodeInfo>(Table::Node, &value)?.boot)),
        None => Ok(None),
    }
}
