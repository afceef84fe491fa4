//! The holder's cache: what a mount may answer by itself.
//!
//! ```text
//!  query    ask() -> Token -> leader -> keep_*(token, grant, ...)   kept, or used once
//!  change   begin(keys) -> Change -> leader -> end(change, outcome)
//!  recall   recall(...) -> acknowledge with the next poll
//!  lease    beat() -> Beat -> leader -> beat_answered(beat, ...)
//! ```
//!
//! All of it is called under one lock. A value that was found counts at the moment at which
//! the lock was held with the time that was passed in.

mod ahead;
mod alone;
mod changes;
mod complete;
mod exclusives;
mod lent;
mod loans;
mod order;
mod own;
mod stamps;

use crate::rules::{Rule, kept};
use crate::second_chance::SecondChance;
use crate::times::LEASE_MS;
pub use ahead::Ahead;
use changes::{Changes, Lost};
pub use complete::NAME_ROW_BYTES;
use complete::{Complete, Listing};
use exclusives::Exclusives;
pub use exclusives::{LOCAL_MAX, Made};
use lagan_types::lease::{Found, Key, Name, NameRef};
use lagan_types::{Ino, SessionId};
use lent::Lent;
pub use lent::{Loan, Way};
pub use order::NEAR;
use order::{Order, Recent};
use stamps::Stamps;
use std::collections::HashSet;
use std::sync::Arc;

/// The bounds of a cache, in bytes as far as names count, else in entries.
#[derive(Debug, Clone)]
pub struct CacheBounds {
    /// Most inodes.
    pub inodes_max: usize,
    /// Most bytes of names, each with [`NAME_ROW_BYTES`].
    pub names_bytes_max: usize,
    /// Most bytes of names in complete directories, each with [`NAME_ROW_BYTES`].
    pub directories_bytes_max: usize,
    /// Most bytes of names whose order is remembered, each with [`NAME_ROW_BYTES`].
    pub orders_bytes_max: usize,
    /// Looks at an inode in a fifth of a second from which on its attributes are lent to the
    /// kernel.
    pub hot: u32,
}

impl Default for CacheBounds {
    fn default() -> Self {
        CacheBounds {
            inodes_max: 32_768,
            names_bytes_max: 5 << 20,
            directories_bytes_max: 16 << 20,
            orders_bytes_max: 16 << 20,
            hot: 4,
        }
    }
}

/// A query that is under way. It may be dropped at any time.
#[derive(Debug, Clone, Copy)]
pub struct Token {
    number: u64,
}

impl Token {
    /// Returns the number that the leader is told with the query.
    pub fn number(self) -> u64 {
        self.number
    }
}

/// An own change that is under way. Give it back to [`Holder::end`], whatever happened:
/// until then nothing is kept of its keys.
#[must_use = "its keys stay closed until it is ended"]
#[derive(Debug)]
pub struct Change {
    began: u64,
    keys: Vec<Key>,
}

impl Change {
    /// Returns the number that the leader is told with the change.
    pub fn began(&self) -> u64 {
        self.began
    }

    /// Returns the keys that were closed for it.
    pub fn keys(&self) -> &[Key] {
        &self.keys
    }
}

/// Something that the answer to a change proves.
#[derive(Debug, Clone)]
pub enum Fact<A> {
    /// The attributes of an inode.
    Inode(Ino, A),
    /// What a name leads to.
    Name(Name, Found),
    /// A new directory, in which no name is.
    Empty(Ino),
}

impl<A> Fact<A> {
    /// Returns the key that it is about.
    fn key(&self) -> Key {
        match self {
            Fact::Inode(ino, _) => Key::Inode(*ino),
            Fact::Name(name, _) => Key::Name(name.clone()),
            Fact::Empty(dir) => Key::Directory(*dir),
        }
    }
}

