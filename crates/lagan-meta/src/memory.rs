//! The store over ordered maps, for tests: it does what redb does, without a disk.

use crate::kv::{Read, Row, StoreError, Table, Write};
use std::collections::BTreeMap;
use std::ops::Bound;

/// Tables in memory. Two stores are equal if all their rows are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MemoryStore {
    tables: BTreeMap<Table, BTreeMap<Vec<u8>, Vec<u8>>>,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// Rows in all tables.
    pub fn row_count(&self) -> usize {
        self.tables.values().map(BTreeMap::len).sum()
    }

    /// Every row, in order of table and key.
    pub fn rows(&self) -> impl Iterator<Item = (Table, &[u8], &[u8])> {
        self.tables.iter().flat_map(|(&table, rows)| {
            rows.iter()
                .map(move |(key, value)| (table, key.as_slice(), value.as_slice()))
        })
    }
}

/// Bounds of keys as ordered maps take them.
pub(crate) type KeyRange<'a> = (Bound<&'a [u8]>, Bound<&'a [u8]>);

/// The range `start..end` of keys; `None` if it is empty or upside down.
pub(crate) fn range<'a>(start: &'a [u8], end: Option<&'a [u8]>) -> Option<KeyRange<'a>> {
    match end {
        Some(end) if end <= start => None,
        Some(end) => Some((Bound::Included(start), Bound::Excluded(end))),
        None => Some((Bound::Included(start), Bound::Unbounded)),
    }
}

impl Read for MemoryStore {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.tables.get(&table).and_then(|t| t.get(key)).cloned())
    }

    fn scan(
        &self,
        table: Table,
        start: &[u8],
        end: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Row>, StoreError> {
        let (Some(rows), Some(range)) = (self.tables.get(&table), range(start, end)) else {
            return Ok(Vec::new());
        };
        Ok(rows
            .range::<[u8], _>(range)
            .take(limit)
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect())
    }

    fn last(
        &self,
        table: Table,
        start: &[u8],
        end: Option<&[u8]>,
    ) -> Result<Option<Row>, StoreError> {
        let (Some(rows), Some(range)) = (self.tables.get(&table), range(start, end)) else {
            return Ok(None);
        };
        Ok(rows
            .range::<[u8], _>(range)
            .next_back()
            .map(|(k, v)| (k.clone(), v.clone())))
    }
}

impl Write for MemoryStore {
    fn put(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        self.tables
            .entry(table)
            .or_default()
            .insert(key.to_vec(), value.to_vec());
        Ok(())
    }

    fn delete(&mut self, table: Table, key: &[u8]) -> Result<(), StoreError> {
        if let Some(rows) = self.tables.get_mut(&table) {
            rows.remove(key);
            if rows.is_empty() {
                self.tables.remove(&table);
            }
        }
        Ok(())
    }
}
