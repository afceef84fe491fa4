//! The wall clock, for times that a user sees; durations use the monotonic clock.
//!
//! The rule for users: a machine whose clock shows a time before 1970 is taken to be at
//! the start of 1970.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Time since 1970 began (UTC).
pub fn since_1970() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

/// Milliseconds since 1970 began (UTC).
pub fn wall_ms() -> u64 {
    u64::try_from(since_1970().as_millis()).unwrap_or(u64::MAX)
}
