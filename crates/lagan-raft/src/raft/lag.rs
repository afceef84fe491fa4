//! How long a follower may know that entries are committed without applying them.
//!
//! A leader says with each entry that the one before is committed. Applying each by
//! itself costs a follower a transaction per entry, and nobody asks its state. So it
//! applies some at a time. The entries that it still has to apply when it becomes the
//! leader are bounded here in age, number and bytes.

use crate::types::alias::LogId;
use std::time::{Duration, Instant};

/// Entries that wait.
const ENTRIES_MAX: usize = 64;
/// Bytes of entries that wait: a message full of what comes with commits, some 10 ms to apply.
const BYTES_MAX: usize = 1024 * 1024;

/// Decides how much of what is committed a follower's core learns.
#[derive(Debug)]
pub(super) struct Lag {
    passed: Option<LogId>,
    passed_at: Option<Instant>,
    entries: usize,
    bytes: usize,
    age_max: Duration,
}

impl Lag {
    /// A lag of at most `age_max`, if messages come.
    pub fn new(age_max: Duration) -> Self {
        Lag {
            passed: None,
            passed_at: None,
            entries: 0,
            bytes: 0,
            age_max,
        }
    }

    /// Returns the id up to which the core may apply. A message with that many entries
    /// and bytes says that `committed` is committed; one without entries says nothing
    /// else, so it counts at once.
    pub fn pass(
        &mut self,
        committed: Option<LogId>,
        entries: usize,
        bytes: usize,
        now: Instant,
    ) -> Option<LogId> {
        self.entries += entries;
        self.bytes += bytes;
        let young = |at: Instant| now.saturating_duration_since(at) < self.age_max;
        let small = self.entries <= ENTRIES_MAX && self.bytes <= BYTES_MAX;
        if entries > 0 && small && self.passed_at.is_some_and(young) {
            return self.passed;
        }
        (self.passed, self.passed_at) = (committed, Some(now));
        (self.entries, self.bytes) = (0, 0);
        committed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use openraft::CommittedLeaderId;

    const AGE: Duration = Duration::from_millis(50);

    fn id(index: u64) -> Option<LogId> {
        Some(LogId::new(CommittedLeaderId::new(3, 1), index))
    }

    #[test]
    fn entries_wait_until_they_are_old_or_a_heartbeat_comes() {
        let mut lag = Lag::new(AGE);
        let now = Instant::now();
        assert_eq!(lag.pass(id(1), 1, 10, now), id(1), "the first");
        assert_eq!(lag.pass(id(2), 1, 10, now), id(1));
        assert_eq!(lag.pass(id(3), 1, 10, now + AGE / 2), id(1));
        assert_eq!(lag.pass(id(4), 1, 10, now + AGE), id(4), "old");
        assert_eq!(lag.pass(id(5), 1, 10, now + AGE), id(4));
        assert_eq!(lag.pass(id(6), 0, 0, now + AGE), id(6), "a heartbeat");
    }

    #[test]
    fn many_entries_or_bytes_do_not_wait() {
        let mut lag = Lag::new(AGE);
        let now = Instant::now();
        lag.pass(id(1), 0, 0, now);
        for index in 2..2 + ENTRIES_MAX as u64 {
            assert_eq!(lag.pass(id(index), 1, 1, now), id(1));
        }
        assert_eq!(lag.pass(id(100), 1, 1, now), id(100));
        assert_eq!(lag.pass(id(101), 1, BYTES_MAX, now), id(100));
        assert_eq!(lag.pass(id(102), 1, 1, now), id(102));
    }
}
