//! Directories in which names are looked for that are not there.

use lagan_types::Ino;
use std::collections::HashMap;

/// So many misses in a directory make it worth to fetch all its names.
const MISSES: u32 = 3;
/// They count together if they come within this time.
const WITHIN_MS: u64 = 10_000;
/// Wait after a fetch until the next one of that directory, at first and at most: others may
/// keep changing it, or it may be too large.
const WAIT_MIN_MS: u64 = 1_000;
const WAIT_MAX_MS: u64 = 60_000;
/// Most directories that are remembered.
const DIRECTORIES_MAX: usize = 256;

/// The misses of one directory.
#[derive(Debug)]
struct Of {
    count: u32,
    since_ms: u64,
    /// No fetch before.
    not_before_ms: u64,
    wait_ms: u64,
}

/// Misses by directory.
#[derive(Debug, Default)]
pub(super) struct Misses {
    of: HashMap<Ino, Of>,
}

impl Misses {
    /// Notes a miss. Returns the directory if its names should be fetched now.
    pub fn missed(&mut self, dir: Ino, now_ms: u64) -> Option<Ino> {
        if self.of.len() >= DIRECTORIES_MAX && !self.of.contains_key(&dir) {
            let old = |of: &Of| now_ms.saturating_sub(of.since_ms) > WITHIN_MS;
            self.of.retain(|_, of| !old(of));
            if self.of.len() >= DIRECTORIES_MAX {
                return None;
            }
        }
        let of = self.of.entry(dir).or_insert(Of {
            count: 0,
            since_ms: now_ms,
            not_before_ms: 0,
            wait_ms: WAIT_MIN_MS,
        });
        if now_ms.saturating_sub(of.since_ms) > WITHIN_MS {
            of.count = 0;
            of.since_ms = now_ms;
        }
        of.count += 1;
        if of.count < MISSES || now_ms < of.not_before_ms {
            return None;
        }
        let calm = now_ms.saturating_sub(of.not_before_ms) > WAIT_MAX_MS;
        of.wait_ms = match calm {
            true => WAIT_MIN_MS,
            false => (of.wait_ms * 2).min(WAIT_MAX_MS),
        };
        of.not_before_ms = now_ms.saturating_add(of.wait_ms);
        of.count = 0;
        Some(dir)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIR: Ino = Ino(5);

    fn misses(misses: &mut Misses, count: u32, now_ms: u64) -> Vec<Ino> {
        let missed = (0..count).filter_map(|_| misses.missed(DIR, now_ms));
        missed.collect()
    }

    #[test]
    fn names_are_fetched_after_some_misses_and_then_more_seldom() {
        let mut of = Misses::default();
        let begin = 100_000;
        assert_eq!(misses(&mut of, MISSES - 1, begin), []);
        assert_eq!(misses(&mut of, 1, begin), [DIR]);
        assert_eq!(misses(&mut of, 50, begin + WAIT_MIN_MS - 1), []);
        let fetched = (0..600_000).step_by(100);
        let fetched = fetched.filter_map(|ms| of.missed(DIR, begin + ms));
        assert!((10..=20).contains(&fetched.count()), "about once a minute");
    }

    #[test]
    fn misses_long_apart_count_for_nothing() {
        let mut of = Misses::default();
        for n in 1..20 {
            assert_eq!(of.missed(DIR, n * (WITHIN_MS + 1)), None);
        }
    }

    #[test]
    fn directories_are_bounded() {
        let mut of = Misses::default();
        for n in 0..10 * DIRECTORIES_MAX as u64 {
            of.missed(Ino(n), 5);
        }
        assert_eq!(of.of.len(), DIRECTORIES_MAX);
        of.missed(Ino(u64::MAX), 5 + WITHIN_MS + 1);
        assert_eq!(of.of.len(), 1);
    }
}
