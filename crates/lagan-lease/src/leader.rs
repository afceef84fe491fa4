//! The leader's table: who may remember what, and what must be closed before a change.
//!
//! One table is for one term. Each call returns at once; its caller waits, proposes and
//! answers. After any call, [`Table::take_woken`] names the sessions whose poll has something
//! to tell, and [`Table::take_progress`] says whether claims that wait should look again.
//!
//! ```text
//!  query     register(key) -> read the state -> answer, with the grant
//!  mutation  claim(keys) -> wait until ready -> propose -> applied -> end -> answer
//!                 \-> recalls -> poll of each holder -> acknowledged, or its lease ended
//! ```
//!
//! Claims of names are exclusive, first come, first served: what a name leads to does not
//! change under a claim, so the inodes that a change touches can be found out. Those of
//! inodes and directories are shared: the log orders the changes of them, and many creates
//! in one directory go on at the same time.

mod alone;
mod changes;
mod claims;
mod cooling;
mod exclusives;
mod hold;
mod sessions;

use crate::rules::{Rule, kept};
pub use claims::{Author, ClaimId, Turn};
use claims::{Claim, Held, Keys, is_being_made};
use cooling::Cooling;
use hold::Hold;
use lagan_types::SessionId;
use lagan_types::lease::Key;
use sessions::{HeldMax, Session};
use std::collections::{BTreeMap, BTreeSet};

/// Most keys in one answer to a poll.
pub const RECALLS_PAGE_MAX: usize = 1_024;

/// The bounds of a table.
#[derive(Debug, Clone)]
pub struct Bounds {
    /// Most inodes that one session may hold.
    pub inodes_max: usize,
    /// Most names that one session may hold.
    pub names_max: usize,
    /// Most complete directories that one session may hold.
    pub directories_max: usize,
    /// Most directories that one session may use alone.
    pub exclusives_max: usize,
    /// Most bytes that the table spends on the keys of one session.
    pub session_bytes_max: usize,
    /// With more unacknowledged recalls a session is granted nothing.
    pub recalls_max: usize,
    /// Time without a foreign change after which a recalled key is granted again.
    pub cool_min_ms: u64,
    /// Longest such time: it doubles with each recall.
    pub cool_max_ms: u64,
    /// Most bytes that the table spends on remembering changes.
    pub cooling_bytes_max: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Bounds {
            inodes_max: 32_768,
            names_max: 32_768,
            directories_max: 4_096,
            exclusives_max: 1_024,
            session_bytes_max: 16 << 20,
            recalls_max: 4_096,
            cool_min_ms: 1_000,
            cool_max_ms: 60_000,
            cooling_bytes_max: 8 << 20,
        }
    }
}

/// Whether a claim is ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ready {
    /// Nobody else remembers what it changes: propose.
    Now,
    /// Look again after the next call that changes the table, or at this time.
    At {
        /// The time, on the clock that the table is told; `u64::MAX`: only after a call.
        ms: u64,
    },
}

/// The outcome of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It was carried out.
    Done,
    /// It was refused, or not proposed: nothing was changed, nor will be. Or it had been
    /// carried out before, and the answer was remembered: it may show an older state.
    Nothing,
    /// Nobody knows whether it was or will be carried out.
    Unknown,
}

/// Recalls for a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recalls {
    /// The number to acknowledge when all of them are closed.
    pub number: u64,
    /// The keys to close.
    pub keys: Vec<Key>,
}

/// How much a table holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Size {
    /// Sessions.
    pub sessions: usize,
    /// Keys that somebody holds or claims.
    pub keys: usize,
    /// Keys that sessions hold, each counted once for each session.
    pub held: usize,
    /// Recalls that are not acknowledged.
    pub recalls: usize,
    /// Claims that have not ended.
    pub claims: usize,
    /// Recalls so far.
    pub recalled: u64,
}

/// An acknowledgement that a claim waits for.
#[derive(Debug, Clone, Copy)]
struct Wait {
    session: SessionId,
    number: u64,
    /// The recall was queued just now, not before.
    is_new: bool,
}

/// The leases of one term.
#[derive(Debug)]
pub struct Table {
    term: u64,
    bounds: Bounds,
    hold: Hold,
    sessions: BTreeMap<SessionId, Session>,
    keys: Keys,
    claims: BTreeMap<ClaimId, Claim>,
    cooling: Cooling,
    /// The last number given to a registration, recall or claim.
    last: u64,
    /// Recalls so far.
    recalled: u64,
    /// No lease ends before this.
    next_end_ms: u64,
    woken: BTreeSet<SessionId>,
    /// A claim that waited may be ready.
    progress: bool,
}

