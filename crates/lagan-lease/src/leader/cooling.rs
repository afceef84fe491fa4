//! Which keys are not worth a lease just now: those that others keep changing.
//!
//! A key that was recalled from a session by somebody else's change is granted to it again
//! only after a time without such changes, which doubles with each recall. Completeness of
//! a directory is not granted soon after anybody else changed a name in it, even to a session
//! that never had it. This decides nothing but speed: what it forgets is granted once more.

use crate::key::bytes_of;
use crate::second_chance::SecondChance;
use lagan_types::SessionId;
use lagan_types::lease::Key;

/// Changes of one key, and the sessions that it was recalled from.
#[derive(Debug)]
struct Heat {
    /// The author and time of the last change.
    last: (Option<SessionId>, u64),
    /// The time of the last change by anybody but that author.
    other_ms: Option<u64>,
    waits: Vec<Wait>,
}

#[derive(Debug)]
struct Wait {
    session: SessionId,
    wait_ms: u64,
    recalled_ms: u64,
}

/// Most sessions that one key remembers.
const WAITS_MAX: usize = 64;

/// The memory of changes.
#[derive(Debug)]
pub(crate) struct Cooling {
    heats: SecondChance<Key, Heat>,
    wait_min_ms: u64,
    wait_max_ms: u64,
}

impl Cooling {
    /// Makes an empty memory of at most so many bytes.
    pub fn new(bytes_max: usize, wait_min_ms: u64, wait_max_ms: u64) -> Self {
        Cooling {
            heats: SecondChance::new(bytes_max),
            wait_min_ms,
            wait_max_ms,
        }
    }

    /// Notes a change, and the sessions that it recalled the key from.
    pub fn changed(
        &mut self,
        key: &Key,
        author: Option<SessionId>,
        from: impl Iterator<Item = SessionId>,
        now_ms: u64,
    ) {
        let mut from = from.peekable();
        let old = self.heats.remove(key);
        let matters = old.is_some() || from.peek().is_some() || matches!(key, Key::Directory(_));
        if !matters {
            return;
        }
        let mut heat = old.unwrap_or(Heat {
            last: (author, now_ms),
            other_ms: None,
            waits: Vec::new(),
        });
        if heat.last.0 != author {
            heat.other_ms = Some(heat.last.1);
        }
        heat.last = (author, now_ms);
        for session in from {
            self.lengthen(&mut heat.waits, session, now_ms);
        }
        let bytes = bytes_of(key) + heat.waits.len() * size_of::<Wait>();
        self.heats.insert(key.clone(), heat, bytes);
    }

    fn lengthen(&self, waits: &mut Vec<Wait>, session: SessionId, now_ms: u64) {
        if let Some(wait) = waits.iter_mut().find(|w| w.session == session) {
            let calm_ms = now_ms.saturating_sub(wait.recalled_ms);
            wait.wait_ms = match calm_ms > self.wait_max_ms {
                true => self.wait_min_ms,
                false => (wait.wait_ms * 2).min(self.wait_max_ms),
            };
            wait.recalled_ms = now_ms;
            return;
        }
        if waits.len() >= WAITS_MAX {
            waits.remove(0);
        }
        waits.push(Wait {
            session,
            wait_ms: self.wait_min_ms,
            recalled_ms: now_ms,
        });
    }

    /// Whether the key may be granted to the session.
    pub fn permits(&mut self, key: &Key, session: SessionId, now_ms: u64) -> bool {
        let Some(heat) = self.heats.get(key) else {
            return true;
        };
        let foreign = match heat.last {
            (author, _) if author == Some(session) => heat.other_ms,
            (_, ms) => Some(ms),
        };
        let own = heat.waits.iter().find(|w| w.session == session);
        let wait_ms = match (own, key) {
            (Some(wait), _) => wait.wait_ms,
            (None, Key::Directory(_)) => self.wait_min_ms,
            (None, _) => 0,
        };
        foreign.is_none_or(|ms| now_ms.saturating_sub(ms) >= wait_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lagan_types::Ino;

    const A: SessionId = SessionId(1);
    const B: SessionId = SessionId(2);
    const KEY: Key = Key::Inode(Ino(5));

    #[test]
    fn wait_doubles_with_each_recall_and_is_forgotten_in_time() {
        let mut cooling = Cooling::new(1 << 20, 1_000, 60_000);
        let mut now = 0;
        for wait in [1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000] {
            cooling.changed(&KEY, Some(B), [A].into_iter(), now);
            assert!(!cooling.permits(&KEY, A, now + wait - 1));
            assert!(cooling.permits(&KEY, A, now + wait));
            assert!(cooling.permits(&KEY, B, now), "it was not recalled from B");
            now += wait;
        }
        now += 60_000;
        cooling.changed(&KEY, Some(B), [A].into_iter(), now);
        assert!(cooling.permits(&KEY, A, now + 1_000));
    }

    #[test]
    fn own_changes_do_not_lengthen_the_wait() {
        let mut cooling = Cooling::new(1 << 20, 1_000, 60_000);
        cooling.changed(&KEY, Some(B), [A].into_iter(), 0);
        cooling.changed(&KEY, Some(A), std::iter::empty(), 900);
        assert!(cooling.permits(&KEY, A, 1_000));
        cooling.changed(&KEY, Some(B), std::iter::empty(), 950);
        assert!(!cooling.permits(&KEY, A, 1_000), "B has changed it again");
    }

    #[test]
    fn directory_that_somebody_else_fills_is_not_complete_for_anybody_else() {
        let mut cooling = Cooling::new(1 << 20, 1_000, 60_000);
        let dir = Key::Directory(Ino(5));
        cooling.changed(&dir, Some(B), std::iter::empty(), 0);
        assert!(!cooling.permits(&dir, A, 999));
        assert!(cooling.permits(&dir, A, 1_000));
        assert!(cooling.permits(&dir, B, 0));
    }
}
