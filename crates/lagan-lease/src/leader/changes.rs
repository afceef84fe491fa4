//! Changes: their keys are claimed, and recalled from everybody who may still have them.

use super::claims::{Author, Claim, ClaimId, Held, Turn};
use super::sessions::Session;
use super::{End, Ready, Table, Wait};
use crate::rules::{Rule, kept};
use lagan_types::SessionId;
use lagan_types::lease::Key;
use std::collections::BTreeSet;

impl Table {
    /// Claims all keys of a change and recalls them from everybody who may still have them.
    /// A name claims its directory's completeness too.
    ///
    /// The inodes that lose or take a name are read when the claim is ready, since what a name
    /// leads to does not change from then on: [`Table::extend`] it by those that it lacks.
    pub fn claim(
        &mut self,
        author: Option<&Author>,
        keys: &[Key],
        turn: Turn,
        now_ms: u64,
    ) -> ClaimId {
        self.lapse(now_ms);
        let id = ClaimId(self.number());
        let exclusive = author.filter(|_| turn == Turn::Early);
        let exclusive = exclusive.and_then(|author| self.made_alone(author, keys, now_ms));
        let turn = match self.hold.left_ms(now_ms) {
            // Whoever waited for its end may have begun.
            0 if exclusive.is_none() => Turn::InOrder,
            _ => turn,
        };
        let (session, began) = author.map_or((None, 0), |a| (Some(a.session), a.began));
        if exclusive.is_some() {
            self.keys.exclusives.making();
        }
        self.claims
            .insert(id, Claim::new(session, began, turn, exclusive));
        self.extend(id, author, keys, now_ms);
        id
    }

    /// Claims more keys for a change. Names only before it was ready: later, others may
    /// have claimed them before, in another order.
    pub fn extend(&mut self, id: ClaimId, author: Option<&Author>, keys: &[Key], now_ms: u64) {
        self.lapse(now_ms);
        let Some(mut claim) = self.claims.remove(&id) else {
            return;
        };
        let breaks = |key: &Key| key.directory().filter(|_| kept(Rule::NameBreaksDirectory));
        let directories = keys.iter().filter_map(breaks);
        let keys: BTreeSet<Key> = keys.iter().cloned().chain(directories).collect();
        let session = author.map(|a| a.session);
        let mut dirs = BTreeSet::new();
        for key in keys {
            if claim.keys.iter().any(|(claimed, _)| *claimed == key) {
                continue;
            }
            let alone = self.is_alone(&key, session) || !kept(Rule::AnswerLeasedIfAlone);
            let shown = claim.exclusive == Some(key.ino());
            self.keys.claim(&key, id, claim.turn, shown);
            let closed = author.filter(|a| a.has_closed(&key));
            // What a mount knows of a directory's names follows its own changes in any order.
            let follows = matches!(key, Key::Directory(_));
            if follows && closed.is_some() {
                claim.followed.push(key.clone());
            }
            let spare = |held: &Held| {
                let own = closed.filter(|a| a.session == held.session);
                own.is_some_and(|a| follows || held.is_older_than(a.began))
                    || (shown && session == Some(held.session))
            };
            let waits = self.recall(&key, spare, now_ms);
            let new = waits.iter().filter(|w| w.is_new).map(|w| w.session);
            let from = new.filter(|from| Some(*from) != session);
            self.cooling.changed(&key, session, from, now_ms);
            let waits = waits.iter().map(|w| (w.session, w.number));
            claim.waits.extend(waits);
            let leased =
                alone && closed.is_some_and(|a| self.interest_of_author(a.session, &key, now_ms));
            dirs.insert(key.ino());
            claim.keys.push((key, leased));
        }
        if !self.keys.exclusives.any() {
            dirs.clear();
        }
        for dir in dirs {
            let waits = self.end_exclusive(dir, &claim, author, now_ms);
            claim.waits.extend(waits);
        }
        self.claims.insert(id, claim);
    }

    /// Registers the author's interest in a key that only its own claim is on: the change's
    /// answer will show the key as it is when the claim ends. It counts as asked for when the
    /// claim ends so.
    fn interest_of_author(&mut self, author: SessionId, key: &Key, now_ms: u64) -> bool {
        let valid = |of: &Session| of.is_valid(now_ms) && !of.retired;
        if !self.sessions.get(&author).is_some_and(valid) {
            return false;
        }
        if self.keys.is_held(key, author) {
            return true;
        }
        // Completeness comes from a listing, not from the answer to a change.
        let may = !matches!(key, Key::Directory(_))
            && !self.is_alone_elsewhere(key, author)
            && self.cooling.permits(key, author, now_ms);
        if may {
            self.insert(author, key, 0, now_ms);
        }
        may
    }

