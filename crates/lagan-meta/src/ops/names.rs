//! Names: create, link, unlink, rmdir, and what rename shares with them.

use crate::attrs::S_ISGID;
use crate::kv::{Read, StoreError, Table};
use crate::layout::rows::{CookieRow, DentryRow, Due, InodeRow};
use crate::layout::{encode_raw, key_name, key1, key2, prefix};
use crate::ops::acl;
use crate::txn::{Outcome, Txn};
use lagan_types::answer::{Created, Unlinked};
use lagan_types::attr::{Attr, Kind, Time};
use lagan_types::limits::{LINKS_MAX, NAME_LEN_MAX, SYMLINK_LEN_MAX};
use lagan_types::op::Create;
use lagan_types::{FsError, Ino};

/// Refuses what is no name of a directory entry.
pub(crate) fn check_name(name: &[u8]) -> Result<(), FsError> {
    if name.is_empty() || name == b"." || name == b".." {
        return Err(FsError::Invalid);
    }
    if name.len() > NAME_LEN_MAX {
        return Err(FsError::NameTooLong);
    }
    if name.iter().any(|&b| b == b'/' || b == 0) {
        return Err(FsError::Invalid);
    }
    Ok(())
}

/// The row of a directory that has not been removed.
pub(crate) fn live_dir(txn: &mut Txn<'_>, ino: Ino) -> Outcome<InodeRow> {
    let row = txn.inode(ino)?;
    if row.kind != Kind::Directory {
        return Err(FsError::NotDirectory.into());
    }
    if row.nlink == 0 {
        return Err(FsError::NotFound.into());
    }
    Ok(row)
}

/// What the name points to.
pub(crate) fn dentry(
    txn: &Txn<'_>,
    parent: Ino,
    name: &[u8],
) -> Result<Option<DentryRow>, StoreError> {
    txn.row(Table::Dentry, &key_name(parent.0, name))
}

/// Adds an entry under a new cookie; the parent's row gets `links` more subdirectories.
pub(crate) fn add_entry(
    txn: &mut Txn<'_>,
    parent: Ino,
    name: &[u8],
    ino: Ino,
    kind: Kind,
) -> Outcome<()> {
    let time = txn.time;
    add_entry_at(txn, parent, name, ino, kind, time)
}

fn add_entry_at(
    txn: &mut Txn<'_>,
    parent: Ino,
    name: &[u8],
    ino: Ino,
    kind: Kind,
    time: Time,
) -> Outcome<()> {
    let now = txn.time;
    let cookie = txn.edit(parent, |row| {
        if time < now && time <= row.ctime {
            // It was shown as changed then, and has changed since, perhaps not in its content.
            row.mtime = row.mtime.max(time);
            row.version = row.version.saturating_add(1);
        } else {
            row.touch_content(time);
        }
        row.cookie = row.cookie.saturating_add(1);
        row.nlink = row.nlink.saturating_add((kind == Kind::Directory) as u32);
        row.cookie
    })?;
    let entry = DentryRow { ino, kind, cookie };
    txn.put(Table::Dentry, &key_name(parent.0, name), &entry);
    let row = CookieRow {
        ino,
        kind,
        name: name.to_vec(),
    };
    txn.put(Table::Cookie, &key2(parent.0, cookie), &row);
    Ok(())
}

/// Removes an entry from its directory.
pub(crate) fn remove_entry(
    txn: &mut Txn<'_>,
    parent: Ino,
    name: &[u8],
    entry: &DentryRow,
) -> Outcome<()> {
    let time = txn.time;
    txn.delete(Table::Dentry, &key_name(parent.0, name));
    txn.delete(Table::Cookie, &key2(parent.0, entry.cookie));
    txn.edit(parent, |row| {
        row.touch_content(time);
        let subdirs = (entry.kind == Kind::Directory) as u32;
        row.nlink = row.nlink.saturating_sub(subdirs);
    })
}

/// The inode lost that name. Returns the links that are left.
pub(crate) fn drop_link(txn: &mut Txn<'_>, ino: Ino, parent: Ino, name: &[u8]) -> Outcome<u32> {
    let time = txn.time;
    txn.edit(ino, |row| {
        row.touch(time);
        row.nlink = match row.kind {
            Kind::Directory => 0,
            _ => row.nlink.saturating_sub(1),
        };
        if row.nlink == 0 || row.hint_is(parent, name) {
            row.parent = Ino(0);
            row.name = Vec::new();
        }
        if row.nlink == 0 {
            row.archive.due = None;
            row.archive.failed = false;
        }
        row.nlink
    })
}

/// Whether the directory has no entries.
pub(crate) fn is_empty_dir(txn: &Txn<'_>, ino: Ino) -> Result<bool, StoreError> {
    let (start, end) = prefix(ino.0);
    let end = end.as_ref().map(|e| &e[..]);
    Ok(txn.scan(Table::Dentry, &start, end, 1)?.is_empty())
}

