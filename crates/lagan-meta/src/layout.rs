//! Keys, values and versions of every table: the one place that knows them.
//!
//! Integers in keys are big-endian and of fixed width, so that byte order is
//! numeric order. A value is one version byte and the codec's encoding of the
//! row (see [`rows`]), or raw bytes where it says so. Rows change by a new
//! version byte; old ones stay readable.
//!
//! | table | key | value, version 2 |
//! | --- | --- | --- |
//! | Config | `0` | `Config` |
//! | Config | `1` | map version, u64 |
//! | Config | `2` | nothing: rows of SetUse are whole |
//! | Node | node u64 | `NodeInfo` |
//! | Set | set u32 | `ReplicaSet` |
//! | SetUse | set u32 | extents that name chunks of the set, u64; no row: none |
//! | Inode | ino u64 | [`rows::InodeRow`] |
//! | Dentry | parent u64, name | [`rows::DentryRow`] |
//! | Cookie | parent u64, cookie u64 | [`rows::CookieRow`] |
//! | Extent | ino u64, file offset u64 | [`rows::ExtentRow`] |
//! | Shared | chunk u128, ino u64, home u64 | nothing |
//! | Xattr | ino u64, name | raw bytes |
//! | Symlink | ino u64 | raw bytes |
//! | Due | `0`, at ms u64, ino u64 | nothing: asked for, or tried again then |
//! | Due | `1`, changed ms u64, ino u64 | nothing: due `archive_after` later |
//! | Due | `2`, `0` u64, ino u64 | nothing: too large for S3, waits for a change |
//! | Releasable | archived ms u64, ino u64 | nothing |
//! | Orphan | ino u64 | nothing |
//! | Object | ino u64, data version u64 | [`rows::ObjectRow`] |
//! | Attempt | number u64 | [`rows::AttemptRow`] |
//! | ReapChunk | node u64, sequence u64 | [`rows::ReapChunkRow`] |
//! | ReapObject | sequence u64 | [`rows::ReapObjectRow`] |
//! | Session | session u64 | [`rows::SessionRow`] |
//! | Answer | session u64, `0` u64 | lowest sequence that is remembered, u64 |
//! | Answer | session u64, sequence u64 | `Result<Answer, FsError>` |
//! | Block | block u64 | [`rows::BlockRow`] |
//! | Lock | `0`, ino u64, session u64, owner u64 | [`rows::LockRow`] |
//! | Lock | `1`, session u64, ino u64, owner u64 | nothing |
//! | Counter | `0` | [`rows::CounterRow`] |

pub mod rows;

use crate::kv::{StoreError, Table};
use lagan_types::codec::{self, Decode, Encode};
use rows::DueKey;

/// Version of all rows that are written now.
pub const ROW_VERSION: u8 = 2;

/// Key of the configuration.
pub const CONFIG_KEY: &[u8] = &[0];
/// Key of the map version.
pub const MAP_VERSION_KEY: &[u8] = &[1];
/// Key of the mark that extents are counted by set.
pub const SETS_COUNTED_KEY: &[u8] = &[2];
/// Key of the counters.
pub const COUNTER_KEY: &[u8] = &[0];

/// First byte of a key in Due: files with a time of their own.
pub const DUE_AT: u8 = 0;
/// Files that are due some time after their change.
pub const DUE_AFTER: u8 = 1;
/// Files that S3 cannot take.
pub const DUE_TOO_LARGE: u8 = 2;

/// A value: version byte and encoding.
pub fn encode<T: Encode>(row: &T) -> Vec<u8> {
    let mut out = Vec::with_capacity(64);
    out.push(ROW_VERSION);
    codec::encode_into(row, &mut out);
    out
}

/// A row out of a value.
///
/// # Errors
/// [`StoreError::Malformed`] for another version or bytes that are no such row.
pub fn decode<T: Decode<()>>(table: Table, value: &[u8]) -> Result<T, StoreError> {
    match value.split_first() {
        Some((&ROW_VERSION, body)) => {
            codec::decode(body).map_err(|e| StoreError::Malformed(table, e.to_string()))
        }
        Some((v, _)) => Err(malformed(table, format!("row version {v}"))),
        None => Err(malformed(table, "empty value".into())),
    }
}

/// The raw bytes of a value.
///
/// # Errors
/// As [`decode`].
pub fn decode_raw(table: Table, mut value: Vec<u8>) -> Result<Vec<u8>, StoreError> {
    match value.first() {
        Some(&ROW_VERSION) => {
            value.remove(0);
            Ok(value)
        }
        _ => Err(malformed(table, "raw row without its version".into())),
    }
}

/// A value of raw bytes.
pub fn encode_raw(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() + 1);
    out.push(ROW_VERSION);
    out.extend_from_slice(bytes);
    out
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
    key_tagged(0, ino, session, owner)
}

/// Key of a lock row's index by session.
pub fn key_session_lock(session: u64, ino: u64, owner: u64) -> [u8; 25] {
    key_tagged(1, session, ino, owner)
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
