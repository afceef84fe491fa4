//! The clocks: wall time for what users see, monotonic time for durations.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Wall clock, milliseconds since 1970; 0 before that.
pub fn wall_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_millis() as u64)
}

/// `a_ms` less `b_ms`, whatever a peer says its clock shows.
pub fn skew(a_ms: u64, b_ms: u64) -> i64 {
    let clamp = |ms: u64| i64::try_from(ms).unwrap_or(i64::MAX);
    clamp(a_ms) - clamp(b_ms)
}

/// Milliseconds since this was made, on the monotonic clock.
#[derive(Debug, Clone, Copy)]
pub struct Uptime(Instant);

impl Default for Uptime {
    fn default() -> Self {
        Uptime(Instant::now())
    }
}

impl Uptime {
    /// Milliseconds.
    pub fn ms(&self) -> u64 {
        self.0.elapsed().as_millis() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn skew_of_any_two_clocks_is_a_number() {
        assert_eq!(skew(5, 9), -4);
        for ms in [0, 1, i64::MAX as u64, 1 << 63, u64::MAX] {
            assert!(skew(ms, 0) >= 0 && skew(0, ms) <= 0);
            assert_eq!(skew(0, ms).saturating_neg(), skew(ms, 0));
        }
    }
}
