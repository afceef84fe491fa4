//! Exclusive leases: one mount uses the names and attributes of a directory alone.
//!
//! Its holder makes files there by itself, and tells the leader when their content is committed.
//! So whatever others are shown of the directory, or change in it, waits until the lease has come
//! back: the holder has had its files made then.

use super::claims::{Claim, is_being_made};
use super::{Author, ClaimId, Table, Turn};
use crate::rules::{Rule, kept};
use lagan_types::lease::Key;
use lagan_types::{Ino, SessionId};
use std::collections::BTreeSet;

impl Table {
    /// Gives a session the exclusive lease on a directory, if that may be. Call it in the same
    /// step as [`Table::end`] of a create of its own in the directory, or of the directory, that
    /// began with that number: its answer shows the directory as it is.
    pub fn grant(&mut self, session: SessionId, dir: Ino, began: u64, now_ms: u64) -> bool {
        self.lapse(now_ms);
        let recalls_max = self.bounds.recalls_max;
        let valid = self.sessions.get(&session).is_some_and(|of| {
            of.is_valid(now_ms) && !of.retired && of.recalls_count() < recalls_max
        });
        let own = |id: &ClaimId| {
            let claim = self.claims.get(id);
            claim.is_some_and(|c| c.author.0 == Some(session) && c.doubt.is_none())
        };
        let alone = [Key::Inode(dir), Key::Directory(dir)].iter().all(|key| {
            self.keys.is_held(key, session)
                && self.keys.is_held_by_none_but(key, session)
                && self.keys.claims(key).all(own)
        });
        let alone = alone && !self.keys.exclusives.has_names_elsewhere(dir, session);
        let (all, exclusive) = (Key::Directory(dir), Key::Exclusive(dir));
        let calm = |key, cooling: &mut super::Cooling| cooling.permits(key, session, now_ms);
        let calm = calm(&all, &mut self.cooling) && calm(&exclusive, &mut self.cooling);
        // One that was recalled is on its way back.
        let recalled = self.keys.alone(dir, session);
        let calm = calm && recalled.is_none_or(|held| held.recalled.is_none());
        let may = valid && calm && (alone || !kept(Rule::ExclusiveIfAlone));
        if !may || self.keys.is_alone_elsewhere(dir, session) {
            return false;
        }
        self.insert(session, &exclusive, began, now_ms);
        true
    }

    /// Whether another session uses the key's directory alone: nobody is shown it, nor remembers it.
    pub(super) fn is_alone_elsewhere(&self, key: &Key, session: SessionId) -> bool {
        self.keys.is_alone_elsewhere(key.ino(), session)
    }

    /// Returns the directory that an author uses alone and in which it has made the file that is
    /// made for everybody now.
    pub(super) fn made_alone(&self, author: &Author, keys: &[Key], now_ms: u64) -> Option<Ino> {
        let dir = keys.iter().find_map(|key| match key {
            Key::Name(name) => Some(name.dir),
            Key::Inode(_) | Key::Directory(_) | Key::Exclusive(_) => None,
        })?;
        let session = self.sessions.get(&author.session)?;
        let alone = self.keys.alone(dir, author.session)?;
        let valid = session.is_valid(now_ms) && kept(Rule::MadeAloneIsEarly);
        (valid && alone.is_older_than(author.began)).then_some(dir)
    }

    /// Whether no claim is on the key but such as change nothing of what the session knows.
    pub(super) fn is_alone(&self, key: &Key, session: Option<SessionId>) -> bool {
        let shown = |claim: &Claim| {
            claim.exclusive == Some(key.ino()) && session.is_some() && claim.author.0 == session
        };
        let mut claims = self.keys.claims(key);
        claims.all(|id| self.claims.get(id).is_some_and(shown))
    }

