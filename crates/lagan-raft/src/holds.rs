//! Which entries each follower has appended itself, as this leader knows.
//!
//! A follower whose log matches up to an entry need not have had it: a snapshot brings the
//! state without the bytes that came with the commands. So only answers to messages count that
//! had the entry in them; a follower answers when its disk has what it claims. An entry that
//! was acknowledged and whose answer was lost is sent again.

use lagan_types::NodeId;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use tokio::sync::watch;

/// Entries without a gap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Run {
    term: u64,
    first: u64,
    last: u64,
}

impl Run {
    /// The run with these entries behind it; a new one where there is a gap, and no older one.
    fn with(self, next: Run) -> Run {
        if next.term < self.term {
            return self;
        }
        let joins = self.term == next.term
            && next.first <= self.last.saturating_add(1)
            && next.last.saturating_add(1) >= self.first;
        if !joins && self.term == next.term && next.last < self.last {
            return self;
        }
        match joins {
            true => Run {
                term: self.term,
                first: self.first.min(next.first),
                last: self.last.max(next.last),
            },
            false => next,
        }
    }
}

/// The entries of each follower.
#[derive(Debug, Default)]
pub(crate) struct Holds {
    runs: Mutex<BTreeMap<NodeId, Run>>,
    /// What a snapshot of this leader brought to a follower: entries up to here it may say
    /// that it has, and has not had.
    brought: Mutex<BTreeMap<NodeId, u64>>,
    changed: watch::Sender<u64>,
}

impl Holds {
    /// The follower has these entries on disk, which a leader of that term sent it.
    pub fn note(&self, node: NodeId, term: u64, (first, last): (u64, u64)) {
        let brought = self.brought.lock().get(&node).copied();
        let first = first.max(brought.map_or(0, |index| index + 1));
        if first > last {
            return;
        }
        let next = Run { term, first, last };
        {
            let mut runs = self.runs.lock();
            let run = runs.entry(node).or_insert(next);
            *run = run.with(next);
        }
        self.changed.send_modify(|n| *n = n.wrapping_add(1));
    }

    /// The follower got the state up to that entry by a snapshot.
    pub fn note_snapshot(&self, node: NodeId, index: u64) {
        let mut brought = self.brought.lock();
        let known = brought.entry(node).or_default();
        *known = index.max(*known);
    }

    /// Whether the follower has the entry, which a leader of that term sent it.
    pub fn has(&self, node: NodeId, term: u64, index: u64) -> bool {
        let runs = self.runs.lock();
        let run = runs.get(&node).filter(|run| run.term == term);
        run.is_some_and(|run| (run.first..=run.last).contains(&index))
    }

    /// Whether the follower has an entry with that index or a later one, which a leader of that
    /// term sent it.
    pub fn has_some_after(&self, node: NodeId, term: u64, index: u64) -> bool {
        let runs = self.runs.lock();
        let run = runs.get(&node).filter(|run| run.term == term);
        run.is_some_and(|run| run.last >= index)
    }

    /// Tells of each change.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: NodeId = NodeId(2);

    #[test]
    fn entries_without_a_gap_are_held() {
        let holds = Holds::default();
        holds.note(A, 1, (3, 5));
        holds.note(A, 1, (5, 6));
        holds.note(A, 1, (7, 7));
        let held = |index| holds.has(A, 1, index);
        let found: Vec<u64> = (1..10).filter(|&i| held(i)).collect();
        assert_eq!(found, [3, 4, 5, 6, 7]);
        assert!(!holds.has(NodeId(3), 1, 5) && !holds.has(A, 2, 5));
    }

    #[test]
    fn entries_before_a_gap_do_not_count_any_more() {
        let holds = Holds::default();
        holds.note(A, 1, (3, 5));
        // A snapshot brought the state of 6 to 8.
        holds.note(A, 1, (9, 9));
        let found: Vec<u64> = (1..12).filter(|&i| holds.has(A, 1, i)).collect();
        assert_eq!(found, [9]);
    }

    #[test]
    fn entries_of_another_term_do_not_count() {
        let holds = Holds::default();
        holds.note(A, 1, (3, 5));
        holds.note(A, 2, (6, 6));
        assert!(!holds.has(A, 1, 4) && !holds.has(A, 2, 4) && holds.has(A, 2, 6));
    }

    #[test]
    fn what_a_snapshot_brought_does_not_count() {
        let holds = Holds::default();
        holds.note_snapshot(A, 8);
        holds.note(A, 1, (6, 7));
        holds.note(A, 1, (8, 10));
        let found: Vec<u64> = (1..12).filter(|&i| holds.has(A, 1, i)).collect();
        assert_eq!(found, [9, 10]);
        // An answer of an earlier term comes late.
        holds.note(A, 0, (3, 4));
        assert!(holds.has(A, 1, 9));
    }

    #[test]
    fn late_answer_to_an_early_message_joins() {
        let holds = Holds::default();
        holds.note(A, 1, (5, 6));
        holds.note(A, 1, (3, 4));
        assert!((3..=6).all(|index| holds.has(A, 1, index)));
        holds.note(A, 1, (1, 1));
        assert!(holds.has(A, 1, 6), "it came too late to count");
    }
}
