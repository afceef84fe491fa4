//! Loads single rows of a state.

use crate::kv::{Read, StoreError, Table};
use crate::layout::rows::{CounterRow, InodeRow};
use crate::layout::version::Versioned;
use crate::layout::{self, COUNTER_KEY, key1};
use crate::txn::Outcome;
use lagan_types::{FsError, Ino};

/// A row, if there is one.
pub(crate) fn row<T: Versioned>(
    store: &dyn Read,
    table: Table,
    key: &[u8],
) -> Result<Option<T>, StoreError> {
    store
        .get(table, key)?
        .map(|value| layout::decode(table, &value))
        .transpose()
}

/// An inode's row; `Stale` if it is gone.
pub(crate) fn inode(store: &dyn Read, ino: Ino) -> Outcome<InodeRow> {
    Ok(find_inode(store, ino)?.ok_or(FsError::Stale)?)
}

/// An inode's row, if there is one.
pub(crate) fn find_inode(store: &dyn Read, ino: Ino) -> Result<Option<InodeRow>, StoreError> {
    row(store, Table::Inode, &key1(ino.0))
}

/// The counters; all zero before the first command.
pub(crate) fn counters(store: &dyn Read) -> Result<CounterRow, StoreError> {
    Ok(row(store, Table::Counter, COUNTER_KEY)?.unwrap_or_default())
}
