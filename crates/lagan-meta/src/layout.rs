//! Keys, values and versions of every table: the one place that knows them.
//!
//! Integers in keys are big-endian and of fixed width, so that byte order is
//! numeric order. A value is one version byte and the codec's encoding of the row
//! (see [`rows`]), or raw bytes where the table says so. Each row type has a version
//! of its own (see [`version`]). All begin with 2: with 1 an early build wrote other
//! rows, which must not be taken for these.
//!
//! | table | key | value | version |
//! | --- | --- | --- | --- |
//! | Config | `0` | `Config` | 2 |
//! | Config | `1` | [`rows::MapVersion`] | 2 |
//! | Config | `2` | nothing: rows of SetUse are whole | 2 |
//! | Node | node u64 | `NodeInfo` | 2 |
//! | Set | set u32 | `ReplicaSet` | 2 |
//! | SetUse | set u32 | [`rows::UseCount`]; no row: none | 2 |
//! | Inode | ino u64 | [`rows::InodeRow`] | 2 |
//! | Dentry | parent u64, name | [`rows::DentryRow`] | 2 |
//! | Cookie | parent u64, cookie u64 | [`rows::CookieRow`] | 2 |
//! | Extent | ino u64, file offset u64 | [`rows::ExtentRow`] | 2 |
//! | Shared | chunk u128, ino u64, home u64 | nothing | 2 |
//! | Xattr | ino u64, name | raw bytes | 2 |
//! | Symlink | ino u64 | raw bytes | 2 |
//! | Due | `0`, at ms u64, ino u64 | nothing: the file is due then | 2 |
//! | Due | `1`, changed ms u64, ino u64 | nothing: due `archive_after` later | 2 |
//! | Due | `2`, `0` u64, ino u64 | nothing: too large for S3, waits for a change | 2 |
//! | Releasable | archived ms u64, ino u64 | nothing | 2 |
//! | Orphan | ino u64 | nothing | 2 |
//! | Object | ino u64, data version u64 | [`rows::ObjectRow`] | 2 |
//! | Attempt | number u64 | [`rows::AttemptRow`] | 2 |
//! | ReapChunk | node u64, sequence u64 | [`rows::ReapChunkRow`] | 2 |
//! | ReapObject | sequence u64 | [`rows::ReapObjectRow`] | 2 |
//! | Session | session u64 | [`rows::SessionRow`] | 2 |
//! | Answer | session u64, `0` u64 | [`rows::AnswerFloor`] | 2 |
//! | Answer | session u64, sequence u64 | [`rows::AnswerRow`] | 3 |
//! | Block | block u64 | [`rows::BlockRow`] | 2 |
//! | Lock | `0`, ino u64, session u64, owner u64 | [`rows::LockRow`] | 2 |
//! | Lock | `1`, session u64, ino u64, owner u64 | nothing | 2 |
//! | Counter | `0` | [`rows::CounterRow`] | 2 |
//!
//! # To change a row
//! - Keep the old type under a new name, give the new one the next `VERSION` and the old
//!   one as its `Previous`, say in `from_previous` what old rows mean, and note the version
//!   above. Before the first release drop the old one instead: its rows are refused by name.
//! - The golden bytes in `layout/tests.rs` change for the new version only; the old
//!   version's stay, read as the new row.
//! - Old rows stay as they are until a command changes them. All nodes must write the same
//!   bytes, and a snapshot brings a node the rows of another: raise the lowest of
//!   `PROTOCOL_VERSIONS` too, so that servers of both builds do not meet.
//! - A new key layout cannot be told from the old one by a value: it needs a new table.

pub mod rows;
pub mod version;

use crate::kv::{Read, StoreError, Table};
use lagan_types::cluster::{Config, NodeInfo, ReplicaSet};
use lagan_types::codec;
use rows::{
    AnswerFloor, AnswerRow, AttemptRow, BlockRow, CookieRow, CounterRow, DentryRow, DueKey,
    ExtentRow, InodeRow, LockRow, MapVersion, ObjectRow, ReapChunkRow, ReapObjectRow, SessionRow,
    UseCount,
};
use version::{Readable, Versioned, versions};

