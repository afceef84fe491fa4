//! Who waits for which fcntl lock, so that a circle is found (EDEADLK).
//!
//! Waiters ask again several times a second; this is what they asked last, in the
//! leader's memory. A new leader knows all of them again after a moment. Only
//! locks of processes are told: as on Linux, those of open file descriptions
//! and flock(2) are not looked at.
//!
//! What must hold: no waiter is refused that would get its lock. So a wait ends
//! here before its waiter does anything else, what holders hold is read anew
//! for each question, and waits that nobody repeats count no more.

use lagan_types::op::LockRange;
use lagan_types::{Ino, SessionId};
use std::collections::{BTreeMap, BTreeSet};

/// A lock's owner in all of the cluster.
pub type Owner = (SessionId, u64);

/// A wait that was not repeated for so long is over.
const FORGOTTEN_MS: u64 = 3_000;
/// Waits that are remembered; more are not looked at.
const WAITS_MAX: usize = 10_000;

#[derive(Debug)]
struct Wait {
    ino: Ino,
    lock: LockRange,
    asked_ms: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Waits {
    waits: BTreeMap<Owner, Vec<Wait>>,
}

impl Waits {
    /// The owner waits, or still waits, for the lock.
    pub fn begin(&mut self, session: SessionId, ino: Ino, lock: LockRange, now_ms: u64) {
        self.forget(now_ms);
        if self.waits.len() >= WAITS_MAX {
            return;
        }
        let waits = self.waits.entry((session, lock.owner)).or_default();
        waits.retain(|w| (w.ino, w.lock) != (ino, lock));
        waits.push(Wait {
            ino,
            lock,
            asked_ms: now_ms,
        });
    }

    /// The owner got the lock, or gave up.
    pub fn end(&mut self, session: SessionId, ino: Ino, lock: &LockRange) {
        let owner = (session, lock.owner);
        if let Some(waits) = self.waits.get_mut(&owner) {
            waits.retain(|w| w.ino != ino || w.lock.start != lock.start || w.lock.end != lock.end);
            if waits.is_empty() {
                self.waits.remove(&owner);
            }
        }
    }

    /// Whether one of the holders waits, itself or through others, for what the
    /// owner holds. `holders_of` says who stands in the way of a wait now.
    ///
    /// # Errors
    /// Those of `holders_of`.
    pub fn is_circle<E>(
        &self,
        owner: Owner,
        holders: &[Owner],
        now_ms: u64,
        mut holders_of: impl FnMut(SessionId, Ino, &LockRange) -> Result<Vec<Owner>, E>,
    ) -> Result<bool, E> {
        let mut seen = BTreeSet::new();
        let mut next = holders.to_vec();
        while let Some(holder) = next.pop() {
            if holder == owner {
                return Ok(true);
            }
            if !seen.insert(holder) {
                continue;
            }
            let waits = self.waits.get(&holder).into_iter().flatten();
            for wait in waits.filter(|w| is_fresh(w, now_ms)) {
                next.extend(holders_of(holder.0, wait.ino, &wait.lock)?);
            }
        }
        Ok(false)
    }

    fn forget(&mut self, now_ms: u64) {
        self.waits.retain(|_, waits| {
            waits.retain(|w| is_fresh(w, now_ms));
            !waits.is_empty()
        });
    }
}

fn is_fresh(wait: &Wait, now_ms: u64) -> bool {
    now_ms.saturating_sub(wait.asked_ms) <= FORGOTTEN_MS
}

#[cfg(test)]
mod tests {
    use super::*;
    use lagan_types::op::LockKind;
    use std::convert::Infallible;

    fn lock(owner: u64) -> LockRange {
        LockRange {
            owner,
            start: 0,
            end: u64::MAX,
            kind: LockKind::Write,
            pid: 1,
        }
    }

    const A: Owner = (SessionId(1), 10);
    const B: Owner = (SessionId(2), 20);
    const C: Owner = (SessionId(1), 30);

    /// File 1 is held by A, 2 by B, 3 by C.
    fn holder(_: SessionId, ino: Ino, _: &LockRange) -> Result<Vec<Owner>, Infallible> {
        Ok(vec![[A, B, C][ino.0 as usize - 1]])
    }

    fn circle(waits: &Waits, owner: Owner, ino: u64, now_ms: u64) -> bool {
        let held = holder(owner.0, Ino(ino), &lock(owner.1)).unwrap();
        waits.is_circle(owner, &held, now_ms, holder).unwrap()
    }

    #[test]
    fn waiting_for_each_other_is_a_circle_also_through_a_third() {
        let mut waits = Waits::default();
        waits.begin(A.0, Ino(2), lock(A.1), 0);
        assert!(circle(&waits, B, 1, 0));
        assert!(!circle(&waits, B, 3, 0));
        waits.begin(B.0, Ino(3), lock(B.1), 0);
        assert!(circle(&waits, C, 1, 0));
    }

    #[test]
    fn wait_that_ended_or_is_not_repeated_makes_none() {
        let mut waits = Waits::default();
        waits.begin(A.0, Ino(2), lock(A.1), 0);
        assert!(circle(&waits, B, 1, FORGOTTEN_MS));
        assert!(!circle(&waits, B, 1, FORGOTTEN_MS + 1));
        waits.begin(A.0, Ino(2), lock(A.1), 9_000);
        waits.end(A.0, Ino(2), &lock(A.1));
        assert!(!circle(&waits, B, 1, 9_000));
    }

    #[test]
    fn holder_that_waits_for_itself_elsewhere_ends_the_search() {
        let mut waits = Waits::default();
        waits.begin(B.0, Ino(3), lock(B.1), 0);
        waits.begin(C.0, Ino(2), lock(C.1), 0);
        assert!(!circle(&waits, A, 2, 0));
    }
}
