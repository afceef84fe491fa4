//! Own changes: nothing is remembered of what they change, but what their answers show.

use super::{Leases, Shown, now_ms};
use lagan_lease::{Change, Fact as Kept, Loan, Outcome};
use lagan_types::FileOp;
use lagan_types::lease::{Closed, Fact, Found, Key, Proof};
use std::sync::Arc;

impl Leases {
    /// Begins an own change, before it is sent: nothing is remembered of what it changes.
    /// It is sent when these loans have come back.
    pub fn begin(self: &Arc<Self>, op: &FileOp) -> (OwnChange, Vec<Loan>) {
        let begun = self.holder.as_ref().map(|holder| {
            let now_ms = now_ms();
            let mut holder = holder.lock();
            let mut keys = op.touches();
            for (parent, name) in op.victims() {
                if let Some(Found::Inode(ino)) = holder.name(parent, name, now_ms) {
                    keys.push(Key::Inode(ino));
                }
            }
            keys.sort_unstable();
            keys.dedup();
            let exclusive = self.wish_alone(&mut holder, op, now_ms);
            let given_back = holder.give_back(&keys);
            let change = holder.begin(keys);
            let loans = holder.loans_of_change(&change, now_ms);
            let begun = Begun {
                change,
                given_back,
                exclusive,
            };
            (begun, loans)
        });
        let (begun, loans) = begun.unzip();
        let leases = self.clone();
        (OwnChange { leases, begun }, loans.unwrap_or_default())
    }

    /// Forgets what is remembered of keys that were shown by mistake. Returns the loans that
    /// are to come back.
    pub fn forget(&self, keys: Vec<Key>) -> Vec<Loan> {
        let Some(holder) = &self.holder else {
            return Vec::new();
        };
        let (mut holder, now_ms) = (holder.lock(), now_ms());
        let change = holder.begin(keys);
        let loans = holder.loans_of(change.keys(), now_ms);
        holder.end(change, Outcome::Unproven, now_ms);
        loans
    }
}

/// An own change that is under way. Dropped without its outcome, it is unknown.
pub(crate) struct OwnChange {
    leases: Arc<Leases>,
    begun: Option<Begun>,
}

/// What was done before a change is sent.
struct Begun {
    change: Change,
    /// Directories that were this mount's alone.
    given_back: Vec<Key>,
    /// How the leader is told that this mount wants to use a directory alone.
    exclusive: Option<u32>,
}

impl OwnChange {
    /// Returns what the leader is told that was closed for it.
    pub fn closed(&self) -> Option<Closed> {
        self.begun.as_ref().map(|begun| Closed {
            began: begun.change.began(),
            keys: [begun.change.keys(), &begun.given_back].concat(),
            exclusive: begun.exclusive,
        })
    }

    /// Ends it after the leader has carried it out.
    pub fn done(mut self, proof: Option<Proof>) {
        if let Some(exclusive) = proof.as_ref().and_then(|proof| proof.exclusive) {
            self.leases.supply.lock().take(&exclusive);
        }
        let outcome = proof.map_or(Outcome::Unproven, |proof| {
            let kept = proof.facts.iter().filter(|(_, may)| *may);
            let listed = proof.listed.iter().map(|dir| Key::Directory(*dir));
            let leased = kept.map(|(fact, _)| fact.key()).chain(listed).collect();
            let facts = proof.facts.into_iter().map(|(fact, _)| match fact {
                Fact::Inode(attr) => Kept::Inode(attr.ino, Shown::from(&attr)),
                Fact::Name(name, found) => Kept::Name(name, found),
                Fact::Empty(dir) => Kept::Empty(dir),
            });
            Outcome::Done {
                term: proof.term,
                leased,
                facts: facts.collect(),
                exclusive: proof.exclusive.map(|exclusive| exclusive.dir),
            }
        });
        self.end(outcome);
    }

    /// Ends it after the leader has refused it.
    pub fn refused(mut self) {
        self.end(Outcome::Nothing);
    }

    fn end(&mut self, outcome: Outcome<Shown>) {
        if let (Some(begun), Some(holder)) = (self.begun.take(), &self.leases.holder) {
            holder.lock().end(begun.change, outcome, now_ms());
        }
    }
}

impl Drop for OwnChange {
    fn drop(&mut self) {
        self.end(Outcome::Unknown);
    }
}