/// First byte of values that are raw bytes, or nothing.
///
/// Such a value has no fields that could change: whoever wants some in its place gives
/// them a row type with another version.
pub const RAW_VERSION: u8 = 2;

/// Key of the configuration.
pub const CONFIG_KEY: &[u8] = &[0];
/// Key of the map version.
pub const MAP_VERSION_KEY: &[u8] = &[1];
/// Key of the mark that extents are counted by set.
pub const SETS_COUNTED_KEY: &[u8] = &[2];
/// Key of the counters.
pub const COUNTER_KEY: &[u8] = &[0];

/// First byte of a key in Due: the file has a time of its own.
pub const DUE_AT: u8 = 0;
/// The file is due some time after its change.
pub const DUE_AFTER: u8 = 1;
/// S3 cannot take the file.
pub const DUE_TOO_LARGE: u8 = 2;

/// First byte of a key in Lock: the locks of an owner on an inode.
const BY_INODE: u8 = 0;
/// The same, to be found by session.
const BY_SESSION: u8 = 1;

/// A value: version byte and encoding.
pub fn encode<T: Versioned>(row: &T) -> Vec<u8> {
    let mut out = Vec::with_capacity(64);
    out.push(T::VERSION);
    codec::encode_into(row, &mut out);
    out
}

/// A row out of a value, in the current version whichever it was written in.
///
/// # Errors
/// [`StoreError::Version`] for a version that cannot be read, [`StoreError::Malformed`]
/// for bytes that are no such row.
pub fn decode<T: Versioned>(table: Table, value: &[u8]) -> Result<T, StoreError> {
    let Some((&version, body)) = value.split_first() else {
        return Err(malformed(table, "empty value".into()));
    };
    match T::read(version, body) {
        Some(row) => row.map_err(|e| malformed(table, e.to_string())),
        None => Err(unknown_version(table, version, versions::<T>())),
    }
}

/// The raw bytes of a value.
///
/// # Errors
/// Fails as [`decode`] does.
pub fn decode_raw(table: Table, mut value: Vec<u8>) -> Result<Vec<u8>, StoreError> {
    match value.first() {
        Some(&RAW_VERSION) => {
            value.remove(0);
            Ok(value)
        }
        Some(&version) => Err(unknown_version(table, version, (RAW_VERSION, RAW_VERSION))),
        None => Err(malformed(table, "raw row without its version".into())),
    }
}

/// A value of raw bytes.
pub fn encode_raw(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() + 1);
    out.push(RAW_VERSION);
    out.extend_from_slice(bytes);
    out
}

/// Whether this build can read the state, as far as the first and the last row of each
/// table tell.
///
/// For the start: the state of another build is refused there, and not by the first
/// command that meets one of its rows.
///
/// # Errors
/// [`StoreError::Version`], and the store's.
pub fn check_versions(store: &dyn Read) -> Result<(), StoreError> {
    for table in Table::ALL {
        let first = store.scan(table, &[], None, 1)?;
        let last = store.last(table, &[], None)?;
        for (key, value) in first.into_iter().chain(last) {
            let (oldest, newest) = versions_at(table, &key);
            match value.first() {
                Some(version) if !(oldest..=newest).contains(version) => {
                    return Err(unknown_version(table, *version, (oldest, newest)));
                }
                // An empty value is damage, which is told where it is met.
                _ => {}
            }
        }
    }
    Ok(())
}

