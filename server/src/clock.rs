//! The clocks: wall time for what users see, monotonic time for durations.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Wall clock, milliseconds since 1970; 0 before that.
pub fn wall_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_millis() as u64)
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
