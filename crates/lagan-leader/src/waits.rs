//! Waits for fcntl locks, so that the leader finds a circle of them (EDEADLK).
//!
//! Waiters ask again several times a second; the leader remembers what each asked last. A
//! new leader knows all waits again after a moment. Mounts report only
//! locks of processes: as on Linux, those of open file descriptions
//! and of flock(2) do not count.
//!
//! What must hold: a waiter that would get its lock is never refused. So a wait ends
//! here before its waiter does anything else, the locks that are held are read anew
//! for each question, and waits that nobody repeats no longer count.

use lagan_types::op::LockRange;
use lagan_types::{Ino, SessionId};
use std::collections::{BTreeMap, BTreeSet};

/// The owner of a lock, unique in the cluster.
pub type Owner = (SessionId, u64);

/// Time after which a wait that was not repeated is over.
const FORGOTTEN_MS: u64 = 3_000;
/// Most owners whose waits are remembered. Further ones do not count, so that no mount can
/// make the leader remember without end.
const OWNERS_MAX: usize = 10_000;
/// Most waits of one owner: those of its threads.
const WAITS_MAX: usize = 64;
/// Most owners that one search goes through: the leader does nothing else meanwhile. A
/// circle of more is not found (Linux gives up after ten).
const SEARCH_MAX: usize = 256;

#[derive(Debug)]
struct Wait {
    ino: Ino,
    lock: LockRange,
    asked_ms: u64,
}

/// The waits of all owners.
#[derive(Debug, Default)]
pub struct Waits {
    waits: BTreeMap<Owner, Vec<Wait>>,
}

impl Waits {
    /// Notes that the owner waits, or still waits, for the lock.
    pub fn begin(&mut self, session: SessionId, ino: Ino, lock: LockRange, now_ms: u64) {
        self.forget(now_ms);
        let owner = (session, lock.owner);
        if self.waits.len() >= OWNERS_MAX && !self.waits.contains_key(&owner) {
            return;
        }
        let waits = self.waits.entry(owner).or_default();
        waits.retain(|w| (w.ino, w.lock) != (ino, lock));
        if waits.len() >= WAITS_MAX {
            return;
        }
        waits.push(Wait {
            ino,
            lock,
            asked_ms: now_ms,
        });
    }

    /// Notes that the owner got the lock, or gave up.
    pub fn end(&mut self, session: SessionId, ino: Ino, lock: &LockRange) {
        let owner = (session, lock.owner);
        if let Some(waits) = self.waits.get_mut(&owner) {
            waits.retain(|w| w.ino != ino || w.lock.start != lock.start || w.lock.end != lock.end);
            if waits.is_empty() {
                self.waits.remove(&owner);
            }
        }
    }

    /// Whether one of the holders waits, itself or through others, for a lock of the
    /// owner. `holders_of` returns the owners that stand in the way of a wait now.
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
            if seen.len() > SEARCH_MAX {
                return Ok(false);
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
    fn what_one_mount_asks_is_remembered_within_bounds() {
        let mut waits = Waits::default();
        for range in 0..3 * WAITS_MAX as u64 {
            let lock = LockRange {
                start: range,
                ..lock(A.1)
            };
            waits.begin(A.0, Ino(2), lock, 0);
        }
        assert_eq!(waits.waits[&A].len(), WAITS_MAX);
        for owner in 0..OWNERS_MAX as u64 + 5 {
            waits.begin(B.0, Ino(2), lock(owner), 0);
        }
        assert_eq!(waits.waits.len(), OWNERS_MAX);
        let known = LockRange {
            start: 0,
            ..lock(A.1)
        };
        waits.begin(A.0, Ino(2), known, FORGOTTEN_MS);
        waits.begin(B.0, Ino(2), lock(0), FORGOTTEN_MS + 1);
        assert_eq!(waits.waits.len(), 2, "who asks again stays, the others go");
    }

    #[test]
    fn search_ends_however_many_wait_in_a_row() {
        let mut waits = Waits::default();
        let count = 2 * SEARCH_MAX as u64;
        for n in 1..count {
            waits.begin(A.0, Ino(n + 1), lock(n), 0);
        }
        let mut asked = 0;
        let mut holder = |s: SessionId, ino: Ino, _: &LockRange| {
            asked += 1;
            Ok::<_, Infallible>(vec![(s, ino.0)])
        };
        let last = (A.0, count);
        let found = waits.is_circle(last, &[(A.0, 1)], 0, &mut holder);
        assert_eq!(found, Ok(false));
        assert!(asked <= SEARCH_MAX);
    }

    #[test]
    fn holder_that_waits_for_itself_elsewhere_ends_the_search() {
        let mut waits = Waits::default();
        waits.begin(B.0, Ino(3), lock(B.1), 0);
        waits.begin(C.0, Ino(2), lock(C.1), 0);
        assert!(!circle(&waits, A, 2, 0));
    }
}