/// How an own change ended.
#[derive(Debug)]
pub enum Outcome<A> {
    /// It was carried out.
    Done {
        /// The term of the leader that answered.
        term: u64,
        /// The keys that this leader leased ([`crate::Table::end`]).
        leased: Vec<Key>,
        /// The state after it.
        facts: Vec<Fact<A>>,
        /// The directory that is this mount's alone from now on ([`crate::Table::grant`]).
        exclusive: Option<Ino>,
    },
    /// It was refused, and changed nothing.
    Nothing,
    /// It was carried out, and nothing is known of the state after it.
    Unproven,
    /// Nobody knows whether it was or will be carried out.
    Unknown,
}

/// A heartbeat that is under way.
#[derive(Debug, Clone, Copy)]
pub struct Beat {
    /// The session that it is of.
    pub session: SessionId,
    /// The newest term that is known: nothing is held of an earlier one.
    pub term: u64,
    sent_ms: u64,
}

/// Attributes of an inode.
pub trait Attributes {
    /// Returns these attributes of a directory, which a leader has shown, with what files have
    /// done to it that this mount made there by itself and that are in `shown`.
    fn over(self, shown: &Self) -> Self;
}

/// The cache of one mount; `A` are the attributes of an inode.
#[derive(Debug)]
pub struct Holder<A> {
    session: SessionId,
    term: u64,
    lease_end_ms: u64,
    inodes: SecondChance<Ino, A>,
    names: SecondChance<Name, Found>,
    directories: SecondChance<Ino, Complete>,
    /// The order of names, where it is known.
    orders: SecondChance<Ino, Order>,
    changes: Changes,
    stamps: Stamps,
    /// When an own change of a name in each directory began last.
    own_names: Stamps,
    recent: Recent,
    lost: Lost,
    lent: Lent,
    exclusives: Exclusives<A>,
}

impl<A: Attributes> Holder<A> {
    /// Makes the empty cache of a session.
    pub fn new(session: SessionId, bounds: &CacheBounds) -> Self {
        Holder {
            session,
            term: 0,
            lease_end_ms: 0,
            inodes: SecondChance::new(bounds.inodes_max),
            names: SecondChance::new(bounds.names_bytes_max),
            directories: SecondChance::new(bounds.directories_bytes_max),
            orders: SecondChance::new(bounds.orders_bytes_max),
            changes: Changes::default(),
            stamps: Stamps::default(),
            own_names: Stamps::default(),
            recent: Recent::default(),
            lost: Lost::default(),
            lent: Lent::new(bounds.hot),
            exclusives: Exclusives::default(),
        }
    }

    /// Returns how many inodes, names and complete directories it holds, and of how many
    /// keys own changes are under way.
    pub fn size(&self) -> [usize; 4] {
        let (names, directories) = (self.names.len(), self.directories.len());
        [self.inodes.len(), names, directories, self.changes.len()]
    }

    /// Returns the session.
    pub fn session(&self) -> SessionId {
        self.session
    }

    /// Returns the newest term that is known.
    pub fn term(&self) -> u64 {
        self.term
    }

    // -- the lease ------------------------------------------------------------

    /// Whether the cache may be used at that time, on the mount's monotonic clock, which
    /// goes on while the machine is suspended.
    pub fn is_valid(&self, now_ms: u64) -> bool {
        now_ms < self.lease_end_ms || !kept(Rule::LeaseEndHonoured)
    }

    /// Begins a heartbeat, which is sent at that time.
    pub fn beat(&self, now_ms: u64) -> Beat {
        Beat {
            session: self.session,
            term: self.term,
            sent_ms: now_ms,
        }
    }

    /// Takes the answer to a heartbeat: the leader's term, and whether it gave a lease.
    pub fn beat_answered(&mut self, beat: &Beat, term: u64, leased: bool, now_ms: u64) {
        self.learn_term(term);
        let same = beat.session == self.session && term == self.term;
        if !same || !leased {
            return;
        }
        if now_ms >= self.lease_end_ms && kept(Rule::LapseDropsAll) {
            // The leader may have forgotten what was held before.
            self.drop_all();
        }
        let from_ms = match kept(Rule::LeaseFromSending) {
            true => beat.sent_ms,
            false => now_ms,
        };
        self.lease_end_ms = self.lease_end_ms.max(from_ms.saturating_add(LEASE_MS));
    }

