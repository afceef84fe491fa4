//! Rows that were applied and are not in redb yet, in memory over a read transaction.
//!
//! A transaction of redb costs far more than the few rows of one entry, so many entries
//! share one. Until then their rows are here, and every reader looks here first. An
//! overlay that readers see is never changed: each apply makes the next one from a copy,
//! which shares keys and values and is small.

use super::db::{self, Db, ROWS, full_end, full_key, io};
use lagan_meta::kv::{Read, Row, StoreError, Table, Write};
use redb::{AccessGuard, ReadOnlyTable};
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::collections::btree_map;
use std::ops::Bound;
use std::sync::Arc;

/// A read transaction. As long as it lives, the pages that it sees are not reused.
pub(super) struct Base {
    pub rows: ReadOnlyTable<&'static [u8], &'static [u8]>,
    /// Outlives the table.
    _db: Arc<Db>,
}

impl Base {
    pub fn open(db: Arc<Db>) -> Result<Base, StoreError> {
        let rows = db.begin_read()?.open_table(ROWS).map_err(io)?;
        Ok(Base { rows, _db: db })
    }
}

/// The new value of a row; `None`: the row is removed.
type Value = Option<Arc<[u8]>>;

#[derive(Debug, Clone)]
struct Change {
    /// Index of the last entry that was applied with the change.
    at: u64,
    value: Value,
}

/// Changed rows by their full keys.
#[derive(Debug, Clone, Default)]
pub(super) struct Overlay(BTreeMap<Arc<[u8]>, Change>);

type Changes<'a> = btree_map::Range<'a, Arc<[u8]>, Change>;

impl Overlay {
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The changed rows, in order of full keys; `None`: the row is removed.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        self.0.iter().map(|(k, c)| (&**k, c.value.as_deref()))
    }

    /// Forgets what was applied with entry `at` and before.
    pub fn forget(&mut self, at: u64) {
        self.0.retain(|_, change| change.at > at);
    }

    fn set(&mut self, key: &[u8], value: Option<&[u8]>, at: u64) {
        let value = value.map(Arc::from);
        let change = Change { at, value };
        match self.0.get_mut(key) {
            Some(found) => *found = change,
            None => {
                self.0.insert(key.into(), change);
            }
        }
    }

    fn range(&self, start: &[u8], end: &[u8]) -> Changes<'_> {
        let range = (Bound::Included(start), Bound::Excluded(end));
        self.0.range::<[u8], _>(range)
    }
}

/// The row of a full key.
pub(super) fn get(base: &Base, over: &Overlay, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
    match over.0.get(key) {
        Some(change) => Ok(change.value.as_deref().map(<[u8]>::to_vec)),
        None => db::get(&base.rows, key),
    }
}

type BaseRow = (
    AccessGuard<'static, &'static [u8]>,
    AccessGuard<'static, &'static [u8]>,
);

fn row(key: &[u8], value: &[u8]) -> Row {
    // Without the table's number.
    (key[1..].to_vec(), value.to_vec())
}

/// Compares the next row of each side; `None`: neither has one.
fn compare(base: Option<&BaseRow>, over: Option<(&Arc<[u8]>, &Change)>) -> Option<Ordering> {
    match (base, over) {
        (None, None) => None,
        (Some(_), None) => Some(Ordering::Less),
        (None, Some(_)) => Some(Ordering::Greater),
        (Some((base, _)), Some((over, _))) => Some(base.value().cmp(over)),
    }
}

/// Rows of one table in a range of full keys, without the table's number.
pub(super) fn scan(
    base: &Base,
    over: &Overlay,
    start: &[u8],
    end: &[u8],
    limit: usize,
) -> Result<Vec<Row>, StoreError> {
    if start >= end {
        return Ok(Vec::new());
    }
    let mut over = over.range(start, end).peekable();
    if over.peek().is_none() {
        return db::scan(&base.rows, start, end, limit);
    }
    let mut base = base.rows.range::<&[u8]>(start..end).map_err(io)?;
    let mut next = base.next().transpose().map_err(io)?;
    let mut found = Vec::new();
    while found.len() < limit {
        let Some(order) = compare(next.as_ref(), over.peek().copied()) else {
            break;
        };
        if order.is_ge()
            && let Some((key, change)) = over.next()
            && let Some(value) = &change.value
        {
            found.push(row(key, value));
        }
        if order.is_le() {
            // A row that is changed shows its change only.
            if order.is_lt()
                && let Some((key, value)) = &next
            {
                found.push(row(key.value(), value.value()));
            }
            next = base.next().transpose().map_err(io)?;
        }
    }
    Ok(found)
}

/// The last row of one table in a range of full keys, without the table's number.
pub(super) fn last(
    base: &Base,
    over: &Overlay,
    start: &[u8],
    end: &[u8],
) -> Result<Option<Row>, StoreError> {
    if start >= end {
        return Ok(None);
    }
    let mut over = over.range(start, end).rev().peekable();
    if over.peek().is_none() {
        return db::last(&base.rows, start, end);
    }
    let mut base = base.rows.range::<&[u8]>(start..end).map_err(io)?;
    let mut next = base.next_back().transpose().map_err(io)?;
    loop {
        let order = match compare(next.as_ref(), over.peek().copied()) {
            None => return Ok(None),
            // From the back the greater key comes first.
            Some(order) if next.is_some() && over.peek().is_some() => order.reverse(),
            Some(order) => order,
        };
        if order.is_lt() {
            return Ok(next.map(|(key, value)| row(key.value(), value.value())));
        }
        if let Some((key, change)) = over.next()
            && let Some(value) = &change.value
        {
            return Ok(Some(row(key, value)));
        }
        if order.is_eq() {
            next = base.next_back().transpose().map_err(io)?;
        }
    }
}

/// The next state while entries are applied.
pub(super) struct Applying {
    pub base: Arc<Base>,
    pub over: Overlay,
    /// Index of the last of the entries.
    pub at: u64,
}

impl Read for Applying {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        get(&self.base, &self.over, &full_key(table, key))
    }

    fn scan(
        &self,
        table: Table,
        start: &[u8],
        end: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Row>, StoreError> {
        let (start, end) = (full_key(table, start), full_end(table, end));
        scan(&self.base, &self.over, &start, &end, limit)
    }

    fn last(
        &self,
        table: Table,
        start: &[u8],
        end: Option<&[u8]>,
    ) -> Result<Option<Row>, StoreError> {
        let (start, end) = (full_key(table, start), full_end(table, end));
        last(&self.base, &self.over, &start, &end)
    }
}

impl Write for Applying {
    fn put(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        self.over.set(&full_key(table, key), Some(value), self.at);
        Ok(())
    }

    fn delete(&mut self, table: Table, key: &[u8]) -> Result<(), StoreError> {
        self.over.set(&full_key(table, key), None, self.at);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
