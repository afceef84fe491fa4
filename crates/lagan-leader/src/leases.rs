//! The leases of mounts, at the leader: the table of `lagan-lease` with time, waiting and
//! the consensus around it.
//!
//! A table is for one term. It is made when something is asked of it in a term in which this
//! node leads, and its hold begins then: later than the term, so never too early.

use crate::clock::Uptime;
use lagan_lease::{Author, Bounds, ClaimId, End, Ready, Table, Turn};
use lagan_raft::{Carried, ProposeError, Raft};
use lagan_types::lease::Key;
use lagan_types::message::{LeaseStatus, Recalls};
use lagan_types::{Answer, Command, Ino, Refusal, SessionId};
use parking_lot::Mutex;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

/// Longest time without an answer to a poll.
const POLL_MAX: Duration = Duration::from_secs(10);
/// Time for a barrier after a change with an unknown outcome.
const BARRIER_DEADLINE: Duration = Duration::from_secs(5);
/// Pause before the next barrier, if one failed.
const BARRIER_PAUSE: Duration = Duration::from_millis(100);

/// The leases of the node that runs `raft`, while it leads.
pub(crate) struct Leases {
    raft: Arc<Raft>,
    uptime: Uptime,
    table: Mutex<Option<Table>>,
    /// Notified when a claim that waits should look again.
    changed: Notify,
    /// Polls that wait for something to tell.
    polls: Mutex<HashMap<SessionId, Arc<Notify>>>,
    /// A task waits for changes with unknown outcomes.
    resolving: AtomicBool,
    waited: AtomicU64,
    waited_ms: AtomicU64,
    waited_max_ms: AtomicU64,
}

impl std::fmt::Debug for Leases {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Leases").finish_non_exhaustive()
    }
}

const NOT_LEADER: ProposeError = ProposeError::NotLeader { leader: None };

impl Leases {
    /// Makes the leases of the node that runs `raft`.
    pub fn new(raft: Arc<Raft>) -> Self {
        Leases {
            raft,
            uptime: Uptime::default(),
            table: Mutex::default(),
            changed: Notify::new(),
            polls: Mutex::default(),
            resolving: AtomicBool::new(false),
            waited: AtomicU64::new(0),
            waited_ms: AtomicU64::new(0),
            waited_max_ms: AtomicU64::new(0),
        }
    }

    /// Returns the time on the clock of the table, milliseconds.
    pub fn now_ms(&self) -> u64 {
        self.uptime.ms()
    }

    /// Calls the table of that term; `None` if this node does not lead in it.
    fn with<R>(&self, term: u64, call: impl FnOnce(&mut Table, u64) -> R) -> Option<R> {
        let mut guard = self.table.lock();
        let now_ms = self.uptime.ms();
        if guard.as_ref().is_none_or(|table| table.term() != term) {
            if self.raft.leading() != Some(term) {
                return None;
            }
            *guard = Some(Table::new(term, Bounds::default(), now_ms));
            self.waited.store(0, Ordering::Relaxed);
            self.waited_ms.store(0, Ordering::Relaxed);
            self.waited_max_ms.store(0, Ordering::Relaxed);
        }
        let table = guard.as_mut()?;
        let result = call(table, now_ms);
        let (woken, progress) = (table.take_woken(), table.take_progress());
        drop(guard);
        if progress {
            self.changed.notify_waiters();
        }
        if !woken.is_empty() {
            let polls = self.polls.lock();
            for session in woken {
                if let Some(poll) = polls.get(&session) {
                    poll.notify_one();
                }
            }
        }
        Some(result)
    }

    // -- sessions -------------------------------------------------------------

    /// Notes that the session, which knows the term, has no lease of an earlier one.
    pub fn knows(&self, session: SessionId, term: u64) {
        self.with(term, |table, _| table.knows(session, term));
    }

