//! What a mount makes files of by itself.

use lagan_types::lease::{EXCLUSIVE_INOS_MAX, Exclusive};
use lagan_types::{Ino, Time};
use std::collections::VecDeque;
use std::ops::Range;
use tokio::time::Instant;

/// More inode numbers are asked for when fewer than these are left.
const INOS_LOW: u64 = 64;

/// What files are made of: inode numbers that nobody else gives, and the time.
#[derive(Debug, Default)]
pub(super) struct Supply {
    inos: VecDeque<Range<u64>>,
    /// The leader's clock when it was heard of.
    clock: Option<(Time, Instant)>,
}

impl Supply {
    /// Takes what came with an exclusive lease.
    pub fn take(&mut self, exclusive: &Exclusive) {
        let (first, count) = (exclusive.first.0, u64::from(exclusive.count));
        if count > 0 {
            self.inos.push_back(first..first.saturating_add(count));
        }
        self.hear(exclusive.now);
    }

    /// Hears of the leader's clock.
    pub fn hear(&mut self, now: Time) {
        self.clock = Some((now, Instant::now()));
    }

    /// Returns how many numbers to ask for; 0: there are enough.
    pub fn wanted(&self) -> u32 {
        let left: u64 = self.inos.iter().map(|inos| inos.end - inos.start).sum();
        match left < INOS_LOW {
            true => EXCLUSIVE_INOS_MAX,
            false => 0,
        }
    }

    /// Takes a number.
    pub fn ino(&mut self) -> Option<Ino> {
        loop {
            match self.inos.front_mut()?.next() {
                Some(ino) => return Some(Ino(ino)),
                None => _ = self.inos.pop_front(),
            }
        }
    }

    /// The time on the leader's clock, or a little earlier: it was heard of after it was read, and
    /// this machine's clock may run faster.
    pub fn now(&self) -> Option<Time> {
        let (time, since) = self.clock?;
        Some(time.saturating_add(since.elapsed() / 10 * 9))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_given_once_and_more_are_wanted_in_time() {
        let mut supply = Supply::default();
        assert_eq!((supply.ino(), supply.wanted()), (None, EXCLUSIVE_INOS_MAX));
        assert_eq!(supply.now(), None, "no leader was heard of");
        let mut grant = Exclusive {
            dir: Ino(5),
            first: Ino(100),
            count: 70,
            now: Time::default(),
        };
        supply.take(&grant);
        assert_eq!(supply.wanted(), 0);
        (grant.first, grant.count) = (Ino(500), 0);
        supply.take(&grant);
        let given: Vec<_> = std::iter::from_fn(|| supply.ino()).collect();
        assert_eq!(given, (100..170).map(Ino).collect::<Vec<_>>());
        assert_eq!(supply.wanted(), EXCLUSIVE_INOS_MAX);
        assert!(supply.now().is_some());
    }
}
