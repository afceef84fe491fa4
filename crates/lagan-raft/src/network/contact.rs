//! Decides which messages to a follower need not be sent.
//!
//! openraft tells each follower at once that an entry is committed: a message of
//! its own, whose round trip keeps the next entry waiting. It is answered here
//! instead, and the follower learns it from the next message: the next entry's,
//! or a heartbeat at the latest.
//!
//! What must hold: an answer given here says nothing that the follower has not
//! said itself a moment ago, to this leader, in this term: that it follows, and
//! that its log holds the entry named. So `Contact` remembers only a message
//! that was sent and taken, forgets it at any other outcome, and counts its age
//! from when it was sent. A message that says nothing new is a heartbeat and
//! always goes out, as does each ReadIndex: it has a [`Stream`](super::Stream) of its
//! own, without a past. The follower's election timer and the leader's read
//! gate hence see real messages only; openraft's `millis_since_quorum_ack` may be
//! younger than the truth by the limit given here.

use crate::types::TypeConfig;
use crate::types::alias::{LogId, Vote};
use openraft::raft::AppendEntriesRequest;
use std::time::{Duration, Instant};

/// The proof that the last message to a follower gave.
#[derive(Debug)]
struct Taken {
    vote: Vote,
    /// The follower's log holds it.
    last: Option<LogId>,
    committed: Option<LogId>,
    sent_at: Instant,
}

/// The proof that a stream of messages to one follower has given.
#[derive(Debug)]
pub(super) struct Contact {
    taken: Option<Taken>,
    age_max: Duration,
}

/// The proof that a message gives if the follower takes it.
#[derive(Debug)]
pub(super) struct Attempt(Taken);

impl Contact {
    /// A contact without a proof; a later proof counts for `age_max`.
    pub fn new(age_max: Duration) -> Self {
        Contact {
            taken: None,
            age_max,
        }
    }

    /// Whether the request says no more than that more is committed, to a follower that
    /// would take it.
    pub fn spares(&self, request: &AppendEntriesRequest<TypeConfig>, now: Instant) -> bool {
        let Some(taken) = &self.taken else {
            return false;
        };
        request.entries.is_empty()
            && request.vote == taken.vote
            && request.prev_log_id == taken.last
            && request.leader_commit > taken.committed
            && now.saturating_duration_since(taken.sent_at) < self.age_max
    }

    /// Forgets the last proof, since a message goes out.
    pub fn begin(&mut self, request: &AppendEntriesRequest<TypeConfig>, now: Instant) -> Attempt {
        self.taken = None;
        let last = request.entries.last().map(|e| e.log_id);
        Attempt(Taken {
            vote: request.vote,
            last: last.or(request.prev_log_id),
            committed: request.leader_commit,
            sent_at: now,
        })
    }

    /// The follower took all of the message.
    pub fn succeed(&mut self, attempt: Attempt) {
        self.taken = Some(attempt.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Batch;
    use crate::types::alias::Entry;
    use openraft::{CommittedLeaderId, EntryPayload};

    const AGE: Duration = Duration::from_millis(50);

    fn id(index: u64) -> LogId {
        LogId::new(CommittedLeaderId::new(3, 1), index)
    }

    fn request(previous: u64, entries: &[u64], committed: u64) -> AppendEntriesRequest<TypeConfig> {
        let entries = entries.iter().map(|&index| Entry {
            log_id: id(index),
            payload: EntryPayload::Normal(Batch::default()),
        });
        AppendEntriesRequest {
            vote: Vote::new_committed(3, 1),
            prev_log_id: Some(id(previous)),
            leader_commit: Some(id(committed)),
            entries: entries.collect(),
        }
    }

    /// A follower that has just taken entries 5 and 6 and knows that 4 is committed.
    fn contact(now: Instant) -> Contact {
        let mut contact = Contact::new(AGE);
        let attempt = contact.begin(&request(4, &[5, 6], 4), now);
        contact.succeed(attempt);
        contact
    }

    #[test]
    fn only_news_of_a_commit_is_spared() {
        let now = Instant::now();
        let contact = contact(now);
        assert!(contact.spares(&request(6, &[], 5), now));
        assert!(contact.spares(&request(6, &[], 6), now + AGE / 2));
        assert!(!contact.spares(&request(6, &[], 4), now), "a heartbeat");
        assert!(!contact.spares(&request(6, &[7], 6), now), "an entry");
        assert!(!contact.spares(&request(5, &[], 6), now), "another entry");
        assert!(!contact.spares(&request(7, &[], 6), now), "not yet taken");
    }

    #[test]
    fn contact_ends_with_age_term_and_failure() {
        let now = Instant::now();
        let mut contact = contact(now);
        assert!(!contact.spares(&request(6, &[], 6), now + AGE));
        let later = AppendEntriesRequest {
            vote: Vote::new_committed(4, 1),
            ..request(6, &[], 6)
        };
        assert!(!contact.spares(&later, now));
        // A message without an answer: nothing is known any more.
        let _ = contact.begin(&request(6, &[7], 6), now);
        assert!(!contact.spares(&request(6, &[], 6), now));
    }

    #[test]
    fn a_new_stream_sends_everything() {
        let now = Instant::now();
        assert!(!Contact::new(AGE).spares(&request(6, &[], 6), now));
    }
}