    /// Notes that the session, which knows the term, has no lease and no promise of an
    /// earlier one.
    pub fn settle(&self, session: SessionId, term: u64) {
        self.with(term, |table, _| table.settle(session, term));
    }

    /// Renews a session's lease after a heartbeat that was received then; a round to a quorum
    /// that began later has confirmed the term. Returns whether it has a lease.
    pub fn renew(&self, session: SessionId, term: u64, received_ms: u64) -> bool {
        let renewed = self.with(term, |table, now_ms| {
            table.renew(session, received_ms, now_ms)
        });
        renewed.unwrap_or(false)
    }

    /// Gives the session no lease any more in that term, and returns when it has none, before
    /// it is ended or replaced in the same term.
    pub async fn retire(&self, session: SessionId, term: u64) {
        let left_ms = self.with(term, |table, now_ms| table.retire(session, now_ms));
        if let Some(ms) = left_ms.filter(|ms| *ms > 0) {
            tokio::time::sleep(Duration::from_millis(ms)).await;
        }
    }

    /// Notes that the session holds nothing any more: it says so itself, since it leaves.
    pub fn let_go(&self, session: SessionId) {
        if let Some(term) = self.raft.leading() {
            self.with(term, |table, now_ms| table.let_go(session, now_ms));
        }
    }

    /// Notes that a session was ended or replaced.
    pub fn session_ended(&self, session: SessionId) {
        if let Some(term) = self.raft.leading() {
            self.with(term, |table, now_ms| table.session_ended(session, now_ms));
        }
    }

    /// Notes that only these sessions live, of those that were open in a state that was read
    /// in that term.
    pub fn keep_sessions(&self, live: &[SessionId], term: u64) {
        self.with(term, |table, now_ms| {
            table.keep_sessions(live, now_ms);
            table.end_hold_if_settled(live);
        });
    }

    // -- the hold -------------------------------------------------------------

    /// Whether changes of this term wait for what was leased and promised in earlier ones.
    pub fn holds(&self, term: u64) -> bool {
        self.hold_left_ms(term) != Some(0)
    }

    fn hold_left_ms(&self, term: u64) -> Option<u64> {
        self.with(term, |table, now_ms| table.hold_left_ms(now_ms))
    }

