//! Files that a leader promised before they are replicated (INV-6a).
//!
//! The leader keeps a promise in memory and sees to it that nobody else takes the
//! name or removes the directory. Here the promise becomes a file: once, whoever asks
//! first, since its inode number was given to this promise alone. An inode of that
//! number is there until its session has closed the file, so "there is none" means
//! that the file was not made yet.

use super::acl::default_of;
use super::attr::check_time;
use super::commit::commit;
use super::names::{add_named, check_name, dentry, live_dir, new_row};
use crate::kv::{Read, StoreError};
use crate::txn::{Fail, Outcome, Txn};
use lagan_types::answer::{Committed, Created, GrantedInos};
use lagan_types::attr::{Attr, Kind};
use lagan_types::op::{CreateCommit, NewFile};
use lagan_types::{FsError, Ino, Refusal, SessionId, VolumeId};
use std::time::Duration;

/// Inode numbers that a leader may ask for at once.
pub(crate) const INOS_MAX: u32 = 1 << 20;

/// Time by which the clock of whoever promised a file may go before that of the command that makes it:
/// it was another leader's, which lags now, or its directory's times have run ahead.
const AHEAD_MAX: Duration = Duration::from_secs(1);

/// Why a file cannot be promised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotPromised {
    /// It cannot be made at all.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The directory has a default ACL, which decides the file's mode.
    #[error("the directory has a default ACL")]
    DefaultAcl,
}

/// The attributes that the file will have when it is made: the answer that promises it.
/// Changes nothing.
///
/// # Errors
/// The outer one stops the node. The inner one says why the file cannot be promised.
pub fn preview<R: Read>(
    store: &R,
    volume: VolumeId,
    session: SessionId,
    file: &NewFile,
) -> Result<Result<Attr, NotPromised>, StoreError> {
    if volume != VolumeId::ONLY {
        return Ok(Err(Refusal::Fs(FsError::CrossDevice).into()));
    }
    if !crate::session_exists(store, session)? {
        return Ok(Err(Refusal::SessionEnded.into()));
    }
    let mut txn = Txn::new(store, file.time)?;
    let made = has_default_acl(&mut txn, file).and_then(|has| match has {
        true => Ok(Err(NotPromised::DefaultAcl)),
        false => make(&mut txn, file).map(Ok),
    });
    match made {
        Ok(made) => Ok(made),
        Err(Fail::Refused(refusal)) => Ok(Err(refusal.into())),
        Err(Fail::Store(e)) => Err(e),
    }
}

/// Takes inode numbers for a leader.
pub(crate) fn grant_inos(txn: &mut Txn<'_>, count: u32) -> Outcome<GrantedInos> {
    if count == 0 || count > INOS_MAX {
        return Err(FsError::Invalid.into());
    }
    let first = Ino(txn.counters.ino + 1);
    txn.counters.ino += u64::from(count);
    Ok(GrantedInos { first, count })
}

/// Makes the file unless it is there.
pub(crate) fn create(txn: &mut Txn<'_>, file: &NewFile) -> Outcome<Created> {
    let attr = ensure(txn, file)?;
    Ok(Created {
        attr,
        created: true,
    })
}

/// Makes the file unless it is there, and commits its content.
pub(crate) fn create_commit(
    txn: &mut Txn<'_>,
    session: SessionId,
    op: &CreateCommit,
) -> Outcome<Committed> {
    if op.commit.ino != op.file.ino {
        return Err(FsError::Invalid.into());
    }
    ensure(txn, &op.file)?;
    commit(txn, session, &op.commit)
}

fn ensure(txn: &mut Txn<'_>, file: &NewFile) -> Outcome<Attr> {
    if let Some(row) = txn.find_inode(file.ino)? {
        return Ok(row.attr(file.ino));
    }
    if file.ino.0 > txn.counters.ino {
        return Err(FsError::Invalid.into());
    }
    make(txn, file)
}

/// A default ACL takes the umask's place, and a promised file has its mode already: a
/// directory that has one promises nothing.
fn has_default_acl(txn: &mut Txn<'_>, file: &NewFile) -> Outcome<bool> {
    let dir = live_dir(txn, file.parent)?;
    Ok(default_of(txn, (file.parent, &dir), Kind::File)?.is_some())
}

fn make(txn: &mut Txn<'_>, file: &NewFile) -> Outcome<Attr> {
    check_name(&file.name)?;
    let dir = live_dir(txn, file.parent)?;
    if dentry(txn, file.parent, &file.name)?.is_some() {
        return Err(FsError::Exists.into());
    }
    let owner = (file.mode, file.uid, file.gid);
    // As it was shown when the name was promised, perhaps by another clock.
    let limit = txn.time.saturating_add(AHEAD_MAX);
    let time = file.time.min(limit);
    let mut row = new_row(txn, &dir, Kind::File, owner, time);
    if let Some(set) = &file.set {
        check_time(set.atime)?;
        check_time(set.mtime)?;
        (row.atime, row.mtime) = (set.atime, set.mtime);
        row.ctime = row.ctime.max(set.ctime.min(limit));
    }
    add_named(txn, (file.parent, &file.name), file.ino, row)
}
