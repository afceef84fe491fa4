//! What this mount remembers of names and attributes, and may answer by itself.
//!
//! The rules are `lagan-lease`'s; this file gives its [`Holder`] time, values and a lock. What
//! is remembered is what the leader showed: what this mount wrote and has not committed is
//! put over it elsewhere, as over an answer.
//!
//! Nothing here waits, and nothing is remembered unless the leader said that it may be.

mod alone;
mod own;
mod supply;

use crate::leader::looks::Looks;
use lagan_host::boot::boot_time;
use lagan_lease::{Ahead, Beat, CacheBounds, Holder, Loan, NEAR, Token, Way};
use lagan_types::lease::{Found, Key, Leased, Name, Wish};
use lagan_types::limits::{ATTRS_PAGE_MAX, OPENS_PAGE_MAX};
use lagan_types::message::{Recalls, SessionHeard};
use lagan_types::query::{DirPage, Opened, QueryAnswer};
use lagan_types::{Attr, FsError, Ino, Kind, Query, Refusal, SessionId, Time};
pub(crate) use own::OwnChange;
use parking_lot::Mutex;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use supply::Supply;
use tokio::sync::Notify;

/// Time without a look into the cache after which the lease is let run out: an idle mount
/// asks for none.
const IDLE_MS: u64 = 10_000;
/// Most names that are looked for ahead at a time, beside those that were passed over.
const AHEAD_MAX: usize = 64;
/// Most files that are opened ahead at a time, beside those that were passed over.
const OPENS_MAX: usize = 32;
const _: () = assert!(AHEAD_MAX + NEAR < ATTRS_PAGE_MAX && OPENS_MAX + NEAR < OPENS_PAGE_MAX);
/// Most extents that are remembered with a file.
const EXTENTS_MAX: usize = 4;
/// Most names of a directory that are remembered as a whole.
const LISTING_MAX: usize = 65_536;

/// What is remembered of an inode.
#[derive(Debug, Clone)]
struct Shown {
    attr: Attr,
    /// What an open found, if that is known too.
    opened: Option<Arc<Opened>>,
    /// Of a directory of this mount's alone: when it made the last file there.
    made: Option<Time>,
}

impl From<&Attr> for Shown {
    fn from(attr: &Attr) -> Self {
        Shown {
            attr: attr.clone(),
            opened: None,
            made: None,
        }
    }
}

impl From<&Opened> for Shown {
    fn from(opened: &Opened) -> Self {
        let small = !opened.more && opened.extents.len() <= EXTENTS_MAX;
        Shown {
            attr: opened.attr.clone(),
            opened: small.then(|| Arc::new(opened.clone())),
            made: None,
        }
    }
}

/// A query that is under way, of which the answer may be remembered.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked {
    token: Token,
}

/// A listing under way, page by page.
#[derive(Debug)]
pub(crate) struct Listing {
    asked: Asked,
    /// The term of the leader that registered it.
    leased: Option<u64>,
    names: Vec<(Arc<[u8]>, Ino)>,
    /// Its next page begins after this cookie.
    after: u64,
}

/// The cache of one mount.
#[derive(Debug)]
pub(crate) struct Leases {
    /// `None`: this mount remembers nothing.
    holder: Option<Mutex<Holder<Shown>>>,
    /// When it was looked into last.
    used_ms: AtomicU64,
    /// The session is about to be closed.
    closing: AtomicBool,
    /// Names that were looked up at the leader.
    looks: Mutex<Looks>,
    /// What files are made of.
    supply: Mutex<Supply>,
    /// The last recalls that were carried out: session, term, number.
    acked: Mutex<(SessionId, u64, u64)>,
    /// Notified when the mount begins to use its cache after a pause: for the heartbeats.
    beat_wanted: Notify,
    /// The same, for the polls.
    poll_wanted: Notify,
    /// Notified when another term or session begins.
    renewed: Notify,
}

