//! A server around its table: as the leader uses it.

mod reads;

use super::cx::Cx;
use super::message::{Applied, AtServer, Cmd, Event, From, ToMount, ToServer, UseRule, name};
use super::random::Clock;
use super::truth::Entry;
use crate::leader::{Author, Bounds, ClaimId, End, Ready, Size, Table, Turn};
use crate::times::{MAKING_PATIENCE_MS, RECALL_PATIENCE_MS};
use lagan_types::lease::Key;
use lagan_types::{Ino, SessionId};
use reads::Visit;
use std::collections::BTreeMap;

/// A change that waits for its claim or its outcome.
#[derive(Debug)]
struct Pending {
    to: From,
    author: Author,
    seq: u64,
    first: bool,
    /// The directory that its mount wants to use alone.
    alone: Option<Ino>,
    cmd: Cmd,
    keys: Vec<Key>,
    proposed: bool,
    since_us: u64,
}

#[derive(Debug)]
pub(super) struct Server {
    pub index: usize,
    pub clock: Clock,
    pub paused_us: u64,
    term: u64,
    table: Option<Table>,
    pending: BTreeMap<ClaimId, Pending>,
    visits: BTreeMap<ClaimId, Visit>,
    polls: BTreeMap<SessionId, (From, u64)>,
    resolving: Option<u64>,
    wake_us: u64,
    /// When the process last began to lead or to run.
    pub steady_us: u64,
}

/// A change that waits for longer than this is stuck: a hold and all leases end before, on
/// the slowest clock.
const STUCK_US: u64 = 1_700_000;
/// The same where a mount does not hear of recalls.
const STUCK_DEAF_US: u64 = 2_200_000;
/// The same where that mount may use a directory alone: it is given time to make files.
const STUCK_MAKING_US: u64 = STUCK_DEAF_US + 1_000 * (MAKING_PATIENCE_MS - RECALL_PATIENCE_MS);

impl Server {
    pub fn new(index: usize, clock: Clock) -> Self {
        Server {
            index,
            clock,
            paused_us: 0,
            term: 0,
            table: None,
            pending: BTreeMap::new(),
            visits: BTreeMap::new(),
            polls: BTreeMap::new(),
            resolving: None,
            wake_us: u64::MAX,
            steady_us: 0,
        }
    }

    fn now_ms(&self, cx: &Cx) -> u64 {
        self.clock.ms(cx.now)
    }

    fn me(&self, event: AtServer) -> Event {
        Event::Server(self.index, event)
    }

    fn leads(&self, cx: &Cx) -> bool {
        cx.truth.term == self.term && cx.truth.leader == self.index
    }

    fn lead(&mut self, cx: &mut Cx, term: u64) {
        if term <= self.term {
            return;
        }
        self.term = term;
        let mut bounds = Bounds {
            cool_min_ms: cx.plan.cool_ms,
            cool_max_ms: cx.plan.cool_ms * 8,
            ..Bounds::default()
        };
        if cx.plan.small {
            bounds.inodes_max = 3;
            bounds.names_max = 3;
            bounds.directories_max = 1;
            bounds.exclusives_max = 1;
            bounds.recalls_max = 8;
        }
        self.table = Some(Table::new(term, bounds, self.now_ms(cx)));
        self.forget(cx);
        self.polls.clear();
        self.resolving = None;
        self.wake_us = u64::MAX;
        self.steady_us = cx.now;
    }

    /// Forgets the changes of a term that is over.
    fn forget(&mut self, cx: &mut Cx) {
        for (_, visit) in std::mem::take(&mut self.visits) {
            cx.tell_mount(visit.to, ToMount::NotLeader);
        }
        let claims = std::mem::take(&mut self.pending);
        for (id, pending) in claims {
            if pending.proposed && !cx.keeps(UseRule::ProposeInTerm) {
                self.pending.insert(id, pending);
            } else {
                cx.tell_mount(pending.to, ToMount::NotLeader);
            }
        }
    }