    /// Recalls a key from its holders but those to spare. Returns who must acknowledge
    /// which number.
    pub(super) fn recall(
        &mut self,
        key: &Key,
        spare: impl Fn(&Held) -> bool,
        now_ms: u64,
    ) -> Vec<Wait> {
        let mut waits = Vec::new();
        for held in self.keys.holders(key) {
            if spare(held) {
                continue;
            }
            let Some(of) = self.sessions.get_mut(&held.session) else {
                continue;
            };
            let is_new = held.recalled.is_none();
            if is_new {
                self.last += 1;
                self.recalled += 1;
                of.let_go(held.order, key);
                of.recall(self.last, key.clone(), now_ms);
                self.woken.insert(held.session);
            }
            let number = held.recalled.unwrap_or(self.last);
            held.recalled = Some(number);
            waits.push(Wait {
                session: held.session,
                number,
                is_new,
            });
        }
        waits
    }

    /// Says whether a claim is ready; then its change may be proposed, in this term only.
    pub fn ready(&mut self, id: ClaimId, now_ms: u64) -> Ready {
        self.lapse(now_ms);
        let left_ms = self.hold.left_ms(now_ms);
        let never = Ready::At { ms: u64::MAX };
        let Some(claim) = self.claims.get(&id) else {
            return never;
        };
        let mut wake_ms = None;
        let early = claim.turn == Turn::Early && self.hold.all_know();
        if left_ms > 0 && !early {
            wake_ms = Some(now_ms.saturating_add(left_ms));
        }
        for (session, number) in &claim.waits {
            if let Some(of) = self.sessions.get(session)
                && of.closed_to < *number
                && kept(Rule::RecallAwaited)
            {
                wake_ms = Some(wake_ms.map_or(of.end_ms, |ms: u64| ms.min(of.end_ms)));
            }
        }
        match wake_ms {
            Some(ms) => Ready::At { ms },
            None if self.is_making_for(claim) => never,
            None if claim.keys.iter().all(|(key, _)| self.keys.is_turn(key, id)) => Ready::Now,
            None => never,
        }
    }

    /// Ends a claim. Returns the keys of which its author may keep what the change's
    /// answer shows. With an unknown outcome the keys stay closed, see [`Table::doubt`].
    pub fn end(&mut self, id: ClaimId, end: End, now_ms: u64) -> Vec<Key> {
        self.lapse(now_ms);
        if end == End::Unknown && kept(Rule::UnknownStaysClosed) {
            let number = self.number();
            if let Some(claim) = self.claims.get_mut(&id) {
                claim.doubt = Some(number);
            }
            return Vec::new();
        }
        let Some(claim) = self.claims.remove(&id) else {
            return Vec::new();
        };
        let mut leased = Vec::new();
        if claim.exclusive.is_some() {
            self.keys.exclusives.made();
            self.progress = true;
        }
        let (author, began) = claim.author;
        for (key, may) in claim.keys {
            if end == End::Done {
                let nobody = std::iter::empty();
                self.cooling.changed(&key, author, nobody, now_ms);
            }
            let alone = self.keys.is_last(&key, id) || !kept(Rule::AnswerLeasedIfAlone);
            if end == End::Done
                && may
                && alone
                && let Some(author) = author
                && self.keys.raise(&key, author, began)
            {
                leased.push(key.clone());
            }
            self.progress |= self.keys.unclaim(&key, id);
        }
        leased
    }

    /// Returns the number of the last change with an unknown outcome whose keys are closed.
    /// When a command that was proposed after this call has been applied, tell
    /// [`Table::resolve`].
    pub fn doubt(&self) -> Option<u64> {
        self.claims.values().filter_map(|claim| claim.doubt).max()
    }

    /// Notes that changes with unknown outcomes up to that number were carried out, or
    /// never will be.
    pub fn resolve(&mut self, doubt: u64, now_ms: u64) {
        let over = |claim: &Claim| claim.doubt.is_some_and(|number| number <= doubt);
        let over = self.claims.iter().filter(|(_, claim)| over(claim));
        for id in over.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.end(id, End::Nothing, now_ms);
        }
    }

    /// Recalls keys from everybody but one session after a quiet change of them, which
    /// nobody waits for: that of an access time.
    pub fn recall_quietly(&mut self, but: Option<SessionId>, keys: &[Key], now_ms: u64) {
        self.lapse(now_ms);
        for key in keys {
            self.recall(key, |held| Some(held.session) == but, now_ms);
            if self.keys.exclusives.any() {
                let alone = Key::Exclusive(key.ino());
                self.recall(&alone, |held| Some(held.session) == but, now_ms);
            }
        }
    }
}