    /// Returns when the hold of the term is over.
    ///
    /// # Errors
    /// [`ProposeError::NotLeader`].
    pub async fn wait_for_hold(&self, term: u64) -> Result<(), ProposeError> {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let left_ms = self.hold_left_ms(term).ok_or(NOT_LEADER)?;
            if left_ms == 0 {
                return Ok(());
            }
            let left = Duration::from_millis(left_ms);
            let _ = tokio::time::timeout(left, changed).await;
        }
    }

    /// Ends the hold of the term if every session that lives has settled. `live` are those of
    /// a state that was read in the term, linearizably: what a new leader has at first may
    /// lack some.
    pub fn end_hold_if_settled(&self, live: &[SessionId], term: u64) {
        self.with(term, |table, _| table.end_hold_if_settled(live));
    }

    // -- queries --------------------------------------------------------------

    /// Registers a session's interest in keys for a query with that number at its mount.
    /// Returns, for each, whether the mount may keep what a read shows that begins
    /// after this call.
    pub fn register(&self, session: SessionId, term: u64, asked: u64, keys: &[Key]) -> Vec<bool> {
        let registered = self.with(term, |table, now_ms| {
            let register = |key| table.register(session, key, asked, now_ms);
            keys.iter().map(register).collect()
        });
        registered.unwrap_or_else(|| vec![false; keys.len()])
    }

    /// Returns the number to give to [`Leases::may_show`], before a read of the state.
    pub fn read_begins(&self, term: u64) -> u64 {
        self.with(term, |table, _| table.read_begins()).unwrap_or(0)
    }

    /// Whether a session may be shown these keys by a read that began with that number in the
    /// term; else [`Leases::visit`] them and read again.
    pub fn may_show(&self, session: SessionId, term: u64, keys: &[Key], began: u64) -> bool {
        let may = self.with(term, |table, _| table.may_show(session, keys, began));
        may.unwrap_or(false)
    }

    /// Returns when nobody else uses a directory of these keys alone.
    ///
    /// # Errors
    /// [`ProposeError::NotLeader`], [`ProposeError::Busy`] at the deadline.
    pub async fn visit(
        self: &Arc<Self>,
        session: SessionId,
        term: u64,
        keys: &[Key],
        until: Instant,
    ) -> Result<(), ProposeError> {
        let visit = |table: &mut Table, now_ms| table.visit(session, keys, now_ms);
        let id = self.with(term, visit).ok_or(NOT_LEADER)?;
        let visiting = Claimed {
            leases: self.clone(),
            term,
            id,
            author: None,
            keys: Vec::new(),
            end: Some(End::Nothing),
        };
        visiting.ready(until).await
    }

    // -- changes --------------------------------------------------------------

    /// Claims the keys of a change in that term.
    ///
    /// # Errors
    /// [`ProposeError::NotLeader`].
    pub fn claim(
        self: &Arc<Self>,
        term: u64,
        author: Option<Author>,
        keys: &[Key],
        turn: Turn,
    ) -> Result<Claimed, ProposeError> {
        let keys: BTreeSet<Key> = keys.iter().cloned().collect();
        let keys: Vec<Key> = keys.into_iter().collect();
        let id = self.with(term, |table, now_ms| {
            table.claim(author.as_ref(), &keys, turn, now_ms)
        });
        Ok(Claimed {
            leases: self.clone(),
            term,
            id: id.ok_or(NOT_LEADER)?,
            author,
            keys,
            end: Some(End::Nothing),
        })
    }

    /// Recalls what mounts remember of inodes after a quiet change of them.
    pub fn recall_quietly(&self, keys: &[Key]) {
        if let Some(term) = self.raft.leading().filter(|_| !keys.is_empty()) {
            self.with(term, |table, now_ms| {
                table.recall_quietly(None, keys, now_ms);
            });
        }
    }

    /// Opens the keys of changes with unknown outcomes again, when a command that was
    /// proposed after all of them has been applied.
    fn resolve(self: &Arc<Self>, term: u64) {
        if self.resolving.swap(true, Ordering::AcqRel) {
            return;
        }
        let me = self.clone();
        tokio::spawn(async move {
            while let Some(Some(doubt)) = me.with(term, |table, _| table.doubt()) {
                if !me.pass_barrier(term).await {
                    break;
                }
                me.with(term, |table, now_ms| table.resolve(doubt, now_ms));
            }
            me.resolving.store(false, Ordering::Release);
            // One may have come in between.
            if let Some(now) = me.raft.leading()
                && me.with(now, |table, _| table.doubt()).flatten().is_some()
            {
                me.resolve(now);
            }
        });
    }

    /// Returns when all that was proposed in the term before this call has been applied here
    /// or never will be; false: the term is over.
    pub async fn pass_barrier(&self, term: u64) -> bool {
        while self.raft.leading() == Some(term) {
            match self.raft.barrier_in(term, BARRIER_DEADLINE).await {
                Ok(()) => return true,
                Err(ProposeError::Stopped) => return false,
                // It may be cut off, or hand over, and not know yet that it leads no more.
                Err(_) => tokio::time::sleep(BARRIER_PAUSE).await,
            }
        }
        false
    }

    // -- polls ----------------------------------------------------------------

    /// Takes a mount's acknowledgement and returns what it must forget; waits while there is
    /// nothing.
    ///
    /// # Errors
    /// [`ProposeError::NotLeader`].
    pub async fn poll(
        &self,
        session: SessionId,
        known: u64,
        acked: u64,
    ) -> Result<Recalls, ProposeError> {
        let until = Instant::now() + POLL_MAX;
        let term = self.raft.leading().ok_or(NOT_LEADER)?;
        let nothing = Recalls {
            term,
            number: acked,
            keys: Vec::new(),
        };
        if known != term {
            // It learns the term, and that it holds nothing in it.
            return Ok(nothing);
        }
        let polling = Polling::new(self, session);
        loop {
            if !polling.is_last() {
                return Ok(nothing);
            }
            let poll = self.with(term, |table, now_ms| {
                table.poll(session, term, acked, now_ms)
            });
            if let Some(recalls) = poll.ok_or(NOT_LEADER)? {
                return Ok(Recalls {
                    term,
                    number: recalls.number,
                    keys: recalls.keys,
                });
            }
            tokio::select! {
                woken = timeout_at(until, polling.woken.notified()) => {
                    if woken.is_err() {
                        return Ok(nothing);
                    }
                }
                () = self.raft.lost(term) => return Err(NOT_LEADER),
            }
        }
    }

    /// Returns how many leases there are, and what they cost.
    pub fn status(&self) -> LeaseStatus {
        let table = self.table.lock();
        let size = table.as_ref().map(Table::size).unwrap_or_default();
        LeaseStatus {
            held: size.held as u64,
            recalling: size.recalls as u64,
            recalled: size.recalled,
            waited: self.waited.load(Ordering::Relaxed),
            waited_ms: self.waited_ms.load(Ordering::Relaxed),
            waited_max_ms: self.waited_max_ms.load(Ordering::Relaxed),
        }
    }

    fn note_wait(&self, since: Instant) {
        let ms = since.elapsed().as_millis() as u64;
        self.waited.fetch_add(1, Ordering::Relaxed);
        self.waited_ms.fetch_add(ms, Ordering::Relaxed);
        self.waited_max_ms.fetch_max(ms, Ordering::Relaxed);
    }
}