    pub fn receive(&mut self, cx: &mut Cx, from: From, message: ToServer) {
        let now_ms = self.now_ms(cx);
        let Some(table) = &mut self.table else {
            return cx.tell_mount(from, ToMount::NotLeader);
        };
        let term = self.term;
        match message {
            ToServer::Query(query) => self.query(cx, from, query),
            ToServer::Change { .. } => self.change(cx, from, message),
            ToServer::Beat { session, said } => {
                let confirm = AtServer::Confirm {
                    term,
                    to: from,
                    session,
                    said,
                    received_ms: now_ms,
                };
                let event = self.me(confirm);
                cx.soon(4_000, event);
            }
            ToServer::Poll {
                session,
                term: of,
                acked,
            } => self.poll(cx, from, session, (of, acked)),
            ToServer::Open { new, old } => {
                let ms = old.map_or(0, |old| table.retire(old, now_ms));
                let open = AtServer::OpenNow {
                    term,
                    to: from,
                    new,
                    old,
                };
                let us = match cx.keeps(UseRule::RetireFirst) {
                    true => self.clock.real_us(now_ms + ms),
                    false => cx.now + 1_000,
                };
                let event = self.me(open);
                cx.at(us, event);
            }
        }
        self.after(cx);
    }

    fn poll(&mut self, cx: &mut Cx, from: From, session: SessionId, (of, acked): (u64, u64)) {
        let now_ms = self.now_ms(cx);
        let Some(table) = &mut self.table else {
            return;
        };
        match table.poll(session, of, acked, now_ms) {
            Some(recalls) => {
                let term = self.term;
                let answer = ToMount::Recalls {
                    session,
                    term,
                    recalls,
                };
                cx.tell_mount(from, answer);
            }
            None => _ = self.polls.insert(session, (from, acked)),
        }
    }

    fn change(&mut self, cx: &mut Cx, to: From, message: ToServer) {
        let ToServer::Change {
            session,
            seq,
            began,
            closed,
            first,
            alone,
            cmd,
        } = message
        else {
            return;
        };
        if let Cmd::Atime(ino) = cmd {
            // Claims nothing; the recall follows the change.
            if !self.leads(cx) {
                return;
            }
            let entry = self.entry(None, None, cmd);
            self.append(cx, entry);
            let us = cx.truth.last_us;
            let term = self.term;
            let event = self.me(AtServer::Quiet { term, ino });
            return cx.at(us + 500, event);
        }
        let author = Author {
            session,
            began,
            closed,
        };
        let (keys, turn) = claims(cx, &cmd);
        let now_ms = self.now_ms(cx);
        let Some(table) = &mut self.table else {
            return;
        };
        let id = table.claim(Some(&author), &keys, turn, now_ms);
        let pending = Pending {
            to,
            author,
            seq,
            first,
            alone,
            cmd,
            keys,
            proposed: false,
            since_us: cx.now,
        };
        self.pending.insert(id, pending);
    }

    fn entry(&self, claim: Option<ClaimId>, asked: Option<(SessionId, u64)>, cmd: Cmd) -> Entry {
        Entry {
            at_us: 0,
            term: self.term,
            server: self.index,
            claim,
            asked,
            cmd,
            doubt: None,
        }
    }

    pub fn event(&mut self, cx: &mut Cx, event: AtServer) {
        let now_ms = self.now_ms(cx);
        match event {
            AtServer::Lead(term) => self.lead(cx, term),
            AtServer::Deposed(term) if term == self.term => {
                self.table = None;
                self.forget(cx);
            }
            AtServer::Query { term, to, query } if term == self.term => self.query(cx, to, query),
            AtServer::Query { to, .. } => cx.tell_mount(to, ToMount::NotLeader),
            AtServer::Read {
                term,
                to,
                query,
                grant,
            } => self.read(cx, (term, to), query, grant),
            AtServer::Late {
                term,
                to,
                query,
                grant,
                shown,
            } => self.late(cx, (term, to), query, (grant, shown)),
            AtServer::Answer {
                term,
                to,
                query,
                grant,
                shown,
            } => self.answer(cx, (term, to), query, (grant, shown)),
            AtServer::Confirm {
                term,
                to,
                session,
                said,
                received_ms,
            } => self.confirm(cx, (term, to), session, said, received_ms),
            AtServer::OpenNow { term, to, new, old } => self.open(cx, (term, to), new, old),
            AtServer::Propose { term, claim } => self.propose(cx, term, claim),
            AtServer::Outcome {
                term,
                claim,
                applied,
            } if term == self.term => self.outcome(cx, claim, applied),
            AtServer::Resolved { term, doubt } if term == self.term => {
                self.resolving = None;
                if let Some(table) = &mut self.table {
                    table.resolve(doubt, now_ms);
                }
            }
            AtServer::Quiet { term, ino } if term == self.term => {
                if let Some(table) = &mut self.table
                    && cx.keeps(UseRule::QuietRecalled)
                {
                    table.recall_quietly(None, &[Key::Inode(ino)], now_ms);
                }
            }
            AtServer::Wake => self.wake_us = u64::MAX,
            _ => {}
        }
        self.after(cx);
    }