impl Table {
    /// Makes the table of the term in which this node leads from now on.
    pub fn new(term: u64, bounds: Bounds, now_ms: u64) -> Self {
        let (cool_min, cool_max) = (bounds.cool_min_ms, bounds.cool_max_ms);
        Table {
            term,
            hold: Hold::new(now_ms),
            sessions: BTreeMap::new(),
            keys: Keys::default(),
            claims: BTreeMap::new(),
            cooling: Cooling::new(bounds.cooling_bytes_max, cool_min, cool_max),
            // Numbers of different terms differ: none of one is taken for another's.
            last: (term & 0xffff_ffff) << 32,
            recalled: 0,
            next_end_ms: u64::MAX,
            woken: BTreeSet::new(),
            progress: false,
            bounds,
        }
    }

    /// Returns the term.
    pub fn term(&self) -> u64 {
        self.term
    }

    /// Returns how much it holds.
    pub fn size(&self) -> Size {
        let sessions = self.sessions.values();
        Size {
            sessions: self.sessions.len(),
            keys: self.keys.len(),
            held: sessions.clone().map(Session::held_count).sum(),
            recalls: sessions.map(Session::recalls_count).sum(),
            claims: self.claims.len(),
            recalled: self.recalled,
        }
    }

    /// Takes the sessions that have something to hear since the last call.
    pub fn take_woken(&mut self) -> BTreeSet<SessionId> {
        std::mem::take(&mut self.woken)
    }

    /// Whether a claim that waited may be ready since the last call.
    pub fn take_progress(&mut self) -> bool {
        std::mem::take(&mut self.progress)
    }

