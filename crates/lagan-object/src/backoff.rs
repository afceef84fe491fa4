//! Waits between tries: exponential, capped, with full jitter.

use std::time::Duration;

/// Spacing of repeated tries. Pure: randomness comes from the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    base_ms: u64,
    cap_ms: u64,
}

impl Backoff {
    /// The n-th wait is uniform in `0..=min(cap_ms, base_ms * 2^n)`.
    pub const fn new(base_ms: u64, cap_ms: u64) -> Self {
        Backoff { base_ms, cap_ms }
    }

    /// The longest that the wait after `failures` failures can be.
    pub fn bound(&self, failures: u32) -> Duration {
        let factor = 1u64
            .checked_shl(failures.saturating_sub(1))
            .unwrap_or(u64::MAX);
        Duration::from_millis(self.base_ms.saturating_mul(factor).min(self.cap_ms))
    }

    /// The wait after `failures` failures in a row (1 and up); `random` is
    /// uniform over all u64. At least 1 ms, so that no loop spins.
    pub fn delay(&self, failures: u32, random: u64) -> Duration {
        let bound_ms = self.bound(failures).as_millis() as u64;
        let scaled = (u128::from(random) * (u128::from(bound_ms) + 1)) >> 64;
        Duration::from_millis((scaled as u64).max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_bound_doubles_up_to_the_cap() {
        let backoff = Backoff::new(100, 1000);
        let bounds: Vec<u64> = (1..7)
            .map(|n| backoff.bound(n).as_millis() as u64)
            .collect();
        assert_eq!(bounds, [100, 200, 400, 800, 1000, 1000]);
        assert_eq!(backoff.bound(u32::MAX), Duration::from_millis(1000));
        assert_eq!(backoff.bound(0), Duration::from_millis(100));
    }

    #[test]
    fn jitter_covers_the_whole_range() {
        let backoff = Backoff::new(100, 1000);
        assert_eq!(backoff.delay(3, 0), Duration::from_millis(1));
        assert_eq!(backoff.delay(3, u64::MAX), Duration::from_millis(400));
        assert_eq!(backoff.delay(3, u64::MAX / 2), Duration::from_millis(200));
    }

    proptest! {
        #[test]
        fn a_delay_never_exceeds_its_bound(base in 0u64..1 << 40, cap: u64, n: u32, random: u64) {
            let backoff = Backoff::new(base, cap);
            let bound = backoff.bound(n).max(Duration::from_millis(1));
            prop_assert!(backoff.delay(n, random) <= bound);
        }
    }
}