/// A poll that is under way. A session has one: an older one is of a connection that broke,
/// and ends.
struct Polling<'a> {
    of: &'a Leases,
    session: SessionId,
    woken: Arc<Notify>,
}

impl<'a> Polling<'a> {
    fn new(of: &'a Leases, session: SessionId) -> Self {
        let woken = Arc::new(Notify::new());
        let older = of.polls.lock().insert(session, woken.clone());
        if let Some(older) = older {
            older.notify_one();
        }
        Polling { of, session, woken }
    }

    fn is_last(&self) -> bool {
        self.is_in(&self.of.polls.lock())
    }

    fn is_in(&self, polls: &HashMap<SessionId, Arc<Notify>>) -> bool {
        let last = polls.get(&self.session);
        last.is_some_and(|last| Arc::ptr_eq(last, &self.woken))
    }
}

impl Drop for Polling<'_> {
    /// Leaves nothing behind, whatever number a peer gave as its session's.
    fn drop(&mut self) {
        let mut polls = self.of.polls.lock();
        if self.is_in(&polls) {
            polls.remove(&self.session);
        }
    }
}

/// A change that has claimed its keys. Dropped before it was proposed, it changes nothing;
/// dropped while it is under way, its outcome is unknown.
pub(crate) struct Claimed {
    leases: Arc<Leases>,
    term: u64,
    id: ClaimId,
    author: Option<Author>,
    keys: Vec<Key>,
    /// What it is to be ended with, until it was.
    end: Option<End>,
}

impl Claimed {
    /// Returns the term.
    pub fn term(&self) -> u64 {
        self.term
    }

    /// Returns the session and number of its author, if its mount remembers.
    pub fn author(&self) -> Option<&Author> {
        self.author.as_ref()
    }

    /// Returns the keys that it was made for.
    pub fn keys(&self) -> &[Key] {
        &self.keys
    }

    /// Claims more inodes.
    pub fn extend(&mut self, keys: &[Key]) {
        let (id, author) = (self.id, self.author.as_ref());
        self.leases.with(self.term, |table, now_ms| {
            table.extend(id, author, keys, now_ms);
        });
        self.keys.extend_from_slice(keys);
    }

