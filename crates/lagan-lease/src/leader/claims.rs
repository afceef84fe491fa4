//! Keys that somebody holds or claims, and the claims.

use super::exclusives::Exclusives;
use crate::rules::{Rule, kept};
use lagan_types::lease::Key;
use lagan_types::{Ino, SessionId};
use std::collections::{BTreeMap, HashMap, VecDeque};

/// The number of a claim in its table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClaimId(pub(super) u64);

/// The author of a change.
#[derive(Debug, Clone)]
pub struct Author {
    /// Its session.
    pub session: SessionId,
    /// [`crate::Change::began`] of the change at its mount.
    pub began: u64,
    /// [`crate::Change::keys`]: what the mount has closed itself. It need not be all that
    /// the change touches: a mount may not know which inode loses a name.
    pub closed: Vec<Key>,
}

impl Author {
    /// Whether the mount has closed the key itself; completeness of a directory it keeps but
    /// for the names that it closed.
    pub(super) fn has_closed(&self, key: &Key) -> bool {
        let Key::Directory(_) = key else {
            return self.closed.contains(key) || !kept(Rule::AuthorSparedForClosedOnly);
        };
        let closes = |k: &Key| k == key || k.directory().as_ref() == Some(key);
        self.closed.iter().any(closes)
    }
}

/// When a change has its turn in a new term.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// After the hold of the term, and after those that claimed its names before it.
    InOrder,
    /// Before the hold ends, as soon as no mount has a lease of an earlier term, and so before all
    /// those that wait for its end; and before those that wait for its author to give up the
    /// directory. Only for a file that was shown as made already, to every mount or to the one
    /// that uses the directory alone.
    Early,
}

/// A claim that has not ended.
#[derive(Debug)]
pub(super) struct Claim {
    /// The author's session, and the number of the change there.
    pub author: (Option<SessionId>, u64),
    /// The keys, each with whether the change's answer may be kept by the author.
    pub keys: Vec<(Key, bool)>,
    /// The directories whose names the author follows through it: it has closed one in each.
    pub followed: Vec<Key>,
    /// Who must acknowledge which number.
    pub waits: Vec<(SessionId, u64)>,
    /// When it has its turn.
    pub turn: Turn,
    /// Directories that are to be shown: it waits until nothing is being made there that was
    /// shown to another mount alone.
    pub visits: Vec<Ino>,
    /// Its author uses that directory alone, and has shown there what it does.
    pub exclusive: Option<Ino>,
    /// Set when nobody knows its outcome: the number of this doubt.
    pub doubt: Option<u64>,
}

impl Claim {
    /// Makes a claim without keys.
    pub fn new(author: Option<SessionId>, began: u64, turn: Turn, exclusive: Option<Ino>) -> Self {
        Claim {
            author: (author, began),
            keys: Vec::new(),
            followed: Vec::new(),
            waits: Vec::new(),
            turn,
            visits: Vec::new(),
            exclusive,
            doubt: None,
        }
    }

    /// Whether it names something in the directory.
    pub fn names_in(&self, dir: Ino) -> bool {
        let named = |key: &Key| matches!(key, Key::Name(name) if name.dir == dir);
        self.keys.iter().any(|(key, _)| named(key))
    }

    /// Whether a session may not register its interest in a key that the claim is on.
    pub fn bars(&self, key: &Key, session: SessionId) -> bool {
        let own = self.author.0 == Some(session);
        !(own && self.followed.contains(key))
    }
}

/// A session's interest in a key.
#[derive(Debug)]
pub(super) struct Held {
    pub session: SessionId,
    /// Its place in the session's order.
    pub order: u64,
    /// The highest number of a query or change, at the mount, that registered it.
    asked: u64,
    /// The number of the recall, if it was recalled since it was registered.
    pub recalled: Option<u64>,
}

impl Held {
    /// Whether the mount asked for all that it holds before that change of its own began:
    /// then it has closed it itself.
    pub fn is_older_than(&self, began: u64) -> bool {
        self.asked <= began || !kept(Rule::AuthorSparedForOlderOnly)
    }
}

#[derive(Debug, Default)]
struct State {
    holders: Vec<Held>,
    claims: VecDeque<ClaimId>,
    /// So many of them, the first ones, are early.
    early: usize,
    /// The last claim that was put on it.
    last: Option<ClaimId>,
}

/// The keys that somebody holds or claims.
#[derive(Debug, Default)]
pub(super) struct Keys {
    states: HashMap<Key, State>,
    /// What concerns exclusive leases.
    pub exclusives: Exclusives,
}

impl Keys {
    /// Returns the number of keys.
    pub fn len(&self) -> usize {
        self.states.len()
    }

    fn tidy(&mut self, key: &Key) {
        let empty = |s: &State| s.holders.is_empty() && s.claims.is_empty();
        if self.states.get(key).is_some_and(empty) {
            self.states.remove(key);
        }
    }

    // -- holders --------------------------------------------------------------

    /// Returns the holders of a key.
    pub fn holders(&mut self, key: &Key) -> impl Iterator<Item = &mut Held> {
        let state = self.states.get_mut(key).into_iter();
        state.flat_map(|s| s.holders.iter_mut())
    }

    /// Whether the session holds the key and is not recalled from.
    pub fn is_held(&self, key: &Key, session: SessionId) -> bool {
        let holds = |h: &Held| h.session == session && h.recalled.is_none();
        let state = self.states.get(key);
        state.is_some_and(|s| s.holders.iter().any(holds))
    }