    fn confirm(
        &mut self,
        cx: &mut Cx,
        (term, to): (u64, From),
        session: SessionId,
        (knows, settled): (u64, u64),
        received_ms: u64,
    ) {
        let leads = self.leads(cx) || !cx.keeps(UseRule::BarrierBeforeRenewal);
        let now_ms = self.now_ms(cx);
        let table = self.table.as_mut().filter(|t| leads && t.term() == term);
        let Some(table) = table else {
            return cx.tell_mount(to, ToMount::NotLeader);
        };
        let alive = cx.truth.sessions.contains(&session);
        let mut leased = false;
        if alive {
            table.knows(session, knows);
            table.settle(session, settled);
            leased = table.renew(session, received_ms, now_ms);
        }
        let live: Vec<_> = cx.truth.sessions.iter().copied().collect();
        let live = match cx.keeps(UseRule::SettledAreAll) {
            true => live,
            false => live.into_iter().take(1).collect(),
        };
        table.end_hold_if_settled(&live);
        cx.tell_mount(
            to,
            ToMount::Beat {
                term,
                leased,
                alive,
            },
        );
    }

    fn open(
        &mut self,
        cx: &mut Cx,
        (term, to): (u64, From),
        new: SessionId,
        old: Option<SessionId>,
    ) {
        let leads = self.leads(cx);
        let now_ms = self.now_ms(cx);
        let table = self.table.as_mut().filter(|t| leads && t.term() == term);
        let Some(table) = table else {
            return cx.tell_mount(to, ToMount::NotLeader);
        };
        if let Some(old) = old {
            cx.truth.sessions.remove(&old);
            table.session_ended(old, now_ms);
        }
        cx.truth.sessions.insert(new);
        cx.tell_mount(to, ToMount::Opened);
    }

    fn propose(&mut self, cx: &mut Cx, term: u64, claim: ClaimId) {
        let now_ms = self.now_ms(cx);
        let late = term != self.term && !cx.keeps(UseRule::ProposeInTerm);
        if term != self.term && !late {
            return;
        }
        let Some(pending) = self.pending.get(&claim) else {
            return;
        };
        let asked = Some((pending.author.session, pending.seq));
        let entry = self.entry(Some(claim), asked, pending.cmd.clone());
        let to = pending.to;
        if !self.leads(cx) {
            if let Some(table) = &mut self.table {
                table.end(claim, End::Nothing, now_ms);
            }
            self.pending.remove(&claim);
            return cx.tell_mount(to, ToMount::NotLeader);
        }
        self.append(cx, entry);
        let faulty = cx.now < cx.plan.heal_us;
        if faulty && cx.random.percent(cx.plan.unknown) {
            let applied = None;
            let term = self.term;
            let event = self.me(AtServer::Outcome {
                term,
                claim,
                applied,
            });
            cx.soon(400, event);
        }
    }

    /// Puts an entry into the log, which commits in order.
    fn append(&self, cx: &mut Cx, mut entry: Entry) {
        let faulty = cx.now < cx.plan.heal_us;
        let slow = faulty && cx.random.percent(cx.plan.unknown);
        let us = cx.random.range(300, if slow { 200_000 } else { 2_500 });
        let us = cx.truth.last_us.max(cx.now + us);
        cx.truth.last_us = us;
        entry.at_us = us;
        cx.truth.log.push_back(entry);
        cx.at(us, Event::Commit);
    }

    fn outcome(&mut self, cx: &mut Cx, claim: ClaimId, applied: Option<Applied>) {
        let now_ms = self.now_ms(cx);
        let (Some(table), Some(pending)) = (&mut self.table, self.pending.remove(&claim)) else {
            return;
        };
        let Some(applied) = applied else {
            table.end(claim, End::Unknown, now_ms);
            return;
        };
        let old = applied.remembered && cx.keeps(UseRule::RememberedIsNoLease);
        let done = applied.facts.is_some() && !old;
        let end = if done { End::Done } else { End::Nothing };
        let mut leased = table.end(claim, end, now_ms);
        if !pending.first && cx.keeps(UseRule::RememberedIsNoLease) {
            leased.clear();
        }
        let exclusive = pending.alone.filter(|dir| {
            let Author { session, began, .. } = pending.author;
            let shown = done && leased.contains(&Key::Inode(*dir));
            shown && table.grant(session, *dir, began, now_ms)
        });
        cx.stats.alone += u64::from(exclusive.is_some());
        let answer = ToMount::Changed {
            term: self.term,
            leased,
            facts: applied.facts,
            exclusive,
        };
        cx.tell_mount(pending.to, answer);
    }