/// Makes an inode and its name, or finds the regular file that is there. A default ACL of
/// the directory takes the umask's place.
pub(crate) fn create(txn: &mut Txn<'_>, op: &Create) -> Outcome<Created> {
    check_name(&op.name)?;
    let dir = live_dir(txn, op.parent)?;
    if let Some(entry) = dentry(txn, op.parent, &op.name)? {
        return existing(txn, &entry, op.kind, op.exclusive);
    }
    check_target(op.kind, &op.target)?;
    let default = acl::default_of(txn, (op.parent, &dir), op.kind)?;
    let mode = match default {
        Some(_) => op.mode,
        None => op.mode & !op.umask,
    };
    let mut row = new_row(txn, &dir, op.kind, (mode, op.uid, op.gid), txn.time);
    if matches!(op.kind, Kind::CharDevice | Kind::BlockDevice) {
        row.rdev = op.rdev;
    }
    txn.counters.ino += 1;
    let ino = Ino(txn.counters.ino);
    if op.kind == Kind::Symlink {
        row.size = op.target.len() as u64;
        txn.put_bytes(Table::Symlink, &key1(ino.0), encode_raw(&op.target));
    }
    if let Some(default) = default {
        acl::inherit(txn, ino, &mut row, &default)?;
    }
    let attr = add_named(txn, (op.parent, &op.name), ino, row)?;
    Ok(Created {
        attr,
        created: true,
    })
}

/// A new inode's row, by the directory that it is made in.
pub(crate) fn new_row(
    txn: &Txn<'_>,
    dir: &InodeRow,
    kind: Kind,
    (mode, uid, gid): (u16, u32, u32),
    time: Time,
) -> InodeRow {
    let mut row = InodeRow::new(kind, mode, (uid, gid), time);
    if dir.mode & S_ISGID != 0 {
        row.gid = dir.gid;
        if kind == Kind::Directory {
            row.mode |= S_ISGID;
        }
    }
    if kind == Kind::File {
        row.archive.due = Some(Due::After(txn.now_ms()));
    }
    row
}

/// Adds an inode under its first name; the directory changed when the inode was made.
pub(crate) fn add_named(
    txn: &mut Txn<'_>,
    (parent, name): (Ino, &[u8]),
    ino: Ino,
    mut row: InodeRow,
) -> Outcome<Attr> {
    row.parent = parent;
    row.name = name.to_vec();
    let (attr, kind, time) = (row.attr(ino), row.kind, row.btime);
    txn.add_inode(ino, row);
    add_entry_at(txn, parent, name, ino, kind, time)?;
    Ok(attr)
}

fn check_target(kind: Kind, target: &[u8]) -> Result<(), FsError> {
    match kind {
        Kind::Symlink if target.is_empty() || target.contains(&0) => Err(FsError::Invalid),
        Kind::Symlink if target.len() > SYMLINK_LEN_MAX => Err(FsError::NameTooLong),
        _ => Ok(()),
    }
}

/// The answer of open(2) with O_CREAT for a name that is taken.
fn existing(txn: &mut Txn<'_>, entry: &DentryRow, kind: Kind, exclusive: bool) -> Outcome<Created> {
    if exclusive || kind != Kind::File {
        return Err(FsError::Exists.into());
    }
    if entry.kind == Kind::Directory {
        return Err(FsError::IsDirectory.into());
    }
    let attr = txn.inode(entry.ino)?.attr(entry.ino);
    Ok(Created {
        attr,
        created: false,
    })
}

/// link(2).
pub(crate) fn link(txn: &mut Txn<'_>, ino: Ino, parent: Ino, name: &[u8]) -> Outcome<Attr> {
    check_name(name)?;
    live_dir(txn, parent)?;
    let row = txn.inode(ino)?;
    if row.kind == Kind::Directory {
        return Err(FsError::NotPermitted.into());
    }
    if row.nlink == 0 {
        return Err(FsError::NotFound.into());
    }
    if dentry(txn, parent, name)?.is_some() {
        return Err(FsError::Exists.into());
    }
    if row.nlink >= LINKS_MAX {
        return Err(FsError::TooManyLinks.into());
    }
    add_entry(txn, parent, name, ino, row.kind)?;
    let time = txn.time;
    let attr = txn.edit(ino, |row| {
        row.touch(time);
        row.nlink += 1;
        if row.parent == Ino(0) {
            row.parent = parent;
            row.name = name.to_vec();
        }
        row.attr(ino)
    })?;
    Ok(attr)
}

/// unlink(2).
pub(crate) fn unlink(txn: &mut Txn<'_>, parent: Ino, name: &[u8]) -> Outcome<Unlinked> {
    check_name(name)?;
    live_dir(txn, parent)?;
    let entry = dentry(txn, parent, name)?.ok_or(FsError::NotFound)?;
    if entry.kind == Kind::Directory {
        return Err(FsError::IsDirectory.into());
    }
    remove_entry(txn, parent, name, &entry)?;
    let nlink = drop_link(txn, entry.ino, parent, name)?;
    Ok(Unlinked {
        ino: entry.ino,
        nlink,
    })
}

/// rmdir(2).
pub(crate) fn rmdir(txn: &mut Txn<'_>, parent: Ino, name: &[u8]) -> Outcome<Unlinked> {
    check_name(name)?;
    live_dir(txn, parent)?;
    let entry = dentry(txn, parent, name)?.ok_or(FsError::NotFound)?;
    if entry.kind != Kind::Directory {
        return Err(FsError::NotDirectory.into());
    }
    if !is_empty_dir(txn, entry.ino)? {
        return Err(FsError::NotEmpty.into());
    }
    remove_entry(txn, parent, name, &entry)?;
    let nlink = drop_link(txn, entry.ino, parent, name)?;
    Ok(Unlinked {
        ino: entry.ino,
        nlink,
    })
}
