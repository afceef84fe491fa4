//! The database file: open, write, switch.

use super::rows::RowReader;
use crate::error::RaftError;
use lagan_host::replace::{make_dirs, sync_dir};
use lagan_meta::kv::{Row, StoreError, Table};
use redb::{Database, Durability, ReadableTable, TableDefinition, WriteTransaction};
use std::fs::{self, File};
use std::path::{Path, PathBuf};

pub(super) const ROWS: TableDefinition<&[u8], &[u8]> = TableDefinition::new("rows");
/// What a node knows of itself: no part of the replicated state or of a snapshot.
const LOCAL: TableDefinition<&str, u64> = TableDefinition::new("local");
/// All entries with a lower index are settled ([`crate::staging`]).
const SETTLED_NEXT: &str = "settled-next";
const STATE_FILE: &str = "state.redb";
const INCOMING_PREFIX: &str = "incoming-";
/// An incoming snapshot's pages are given to the disk about this often, bytes.
const INCOMING_COMMIT_LEN: usize = 32 << 20;

pub(super) fn io(e: impl std::fmt::Display) -> StoreError {
    StoreError::Io(e.to_string())
}

/// A table's number and a key in one.
pub(super) fn full_key(table: Table, key: &[u8]) -> Vec<u8> {
    let mut full = Vec::with_capacity(key.len() + 1);
    full.push(table as u8);
    full.extend_from_slice(key);
    full
}

/// The end of a range in one table: exclusive.
pub(super) fn full_end(table: Table, end: Option<&[u8]>) -> Vec<u8> {
    match end {
        Some(end) => full_key(table, end),
        None => vec![table as u8 + 1],
    }
}

/// Reads through any redb table.
pub(super) fn get(
    rows: &impl ReadableTable<&'static [u8], &'static [u8]>,
    key: &[u8],
) -> Result<Option<Vec<u8>>, StoreError> {
    let found = rows.get(key).map_err(io)?;
    Ok(found.map(|value| value.value().to_vec()))
}

/// Rows of one table in a range, without the table's number.
pub(super) fn scan(
    rows: &impl ReadableTable<&'static [u8], &'static [u8]>,
    start: &[u8],
    end: &[u8],
    limit: usize,
) -> Result<Vec<Row>, StoreError> {
    if start >= end {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for row in rows.range::<&[u8]>(start..end).map_err(io)?.take(limit) {
        let (key, value) = row.map_err(io)?;
        found.push((key.value()[1..].to_vec(), value.value().to_vec()));
    }
    Ok(found)
}

/// The last row of one table in a range, without the table's number.
pub(super) fn last(
    rows: &impl ReadableTable<&'static [u8], &'static [u8]>,
    start: &[u8],
    end: &[u8],
) -> Result<Option<Row>, StoreError> {
    if start >= end {
        return Ok(None);
    }
    let row = rows.range::<&[u8]>(start..end).map_err(io)?.next_back();
    let Some(row) = row else { return Ok(None) };
    let (key, value) = row.map_err(io)?;
    Ok(Some((key.value()[1..].to_vec(), value.value().to_vec())))
}

/// An open transaction's table.
pub(super) struct Rows<'txn>(redb::Table<'txn, &'static [u8], &'static [u8]>);

impl Rows<'_> {
    /// Sets a row by its full key.
    pub fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        self.0.insert(key, value).map(|_| ()).map_err(io)
    }

    /// Removes a row by its full key, if it is there.
    pub fn remove(&mut self, key: &[u8]) -> Result<(), StoreError> {
        self.0.remove(key).map(|_| ()).map_err(io)
    }
}

/// The open database.
pub(super) struct Db {
    pub database: Database,
}

impl Db {
    /// Opens or makes the state in `dir`; clears what an unfinished snapshot left.
    pub fn open(dir: &Path, cache_bytes: usize) -> Result<Db, RaftError> {
        make_dirs(dir).map_err(RaftError::io("make state directory"))?;
        for entry in fs::read_dir(dir).map_err(RaftError::io("list state directory"))? {
            let entry = entry.map_err(RaftError::io("list state directory"))?;
            let name = entry.file_name();
            if name.to_string_lossy().starts_with(INCOMING_PREFIX) {
                fs::remove_file(entry.path()).map_err(RaftError::io("remove old snapshot"))?;
            }
        }
        let db = Self::open_file(&dir.join(STATE_FILE), cache_bytes)?;
        // Its bytes are on disk, but that says nothing of its name.
        sync_dir(dir).map_err(RaftError::io("sync state directory"))?;
        Ok(db)
    }

    fn open_file(path: &Path, cache_bytes: usize) -> Result<Db, RaftError> {
        let started = std::time::Instant::now();
        let database = Database::builder()
            .set_cache_size(cache_bytes)
            .set_repair_callback(move |repair| {
                let elapsed_ms = started.elapsed().as_millis() as u64;
                tracing::warn!(
                    elapsed_ms,
                    progress = repair.progress(),
                    "repair state store"
                );
            })
            .create(path)
            .map_err(|e| RaftError::State(e.to_string()))?;
        let db = Db { database };
        // The table must be there for readers.
        db.commit_durably(|_| Ok(()))
            .map_err(|e| RaftError::State(e.to_string()))?;
        Ok(db)
    }