    /// What the leader does after each call of its table.
    fn after(&mut self, cx: &mut Cx) {
        let Some(table) = &mut self.table else {
            return;
        };
        for session in table.take_woken() {
            if let Some((from, acked)) = self.polls.remove(&session) {
                let term = self.term;
                self.poll(cx, from, session, (term, acked));
            }
        }
        self.step_claims(cx);
        self.step_visits(cx);
        let doubt = self.table.as_ref().and_then(Table::doubt);
        if let (Some(doubt), None) = (doubt, self.resolving) {
            self.resolving = Some(doubt);
            if !cx.keeps(UseRule::BarrierAfterDoubt) {
                let term = self.term;
                let event = self.me(AtServer::Resolved { term, doubt });
                return cx.soon(200, event);
            }
            let mut entry = self.entry(None, None, Cmd::Barrier);
            entry.doubt = Some(doubt);
            if self.leads(cx) {
                self.append(cx, entry);
            }
        }
    }

    fn step_claims(&mut self, cx: &mut Cx) {
        let now_ms = self.now_ms(cx);
        let waiting = self.pending.iter().filter(|(_, p)| !p.proposed);
        let ids: Vec<_> = waiting.map(|(id, _)| *id).collect();
        for id in ids {
            let (Some(table), Some(pending)) = (&mut self.table, self.pending.get_mut(&id)) else {
                return;
            };
            match table.ready(id, now_ms) {
                Ready::Now => {
                    let keys = cx.truth.keys(&pending.cmd);
                    let same = keys.iter().all(|key| pending.keys.contains(key));
                    if !same && cx.keeps(UseRule::VictimsReadAgain) {
                        table.extend(id, Some(&pending.author), &keys, now_ms);
                        pending.keys.extend(keys);
                        let event = self.me(AtServer::Wake);
                        cx.soon(200, event);
                        continue;
                    }
                    pending.proposed = true;
                    let (term, claim) = (self.term, id);
                    let event = self.me(AtServer::Propose { term, claim });
                    let faulty = cx.now < cx.plan.heal_us;
                    let slow = faulty && cx.random.percent(cx.plan.unknown);
                    cx.soon(if slow { 700_000 } else { 600 }, event);
                }
                Ready::At { ms } => self.wake_at(cx, ms),
            }
        }
    }

    /// Looks again at what waits, at that time.
    fn wake_at(&mut self, cx: &mut Cx, ms: u64) {
        if ms == u64::MAX {
            return;
        }
        let us = self.clock.real_us(ms);
        if us < self.wake_us {
            self.wake_us = us;
            let event = self.me(AtServer::Wake);
            cx.at(us, event);
        }
    }

    /// What waits for too long though nothing hinders it; and how much the table holds.
    pub fn audit(&self, cx: &mut Cx) -> Option<Size> {
        if !self.leads(cx) {
            return None;
        }
        let steady_us = self.steady_us.max(self.paused_us).max(cx.plan.heal_us);
        let stuck_us = match cx.plan.deaf {
            Some(_) if cx.plan.creates > 0 => STUCK_MAKING_US,
            Some(_) => STUCK_DEAF_US,
            None => STUCK_US,
        };
        for (id, pending) in &self.pending {
            let since = pending.since_us.max(steady_us);
            if !pending.proposed && cx.now.saturating_sub(since) > stuck_us {
                let cmd = &pending.cmd;
                let text = format!("{} us: {id:?} waits since {since}: {cmd:?}", cx.now);
                cx.wrong.push(text);
            }
        }
        for (id, visit) in &self.visits {
            let since = visit.since_us.max(steady_us);
            if cx.now.saturating_sub(since) > stuck_us {
                let text = format!("{} us: {id:?} waits since {since}: a visit", cx.now);
                cx.wrong.push(text);
            }
        }
        self.table.as_ref().map(Table::size)
    }
}

/// The keys that a change claims, and its turn: a file that was not made has been shown by its
/// mount alone.
fn claims(cx: &Cx, cmd: &Cmd) -> (Vec<Key>, Turn) {
    match *cmd {
        Cmd::Make { ino, at, .. } if !cx.truth.is_made(ino) => {
            let keys = vec![Key::Inode(ino), Key::Name(name(at)), Key::Inode(at.0)];
            (keys, Turn::Early)
        }
        _ => (cx.truth.keys(cmd), Turn::InOrder),
    }
}
