//! The counters, and how long the archive is behind.

use super::due;
use crate::kv::Read;
use crate::load;
use crate::txn::Outcome;
use lagan_types::query::{Counters, FsStat};

pub(super) fn counters(store: &dyn Read) -> Outcome<Counters> {
    let (oldest_due_ms, oldest_change_ms) = due::oldest(store)?.unwrap_or_default();
    Ok(Counters {
        oldest_due_ms,
        oldest_change_ms,
        ..load::counters(store)?.stats
    })
}

pub(super) fn fs_stat(store: &dyn Read) -> Outcome<FsStat> {
    let files = load::counters(store)?.stats.inodes;
    Ok(FsStat { files })
}
