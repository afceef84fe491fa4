//! Advisory locks: fcntl(2)'s ranges, one space for all mounts (flock is a
//! whole-file range of an owner of its own).

use crate::kv::{Read, StoreError, Table};
use crate::layout::rows::{LockRow, LockedRange};
use crate::layout::{self, key_lock, key_session_lock, part};
use crate::txn::{Outcome, Txn};
use lagan_types::op::{LockKind, LockRange};
use lagan_types::{FsError, Ino, SessionId};

/// Ranges that one owner may have on one inode: bounds a row.
const RANGES_MAX: usize = 4096;
/// Rows that one scan takes.
const PAGE: usize = 256;

/// Takes, changes or drops a range.
pub(crate) fn set_lock(
    txn: &mut Txn<'_>,
    session: SessionId,
    ino: Ino,
    lock: &LockRange,
) -> Outcome<()> {
    if lock.start > lock.end {
        return Err(FsError::Invalid.into());
    }
    txn.inode(ino)?;
    if lock.kind != LockKind::Unlock && conflict(txn, session, ino, lock)?.is_some() {
        return Err(FsError::WouldBlock.into());
    }
    let key = key_lock(ino.0, session.0, lock.owner);
    let old: Option<LockRow> = txn.row(Table::Lock, &key)?;
    let ranges = merge(old.map(|r| r.ranges).unwrap_or_default(), lock);
    if ranges.len() > RANGES_MAX {
        return Err(FsError::NoLocks.into());
    }
    let index = key_session_lock(session.0, ino.0, lock.owner);
    if ranges.is_empty() {
        txn.delete(Table::Lock, &key);
        txn.delete(Table::Lock, &index);
    } else {
        txn.put(Table::Lock, &key, &LockRow { ranges });
        txn.put_mark(Table::Lock, &index);
    }
    Ok(())
}

/// The owner's ranges after `lock`: cut where it covers them, joined where equal
/// ones touch.
fn merge(old: Vec<LockedRange>, lock: &LockRange) -> Vec<LockedRange> {
    let mut ranges = Vec::with_capacity(old.len() + 2);
    for range in old {
        if range.end < lock.start || range.start > lock.end {
            ranges.push(range);
            continue;
        }
        if range.start < lock.start {
            let end = lock.start - 1;
            ranges.push(LockedRange { end, ..range });
        }
        if range.end > lock.end {
            let start = lock.end + 1;
            ranges.push(LockedRange { start, ..range });
        }
    }
    if lock.kind != LockKind::Unlock {
        ranges.push(LockedRange {
            start: lock.start,
            end: lock.end,
            kind: lock.kind,
            pid: lock.pid,
        });
    }
    ranges.sort_by_key(|r| r.start);
    let mut joined: Vec<LockedRange> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match joined.last_mut() {
            Some(last)
                if last.kind == range.kind
                    && last.pid == range.pid
                    && last.end.checked_add(1) == Some(range.start) =>
            {
                last.end = range.end;
            }
            _ => joined.push(range),
        }
    }
    joined
}

/// A lock of another owner that stands against this one; against an unlock
/// what it would release: F_OFD_GETLK tells an owner of its own locks by that.
pub(crate) fn conflict(
    store: &dyn Read,
    session: SessionId,
    ino: Ino,
    lock: &LockRange,
) -> Result<Option<(SessionId, LockRange)>, StoreError> {
    if lock.kind == LockKind::Unlock {
        return own(store, session, ino, lock);
    }
    Ok(holders(store, session, ino, lock, 1)?.pop())
}

fn own(
    store: &dyn Read,
    session: SessionId,
    ino: Ino,
    lock: &LockRange,
) -> Result<Option<(SessionId, LockRange)>, StoreError> {
    let key = key_lock(ino.0, session.0, lock.owner);
    let Some(value) = store.get(Table::Lock, &key)? else {
        return Ok(None);
    };
    let row: LockRow = layout::decode(Table::Lock, &value)?;
    let held = row.ranges.iter().find(|r| overlap(r, lock));
    Ok(held.map(|range| (session, told(range, lock.owner))))
}

