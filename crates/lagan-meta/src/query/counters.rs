//! The counters, and how long the archive is behind.

use super::due;
use crate::kv::Read;
use crate::load;
use crate::txn::Outcome;
use lagan_types::QueryAnswer;
use lagan_types::query::Counters;

pub(super) fn counters(store: &dyn Read) -> Outcome<QueryAnswer> {
    let (oldest_due_ms, oldest_change_ms) = due::oldest(store)?.unwrap_or_default();
    Ok(QueryAnswer::Counters(Counters {
        oldest_due_ms,
        oldest_change_ms,
        ..load::counters(store)?.stats
    }))
}
