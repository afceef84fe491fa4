//! The rows of extended attributes, and what the inode's row says of them.

use crate::kv::{Read, Table};
use crate::layout::rows::InodeRow;
use crate::layout::{encode_raw, key_name};
use crate::txn::{Outcome, Txn};
use lagan_types::attr::{CAPABILITY, HAS_CAPABILITY, Kind};
use lagan_types::limits::XATTR_LIST_LEN_MAX;
use lagan_types::{FsError, Ino};

/// Sets an attribute's row, and what the inode's row says of it.
///
/// Fails with [`FsError::NoSpace`] if listxattr(2) could not return all names any more.
pub(super) fn put_xattr(
    txn: &mut Txn<'_>,
    ino: Ino,
    row: &mut InodeRow,
    name: &[u8],
    value: Vec<u8>,
) -> Outcome<()> {
    let key = key_name(ino.0, name);
    if txn.get(Table::Xattr, &key)?.is_none() {
        let len = row.xattr_len.saturating_add(name.len() as u32 + 1);
        if len as usize > XATTR_LIST_LEN_MAX {
            return Err(FsError::NoSpace.into());
        }
        row.xattr_len = len;
    }
    if name == CAPABILITY {
        row.mode |= HAS_CAPABILITY;
    }
    txn.put_bytes(Table::Xattr, &key, encode_raw(&value));
    Ok(())
}

/// Removes an attribute's row; false if there was none.
pub(super) fn drop_xattr(
    txn: &mut Txn<'_>,
    ino: Ino,
    row: &mut InodeRow,
    name: &[u8],
) -> Outcome<bool> {
    let key = key_name(ino.0, name);
    if txn.get(Table::Xattr, &key)?.is_none() {
        return Ok(false);
    }
    txn.delete(Table::Xattr, &key);
    row.xattr_len = row.xattr_len.saturating_sub(name.len() as u32 + 1);
    if name == CAPABILITY {
        row.mode &= !HAS_CAPABILITY;
    }
    Ok(true)
}

/// A file whose content or owner changes loses its capabilities, whoever changes it
/// (capabilities(7)); a directory keeps the attribute, which means nothing there.
pub(super) fn drop_capability(txn: &mut Txn<'_>, ino: Ino, row: &mut InodeRow) -> Outcome<()> {
    if row.mode & HAS_CAPABILITY != 0 && row.kind != Kind::Directory {
        drop_xattr(txn, ino, row, CAPABILITY)?;
    }
    Ok(())
}