    /// Learns the term of a leader. Everything of an earlier term is dropped.
    pub fn learn_term(&mut self, term: u64) {
        if term <= self.term {
            return;
        }
        self.term = term;
        if kept(Rule::TermDropsAll) {
            self.lease_end_ms = 0;
            self.drop_all();
        }
    }

    /// Goes on with another session, and drops everything of the one before.
    pub fn replace_session(&mut self, session: SessionId) {
        self.session = session;
        // Changes of a session that has ended are refused.
        self.lost = Lost::default();
        self.exclusives.local.clear();
        self.exclusives.given_up = Lost::default();
        self.lease_end_ms = 0;
        self.drop_all();
    }

    /// Forgets everything, and goes on without a lease.
    pub fn let_go(&mut self) {
        self.lease_end_ms = 0;
        self.drop_all();
    }

    fn drop_all(&mut self) {
        self.inodes.clear();
        self.names.clear();
        self.directories.clear();
        self.orders.clear();
        if kept(Rule::LapseEndsExclusive) {
            self.exclusives.dropped += 1;
            self.exclusives.dirs.clear();
        }
        self.lent.cool_all();
        self.changes.cross_all();
        self.stamps.close_all();
    }

    // -- answers ----------------------------------------------------------------

    /// Returns the attributes of an inode; `None`: ask.
    pub fn inode(&mut self, ino: Ino, now_ms: u64) -> Option<&A> {
        if !self.is_valid(now_ms) {
            return None;
        }
        if let Some(attr) = self.exclusives.dirs.get(&ino) {
            return Some(attr);
        }
        self.inodes.get(&ino)
    }

    /// Returns what a name leads to; `None`: ask.
    pub fn name(&mut self, dir: Ino, name: &[u8], now_ms: u64) -> Option<Found> {
        if !self.is_valid(now_ms) {
            return None;
        }
        self.note_look(dir, name);
        if let Some(found) = self.names.get(&(dir, name) as &dyn NameRef) {
            return Some(*found);
        }
        let complete = self.complete(dir)?;
        if complete.doubtful.contains(name) {
            return None;
        }
        let found = complete.names.get(name).copied().into();
        if !self.changes.is_empty() && self.changes.contains(&Key::name(dir, name)) {
            return None;
        }
        Some(found)
    }

    fn complete(&mut self, dir: Ino) -> Option<&Complete> {
        let complete = self.directories.get(&dir)?;
        complete.listing.is_none().then_some(complete)
    }

    /// Whether all names of a directory are known, but for single ones.
    pub fn is_complete(&mut self, dir: Ino, now_ms: u64) -> bool {
        self.is_valid(now_ms) && self.complete(dir).is_some()
    }

    // -- queries ------------------------------------------------------------------

    /// Begins a query, before it is sent.
    pub fn ask(&mut self) -> Token {
        Token {
            number: self.stamps.number(),
        }
    }

    /// Begins a listing of all names of a directory, before its first page is asked for; `None`:
    /// they are known, or an own change of one may still be carried out, which nobody would follow.
    pub fn list(&mut self, dir: Ino) -> Option<Token> {
        let lost = self.lost.has(dir) && kept(Rule::LostNamesUnlisted);
        if lost || self.exclusives.given_up.has(dir) || self.complete(dir).is_some() {
            return None;
        }
        let token = self.ask();
        let mut complete = Complete::new(u64::MAX);
        complete.listing = Some(Listing {
            token: token.number,
            followed: HashSet::new(),
        });
        let bytes = complete.bytes;
        self.directories.insert(dir, complete, bytes);
        Some(token)
    }

