//! renameat2(2), with RENAME_NOREPLACE and RENAME_EXCHANGE.

use super::names::{
    add_entry, check_name, dentry, drop_link, is_empty_dir, live_dir, remove_entry,
};
use crate::kv::Table;
use crate::layout::malformed;
use crate::layout::rows::DentryRow;
use crate::txn::{Outcome, Txn};
use lagan_types::answer::Renamed;
use lagan_types::attr::Kind;
use lagan_types::op::Rename;
use lagan_types::{FsError, Ino};

/// A directory and a name in it.
type Place<'a> = (Ino, &'a [u8]);

/// renameat2(2).
pub(crate) fn rename(txn: &mut Txn<'_>, op: &Rename) -> Outcome<Renamed> {
    let (from, to): (Place<'_>, Place<'_>) = ((op.parent, &op.name), (op.new_parent, &op.new_name));
    check_name(from.1)?;
    check_name(to.1)?;
    if op.no_replace && op.exchange {
        return Err(FsError::Invalid.into());
    }
    live_dir(txn, from.0)?;
    live_dir(txn, to.0)?;
    let source = dentry(txn, from.0, from.1)?.ok_or(FsError::NotFound)?;
    let target = dentry(txn, to.0, to.1)?;
    if op.exchange && target.is_none() {
        return Err(FsError::NotFound.into());
    }
    if op.no_replace && target.is_some() {
        return Err(FsError::Exists.into());
    }
    if target.as_ref().is_some_and(|t| t.ino == source.ino) {
        return Ok(Renamed {
            ino: source.ino,
            replaced: None,
        });
    }
    check_cycle(txn, &source, to.0)?;
    let replaced = target.as_ref().map(|t| t.ino);
    match target {
        Some(target) if op.exchange => exchange(txn, (from, to), &source, &target)?,
        Some(target) => {
            check_replace(txn, &source, &target)?;
            remove_entry(txn, to.0, to.1, &target)?;
            drop_link(txn, target.ino, to.0, to.1)?;
            shift(txn, (from, to), &source)?;
        }
        None => shift(txn, (from, to), &source)?,
    }
    Ok(Renamed {
        ino: source.ino,
        replaced,
    })
}

/// A directory must not go into itself or below.
fn check_cycle(txn: &mut Txn<'_>, moved: &DentryRow, into: Ino) -> Outcome<()> {
    if moved.kind != Kind::Directory {
        return Ok(());
    }
    let mut at = into;
    for _ in 0..=txn.counters.stats.inodes {
        if at == moved.ino {
            return Err(FsError::Invalid.into());
        }
        if at == Ino::ROOT {
            return Ok(());
        }
        at = txn.inode(at)?.parent;
    }
    Err(malformed(
        Table::Inode,
        format!("directory {into} is not below the root"),
    )
    .into())
}

fn check_replace(txn: &Txn<'_>, source: &DentryRow, target: &DentryRow) -> Outcome<()> {
    match (source.kind, target.kind) {
        (Kind::Directory, Kind::Directory) => {
            if !is_empty_dir(txn, target.ino)? {
                return Err(FsError::NotEmpty.into());
            }
            Ok(())
        }
        (Kind::Directory, _) => Err(FsError::NotDirectory.into()),
        (_, Kind::Directory) => Err(FsError::IsDirectory.into()),
        _ => Ok(()),
    }
}

/// Moves the source's entry to a name that is free by now.
fn shift(txn: &mut Txn<'_>, (from, to): (Place<'_>, Place<'_>), source: &DentryRow) -> Outcome<()> {
    remove_entry(txn, from.0, from.1, source)?;
    add_entry(txn, to.0, to.1, source.ino, source.kind)?;
    moved(txn, source.ino, from, to)
}

fn exchange(
    txn: &mut Txn<'_>,
    (from, to): (Place<'_>, Place<'_>),
    source: &DentryRow,
    target: &DentryRow,
) -> Outcome<()> {
    check_cycle(txn, target, from.0)?;
    remove_entry(txn, from.0, from.1, source)?;
    remove_entry(txn, to.0, to.1, target)?;
    add_entry(txn, to.0, to.1, source.ino, source.kind)?;
    add_entry(txn, from.0, from.1, target.ino, target.kind)?;
    moved(txn, source.ino, from, to)?;
    moved(txn, target.ino, to, from)
}

/// The inode's own view of its name follows.
fn moved(txn: &mut Txn<'_>, ino: Ino, from: Place<'_>, to: Place<'_>) -> Outcome<()> {
    let time = txn.time;
    txn.edit(ino, |row| {
        row.touch(time);
        if row.kind == Kind::Directory || row.parent == Ino(0) || row.hint_is(from.0, from.1) {
            row.parent = to.0;
            row.name = to.1.to_vec();
        }
    })
}
