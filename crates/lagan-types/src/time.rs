//! A point in time.

use crate::codec::{Decode, Encode};
use serde::{Deserialize, Serialize};

/// A point in time: seconds since 1970 (negative before) and nanoseconds below 10^9.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    Encode,
    Decode,
    Serialize,
    Deserialize,
)]
pub struct Time {
    /// Seconds since the epoch.
    pub secs: i64,
    /// Nanoseconds within the second, below 10^9.
    pub nanos: u32,
}

impl Time {
    /// The time that long after the start of 1970.
    pub fn after_1970(since: std::time::Duration) -> Self {
        Time {
            secs: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
            nanos: since.subsec_nanos(),
        }
    }

    /// The time that many milliseconds after 1970.
    pub fn from_millis(ms: u64) -> Self {
        Time {
            secs: (ms / 1000) as i64,
            nanos: (ms % 1000) as u32 * 1_000_000,
        }
    }

    /// Whole milliseconds since 1970, 0 for earlier times.
    pub fn as_millis(self) -> u64 {
        u64::try_from(self.secs).map_or(0, |s| {
            s.saturating_mul(1000)
                .saturating_add(self.nanos as u64 / 1_000_000)
        })
    }

    /// The time that much later; the last one if there is none.
    #[must_use]
    pub fn saturating_add(self, later: std::time::Duration) -> Self {
        let nanos = self.nanos + later.subsec_nanos();
        let secs = i64::try_from(later.as_secs()).unwrap_or(i64::MAX);
        Time {
            secs: self
                .secs
                .saturating_add(secs)
                .saturating_add(i64::from(nanos / 1_000_000_000)),
            nanos: nanos % 1_000_000_000,
        }
    }

    /// The next representable time.
    pub fn succ(self) -> Self {
        if self.nanos >= 999_999_999 {
            Time {
                secs: self.secs.saturating_add(1),
                nanos: 0,
            }
        } else {
            Time {
                secs: self.secs,
                nanos: self.nanos + 1,
            }
        }
    }
}
