//! Which sessions and nodes were heard of lately, on the leader's monotonic clock.
//!
//! Pure: times are passed in as milliseconds since the leader's start. A new
//! leader begins with every session just heard of, so a change of leader never
//! ends one early; nodes begin with a part of their silence behind them.

use std::collections::BTreeMap;

/// Silence after which a session is ended (docs/DESIGN.md "Sessions and coherence").
pub const SESSION_SILENCE_MS: u64 = 30_000;
/// Silence after which a node counts as down: four heartbeats, so that a busy
/// machine does not; short enough that writers go on within two seconds (docs/DESIGN.md
/// "Faults"). A node that was only slow is up again with its next heartbeat.
pub const NODE_SILENCE_MS: u64 = 1_000;
/// Silence that nodes have behind them when a term begins: a node that lives finds
/// the new leader within the rest, one that died with the old leader should
/// not cost the whole time once more.
pub const NODE_SILENT_AT_TERM_MS: u64 = 300;

/// The last sign of life of each.
#[derive(Debug)]
pub struct Liveness<K> {
    silence_ms: u64,
    heard: BTreeMap<K, u64>,
}

impl<K: Ord + Copy> Liveness<K> {
    /// Makes an empty set; more silence than `silence_ms` is too much.
    pub fn new(silence_ms: u64) -> Self {
        Liveness {
            silence_ms,
            heard: BTreeMap::new(),
        }
    }

    /// Notes a sign of life.
    pub fn heard(&mut self, key: K, now_ms: u64) {
        let last = self.heard.entry(key).or_insert(now_ms);
        *last = now_ms.max(*last);
    }

    /// Makes the known set equal to `keys`; new ones count as heard of now.
    pub fn retain_or_add(&mut self, keys: impl IntoIterator<Item = K>, now_ms: u64) {
        let old = std::mem::take(&mut self.heard);
        self.heard = keys
            .into_iter()
            .map(|k| (k, old.get(&k).copied().unwrap_or(now_ms)))
            .collect();
    }

    /// Forgives all silence up to now: this process did not listen.
    pub fn forgive(&mut self, now_ms: u64) {
        for heard in self.heard.values_mut() {
            *heard = now_ms.max(*heard);
        }
    }

    /// Returns the milliseconds since the last sign of life; `None`: unknown.
    pub fn silent_ms(&self, key: K, now_ms: u64) -> Option<u64> {
        self.heard.get(&key).map(|&at| now_ms.saturating_sub(at))
    }

    /// Returns those that have been silent for too long.
    pub fn silent(&self, now_ms: u64) -> Vec<K> {
        self.heard
            .iter()
            .filter(|&(_, &at)| now_ms.saturating_sub(at) > self.silence_ms)
            .map(|(&k, _)| k)
            .collect()
    }

    /// Forgets one.
    pub fn forget(&mut self, key: K) {
        self.heard.remove(&key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_counted_from_the_last_sign_of_life() {
        let mut nodes = Liveness::new(1000);
        nodes.heard(1, 0);
        nodes.heard(2, 0);
        nodes.heard(2, 900);
        assert_eq!(nodes.silent(1000), Vec::<i32>::new());
        assert_eq!(nodes.silent(1001), vec![1]);
        assert_eq!(nodes.silent_ms(2, 1000), Some(100));
    }

    #[test]
    fn silence_while_nobody_listened_is_forgiven() {
        let mut sessions = Liveness::new(1000);
        sessions.heard(1, 0);
        sessions.forgive(60_000);
        assert_eq!(sessions.silent(61_000), Vec::<i32>::new());
        assert_eq!(sessions.silent(61_001), vec![1]);
    }

    #[test]
    fn newly_known_counts_as_heard_of_now() {
        let mut sessions = Liveness::new(1000);
        sessions.heard(1, 0);
        sessions.retain_or_add([1, 2], 5000);
        assert_eq!(sessions.silent(5000), vec![1]);
        sessions.retain_or_add([2], 5500);
        assert_eq!(sessions.heard.keys().collect::<Vec<_>>(), vec![&2]);
    }
}
