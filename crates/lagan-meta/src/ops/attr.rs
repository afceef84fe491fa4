//! Attributes and extended attributes.

use crate::extents;
use crate::kv::{Read, Table};
use crate::layout::rows::InodeRow;
use crate::layout::{encode_raw, key_name};
use crate::ops::acl;
use crate::ops::xattr::{drop_capability, drop_xattr, put_xattr};
use crate::txn::{Outcome, Txn};
use lagan_types::attr::{Attr, HAS_CAPABILITY, Kind, Time};
use lagan_types::limits::{FILE_LEN_MAX, XATTR_NAME_LEN_MAX, XATTR_VALUE_LEN_MAX};
use lagan_types::op::{SetAttr, SetTime, SetXattr, XattrMode};
use lagan_types::{FsError, Ino};

/// chmod, chown, truncate, utimens.
pub(crate) fn set_attr(txn: &mut Txn<'_>, ino: Ino, set: &SetAttr) -> Outcome<Attr> {
    let mut row = txn.inode(ino)?;
    if *set == SetAttr::default() {
        return Ok(row.attr(ino));
    }
    check(&row, set)?;
    let time = txn.time;
    row.touch(time);
    let chown = set.uid.is_some() || set.gid.is_some();
    if set.kill_suid || chown {
        row.clear_suid();
    }
    if chown || set.size.is_some() {
        drop_capability(txn, ino, &mut row)?;
    }
    row.uid = set.uid.unwrap_or(row.uid);
    row.gid = set.gid.unwrap_or(row.gid);
    if let Some(mode) = set.mode {
        row.mode = mode & 0o7777 | row.mode & HAS_CAPABILITY;
        acl::follow(txn, ino, &row)?;
    }
    if let Some(size) = set.size {
        resize(txn, ino, &mut row, size)?;
    }
    let at = |t: SetTime| match t {
        SetTime::Now => time,
        SetTime::At(t) => t,
    };
    row.atime = set.atime.map_or(row.atime, at);
    row.mtime = set.mtime.map_or(row.mtime, at);
    let attr = row.attr(ino);
    txn.set_inode(ino, row)?;
    Ok(attr)
}

/// A time that a caller gives.
pub(super) fn check_time(time: Time) -> Result<(), FsError> {
    match time.nanos < 1_000_000_000 {
        true => Ok(()),
        false => Err(FsError::Invalid),
    }
}

fn check(row: &InodeRow, set: &SetAttr) -> Result<(), FsError> {
    for time in [set.atime, set.mtime].into_iter().flatten() {
        if let SetTime::At(time) = time {
            check_time(time)?;
        }
    }
    match (set.size, row.kind) {
        (None, _) => Ok(()),
        (Some(size), Kind::File) if size > FILE_LEN_MAX => Err(FsError::FileTooLarge),
        (Some(_), Kind::File) => Ok(()),
        (Some(_), Kind::Directory) => Err(FsError::IsDirectory),
        (Some(_), _) => Err(FsError::Invalid),
    }
}

/// truncate(2): the version rises only if bytes change.
fn resize(txn: &mut Txn<'_>, ino: Ino, row: &mut InodeRow, size: u64) -> Outcome<()> {
    if size == row.size {
        row.mtime = row.ctime;
        return Ok(());
    }
    if size < row.size {
        extents::cut(txn, ino, row, size..FILE_LEN_MAX)?;
    }
    row.size = size;
    row.touch_file(txn.time);
    Ok(())
}

/// setxattr(2).
pub(crate) fn set_xattr(txn: &mut Txn<'_>, op: &SetXattr) -> Outcome<()> {
    let (ino, name, value) = (op.ino, &op.name, &op.value);
    check_xattr_name(name)?;
    if value.len() > XATTR_VALUE_LEN_MAX {
        return Err(FsError::TooBig.into());
    }
    let mut row = txn.inode(ino)?;
    let old = txn.get(Table::Xattr, &key_name(ino.0, name))?;
    match (op.mode, &old) {
        (XattrMode::Create, Some(_)) => return Err(FsError::Exists.into()),
        (XattrMode::Replace, None) => return Err(FsError::NoAttribute.into()),
        (XattrMode::Any | XattrMode::Create | XattrMode::Replace, _) => {}
    }
    if acl::is_acl(name) {
        return acl::set(txn, ino, name, value);
    }
    if old.is_some_and(|old| old == encode_raw(value)) {
        // As ext4: nothing changes, nor do the times.
        return Ok(());
    }
    row.touch(txn.time);
    put_xattr(txn, ino, &mut row, name, value.clone())?;
    txn.set_inode(ino, row)?;
    Ok(())
}

/// removexattr(2).
pub(crate) fn remove_xattr(txn: &mut Txn<'_>, ino: Ino, name: &[u8]) -> Outcome<()> {
    check_xattr_name(name)?;
    let mut row = txn.inode(ino)?;
    if !drop_xattr(txn, ino, &mut row, name)? {
        return Err(FsError::NoAttribute.into());
    }
    row.touch(txn.time);
    txn.set_inode(ino, row)?;
    Ok(())
}

fn check_xattr_name(name: &[u8]) -> Result<(), FsError> {
    if name.is_empty() || name.len() > XATTR_NAME_LEN_MAX {
        return Err(FsError::Range);
    }
    if name.contains(&0) {
        return Err(FsError::Invalid);
    }
    Ok(())
}