/// Locks of other owners that stand against this one: one of each, of at most
/// `most` owners.
pub(crate) fn holders(
    store: &dyn Read,
    session: SessionId,
    ino: Ino,
    lock: &LockRange,
    most: usize,
) -> Result<Vec<(SessionId, LockRange)>, StoreError> {
    let mut found = Vec::new();
    let mut start = key_lock(ino.0, 0, 0).to_vec();
    let end = lock_end(ino);
    loop {
        let rows = store.scan(Table::Lock, &start, Some(&end), PAGE)?;
        for (key, value) in &rows {
            let (other, owner) = (part(Table::Lock, key, 9)?, part(Table::Lock, key, 17)?);
            if (other, owner) == (session.0, lock.owner) {
                continue;
            }
            let row: LockRow = layout::decode(Table::Lock, value)?;
            if let Some(range) = row.ranges.iter().find(|r| against(r, lock)) {
                found.push((SessionId(other), told(range, owner)));
                if found.len() >= most {
                    return Ok(found);
                }
            }
        }
        match rows.last() {
            Some((key, _)) if rows.len() == PAGE => {
                start.clone_from(key);
                start.push(0);
            }
            _ => return Ok(found),
        }
    }
}

fn told(range: &LockedRange, owner: u64) -> LockRange {
    LockRange {
        owner,
        start: range.start,
        end: range.end,
        kind: range.kind,
        pid: range.pid,
    }
}

fn overlap(held: &LockedRange, lock: &LockRange) -> bool {
    held.start <= lock.end && lock.start <= held.end
}

fn against(held: &LockedRange, lock: &LockRange) -> bool {
    overlap(held, lock) && (held.kind == LockKind::Write || lock.kind == LockKind::Write)
}

/// The first key after those of the inode.
fn lock_end(ino: Ino) -> [u8; 25] {
    match ino.0.checked_add(1) {
        Some(next) => key_lock(next, 0, 0),
        None => key_session_lock(0, 0, 0),
    }
}

/// Drops all ranges of one owner on the inode.
pub(crate) fn drop_locks(
    txn: &mut Txn<'_>,
    session: SessionId,
    ino: Ino,
    owner: u64,
) -> Outcome<()> {
    let key = key_lock(ino.0, session.0, owner);
    if txn.get(Table::Lock, &key)?.is_some() {
        txn.delete(Table::Lock, &key);
        txn.delete(Table::Lock, &key_session_lock(session.0, ino.0, owner));
    }
    Ok(())
}

/// Drops all locks of a session.
pub(crate) fn drop_session(txn: &mut Txn<'_>, session: SessionId) -> Result<(), StoreError> {
    let mut start = key_session_lock(session.0, 0, 0).to_vec();
    let end = session
        .0
        .checked_add(1)
        .map(|next| key_session_lock(next, 0, 0));
    loop {
        let rows = txn.scan(Table::Lock, &start, end.as_ref().map(|e| &e[..]), PAGE)?;
        for (key, _) in &rows {
            let (ino, owner) = (part(Table::Lock, key, 9)?, part(Table::Lock, key, 17)?);
            txn.delete(Table::Lock, key);
            txn.delete(Table::Lock, &key_lock(ino, session.0, owner));
        }
        match rows.last() {
            Some((key, _)) if rows.len() == PAGE => start = [key.as_slice(), &[0]].concat(),
            _ => return Ok(()),
        }
    }
}

/// Drops all locks on an inode that goes.
pub(crate) fn drop_inode(txn: &mut Txn<'_>, ino: Ino) -> Result<(), StoreError> {
    let mut start = key_lock(ino.0, 0, 0).to_vec();
    let end = lock_end(ino);
    loop {
        let rows = txn.scan(Table::Lock, &start, Some(&end), PAGE)?;
        for (key, _) in &rows {
            let (session, owner) = (part(Table::Lock, key, 9)?, part(Table::Lock, key, 17)?);
            txn.delete(Table::Lock, key);
            txn.delete(Table::Lock, &key_session_lock(session, ino.0, owner));
        }
        match rows.last() {
            Some((key, _)) if rows.len() == PAGE => start = [key.as_slice(), &[0]].concat(),
            _ => return Ok(()),
        }
    }
}