    fn number(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    // -- sessions -------------------------------------------------------------

    /// Notes that the session knows the term, and holds no lease of an earlier one.
    pub fn knows(&mut self, session: SessionId, term: u64) {
        if term == self.term {
            self.hold.knows(session);
        }
    }

    /// Notes that the session, which knows the term, holds nothing of an earlier one: no
    /// lease, no promise.
    pub fn settle(&mut self, session: SessionId, term: u64) {
        if term == self.term || !kept(Rule::SettledKnowsTerm) {
            self.hold.settle(session);
        }
    }

    /// Ends the hold if all these have settled. They are the sessions that live, read
    /// linearizably in this term: the state that a new leader has at first may lack some.
    pub fn end_hold_if_settled(&mut self, live: &[SessionId]) {
        self.progress |= self.hold.end_if_settled(live);
    }

    /// Returns the milliseconds until the hold is over if nobody settles; 0: it is over.
    pub fn hold_left_ms(&mut self, now_ms: u64) -> u64 {
        self.hold.left_ms(now_ms)
    }

    /// Renews a session's lease after a heartbeat that was received then. Call it when a read barrier that began after the receipt has passed: so no
    /// other leader's hold had begun before the heartbeat came. Returns whether the session
    /// has a lease that counts from this heartbeat.
    pub fn renew(&mut self, session: SessionId, received_ms: u64, now_ms: u64) -> bool {
        self.lapse(now_ms);
        let last = self.last;
        let of = self.sessions.entry(session);
        let of = of.or_insert_with(|| Session::new(last));
        let (keys, claims) = (&self.keys, &self.claims);
        let is_making = |dir| is_being_made(keys, claims, dir);
        let renewed = of.renew(received_ms, now_ms, is_making);
        self.next_end_ms = self.next_end_ms.min(of.end_ms);
        renewed
    }

    /// Gives the session no lease any more and returns the milliseconds until it has
    /// none. Call it before a session is ended or replaced, and propose that after this
    /// time: then no session that is gone from the state has a lease, and a later leader
    /// need not wait for it.
    pub fn retire(&mut self, session: SessionId, now_ms: u64) -> u64 {
        let last = self.last;
        let of = self.sessions.entry(session);
        let of = of.or_insert_with(|| Session::new(last));
        of.retired = true;
        let left_ms = of.end_ms.saturating_sub(now_ms);
        let settled = self.hold.has_settled(session);
        left_ms.max(if settled {
            0
        } else {
            self.hold.left_ms(now_ms)
        })
    }

    /// Notes that a session was ended or replaced. What it holds counts until its lease
    /// ends: a mount that was remounted may still be there.
    pub fn session_ended(&mut self, session: SessionId, now_ms: u64) {
        if let Some(of) = self.sessions.get_mut(&session) {
            of.retired = true;
            of.ended = true;
            if !kept(Rule::EndedSessionCounts) {
                of.end_ms = now_ms;
            }
            self.next_end_ms = self.next_end_ms.min(of.end_ms);
        }
        self.lapse(now_ms);
    }

    /// Notes that a session holds nothing any more, and will not: it says so itself.
    pub fn let_go(&mut self, session: SessionId, now_ms: u64) {
        if let Some(of) = self.sessions.get_mut(&session) {
            of.retired = true;
            of.end_ms = now_ms;
            self.next_end_ms = now_ms;
        }
        self.lapse(now_ms);
    }

    /// Notes that only these sessions live: the others were ended in whatever way. Numbers
    /// rise, so a higher one is of a session that was opened since the state was read.
    pub fn keep_sessions(&mut self, live: &[SessionId], now_ms: u64) {
        let last = live.iter().max();
        let is_gone = |s: &&SessionId| !live.contains(s) && Some(*s) < last;
        let gone = self.sessions.keys().filter(is_gone);
        for session in gone.copied().collect::<Vec<_>>() {
            self.session_ended(session, now_ms);
        }
    }

    /// Forgets what sessions hold whose leases have ended. Other calls do so too: this one
    /// is for a table that nobody uses.
    pub fn lapse(&mut self, now_ms: u64) {
        if now_ms < self.next_end_ms {
            return;
        }
        let last = self.last;
        for (session, of) in &mut self.sessions {
            if of.is_valid(now_ms) {
                continue;
            }
            for key in of.lapse(last) {
                self.keys.drop_holder(&key, *session);
                self.progress = true;
            }
        }
        self.sessions
            .retain(|_, of| !of.ended || of.is_valid(now_ms));
        let valid = self.sessions.values().map(|of| of.end_ms);
        let next = valid.filter(|end| *end > now_ms).min();
        self.next_end_ms = next.unwrap_or(u64::MAX);
    }

    // -- queries --------------------------------------------------------------

    /// Registers a session's interest in a key, for a query that its mount asked with that
    /// number ([`crate::Token::number`]). True: it may keep what a read that begins after
    /// this call shows of the key. False: it may use it once.
    pub fn register(&mut self, session: SessionId, key: &Key, asked: u64, now_ms: u64) -> bool {
        self.lapse(now_ms);
        let bounds = &self.bounds;
        let Some(of) = self.sessions.get_mut(&session) else {
            return false;
        };
        let may = of.is_valid(now_ms) && !of.retired && of.recalls_count() < bounds.recalls_max;
        let claims = &self.claims;
        let stands = |id: &ClaimId| claims.get(id).is_none_or(|c| c.bars(key, session));
        let claimed = self.keys.claims(key).any(stands) && kept(Rule::RegisterRefusedWhileClaimed);
        if !may
            || claimed
            || self.is_alone_elsewhere(key, session)
            || !self.cooling.permits(key, session, now_ms)
        {
            return false;
        }
        self.insert(session, key, asked, now_ms);
        true
    }

    fn insert(&mut self, session: SessionId, key: &Key, asked: u64, now_ms: u64) {
        let order = self.number();
        let Some(of) = self.sessions.get_mut(&session) else {
            return;
        };
        if let Some(before) = self.keys.insert_holder(key, session, asked, order) {
            of.let_go(before, key);
        }
        of.hold(order, key);
        let max = HeldMax {
            keys: [
                self.bounds.inodes_max,
                self.bounds.names_max,
                self.bounds.directories_max,
                self.bounds.exclusives_max,
            ],
            bytes: self.bounds.session_bytes_max,
        };
        while let Some(surplus) = self.sessions.get(&session).and_then(|of| of.surplus(&max)) {
            let only = |held: &Held| held.session != session;
            if !self.recall(&surplus, only, now_ms).iter().any(|w| w.is_new) {
                break;
            }
        }
    }

    // -- polls ----------------------------------------------------------------

    /// Takes a session's acknowledgement of all recalls up to `acked`, of that term, and
    /// returns those that it has not acknowledged, handed out before or not; `None`: there
    /// are none, ask again when it is woken.
    pub fn poll(
        &mut self,
        session: SessionId,
        term: u64,
        acked: u64,
        now_ms: u64,
    ) -> Option<Recalls> {
        if term != self.term {
            return None;
        }
        self.lapse(now_ms);
        let of = self.sessions.get_mut(&session)?;
        for recall in of.acknowledge(acked) {
            self.progress = true;
            self.keys.drop_recalled(&recall.key, session, recall.number);
        }
        let (number, keys) = of.hand_out(RECALLS_PAGE_MAX)?;
        Some(Recalls { number, keys })
    }
}

#[cfg(test)]
mod tests;
