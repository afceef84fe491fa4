//! Access control lists of inodes: set, followed by chmod, inherited.

use crate::acl::{ACCESS, Acl, DEFAULT};
use crate::attrs::S_ISGID;
use crate::kv::{Read, Table};
use crate::layout::rows::InodeRow;
use crate::layout::{decode_raw, encode_raw, key_name};
use crate::ops::xattr::{drop_xattr, put_xattr};
use crate::txn::{Outcome, Txn};
use lagan_types::attr::Kind;
use lagan_types::limits::XATTR_VALUE_LEN_MAX;
use lagan_types::{FsError, Ino};

/// Whether setting the attribute is setting a list.
pub(crate) fn is_acl(name: &[u8]) -> bool {
    name == ACCESS || name == DEFAULT
}

fn load(txn: &Txn<'_>, ino: Ino, row: &InodeRow, name: &[u8]) -> Outcome<Option<Acl>> {
    if row.xattr_len == 0 {
        return Ok(None);
    }
    match txn.get(Table::Xattr, &key_name(ino.0, name))? {
        Some(value) => Ok(Acl::parse(&decode_raw(Table::Xattr, value)?)?),
        None => Ok(None),
    }
}

/// setxattr(2) of a list; the permission bits follow. One that says no more
/// than these, or nothing, is removed.
pub(crate) fn set(txn: &mut Txn<'_>, ino: Ino, name: &[u8], value: &[u8]) -> Outcome<()> {
    let mut row = txn.inode(ino)?;
    let acl = Acl::parse(value)?;
    match row.kind {
        Kind::Symlink => return Err(FsError::Unsupported.into()),
        Kind::Directory => {}
        _ if name == DEFAULT && acl.is_some() => return Err(FsError::Access.into()),
        _ => {}
    }
    if let (ACCESS, Some(acl)) = (name, &acl) {
        row.mode = acl.mode(row.mode);
    }
    let kept = acl.filter(|acl| name == DEFAULT || acl.says_more());
    match kept {
        Some(acl) => put_xattr(txn, ino, &mut row, name, acl.encode())?,
        None => {
            drop_xattr(txn, ino, &mut row, name)?;
        }
    }
    row.touch(txn.time);
    txn.set_inode(ino, row)?;
    Ok(())
}

/// setxattr(2) of an access list by somebody who is neither in the inode's group nor
/// privileged: set-group-id goes, also of a directory (posix_acl_update_mode in Linux'
/// fs/posix_acl.c). Taking the list away changes no bits.
pub(crate) fn set_as_other(txn: &mut Txn<'_>, ino: Ino, value: &[u8]) -> Outcome<()> {
    if value.len() > XATTR_VALUE_LEN_MAX {
        return Err(FsError::TooBig.into());
    }
    set(txn, ino, ACCESS, value)?;
    if Acl::parse(value)?.is_some() {
        let mut row = txn.inode(ino)?;
        row.mode &= !S_ISGID;
        txn.set_inode(ino, row)?;
    }
    Ok(())
}

/// chmod(2) of an inode that may have a list.
pub(crate) fn follow(txn: &mut Txn<'_>, ino: Ino, row: &InodeRow) -> Outcome<()> {
    if let Some(mut acl) = load(txn, ino, row, ACCESS)? {
        acl.follow(row.mode);
        let key = key_name(ino.0, ACCESS);
        txn.put_bytes(Table::Xattr, &key, encode_raw(&acl.encode()));
    }
    Ok(())
}

/// The list that a new entry of the directory inherits.
pub(crate) fn default_of(txn: &Txn<'_>, dir: (Ino, &InodeRow), kind: Kind) -> Outcome<Option<Acl>> {
    match kind {
        Kind::Symlink => Ok(None),
        _ => load(txn, dir.0, dir.1, DEFAULT),
    }
}

/// Gives a new inode its directory's default list; its mode is limited by it.
pub(crate) fn inherit(
    txn: &mut Txn<'_>,
    ino: Ino,
    row: &mut InodeRow,
    default: &Acl,
) -> Outcome<()> {
    let mut access = default.clone();
    row.mode = access.limit(row.mode);
    if access.says_more() {
        put_xattr(txn, ino, row, ACCESS, access.encode())?;
    }
    if row.kind == Kind::Directory {
        put_xattr(txn, ino, row, DEFAULT, default.encode())?;
    }
    Ok(())
}
