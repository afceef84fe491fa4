//! Which inodes are open nowhere, as a pure state machine. The leader checks orphans
//! before it reaps them, and archived files before it releases them.
//!
//! A check names some inodes; every session that was alive when it began must
//! answer which of them it has open. When all have answered (or ended), those
//! that nobody has open are known. A leader change forgets the check: its owner
//! begins another, nothing is lost but time.
//!
//! The check misses a session that opens one of them after it has answered. An orphan
//! cannot be opened; a file that is opened just before its release is read
//! through the archive, like one that is opened just after it.

use lagan_types::{Ino, SessionId};
use std::collections::BTreeSet;

/// Most inodes in one check: as many as fit a heartbeat's answer.
pub const CHECK_INOS_MAX: usize = 4096;
/// Number of purposes. Their checks are numbered apart, so that an answer to one is
/// none to another.
const PURPOSES: u64 = 2;

/// The purpose of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// To reap orphans.
    Reap = 0,
    /// To release local copies.
    Release = 1,
}

/// Returns the inode at which the look after one that found `page`, in order, begins:
/// behind a full page, else the first. Never behind a page that is not full: with names
/// coming and going all the time there is always a newer orphan, and nobody would look at
/// those that were made long ago any more.
pub fn next_from(page: &[Ino]) -> Ino {
    match page.last() {
        Some(last) if page.len() >= CHECK_INOS_MAX => Ino(last.0.saturating_add(1)),
        _ => Ino(0),
    }
}

/// The check under way.
#[derive(Debug)]
pub struct OpenCheck {
    number: u64,
    waiting: BTreeSet<SessionId>,
    inos: BTreeSet<Ino>,
    open: BTreeSet<Ino>,
    running: bool,
}

impl OpenCheck {
    /// Makes the machine, without a check yet. Checks are numbered within the term: an
    /// answer to another leader's check must not count here.
    pub fn new(term: u64, purpose: Purpose) -> Self {
        OpenCheck {
            number: ((term & 0xffff_ffff) << 32) + purpose as u64,
            waiting: BTreeSet::new(),
            inos: BTreeSet::new(),
            open: BTreeSet::new(),
            running: false,
        }
    }

    /// Begins a check of these inodes, `CHECK_INOS_MAX` at most, with these live
    /// sessions. Ends the one before.
    pub fn begin(&mut self, inos: Vec<Ino>, sessions: impl IntoIterator<Item = SessionId>) {
        self.number += PURPOSES;
        self.waiting = sessions.into_iter().collect();
        self.inos = inos.into_iter().take(CHECK_INOS_MAX).collect();
        self.open.clear();
        self.running = !self.inos.is_empty();
    }

    /// Returns the question for the session: the check's number and inodes; `None` if it
    /// has answered.
    pub fn question(&self, session: SessionId) -> Option<(u64, Vec<Ino>)> {
        (self.running && self.waiting.contains(&session))
            .then(|| (self.number, self.inos.iter().copied().collect()))
    }

    /// Takes a session's answer: the inodes of the check that it has open. Answers to
    /// other checks are ignored.
    pub fn answer(&mut self, session: SessionId, check: u64, open: &[Ino]) {
        if self.running && check == self.number && self.waiting.remove(&session) {
            self.open
                .extend(open.iter().filter(|i| self.inos.contains(i)));
        }
    }

    /// Notes that a session ended: it has nothing open any more.
    pub fn session_ended(&mut self, session: SessionId) {
        self.waiting.remove(&session);
    }

    /// Notes that only these sessions live: the others ended in whatever way.
    pub fn keep_sessions(&mut self, live: &[SessionId]) {
        self.waiting.retain(|session| live.contains(session));
    }

    /// Ends the check once every session has answered, and returns the inodes that are
    /// open nowhere.
    pub fn finished(&mut self) -> Option<Vec<Ino>> {
        if !self.running || !self.waiting.is_empty() {
            return None;
        }
        self.running = false;
        Some(self.inos.difference(&self.open).copied().collect())
    }

