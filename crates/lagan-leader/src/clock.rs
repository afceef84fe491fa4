//! The clocks: wall time for what users see, monotonic time for durations.

pub use lagan_host::wall::wall_ms;
use std::time::Instant;

/// Returns `a_ms` less `b_ms`, for any values that a peer may send.
pub fn skew(a_ms: u64, b_ms: u64) -> i64 {
    let clamp = |ms: u64| i64::try_from(ms).unwrap_or(i64::MAX);
    clamp(a_ms) - clamp(b_ms)
}

/// Largest difference from the clock of most nodes. A node whose clock differs by more does
/// not lead: file times would jump at a change of leader.
pub const SKEW_MAX_MS: u64 = 10_000;

/// Returns how far the leader's clock is ahead of most nodes', from how far it is ahead
/// of each: with three and more nodes one wrong clock, be it the leader's own, does not
/// count. With fewer nobody can say whose is wrong, and it is 0.
pub fn median_skew(mut skews_ms: Vec<i64>) -> i64 {
    skews_ms.sort_unstable();
    match skews_ms.len() {
        0..=2 => 0,
        n => skews_ms[n / 2],
    }
}

/// Returns the time that most nodes have, from a clock that is ahead of them by the median.
pub fn cluster_ms(now_ms: u64, median_skew_ms: i64) -> u64 {
    now_ms.saturating_add_signed(median_skew_ms.saturating_neg())
}

/// Returns how far most nodes' clocks are ahead of this one's, which was read before the
/// question and after the answer: the leader read its own in between.
pub fn own_skew(asked_ms: u64, answered_ms: u64, cluster_ms: u64) -> i64 {
    let middle = asked_ms.saturating_add(answered_ms.saturating_sub(asked_ms) / 2);
    skew(cluster_ms, middle)
}

/// Whether a node whose clock differs by that may lead.
pub fn is_right(skew_ms: i64) -> bool {
    skew_ms.unsigned_abs() <= SKEW_MAX_MS
}

/// Counts the time since it was made, on the monotonic clock.
#[derive(Debug, Clone, Copy)]
pub struct Uptime(Instant);

impl Default for Uptime {
    fn default() -> Self {
        Uptime(Instant::now())
    }
}

impl Uptime {
    /// Returns the time in milliseconds.
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
    /// Judges each of these clocks as its node does after the leader's answer;
    /// the first is the leader's.
    fn judged(clocks_ms: &[u64]) -> Vec<bool> {
        let leader = clocks_ms[0];
        let skews = clocks_ms.iter().map(|ms| skew(leader, *ms)).collect();
        let cluster = cluster_ms(leader, median_skew(skews));
        let own = clocks_ms.iter().map(|ms| own_skew(*ms, *ms, cluster));
        own.map(is_right).collect()
    }

    const NOW: u64 = 1_800_000_000_000;
    const FAR: u64 = SKEW_MAX_MS + 1;

    #[test]
    fn one_wrong_clock_of_three_is_told_whoever_leads() {
        for wrong in [NOW + FAR, NOW - FAR, 0, 4 * NOW] {
            assert_eq!(judged(&[wrong, NOW, NOW]), [false, true, true]);
            assert_eq!(judged(&[NOW, wrong, NOW]), [true, false, true]);
            assert_eq!(judged(&[NOW, NOW, wrong, NOW]), [true, true, false, true]);
        }
        assert_eq!(
            judged(&[NOW + FAR, NOW, NOW - FAR, NOW, NOW]),
            [false, true, false, true, true]
        );
    }

    #[test]
    fn clocks_that_differ_a_little_are_right() {
        let few = SKEW_MAX_MS / 2;
        assert_eq!(judged(&[NOW, NOW + few, NOW - few]), [true; 3]);
    }

    #[test]
    fn of_two_clocks_nobody_can_say_which_is_wrong() {
        assert_eq!(median_skew(vec![]), 0);
        assert_eq!(median_skew(vec![0]), 0);
        assert_eq!(median_skew(vec![i64::MAX, 0]), 0);
        // the leader's time counts then
        assert_eq!(judged(&[NOW, NOW + FAR]), [true, false]);
    }

    #[test]
    fn slow_answer_makes_no_clock_wrong() {
        let late = 2 * SKEW_MAX_MS;
        assert!(is_right(own_skew(NOW, NOW + late, NOW + late / 2)));
        // a clock that was set back meanwhile
        assert!(is_right(own_skew(NOW, NOW - late, NOW)));
        assert!(!is_right(own_skew(NOW, NOW + 2, NOW + FAR + 1)));
        assert!(!is_right(own_skew(u64::MAX, u64::MAX, 0)));
    }
}