/// The time on a clock that goes on while the machine sleeps, milliseconds; the end of all
/// time where there is none, so that no lease is valid.
pub(crate) fn now_ms() -> u64 {
    boot_time().map_or(u64::MAX, |time| time.as_millis() as u64)
}

impl Leases {
    /// Makes the empty cache of a session; with `enabled` false, one that stays empty.
    pub fn new(session: SessionId, enabled: bool) -> Self {
        Leases {
            holder: enabled.then(|| Mutex::new(Holder::new(session, &CacheBounds::default()))),
            used_ms: AtomicU64::new(now_ms()),
            closing: AtomicBool::new(false),
            looks: Mutex::default(),
            supply: Mutex::default(),
            acked: Mutex::new((session, 0, 0)),
            beat_wanted: Notify::new(),
            poll_wanted: Notify::new(),
            renewed: Notify::new(),
        }
    }

    fn note_use(&self, now_ms: u64) {
        let before = self.used_ms.swap(now_ms, Ordering::Relaxed);
        if now_ms.saturating_sub(before) > IDLE_MS {
            self.beat_wanted.notify_one();
            self.poll_wanted.notify_one();
        }
    }

    /// Whether the cache was used lately, so that its lease is worth renewing.
    pub fn is_active(&self) -> bool {
        let used_ms = self.used_ms.load(Ordering::Relaxed);
        let used = now_ms().saturating_sub(used_ms) <= IDLE_MS;
        used && self.holder.is_some() && !self.closing.load(Ordering::Acquire)
    }

    /// Whether something may be remembered just now, so that it may be recalled.
    pub fn is_valid(&self) -> bool {
        let holder = self.holder.as_ref();
        holder.is_some_and(|holder| holder.lock().is_valid(now_ms()))
    }

    /// Forgets everything, and remembers nothing from now on.
    pub fn close(&self) {
        self.closing.store(true, Ordering::Release);
        if let Some(holder) = &self.holder {
            holder.lock().let_go();
            self.renewed.notify_one();
        }
    }

    /// Returns when the cache is used after a pause: a heartbeat is due.
    pub async fn beat_wanted(&self) {
        self.beat_wanted.notified().await;
    }

    /// Returns when the cache is used after a pause: a poll is due.
    pub async fn poll_wanted(&self) {
        self.poll_wanted.notified().await;
    }

    // -- queries --------------------------------------------------------------

    /// Answers a query, if what it shows is remembered.
    pub fn find(&self, query: &Query) -> Option<Result<QueryAnswer, Refusal>> {
        let holder = self.holder.as_ref()?;
        if !matches!(query, Query::Lookup(_) | Query::GetAttr(_) | Query::Open(_)) {
            return None;
        }
        let now_ms = now_ms();
        self.note_use(now_ms);
        let mut holder = holder.lock();
        match query {
            Query::Lookup(q) => match holder.name(q.parent, &q.name, now_ms)? {
                Found::Absent => Some(Err(FsError::NotFound.into())),
                Found::Inode(ino) => {
                    let shown = holder.inode(ino, now_ms)?;
                    Some(Ok(QueryAnswer::Attr(shown.attr.clone())))
                }
            },
            Query::GetAttr(q) => {
                let shown = holder.inode(q.ino, now_ms)?;
                Some(Ok(QueryAnswer::Attr(shown.attr.clone())))
            }
            Query::Open(q) => {
                let opened = holder.inode(q.ino, now_ms)?.opened.as_ref()?;
                Some(Ok(QueryAnswer::Opened(Opened::clone(opened))))
            }
            _ => None,
        }
    }

