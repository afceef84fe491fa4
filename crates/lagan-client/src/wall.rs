//! The wall clock, as a user sees it.

use lagan_types::Time;

/// The local wall clock: the time that a user sees of a write before its commit.
pub(crate) fn wall_time() -> Time {
    Time::after_1970(lagan_host::wall::since_1970())
}
