//! The sequence numbers of a session's mutations.
//!
//! Each mutation carries its own sequence and the lowest one whose answer has
//! not been seen; the state machine remembers the answers from there on. The
//! distance between the two stays below [`SESSION_WINDOW`].

use lagan_lease::LOCAL_MAX;
use lagan_types::limits::SESSION_WINDOW;
use std::collections::BTreeSet;

/// So many places are kept for files that this mount has made for itself: whatever else waits,
/// they can be made for everybody, which others wait for.
const RESERVED: u64 = 2 * LOCAL_MAX as u64;
const _: () = assert!(RESERVED < SESSION_WINDOW / 2);

/// The sequences under way. They count from 1.
#[derive(Debug)]
pub struct Window {
    next: u64,
    running: BTreeSet<u64>,
}

impl Default for Window {
    fn default() -> Self {
        Window {
            next: 1,
            running: BTreeSet::new(),
        }
    }
}

impl Window {
    /// Whether there is room for another sequence that waits for others of this session.
    pub fn has_room(&self) -> bool {
        self.next < self.unanswered() + SESSION_WINDOW - RESERVED
    }

    /// Takes the next sequence; `None` while the oldest one under way is a
    /// whole window behind, but for what is reserved.
    pub fn begin(&mut self, reserved: bool) -> Option<u64> {
        let full = self.next >= self.unanswered() + SESSION_WINDOW;
        if full || !(reserved || self.has_room()) {
            return None;
        }
        let seq = self.next;
        self.next += 1;
        self.running.insert(seq);
        Some(seq)
    }

    /// The lowest sequence under way, or the next one.
    pub fn unanswered(&self) -> u64 {
        self.running.first().copied().unwrap_or(self.next)
    }

    /// Notes that the answer was seen, or that nobody waits for it any more.
    pub fn finish(&mut self, seq: u64) {
        self.running.remove(&seq);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unanswered_is_the_oldest_under_way() {
        let mut w = Window::default();
        assert_eq!(w.unanswered(), 1);
        let (a, b) = (w.begin(false).unwrap(), w.begin(false).unwrap());
        assert_eq!((a, b, w.unanswered()), (1, 2, 1));
        w.finish(a);
        assert_eq!(w.unanswered(), 2);
        w.finish(b);
        assert_eq!(w.unanswered(), 3);
    }

    #[test]
    fn a_stuck_mutation_holds_the_window_at_its_limit() {
        let mut w = Window::default();
        let first = w.begin(false).unwrap();
        for _ in 1..SESSION_WINDOW - RESERVED {
            let seq = w.begin(false).unwrap();
            w.finish(seq);
        }
        assert_eq!(w.begin(false), None);
        for _ in 0..RESERVED {
            let seq = w.begin(true).unwrap();
            w.finish(seq);
        }
        assert_eq!(w.begin(true), None);
        w.finish(first);
        assert_eq!(w.begin(false), Some(SESSION_WINDOW + 1));
    }
}
