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
    settled: BTreeSet<SessionId>,
    over: bool,
}

impl Hold {
    /// Begins the hold.
    pub fn new(now_ms: u64) -> Self {
        Hold {
            until_ms: now_ms.saturating_add(HOLD_MS),
            settled: BTreeSet::new(),
            over: !kept(Rule::HoldFirst),
        }
    }

    /// Notes that the session holds nothing of an earlier term.
    pub fn settle(&mut self, session: SessionId) {
        if !self.over {
            self.settled.insert(session);
        }
    }

    /// Whether the session has settled.
    pub fn has_settled(&self, session: SessionId) -> bool {
        self.settled.contains(&session)
    }

    /// Ends the hold if all of these have settled.
    /// Returns whether it ended just now.
    pub fn end_if_settled(&mut self, live: &[SessionId]) -> bool {
        let ends = !self.over && live.iter().all(|s| self.settled.contains(s));
        if ends {
            self.end();
        }
        ends
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
        self.settled.clear();
    }
}
