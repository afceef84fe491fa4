//! The hold of a new term: nothing is changed before no lease of an earlier term is valid.
//!
//! It ends when each session has said that it dropped what it held of earlier terms, and in
//! any case after [`HOLD_MS`].

use crate::rules::{Rule, kept};
use crate::times::HOLD_MS;
use lagan_types::SessionId;
use std::collections::BTreeSet;

/// The hold of one term.
#[derive(Debug)]
pub(crate) struct Hold {
    until_ms: u64,
    /// Sessions that hold no lease of an earlier term.
    known: BTreeSet<SessionId>,
    /// All that live are among them.
    all_know: bool,
    settled: BTreeSet<SessionId>,
    over: bool,
}

impl Hold {
    /// Begins the hold.
    pub fn new(now_ms: u64) -> Self {
        Hold {
            until_ms: now_ms.saturating_add(HOLD_MS),
            known: BTreeSet::new(),
            all_know: !kept(Rule::EarlyWhenAllKnow),
            settled: BTreeSet::new(),
            over: !kept(Rule::HoldFirst),
        }
    }

    /// Notes that the session has no lease of an earlier term.
    pub fn knows(&mut self, session: SessionId) {
        if !self.over {
            self.known.insert(session);
        }
    }

    /// Whether no session that lives has a lease of an earlier term.
    pub fn all_know(&self) -> bool {
        self.over || self.all_know
    }

    /// Notes that the session holds nothing of an earlier term.
    pub fn settle(&mut self, session: SessionId) {
        if !self.over {
            self.known.insert(session);
            self.settled.insert(session);
        }
    }

    /// Whether the session has settled.
    pub fn has_settled(&self, session: SessionId) -> bool {
        self.settled.contains(&session)
    }

    /// Ends the hold if all of these have settled.
    /// Returns whether it ended just now, or all have come to know the term.
    pub fn end_if_settled(&mut self, live: &[SessionId]) -> bool {
        let knew = self.all_know();
        self.all_know |= live.iter().all(|s| self.known.contains(s));
        let ends = !self.over && live.iter().all(|s| self.settled.contains(s));
        if ends {
            self.end();
        }
        ends || self.all_know() != knew
    }

    /// Returns the milliseconds until it is over if nobody settles; 0: it is over.
    pub fn left_ms(&mut self, now_ms: u64) -> u64 {
        if !self.over && now_ms >= self.until_ms {
            self.end();
        }
        if self.over {
            return 0;
        }
        self.until_ms - now_ms
    }

    fn end(&mut self) {
        self.over = true;
        self.known.clear();
        self.settled.clear();
    }
}
