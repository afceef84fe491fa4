//! Looks for names that only the leader could answer, by directory: several of them make it
//! worth to fetch all names of the directory at once. What is not there is known then, and
//! what is there is asked for in the order of the listing, many at a time.

use lagan_types::Ino;
use std::collections::HashMap;

/// So many looks in a directory make it worth to fetch all its names.
const LOOKS: u32 = 3;
/// They count together if they come within this time.
const WITHIN_MS: u64 = 10_000;
/// Wait after a fetch until the next one of that directory, at first and at most: others may
/// keep changing it, or it may be too large.
const WAIT_MIN_MS: u64 = 1_000;
const WAIT_MAX_MS: u64 = 60_000;
/// Most directories that are remembered.
const DIRECTORIES_MAX: usize = 256;

/// The looks in one directory.
#[derive(Debug)]
struct Of {
    count: u32,
    since_ms: u64,
    /// No fetch before.
    not_before_ms: u64,
    wait_ms: u64,
}

/// Looks by directory.
#[derive(Debug, Default)]
pub(super) struct Looks {
    of: HashMap<Ino, Of>,
}

impl Looks {
    /// Notes a look. Returns the directory if its names should be fetched now.
    pub fn looked(&mut self, dir: Ino, now_ms: u64) -> Option<Ino> {
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
        if of.count < LOOKS || now_ms < of.not_before_ms {
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

    fn looks(of: &mut Looks, count: u32, now_ms: u64) -> Vec<Ino> {
        let looked = (0..count).filter_map(|_| of.looked(DIR, now_ms));
        looked.collect()
    }

    #[test]
    fn names_are_fetched_after_some_looks_and_then_more_seldom() {
        let mut of = Looks::default();
        let begin = 100_000;
        assert_eq!(looks(&mut of, LOOKS - 1, begin), []);
        assert_eq!(looks(&mut of, 1, begin), [DIR]);
        assert_eq!(looks(&mut of, 50, begin + WAIT_MIN_MS - 1), []);
        let fetched = (0..600_000).step_by(100);
        let fetched = fetched.filter_map(|ms| of.looked(DIR, begin + ms));
        assert!((10..=20).contains(&fetched.count()), "about once a minute");
    }

    #[test]
    fn looks_long_apart_count_for_nothing() {
        let mut of = Looks::default();
        for n in 1..20 {
            assert_eq!(of.looked(DIR, n * (WITHIN_MS + 1)), None);
        }
    }

    #[test]
    fn directories_are_bounded() {
        let mut of = Looks::default();
        for n in 0..10 * DIRECTORIES_MAX as u64 {
            of.looked(Ino(n), 5);
        }
        assert_eq!(of.of.len(), DIRECTORIES_MAX);
        of.looked(Ino(u64::MAX), 5 + WITHIN_MS + 1);
        assert_eq!(of.of.len(), 1);
    }
}