    /// Begins a query whose answer may be remembered, before it is sent.
    pub fn ask(&self, query: &Query) -> Option<Asked> {
        let holder = self.holder.as_ref()?;
        let now_ms = now_ms();
        self.note_use(now_ms);
        let mut holder = holder.lock();
        let wants = match query {
            Query::Lookup(q) => holder.wants(&Key::name(q.parent, &q.name), now_ms),
            Query::GetAttr(q) => holder.wants(&Key::Inode(q.ino), now_ms),
            Query::Open(q) => holder.wants(&Key::Inode(q.ino), now_ms),
            Query::ReadDir(q) => q.attrs && holder.is_valid(now_ms),
            Query::GetAttrs(_) | Query::LookupAll(_) | Query::OpenAll(_) => holder.is_valid(now_ms),
            _ => false,
        };
        wants.then(|| Asked {
            token: holder.ask(),
        })
    }

    /// Remembers what the answer to a query shows, as far as the leader said that it may be.
    pub fn keep(
        &self,
        asked: Asked,
        query: &Query,
        answer: &Result<QueryAnswer, Refusal>,
        leased: &Leased,
    ) {
        let Some(holder) = &self.holder else {
            return;
        };
        let keys = query.keys(answer).into_iter().zip(&leased.keys);
        let keys: HashSet<Key> = keys.filter(|(_, may)| **may).map(|(key, _)| key).collect();
        let shown: Vec<Shown> = match answer {
            Ok(QueryAnswer::Attr(attr)) => vec![attr.into()],
            Ok(QueryAnswer::Attrs(attrs)) => attrs.iter().flatten().map(Shown::from).collect(),
            Ok(QueryAnswer::Opened(opened)) => vec![opened.into()],
            Ok(QueryAnswer::AllOpened(all)) => all.iter().flatten().map(Shown::from).collect(),
            Ok(QueryAnswer::Entries(page)) => {
                let attrs = page.entries.iter().filter_map(|entry| entry.attr.as_ref());
                attrs.map(Shown::from).collect()
            }
            _ => Vec::new(),
        };
        let names: Vec<(Name, Found)> = match (query, answer) {
            (Query::Lookup(q), Ok(QueryAnswer::Attr(attr))) => {
                vec![(Name::new(q.parent, &q.name), Found::Inode(attr.ino))]
            }
            (Query::Lookup(q), Err(_)) => vec![(Name::new(q.parent, &q.name), Found::Absent)],
            (Query::LookupAll(q), Ok(QueryAnswer::Attrs(attrs))) => {
                let found = q.names.iter().zip(attrs);
                let found = found.filter_map(|(name, attr)| Some((name, attr.as_ref()?.ino)));
                let found = found.map(|(name, ino)| (Name::new(q.parent, name), Found::Inode(ino)));
                found.collect()
            }
            _ => Vec::new(),
        };
        let (now_ms, term) = (now_ms(), Some(leased.term));
        let mut holder = holder.lock();
        for mut shown in shown {
            let ino = shown.attr.ino;
            if keys.contains(&Key::Inode(ino)) {
                let known = holder.inode(ino, now_ms);
                if let Some(known) = known.filter(|known| known.attr == shown.attr) {
                    shown.opened = shown.opened.or_else(|| known.opened.clone());
                }
                holder.keep_inode(asked.token, term, (ino, shown), now_ms);
            }
        }
        for (name, found) in names {
            if keys.contains(&Key::Name(name.clone())) {
                holder.keep_name(asked.token, term, (name, found), now_ms);
            }
        }
    }

    /// Returns the names to ask for with this one: a program that looks at the names of a
    /// directory in their order will look at these next.
    pub fn ahead(&self, parent: Ino, name: &[u8]) -> Option<Ahead> {
        let holder = self.holder.as_ref()?;
        let mut holder = holder.lock();
        let ahead = holder.ahead(parent, name, AHEAD_MAX, now_ms())?;
        (ahead.names.len() > 1).then_some(ahead)
    }