    fn begin(&self, durability: Durability) -> Result<WriteTransaction, StoreError> {
        let mut txn = self.database.begin_write().map_err(io)?;
        txn.set_durability(durability).map_err(io)?;
        if matches!(durability, Durability::Immediate) {
            txn.set_quick_repair(true);
        }
        Ok(txn)
    }

    /// The index below which all entries were settled at the last durable commit.
    pub fn settled_next(&self) -> Result<Option<u64>, StoreError> {
        let txn = self.begin_read()?;
        let local = match txn.open_table(LOCAL) {
            Ok(local) => local,
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok(None),
            Err(e) => return Err(io(e)),
        };
        let found = local.get(SETTLED_NEXT).map_err(io)?;
        Ok(found.map(|value| value.value()))
    }

    /// Changes the state and makes all of it durable, and with it up to where the log is
    /// settled.
    pub fn commit_settled<T>(
        &self,
        settled_next: u64,
        change: impl FnOnce(&mut Rows<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let txn = self.begin(Durability::Immediate)?;
        let value = {
            let mut local = txn.open_table(LOCAL).map_err(io)?;
            local.insert(SETTLED_NEXT, settled_next).map_err(io)?;
            let mut rows = Rows(txn.open_table(ROWS).map_err(io)?);
            change(&mut rows)?
        };
        txn.commit().map_err(io)?;
        Ok(value)
    }

    /// Changes the state; with [`Durability::None`] in memory: a crash forgets it.
    pub fn commit<T>(
        &self,
        durability: Durability,
        change: impl FnOnce(&mut Rows<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let txn = self.begin(durability)?;
        let value = {
            let mut rows = Rows(txn.open_table(ROWS).map_err(io)?);
            change(&mut rows)?
        };
        txn.commit().map_err(io)?;
        Ok(value)
    }

    /// Changes the state in memory: a crash forgets it.
    pub fn commit_lazily<T>(
        &self,
        change: impl FnOnce(&mut Rows<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.commit(Durability::None, change)
    }

    /// Changes the state and makes all of it durable.
    pub fn commit_durably<T>(
        &self,
        change: impl FnOnce(&mut Rows<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.commit(Durability::Immediate, change)
    }
}

/// A snapshot that is being received into a file of its own.
pub struct Incoming {
    db: Db,
    file: IncomingFile,
    uncommitted_len: usize,
    rows: u64,
}

/// Removes the file unless it was installed.
struct IncomingFile {
    path: PathBuf,
    dir: PathBuf,
    installed: bool,
}

impl Incoming {
    pub(super) fn new(dir: &Path, cache_bytes: usize) -> Result<Incoming, StoreError> {
        let name = format!("{INCOMING_PREFIX}{:016x}.redb", rand::random::<u64>());
        let path = dir.join(name);
        let db = Db::open_file(&path, cache_bytes).map_err(io)?;
        Ok(Incoming {
            db,
            file: IncomingFile {
                path,
                dir: dir.to_path_buf(),
                installed: false,
            },
            uncommitted_len: 0,
            rows: 0,
        })
    }

    /// Adds rows in the snapshot's form.
    pub fn add(&mut self, piece: &[u8]) -> Result<(), StoreError> {
        let insert = |rows: &mut Rows<'_>| {
            let mut count = 0;
            for row in RowReader::new(piece) {
                let (key, value) = row.map_err(io)?;
                rows.put(key, value)?;
                count += 1;
            }
            Ok(count)
        };
        self.uncommitted_len += piece.len();
        self.rows += if self.uncommitted_len > INCOMING_COMMIT_LEN {
            self.uncommitted_len = 0;
            self.db.commit_durably(insert)?
        } else {
            self.db.commit_lazily(insert)?
        };
        Ok(())
    }

    /// Rows received.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Makes what was received durable.
    pub fn finish(&mut self) -> Result<(), StoreError> {
        self.db.commit_durably(|_| Ok(()))
    }

    /// The row of a full key.
    pub(super) fn get_full(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let txn = self.db.begin_read()?;
        get(&txn.open_table(ROWS).map_err(io)?, key)
    }

    /// Makes it the state; the old one is gone. The log is settled up to where it was.
    pub(super) fn install(self, settled_next: u64) -> Result<Db, StoreError> {
        let Incoming { db, mut file, .. } = self;
        db.commit_settled(settled_next, |_| Ok(()))?;
        fs::rename(&file.path, file.dir.join(STATE_FILE)).map_err(io)?;
        file.installed = true;
        File::open(&file.dir)
            .and_then(|dir| dir.sync_all())
            .map_err(io)?;
        Ok(db)
    }
}

impl Drop for IncomingFile {
    fn drop(&mut self) {
        if !self.installed {
            // The next start removes it otherwise.
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl Db {
    pub fn begin_read(&self) -> Result<redb::ReadTransaction, StoreError> {
        use redb::ReadableDatabase;
        self.database.begin_read().map_err(io)
    }
}