    /// Whether a check waits for answers.
    pub fn is_running(&self) -> bool {
        self.running
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: SessionId = SessionId(1);
    const B: SessionId = SessionId(2);

    #[test]
    fn only_what_every_session_has_closed_is_open_nowhere() {
        let mut check = OpenCheck::new(1, Purpose::Reap);
        check.begin(vec![Ino(5), Ino(6)], [A, B]);
        let (number, inos) = check.question(A).expect("a question");
        assert_eq!(inos, vec![Ino(5), Ino(6)]);
        check.answer(A, number, &[Ino(5)]);
        assert_eq!(check.finished(), None);
        check.answer(B, number, &[]);
        assert_eq!(check.finished(), Some(vec![Ino(6)]));
        assert!(!check.is_running());
    }

    #[test]
    fn old_orphans_are_looked_at_though_newer_ones_keep_coming() {
        assert_eq!(next_from(&[]), Ino(0));
        assert_eq!(next_from(&[Ino(500)]), Ino(0));
        let full: Vec<Ino> = (1..=CHECK_INOS_MAX as u64).map(Ino).collect();
        assert_eq!(next_from(&full), Ino(CHECK_INOS_MAX as u64 + 1));
    }

    #[test]
    fn answers_of_an_older_check_do_not_count() {
        let mut check = OpenCheck::new(1, Purpose::Reap);
        check.begin(vec![Ino(5)], [A]);
        let (old, _) = check.question(A).expect("a question");
        check.begin(vec![Ino(5), Ino(9)], [A]);
        check.answer(A, old, &[]);
        assert_eq!(check.finished(), None);
    }

    #[test]
    fn answers_to_another_leader_do_not_count() {
        let mut old = OpenCheck::new(7, Purpose::Reap);
        old.begin(vec![Ino(5)], [A]);
        let (number, _) = old.question(A).expect("a question");
        let mut new = OpenCheck::new(8, Purpose::Reap);
        new.begin(vec![Ino(9)], [A]);
        new.answer(A, number, &[]);
        assert_eq!(new.finished(), None);
    }

    #[test]
    fn answers_for_another_purpose_do_not_count() {
        let mut reap = OpenCheck::new(7, Purpose::Reap);
        let mut release = OpenCheck::new(7, Purpose::Release);
        for _ in 0..10 {
            reap.begin(vec![Ino(5)], [A]);
            let (number, _) = reap.question(A).expect("a question");
            release.begin(vec![Ino(9)], [A]);
            release.answer(A, number, &[]);
            assert_eq!(release.finished(), None);
        }
    }

    #[test]
    fn ended_session_is_not_waited_for() {
        let mut check = OpenCheck::new(1, Purpose::Reap);
        check.begin(vec![Ino(5)], [A, B]);
        let (number, _) = check.question(A).expect("a question");
        check.answer(A, number, &[]);
        check.session_ended(B);
        assert_eq!(check.finished(), Some(vec![Ino(5)]));
    }

    #[test]
    fn session_that_another_took_over_is_not_waited_for() {
        let mut check = OpenCheck::new(1, Purpose::Release);
        check.begin(vec![Ino(5)], [A, B]);
        let (number, _) = check.question(A).expect("a question");
        check.answer(A, number, &[]);
        check.keep_sessions(&[A, SessionId(3)]);
        assert_eq!(check.finished(), Some(vec![Ino(5)]));
    }

    #[test]
    fn second_answer_of_a_session_changes_nothing() {
        let mut check = OpenCheck::new(1, Purpose::Reap);
        check.begin(vec![Ino(5)], [A, B]);
        let (number, _) = check.question(A).expect("a question");
        check.answer(A, number, &[Ino(5)]);
        check.answer(A, number, &[]);
        check.answer(B, number, &[]);
        assert_eq!(check.finished(), Some(vec![]));
    }
}
