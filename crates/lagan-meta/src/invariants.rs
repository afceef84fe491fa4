//! The rules that hold between the tables, checked by walking all of them.
//!
//! Tests call this after each step. It takes memory and time in proportion to the
//! state.

mod files;
mod names;
mod queues;
mod sessions;

use crate::kv::{Read, StoreError, Table};
use crate::layout::rows::InodeRow;
use crate::layout::version::Versioned;
use crate::layout::{self, part};
use crate::load::find_inode;
use lagan_types::{ChunkId, Ino};
use std::collections::{BTreeMap, BTreeSet};

/// Rows that one scan takes.
const PAGE: usize = 1024;
/// Findings that are kept: a broken state would give millions.
const LINES_MAX: usize = 1000;

/// Walks all tables and returns one line for each thing that is wrong, at most a
/// thousand. The list is empty if the state is sound.
pub fn check<R: Read>(store: &R) -> Vec<String> {
    let mut walk = Walk {
        store,
        wrong: Vec::new(),
        inodes: BTreeMap::new(),
        reaped: BTreeSet::new(),
    };
    if let Err(e) = walk.all() {
        walk.say(e.to_string());
    }
    walk.wrong
}

struct Walk<'a> {
    store: &'a dyn Read,
    wrong: Vec<String>,
    inodes: BTreeMap<Ino, InodeRow>,
    /// Chunks that some node is told to delete.
    reaped: BTreeSet<ChunkId>,
}

impl Walk<'_> {
    fn all(&mut self) -> Result<(), StoreError> {
        for (key, _) in self.rows(Table::Inode)? {
            let ino = Ino(part(Table::Inode, &key, 0)?);
            if let Some(row) = find_inode(self.store, ino)? {
                self.inodes.insert(ino, row);
            }
        }
        self.names()?;
        self.reap_rows()?;
        self.extents()?;
        self.side_rows()?;
        self.queues()?;
        self.counters()?;
        self.sessions()
    }

    fn say(&mut self, line: String) {
        if self.wrong.len() < LINES_MAX {
            self.wrong.push(line);
        }
    }

    fn expect(&mut self, holds: bool, line: impl FnOnce() -> String) {
        if !holds {
            self.say(line());
        }
    }

    /// All rows of a table.
    fn rows(&self, table: Table) -> Result<Vec<crate::kv::Row>, StoreError> {
        let mut all = Vec::new();
        let mut start = Vec::new();
        loop {
            let rows = self.store.scan(table, &start, None, PAGE)?;
            let last = rows.len() < PAGE;
            if let Some((key, _)) = rows.last() {
                start = [key.as_slice(), &[0]].concat();
            }
            all.extend(rows);
            if last {
                return Ok(all);
            }
        }
    }

    /// All rows of a table, decoded.
    fn decoded<T: Versioned>(&self, table: Table) -> Result<Vec<(Vec<u8>, T)>, StoreError> {
        self.rows(table)?
            .into_iter()
            .map(|(key, value)| Ok((key, layout::decode(table, &value)?)))
            .collect()
    }
}

#[cfg(test)]
mod tests;