    /// Returns the file that is about to be opened, and those that will be opened next, if files
    /// are opened in the order of their directory.
    pub fn opens_ahead(&self, ino: Ino) -> Option<Vec<Ino>> {
        let holder = self.holder.as_ref()?;
        let known = |shown: &Shown| shown.opened.is_some();
        let mut holder = holder.lock();
        let inos = holder.opens_ahead(ino, OPENS_MAX, now_ms(), known)?;
        (inos.len() > 1).then_some(inos)
    }

    /// Returns how the leader is told of the wish to remember a query's answer.
    pub fn wish(asked: Option<Asked>, listing: bool) -> Option<Wish> {
        asked.map(|asked| Wish {
            asked: asked.token.number(),
            listing,
        })
    }
}

impl Listing {
    /// Returns the query that its pages belong to.
    pub fn asked(&self) -> Asked {
        self.asked
    }

    /// Whether a page after that cookie goes on with it.
    pub fn goes_on(&self, cookie: u64) -> bool {
        self.after == cookie && self.names.len() <= LISTING_MAX
    }
}

impl Leases {
    /// Begins a listing of a directory, before its first page is asked for, unless all its
    /// names are known.
    pub fn list(&self, dir: Ino) -> Option<Listing> {
        let holder = self.holder.as_ref()?;
        let now_ms = now_ms();
        self.note_use(now_ms);
        let mut holder = holder.lock();
        if !holder.is_valid(now_ms) {
            return None;
        }
        let token = holder.list(dir)?;
        Some(Listing {
            asked: Asked { token },
            leased: None,
            names: Vec::new(),
            after: 0,
        })
    }

    /// Takes a page of a listing. Returns the listing if it goes on; when it has ended, all
    /// names of the directory are remembered, if they may be, and their order in any case.
    pub fn listed(
        &self,
        mut listing: Listing,
        dir: Ino,
        page: &DirPage,
        leased: Option<&Leased>,
    ) -> Option<Listing> {
        if listing.after == 0 {
            let may = leased.filter(|leased| leased.keys.first() == Some(&true));
            listing.leased = may.map(|leased| leased.term);
        }
        let names = page.entries.iter();
        let names = names.map(|entry| (entry.name.as_slice().into(), entry.ino));
        listing.names.extend(names);
        if !page.end {
            listing.after = page.entries.last()?.cookie;
            return Some(listing);
        }
        let holder = self.holder.as_ref()?;
        let (token, leased) = (listing.asked.token, listing.leased);
        let mut holder = holder.lock();
        holder.keep_directory(token, leased, dir, listing.names, now_ms());
        None
    }

    /// Notes that a name was looked up at the leader. Returns its directory if the names of all
    /// that is there should be fetched, so that the next looks are answered here, or many at a
    /// time.
    pub fn looked(&self, query: &Query, answer: &Result<QueryAnswer, Refusal>) -> Option<Ino> {
        let (Query::Lookup(q), now_ms) = (query, now_ms()) else {
            return None;
        };
        let there = match answer {
            Ok(_) => true,
            Err(Refusal::Fs(FsError::NotFound)) => false,
            Err(_) => return None,
        };
        let mut holder = self.holder.as_ref()?.lock();
        if !holder.is_valid(now_ms)
            || holder.is_complete(q.parent, now_ms)
            || (there && holder.has_order(q.parent))
        {
            return None;
        }
        self.looks.lock().looked(q.parent, now_ms)
    }

    // -- loans to the kernel --------------------------------------------------

    /// Whether attributes that are about to be answered may be lent to the kernel. It is
    /// asked last: the answer waits for nothing from here on.
    ///
    /// What the kernel keeps beside them is not lent: lists and capabilities, which it fetches
    /// by itself, and the bits that a write takes away without a word to it.
    pub fn lend(&self, attr: &Attr, way: Way<'_>) -> bool {
        let special = attr.has_xattrs() || attr.has_capability();
        let set_id = attr.kind == Kind::File && attr.permissions() & 0o6000 != 0;
        let Some(holder) = self.holder.as_ref().filter(|_| !special && !set_id) else {
            return false;
        };
        // This mount shows its own reads before the leader has heard of them.
        let same = |shown: &Shown| {
            let atime = shown.attr.atime;
            let attr = attr.clone();
            shown.attr == Attr { atime, ..attr }
        };
        let mut holder = holder.lock();
        holder.lend(attr.ino, way, now_ms(), same)
    }