    /// Has whoever uses a directory alone give that up for a claim on it. Its own changes of
    /// names leave it the lease: they are in order with what it does by itself. Returns who must
    /// acknowledge which number.
    pub(super) fn end_exclusive(
        &mut self,
        dir: Ino,
        claim: &Claim,
        by: Option<&Author>,
        now_ms: u64,
    ) -> Vec<(SessionId, u64)> {
        if !kept(Rule::ExclusiveRecalled) {
            return Vec::new();
        }
        let (author, began) = claim.author;
        let spares = claim.names_in(dir) || claim.exclusive == Some(dir);
        let key = Key::Exclusive(dir);
        if let Some(by) = by.filter(|by| by.closed.contains(&key)) {
            self.give_back(dir, by);
        }
        let own = |held: &super::Held| {
            spares && author == Some(held.session) && held.is_older_than(began)
        };
        let waits = self.recall(&key, own, now_ms);
        let new = waits.iter().filter(|w| w.is_new).map(|w| w.session);
        let from = new.filter(|from| Some(*from) != author).collect::<Vec<_>>();
        if !from.is_empty() {
            self.cooling.changed(&key, author, from.into_iter(), now_ms);
        }
        waits.iter().map(|w| (w.session, w.number)).collect()
    }

    /// Takes back what the author of a change says that it has given up for it.
    fn give_back(&mut self, dir: Ino, by: &Author) {
        let alone = self.keys.alone(dir, by.session);
        let older = alone.filter(|held| held.is_older_than(by.began));
        let Some(order) = older.map(|held| held.order) else {
            return;
        };
        let key = Key::Exclusive(dir);
        if let Some(of) = self.sessions.get_mut(&by.session) {
            of.let_go(order, &key);
        }
        self.keys.drop_holder(&key, by.session);
    }

    // -- reads of others ------------------------------------------------------------

    /// Returns the number to give to [`Table::may_show`], before a read of the state.
    pub fn read_begins(&self) -> u64 {
        self.keys.exclusives.clock()
    }

    /// Whether a session may be shown these keys by a read that began with that number. False:
    /// somebody else uses a directory of them alone, or did when the state was read; read again
    /// after a [`Table::visit`].
    pub fn may_show(&self, session: SessionId, keys: &[Key], began: u64) -> bool {
        let exclusives = &self.keys.exclusives;
        let any = exclusives.any() || exclusives.is_any_being_made();
        if !any && exclusives.clock() == began {
            return true;
        }
        let mut dirs = keys.iter().map(Key::ino);
        !dirs.any(|dir| self.is_hidden(dir, session) || exclusives.ended_since(dir, began))
    }

    /// Whether something in a directory may be known to one other session alone.
    fn is_hidden(&self, dir: Ino, session: SessionId) -> bool {
        self.keys.is_alone_elsewhere(dir, session) || is_being_made(&self.keys, &self.claims, dir)
    }

    /// Whether something is being made in a directory that the claim is to show: its lease may
    /// have run out, and it is not in the state yet.
    pub(super) fn is_making_for(&self, claim: &Claim) -> bool {
        let mut visits = claim.visits.iter();
        visits.any(|dir| is_being_made(&self.keys, &self.claims, *dir))
    }

    /// Has others give up the directories of these keys, which a session is to be shown. Wait
    /// until the claim is [ready](Table::ready), and end it.
    pub fn visit(&mut self, session: SessionId, keys: &[Key], now_ms: u64) -> ClaimId {
        self.lapse(now_ms);
        let id = ClaimId(self.number());
        let mut claim = Claim::new(Some(session), 0, Turn::Early, None);
        let dirs: BTreeSet<Ino> = keys.iter().map(Key::ino).collect();
        for dir in dirs
            .into_iter()
            .filter(|dir| self.is_hidden(*dir, session))
            .collect::<Vec<_>>()
        {
            let waits = self.end_exclusive(dir, &claim, None, now_ms);
            claim.waits.extend(waits);
            claim.visits.push(dir);
        }
        self.claims.insert(id, claim);
        id
    }
}

#[cfg(test)]
mod tests;