    /// Notes that a session that holds the key asked for it with that number. Returns
    /// whether it holds it.
    pub fn raise(&mut self, key: &Key, session: SessionId, asked: u64) -> bool {
        let mut holders = self.holders(key);
        let held = holders.find(|h| h.session == session && h.recalled.is_none());
        held.map(|held| held.asked = held.asked.max(asked))
            .is_some()
    }

    /// Registers an interest, which no earlier recall is about. Returns the session's place
    /// for the key so far.
    pub fn insert_holder(
        &mut self,
        key: &Key,
        session: SessionId,
        asked: u64,
        order: u64,
    ) -> Option<u64> {
        let state = self.states.entry(key.clone()).or_default();
        if let Some(held) = state.holders.iter_mut().find(|h| h.session == session) {
            let before = std::mem::replace(&mut held.order, order);
            held.asked = held.asked.max(asked);
            if kept(Rule::NewInterestNewRecall) {
                held.recalled = None;
            }
            return Some(before);
        }
        state.holders.push(Held {
            session,
            order,
            asked,
            recalled: None,
        });
        self.exclusives.came(key, session);
        None
    }

    /// Forgets a session's interest.
    pub fn drop_holder(&mut self, key: &Key, session: SessionId) {
        self.drop_if(key, |held| held.session == session);
    }

    fn drop_if(&mut self, key: &Key, is: impl Fn(&Held) -> bool) {
        if let Some(state) = self.states.get_mut(key)
            && let Some(place) = state.holders.iter().position(is)
        {
            let gone = state.holders.remove(place);
            self.exclusives.went(key, gone.session);
        }
        self.tidy(key);
    }

    /// Forgets a session's interest if that recall was about it.
    pub fn drop_recalled(&mut self, key: &Key, session: SessionId, number: u64) {
        self.drop_if(key, |held| {
            held.session == session && held.recalled == Some(number)
        });
    }

    /// Whether nobody but the session holds the key.
    pub fn is_held_by_none_but(&self, key: &Key, session: SessionId) -> bool {
        let others = |state: &State| state.holders.iter().any(|held| held.session != session);
        !self.states.get(key).is_some_and(others)
    }

    /// Whether another session than this one uses a directory alone.
    pub fn is_alone_elsewhere(&self, dir: Ino, session: SessionId) -> bool {
        self.exclusives.any() && !self.is_held_by_none_but(&Key::Exclusive(dir), session)
    }

    /// Returns what the session has of the exclusive lease on a directory, perhaps recalled.
    pub fn alone(&self, dir: Ino, session: SessionId) -> Option<&Held> {
        let state = self.states.get(&Key::Exclusive(dir))?;
        state.holders.iter().find(|held| held.session == session)
    }

    // -- claims ---------------------------------------------------------------

    /// Returns the claims on the key.
    pub fn claims(&self, key: &Key) -> impl Iterator<Item = &ClaimId> {
        let state = self.states.get(key).into_iter();
        state.flat_map(|state| &state.claims)
    }

    /// Puts a claim on the key, behind the others, or behind those that are early too. One that
    /// was shown as made changes nothing of what its author knows: it does not count as the last.
    pub fn claim(&mut self, key: &Key, id: ClaimId, turn: Turn, shown: bool) {
        let state = self.states.entry(key.clone()).or_default();
        let place = match turn {
            Turn::InOrder => place(&state.claims, key),
            Turn::Early => {
                state.early += 1;
                state.early - 1
            }
        };
        state.claims.insert(place, id);
        if !shown {
            state.last = Some(id);
        }
    }

    /// Whether no claim was put on the key after this one.
    pub fn is_last(&self, key: &Key, id: ClaimId) -> bool {
        self.states.get(key).is_some_and(|s| s.last == Some(id))
    }

    /// Whether it is the claim's turn: always, unless the key is a name.
    pub fn is_turn(&self, key: &Key, id: ClaimId) -> bool {
        let Key::Name(_) = key else {
            return true;
        };
        let first = self.states.get(key).and_then(|s| s.claims.front());
        first == Some(&id)
    }

    /// Takes a claim off the key. Returns whether there are others that wait for their turn.
    pub fn unclaim(&mut self, key: &Key, id: ClaimId) -> bool {
        let mut others = false;
        if let Some(state) = self.states.get_mut(key)
            && let Some(place) = state.claims.iter().position(|other| *other == id)
        {
            state.claims.remove(place);
            state.early -= usize::from(place < state.early);
            others = matches!(key, Key::Name(_)) && !state.claims.is_empty();
        }
        self.tidy(key);
        others
    }
}

/// Whether a file is being made in that directory which was shown to one mount alone.
pub(super) fn is_being_made(keys: &Keys, claims: &BTreeMap<ClaimId, Claim>, dir: Ino) -> bool {
    let made = |id: &ClaimId| {
        let claim = claims.get(id);
        claim.is_some_and(|claim| claim.exclusive == Some(dir))
    };
    keys.exclusives.is_any_being_made() && keys.claims(&Key::Directory(dir)).any(made)
}

/// Returns the place of a new claim among those on a key: the last one. All claims are queued
/// under one lock, so they have one order for all keys and none waits in a circle.
fn place(claims: &VecDeque<ClaimId>, key: &Key) -> usize {
    #[cfg(test)]
    if let Key::Name(name) = key
        && !kept(Rule::ClaimsInOneOrder)
        && name.name.last().is_some_and(|byte| byte % 2 == 0)
    {
        return claims.len().min(1);
    }
    let _ = key;
    claims.len()
}