    /// Returns when nobody else remembers what the change changes.
    ///
    /// # Errors
    /// [`ProposeError::NotLeader`] if the term is over, [`ProposeError::Busy`] at the
    /// deadline.
    pub async fn ready(&self, until: Instant) -> Result<(), ProposeError> {
        let mut since = None;
        loop {
            let changed = self.leases.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let look = self.leases.with(self.term, |table, now_ms| {
                (table.ready(self.id, now_ms), now_ms)
            });
            let (ready, now_ms) = look.ok_or(NOT_LEADER)?;
            let Ready::At { ms } = ready else {
                if let Some(since) = since {
                    self.leases.note_wait(since);
                }
                return Ok(());
            };
            since = since.or_else(|| Some(Instant::now()));
            let wait = Duration::from_millis(ms.saturating_sub(now_ms).max(1));
            let wake = (Instant::now().checked_add(wait)).map_or(until, |wake| wake.min(until));
            tokio::select! {
                _ = timeout_at(wake, changed) => {}
                () = self.leases.raft.lost(self.term) => return Err(NOT_LEADER),
            }
            if Instant::now() >= until {
                return Err(ProposeError::Busy);
            }
        }
    }

    /// Proposes the change in its term.
    ///
    /// # Errors
    /// Those of [`Raft::propose`].
    pub async fn propose(
        &mut self,
        command: Command,
        deadline: Duration,
    ) -> Result<Result<Answer, Refusal>, ProposeError> {
        let carried = self.carry(command, deadline).await;
        carried.map(|carried| carried.answer)
    }

    /// Does what [`Claimed::propose`] does, and tells which entry of the log has the change.
    ///
    /// # Errors
    /// Those of [`Raft::propose`].
    pub async fn carry(
        &mut self,
        command: Command,
        deadline: Duration,
    ) -> Result<Carried, ProposeError> {
        self.end = Some(End::Unknown);
        let raft = self.leases.raft.clone();
        let outcome = raft.carry_in(self.term, command, deadline).await;
        self.end = Some(match &outcome {
            Ok(Carried { answer: Ok(_), .. }) => End::Done,
            Ok(_) | Err(ProposeError::NotLeader { .. } | ProposeError::Busy) => End::Nothing,
            Err(_) => End::Unknown,
        });
        outcome
    }

    /// Notes that it was carried out in the leader's memory.
    pub fn done(&mut self) {
        self.end = Some(End::Done);
    }

    /// Ends it. Returns the keys of which the author may keep what was read before this call
    /// and after the change, and whether it may use that directory alone from now on, in which it
    /// has made something, or which it has made.
    pub fn end(mut self, alone: Option<Ino>) -> (Vec<Key>, bool) {
        self.finish(alone)
    }

    fn finish(&mut self, alone: Option<Ino>) -> (Vec<Key>, bool) {
        let Some(end) = self.end.take() else {
            return Default::default();
        };
        let (id, term) = (self.id, self.term);
        let author = self.author.as_ref().filter(|_| end == End::Done);
        let ended = self.leases.with(term, |table, now_ms| {
            let leased = table.end(id, end, now_ms);
            // The author knows its attributes if they are leased, or if it is new.
            let shown = |dir: &Ino| {
                let key = Key::Inode(*dir);
                leased.contains(&key) || !self.keys.contains(&key)
            };
            let alone = author.zip(alone.filter(shown));
            let alone = alone.is_some_and(|(author, dir)| {
                table.grant(author.session, dir, author.began, now_ms)
            });
            (leased, alone)
        });
        if end == End::Unknown {
            self.leases.resolve(term);
        }
        ended.unwrap_or_default()
    }
}

impl Drop for Claimed {
    fn drop(&mut self) {
        self.finish(None);
    }
}
