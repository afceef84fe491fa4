//! Access times that reads have moved.
//!
//! What must hold: a change that came after the read wins (ctime strictly rises,
//! so that it tells of any), and nothing but the access time moves: no mount
//! has to drop anything, the archive takes nothing again.

use crate::txn::{Outcome, Txn};
use lagan_types::FsError;
use lagan_types::access::{Access, Times};
use lagan_types::attr::Time;
use lagan_types::limits::ACCESSES_MAX;

/// Moves what is still to be moved.
pub(crate) fn note(txn: &mut Txn<'_>, reads: &[Access]) -> Outcome<()> {
    let bad = |t: Time| t.nanos >= 1_000_000_000;
    if reads.len() > ACCESSES_MAX || reads.iter().any(|r| bad(r.at)) {
        return Err(FsError::Invalid.into());
    }
    let now = txn.time;
    for read in reads {
        let Some(mut row) = txn.find_inode(read.ino)? else {
            continue;
        };
        let times = Times {
            atime: row.atime,
            mtime: row.mtime,
            ctime: row.ctime,
        };
        if row.ctime == read.ctime
            && let Some(atime) = times.accessed(read.at, now)
        {
            row.atime = atime;
            txn.set_inode(read.ino, row)?;
        }
    }
    Ok(())
}