    /// Whether it is worth to have the leader register interest in the key. While an own
    /// change of the key is under way it is not: the change would recall it again.
    pub fn wants(&self, key: &Key, now_ms: u64) -> bool {
        self.is_valid(now_ms) && !self.changes.contains(key)
    }

    /// Whether what a query showed of the key may be kept. `leased` is the term of the
    /// leader that registered the interest before it looked; `None`: it did not.
    fn may_keep(&mut self, token: Token, key: &Key, leased: Option<u64>, now_ms: u64) -> bool {
        if let Some(term) = leased {
            self.learn_term(term);
        }
        let leased = leased == Some(self.term) || !kept(Rule::GrantNeeded);
        let leased = leased && !self.exclusives.given_up.has(key.ino());
        let open = self.stamps.is_open_since(key, token.number) || !kept(Rule::TokenChecked);
        leased && open && self.is_valid(now_ms)
    }

    /// Keeps the attributes that a query showed, if that may be. Returns whether it did.
    pub fn keep_inode(
        &mut self,
        token: Token,
        leased: Option<u64>,
        (ino, attr): (Ino, A),
        now_ms: u64,
    ) -> bool {
        let keep = self.may_keep(token, &Key::Inode(ino), leased, now_ms)
            && !self.exclusives.dirs.contains_key(&ino);
        if keep {
            self.inodes.insert(ino, attr, 1);
        }
        keep
    }

    /// Keeps what a query showed of a name, if that may be. Returns whether it did.
    pub fn keep_name(
        &mut self,
        token: Token,
        leased: Option<u64>,
        (name, found): (Name, Found),
        now_ms: u64,
    ) -> bool {
        let keep = self.may_keep(token, &Key::Name(name.clone()), leased, now_ms);
        if keep {
            self.insert_name(name, found);
        }
        keep
    }

    fn insert_name(&mut self, name: Name, found: Found) {
        let bytes = NAME_ROW_BYTES + name.name.len();
        self.names.insert(name, found, bytes);
    }

    /// Keeps all names of a directory, if that may be: they were read after the leader had
    /// registered the interest, all of them by queries with this token of
    /// [`Holder::list`]. Returns whether it did. Their order is remembered in any case.
    pub fn keep_directory(
        &mut self,
        token: Token,
        leased: Option<u64>,
        dir: Ino,
        names: impl IntoIterator<Item = (Arc<[u8]>, Ino)>,
        now_ms: u64,
    ) -> bool {
        let names: Vec<(Arc<[u8]>, Ino)> = names.into_iter().collect();
        self.keep_order(dir, Order::new(names.iter().cloned()));
        let may = self.may_keep(token, &Key::Directory(dir), leased, now_ms);
        let is_of = |complete: &Complete| {
            let listing = complete.listing.as_ref();
            listing.is_some_and(|listing| listing.token == token.number)
        };
        if !self.directories.get(&dir).is_some_and(is_of) {
            return false;
        }
        let Some(mut complete) = self.directories.remove(&dir).filter(|_| may) else {
            return false;
        };
        complete.since = self.stamps.number();
        let followed = complete.listing.take().map(|listing| listing.followed);
        let followed = followed.unwrap_or_default();
        for (name, ino) in names {
            if !followed.contains(&*name) {
                complete.set(&name, Found::Inode(ino));
            }
        }
        let bytes = complete.bytes;
        self.directories.insert(dir, complete, bytes);
        true
    }

    // -- recalls --------------------------------------------------------------------

    /// Closes the keys of a poll's answer, which the leader of that term gave to that session.
    /// True: they are closed, acknowledge them when their loans ([`Holder::loans_of`]) have
    /// come back. False: it is of another session or an earlier term, and nothing to
    /// acknowledge.
    pub fn recall(&mut self, session: SessionId, term: u64, keys: &[Key]) -> bool {
        self.learn_term(term);
        if session != self.session || term != self.term {
            return false;
        }
        for key in keys {
            self.close(key);
            self.changes.cross(key);
        }
        true
    }
}

#[cfg(test)]
mod tests;
