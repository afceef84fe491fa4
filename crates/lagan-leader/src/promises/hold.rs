//! A new leader lets nobody take a name before every session had the time to
//! make the files that the leader before it had promised.
//!
//! Pure: times are milliseconds of the leader's uptime. The hold ends when each
//! session has said that it has no promise left, and in any case after
//! [`HOLD_MS`]: a mount that cannot reach the new leader for so long loses
//! its promises (INV-6a; docs/DESIGN.md "Promises").

use lagan_types::SessionId;
use std::collections::BTreeSet;

/// Longest wait of a new leader for sessions that say nothing.
pub const HOLD_MS: u64 = 1_000;

/// The hold of one term.
#[derive(Debug, Default)]
pub struct Hold {
    term: u64,
    until_ms: u64,
    settled: BTreeSet<SessionId>,
    over: bool,
}

impl Hold {
    /// Notes that this node leads in that term; the first call for a term begins its hold.
    pub fn enter(&mut self, term: u64, now_ms: u64) {
        if self.term != term {
            *self = Hold {
                term,
                until_ms: now_ms.saturating_add(HOLD_MS),
                ..Hold::default()
            };
        }
    }

    /// Notes that the session has no promise of an earlier term.
    pub fn settled(&mut self, session: SessionId) {
        if !self.over {
            self.settled.insert(session);
        }
    }

    /// Returns the milliseconds until names may be taken if nobody says anything; 0: now.
    /// `sessions` lists those that live; it is asked only while that matters.
    pub fn left_ms<E>(
        &mut self,
        now_ms: u64,
        sessions: impl FnOnce() -> Result<Vec<SessionId>, E>,
    ) -> Result<u64, E> {
        if self.over {
            return Ok(0);
        }
        let left = self.until_ms.saturating_sub(now_ms);
        if left == 0 || sessions()?.iter().all(|s| self.settled.contains(s)) {
            self.over = true;
            self.settled.clear();
            return Ok(0);
        }
        Ok(left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(hold: &mut Hold, now_ms: u64, sessions: &[u64]) -> u64 {
        let live = || Ok::<_, ()>(sessions.iter().map(|s| SessionId(*s)).collect());
        hold.left_ms(now_ms, live).unwrap()
    }

    #[test]
    fn names_are_held_until_every_session_has_settled() {
        let mut hold = Hold::default();
        hold.enter(3, 500);
        assert_eq!(left(&mut hold, 500, &[1, 2]), HOLD_MS);
        hold.settled(SessionId(1));
        assert_eq!(left(&mut hold, 600, &[1, 2]), HOLD_MS - 100);
        hold.settled(SessionId(2));
        assert_eq!(left(&mut hold, 600, &[1, 2]), 0);
        assert_eq!(left(&mut hold, 600, &[1, 2, 3]), 0, "it is over for good");
    }

    #[test]
    fn a_silent_session_holds_names_no_longer_than_a_second() {
        let mut hold = Hold::default();
        hold.enter(3, 500);
        assert_eq!(left(&mut hold, 500 + HOLD_MS - 1, &[1]), 1);
        assert_eq!(left(&mut hold, 500 + HOLD_MS, &[1]), 0);
    }

    #[test]
    fn each_term_begins_its_own_hold() {
        let mut hold = Hold::default();
        hold.enter(3, 0);
        hold.settled(SessionId(1));
        assert_eq!(left(&mut hold, 1, &[1]), 0);
        hold.enter(3, 2);
        assert_eq!(left(&mut hold, 2, &[1]), 0);
        hold.enter(4, 10);
        assert_eq!(left(&mut hold, 10, &[1]), HOLD_MS);
    }
}
