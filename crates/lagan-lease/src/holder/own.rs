//! Own changes: their keys are closed before they are sent, and their answers kept.

use super::complete::{Complete, DOUBTFUL_MAX, FOLLOWED_MAX};
use super::order::Order;
use super::{Attributes, Change, Fact, Holder, Outcome};
use crate::rules::{Rule, kept};
use lagan_types::Ino;
use lagan_types::lease::Key;

impl<A: Attributes> Holder<A> {
    /// Begins an own change: closes its keys, before it is sent. A complete directory stays
    /// so, but for the names that change. Their loans come back before it is sent
    /// ([`Holder::loans_of_change`]).
    pub fn begin(&mut self, keys: Vec<Key>) -> Change {
        for key in &keys {
            if kept(Rule::OwnChangeCloses) {
                self.close(key);
            }
            self.changes.begin(key);
            if let Some(dir) = key.directory() {
                self.own_names.close_at(&dir, self.stamps.number());
                self.changes.begin(&dir);
            }
        }
        Change {
            began: self.stamps.number(),
            keys,
        }
    }

    pub(super) fn close(&mut self, key: &Key) {
        match key {
            Key::Inode(ino) => {
                self.inodes.remove(ino);
                self.lent.cool(*ino);
            }
            Key::Name(name) => _ = self.names.remove(name),
            Key::Directory(dir) => _ = self.directories.remove(dir),
            Key::Exclusive(dir) => self.drop_alone(*dir),
        }
        self.stamps.close(key);
    }

    /// Ends an own change, and keeps what its answer proves.
    pub fn end(&mut self, change: Change, outcome: Outcome<A>, now_ms: u64) {
        let (done, leased, facts, exclusive) = match outcome {
            Outcome::Done {
                term,
                leased,
                facts,
                exclusive,
            } => {
                self.learn_term(term);
                let leased = if term == self.term {
                    leased
                } else {
                    Vec::new()
                };
                let exclusive = exclusive.filter(|_| term == self.term);
                (true, leased, facts, exclusive)
            }
            Outcome::Nothing => (false, Vec::new(), Vec::new(), None),
            Outcome::Unproven => (true, Vec::new(), Vec::new(), None),
            Outcome::Unknown => {
                self.lost.add(&change.keys);
                (true, Vec::new(), Vec::new(), None)
            }
        };
        let mut clean = Vec::new();
        for key in &change.keys {
            let uncrossed = self.changes.end(key);
            if uncrossed || !kept(Rule::OwnAnswerChecked) {
                clean.push(key);
            }
            match key {
                Key::Inode(ino) => self.lent.quieten(*ino, now_ms),
                Key::Name(name) => _ = self.changes.end(&Key::Directory(name.dir)),
                Key::Directory(_) | Key::Exclusive(_) => {}
            }
        }
        for fact in &facts {
            if let Fact::Name(name, found) = fact {
                self.follow_order(name.dir, &name.name, *found);
            }
        }
        if done {
            self.follow_names(&change, &clean, (&facts, &leased));
        }
        let valid = self.is_valid(now_ms);
        let shown = self.keep_facts(&change, &clean, (facts, &leased), now_ms);
        for key in change.keys.iter().filter(|_| done) {
            if let Key::Inode(ino) = key
                && !shown.contains(ino)
            {
                // What it has changed there is not known.
                self.drop_alone(*ino);
            }
        }
        if let Some(dir) = exclusive.filter(|dir| valid && shown.contains(dir)) {
            self.take_alone(dir, change.began, now_ms);
        }
    }

    /// Keeps what the answer to a change proves. Returns the inodes whose attributes are known
    /// now.
    fn keep_facts(
        &mut self,
        change: &Change,
        clean: &[&Key],
        (facts, leased): (Vec<Fact<A>>, &[Key]),
        now_ms: u64,
    ) -> Vec<Ino> {
        let valid = self.is_valid(now_ms);
        let mut shown = Vec::new();
        for fact in facts {
            let key = fact.key();
            // What it made was not known when it began, and could not be closed: its answer
            // shows that as the answer to a query does.
            let proven = match change.keys.contains(&key) {
                true => clean.contains(&&key),
                false => self.stamps.is_open_since(&key, change.began) || !kept(Rule::TokenChecked),
            };
            // It is new, but somebody here may have found it sooner.
            let proven = match key {
                Key::Directory(_) => proven && self.own_names.is_open_since(&key, change.began),
                Key::Inode(_) | Key::Name(_) | Key::Exclusive(_) => proven,
            };
            let proven = proven && !self.exclusives.given_up.has(key.ino());
            if !valid || !leased.contains(&key) || !proven {
                continue;
            }
            match fact {
                Fact::Inode(ino, attr) => {
                    shown.push(ino);
                    match self.exclusives.dirs.contains_key(&ino) {
                        true => self.learn_alone(ino, attr),
                        false => self.inodes.insert(ino, attr, 1),
                    }
                }
                Fact::Name(name, found) => self.insert_name(name, found),
                Fact::Empty(dir) => {
                    let complete = Complete::new(self.stamps.number());
                    let bytes = complete.bytes;
                    self.directories.insert(dir, complete, bytes);
                    self.keep_order(dir, Order::new([]));
                }
            }
        }
        shown
    }

    /// Has complete directories, and listings, follow a change of names in them. A name that is
    /// in doubt now stays so: the change may still be carried out. Of the others all is known
    /// as before.
    fn follow_names(
        &mut self,
        change: &Change,
        clean: &[&Key],
        (facts, leased): (&[Fact<A>], &[Key]),
    ) {
        for key in &change.keys {
            let Key::Name(name) = key else {
                continue;
            };
            let Some(mut complete) = self.directories.remove(&name.dir) else {
                continue;
            };
            let fact = facts.iter().find_map(|fact| match fact {
                Fact::Name(of, found) if of == name => Some(*found),
                _ => None,
            });
            let fact = fact.filter(|_| clean.contains(&key));
            let all = Key::Directory(name.dir);
            // What the leader says counts for a listing of before the answer, too, unless that
            // was recalled since.
            let listed = leased.contains(&all) && self.stamps.is_open_since(&all, change.began);
            let claimed_since = change.began >= complete.since || listed;
            let fact = fact.filter(|_| claimed_since || !kept(Rule::ListingFollowsClaimed));
            if let Some(listing) = &mut complete.listing
                && kept(Rule::ListingFollowsOwnNames)
            {
                if listing.followed.len() >= FOLLOWED_MAX {
                    // Perhaps nobody goes on with it.
                    continue;
                }
                listing.followed.insert(name.name.as_ref().into());
            }
            match fact {
                Some(found) => complete.set(&name.name, found),
                None if !kept(Rule::DoubtfulNamesHidden) => {}
                None if complete.doubtful.len() >= DOUBTFUL_MAX => continue,
                None => _ = complete.doubtful.insert(name.name.clone()),
            }
            let bytes = complete.bytes;
            self.directories.insert(name.dir, complete, bytes);
        }
    }
}