/// The oldest and the newest version in which the value of a key can be read.
pub(crate) fn versions_at(table: Table, key: &[u8]) -> (u8, u8) {
    let raw = (RAW_VERSION, RAW_VERSION);
    match table {
        Table::Config if key == CONFIG_KEY => versions::<Config>(),
        Table::Config if key == MAP_VERSION_KEY => versions::<MapVersion>(),
        Table::Answer if key.ends_with(&key1(0)) => versions::<AnswerFloor>(),
        Table::Answer => versions::<AnswerRow>(),
        Table::Lock if key.first() == Some(&BY_INODE) => versions::<LockRow>(),
        Table::Node => versions::<NodeInfo>(),
        Table::Set => versions::<ReplicaSet>(),
        Table::SetUse => versions::<UseCount>(),
        Table::Inode => versions::<InodeRow>(),
        Table::Dentry => versions::<DentryRow>(),
        Table::Cookie => versions::<CookieRow>(),
        Table::Extent => versions::<ExtentRow>(),
        Table::Object => versions::<ObjectRow>(),
        Table::Attempt => versions::<AttemptRow>(),
        Table::ReapChunk => versions::<ReapChunkRow>(),
        Table::ReapObject => versions::<ReapObjectRow>(),
        Table::Session => versions::<SessionRow>(),
        Table::Block => versions::<BlockRow>(),
        Table::Counter => versions::<CounterRow>(),
        Table::Config
        | Table::Lock
        | Table::Shared
        | Table::Xattr
        | Table::Symlink
        | Table::Due
        | Table::Releasable
        | Table::Orphan => raw,
    }
}

fn unknown_version(table: Table, found: u8, (oldest, newest): (u8, u8)) -> StoreError {
    StoreError::Version {
        table,
        found,
        oldest,
        newest,
    }
}

/// The error for a row that breaks its own rules.
pub fn malformed(table: Table, what: String) -> StoreError {
    StoreError::Malformed(table, what)
}

/// Key of one number.
pub fn key1(a: u64) -> [u8; 8] {
    a.to_be_bytes()
}

/// Key of two numbers.
pub fn key2(a: u64, b: u64) -> [u8; 16] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&a.to_be_bytes());
    key[8..].copy_from_slice(&b.to_be_bytes());
    key
}

/// Key of a number and a name.
pub fn key_name(a: u64, name: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(8 + name.len());
    key.extend_from_slice(&a.to_be_bytes());
    key.extend_from_slice(name);
    key
}

/// Key of one of the places that name a shared chunk.
pub fn key_shared(chunk: u128, ino: u64, home: u64) -> [u8; 32] {
    let mut key = [0; 32];
    key[..16].copy_from_slice(&chunk.to_be_bytes());
    key[16..24].copy_from_slice(&ino.to_be_bytes());
    key[24..].copy_from_slice(&home.to_be_bytes());
    key
}

/// Key of a set.
pub fn key_set(set: u32) -> [u8; 4] {
    set.to_be_bytes()
}

/// Key of a row of the archive queue.
pub fn key_due(due: DueKey, ino: u64) -> [u8; 17] {
    let (tag, ms) = match due {
        DueKey::At(ms) => (DUE_AT, ms),
        DueKey::After(ms) => (DUE_AFTER, ms),
        DueKey::TooLarge => (DUE_TOO_LARGE, 0),
    };
    let mut key = [tag; 17];
    key[1..9].copy_from_slice(&ms.to_be_bytes());
    key[9..].copy_from_slice(&ino.to_be_bytes());
    key
}

/// Key of a lock row by inode.
pub fn key_lock(ino: u64, session: u64, owner: u64) -> [u8; 25] {
    key_tagged(BY_INODE, ino, session, owner)
}

/// Key of a lock row's index by session.
pub fn key_session_lock(session: u64, ino: u64, owner: u64) -> [u8; 25] {
    key_tagged(BY_SESSION, session, ino, owner)
}

fn key_tagged(tag: u8, a: u64, b: u64, c: u64) -> [u8; 25] {
    let mut key = [tag; 25];
    key[1..9].copy_from_slice(&a.to_be_bytes());
    key[9..17].copy_from_slice(&b.to_be_bytes());
    key[17..].copy_from_slice(&c.to_be_bytes());
    key
}

/// The keys that start with `a`: `start..end`, no end after the last number.
pub fn prefix(a: u64) -> ([u8; 8], Option<[u8; 8]>) {
    (key1(a), a.checked_add(1).map(key1))
}

/// The number at byte `at` of a key.
///
/// # Errors
/// [`StoreError::Malformed`] if the key ends before.
pub fn part(table: Table, key: &[u8], at: usize) -> Result<u64, StoreError> {
    key.get(at..at + 8)
        .and_then(|b| b.try_into().ok())
        .map(u64::from_be_bytes)
        .ok_or_else(|| malformed(table, format!("key of {} bytes", key.len())))
}

#[cfg(test)]
mod tests;