    /// Lends nothing of an inode for a moment.
    pub fn quieten(&self, ino: Ino) {
        if let Some(holder) = &self.holder {
            holder.lock().quieten(ino, now_ms());
        }
    }

    /// Returns all loans that are out.
    pub fn loans(&self) -> Vec<Loan> {
        let holder = self.holder.as_ref();
        holder.map_or_else(Vec::new, |holder| holder.lock().loans(now_ms()))
    }

    /// Notes that the kernel has forgotten these loans.
    pub fn returned(&self, loans: &[Loan]) {
        if let Some(holder) = &self.holder {
            let mut holder = holder.lock();
            loans.iter().for_each(|loan| holder.returned(loan));
        }
    }

    // -- the lease ------------------------------------------------------------

    /// Begins a heartbeat, which is sent now.
    pub fn beat(&self) -> Option<Beat> {
        let now_ms = now_ms();
        let active = self.is_active();
        let holder = self.holder.as_ref().filter(|_| active)?;
        Some(holder.lock().beat(now_ms))
    }

    /// Takes the answer to a heartbeat.
    pub fn beat_answered(&self, beat: Option<Beat>, heard: &SessionHeard) {
        let Some(holder) = &self.holder else {
            return;
        };
        self.supply.lock().hear(heard.now);
        let mut holder = holder.lock();
        let before = holder.term();
        // Whoever closes it sets this first, and then takes the lock.
        match beat.filter(|_| !self.closing.load(Ordering::Acquire)) {
            Some(beat) => holder.beat_answered(&beat, heard.term, heard.leased, now_ms()),
            None => holder.learn_term(heard.term),
        }
        if holder.term() != before {
            self.renewed.notify_one();
        }
    }

    /// Learns the term of a leader, forgets what was leased before it, and returns the newest
    /// term.
    pub fn learn_term(&self, term: u64) -> u64 {
        let Some(holder) = &self.holder else {
            return term;
        };
        let mut holder = holder.lock();
        if term > holder.term() {
            holder.learn_term(term);
            self.renewed.notify_one();
        }
        holder.term()
    }

    /// Goes on with another session.
    pub fn replace_session(&self, session: SessionId) {
        if let Some(holder) = &self.holder {
            holder.lock().replace_session(session);
            self.renewed.notify_one();
        }
    }

    // -- recalls --------------------------------------------------------------

    /// Returns the term that is known, and the number of the last recalls in it that
    /// were carried out.
    pub fn acked(&self, session: SessionId) -> (u64, u64) {
        let term = self
            .holder
            .as_ref()
            .map_or(0, |holder| holder.lock().term());
        match *self.acked.lock() {
            (of, in_term, number) if of == session && in_term == term => (term, number),
            _ => (term, 0),
        }
    }

    /// Forgets what the leader recalls from that session. Returns the loans that come back
    /// before it is acknowledged; `None`: there is nothing to acknowledge.
    pub fn recalled(&self, session: SessionId, recalls: &Recalls) -> Option<Vec<Loan>> {
        let mut holder = self.holder.as_ref()?.lock();
        let mine = holder.recall(session, recalls.term, &recalls.keys);
        let mine = mine && !recalls.keys.is_empty();
        mine.then(|| holder.loans_of(&recalls.keys, now_ms()))
    }

    /// Acknowledges these recalls with the next poll.
    pub fn acknowledge(&self, session: SessionId, recalls: &Recalls) {
        *self.acked.lock() = (session, recalls.term, recalls.number);
    }

    /// Returns when another term or session has begun.
    pub async fn renewed(&self) {
        self.renewed.notified().await;
    }
}
