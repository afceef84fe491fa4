//! A mount around its cache, and the programs that call it.

mod loans;

use super::cx::Cx;
use super::kernel::Kernel;
use super::message::{
    After, AtMount, Cmd, DIRS, Event, FILES, NAMES, Shown, ToMount, ToServer, UseRule, Value, What,
    name,
};
use super::random::Clock;
use crate::holder::{Beat, CacheBounds, Change, Holder, Outcome, Token};
use crate::leader::Recalls;
use crate::times::HEARTBEAT_MS;
use lagan_types::lease::{Found, Key};
use lagan_types::{Ino, SessionId};
use std::collections::BTreeMap;
use std::sync::Arc;

#[derive(Debug)]
enum Call {
    Actor(usize),
    Beat(Beat),
    Open(SessionId),
}

#[derive(Debug)]
struct Reading {
    begin_us: u64,
    what: What,
    token: Token,
    /// Of the pages so far: the term of the leader that registered, and the names.
    leased: Option<u64>,
    names: Vec<(u8, Ino)>,
    until_us: u64,
}

#[derive(Debug)]
struct Changing {
    change: Change,
    session: SessionId,
    seq: u64,
    cmd: Cmd,
    sent: bool,
    until_us: u64,
}

#[derive(Debug)]
enum Doing {
    Idle,
    Read(Reading),
    Change(Changing),
}

#[derive(Debug)]
pub(super) struct Mount {
    pub index: usize,
    pub clock: Clock,
    pub paused_us: u64,
    pub cut_us: u64,
    /// What it is told takes so much longer until then.
    pub slow: (u64, u64),
    /// What it says from then until then is lost.
    pub mute: (u64, u64),
    /// It reaches this server alone until then.
    pub split: (usize, u64),
    pub dead: bool,
    pub session: SessionId,
    pub holder: Holder<Value>,
    pub kernel: Kernel,
    /// When each program finished its last call.
    pub done_us: Vec<u64>,
    doing: Vec<Doing>,
    calls: BTreeMap<u64, Call>,
    guess: usize,
    seq: u64,
    /// The last number acknowledged, and the session and term that it belongs to.
    acked: (SessionId, u64, u64),
    /// The last term of which it was said that nothing is held of earlier ones.
    settled: u64,
    opening: bool,
}

impl Mount {
    pub fn new(index: usize, clock: Clock, session: SessionId, cx: &Cx) -> Self {
        let mut bounds = CacheBounds {
            hot: 1,
            ..CacheBounds::default()
        };
        if cx.plan.small {
            bounds.inodes_max = 4;
            bounds.names_bytes_max = 500;
        }
        Mount {
            index,
            clock,
            paused_us: 0,
            cut_us: 0,
            slow: (0, 0),
            mute: (0, 0),
            split: (0, 0),
            dead: false,
            session,
            holder: Holder::new(session, &bounds),
            kernel: Kernel::default(),
            done_us: vec![0; cx.plan.actors],
            doing: (0..cx.plan.actors).map(|_| Doing::Idle).collect(),
            calls: BTreeMap::new(),
            guess: 0,
            seq: 0,
            acked: (session, 0, 0),
            settled: 0,
            opening: false,
        }
    }

    fn me(&self, event: AtMount) -> Event {
        Event::Mount(self.index, event)
    }

    fn now_ms(&self, cx: &Cx) -> u64 {
        self.clock.ms(cx.now)
    }

    /// Begins to run, with its session open.
    pub fn start(&mut self, cx: &mut Cx) {
        for actor in 0..self.doing.len() {
            self.rest(cx, actor);
        }
        self.event(cx, AtMount::Beat);
        self.event(cx, AtMount::Poll);
    }

    /// Opens a session in the place of another one, then starts.
    pub fn open(&mut self, cx: &mut Cx, old: Option<SessionId>) {
        self.opening = true;
        let new = SessionId(cx.number());
        self.send(cx, Call::Open(new), ToServer::Open { new, old });
        if let Some(old) = old {
            // Until it is answered.
            self.session = old;
        }
    }

    fn rest(&mut self, cx: &mut Cx, actor: usize) {
        self.doing[actor] = Doing::Idle;
        self.done_us[actor] = cx.now;
        let event = self.me(AtMount::Act(actor));
        cx.soon(cx.plan.think_us, event);
    }

    fn send(&mut self, cx: &mut Cx, call: Call, message: ToServer) {
        let number = cx.number();
        self.calls.insert(number, call);
        cx.tell_server(self.guess, (self.index, number), message);
        let timer = self.me(AtMount::TimedOut(number));
        let us = cx.now + cx.random.range(80_000, 400_000);
        // A change may wait for leases to end.
        let us = if cx.now > cx.plan.heal_us {
            us + 2_400_000
        } else {
            us
        };
        cx.at(us, timer);
    }

    pub fn event(&mut self, cx: &mut Cx, event: AtMount) {
        match event {
            AtMount::Act(actor) if !self.opening => self.act(cx, actor),
            AtMount::Act(actor) => self.rest(cx, actor),
            AtMount::Beat => {
                let timer = self.me(AtMount::Beat);
                cx.at(cx.now + HEARTBEAT_MS * 1_000, timer);
                if !self.opening {
                    self.beat(cx);
                }
            }
            AtMount::Poll => {
                let timer = self.me(AtMount::Poll);
                cx.at(cx.now + 150_000, timer);
                self.poll(cx);
            }
            AtMount::TimedOut(number) => self.timed_out(cx, number),
            AtMount::Close(session, term, keys) => {
                self.holder.recall(session, term, &keys);
            }
            AtMount::Back(loans, after) => self.tell_kernel(cx, loans, after),
        }
    }

    fn beat(&mut self, cx: &mut Cx) {
        let (term, now_ms) = (self.holder.term(), self.now_ms(cx));
        if term > self.settled && cx.keeps(UseRule::LoansBackThenSettle) {
            let loans = self.holder.loans(now_ms);
            return self.take_back(cx, loans, After::Settle(term));
        }
        let beat = self.holder.beat(now_ms);
        let message = ToServer::Beat {
            session: beat.session,
            term: beat.term,
        };
        self.send(cx, Call::Beat(beat), message);
    }

    fn poll(&mut self, cx: &mut Cx) {
        let (session, term) = (self.session, self.holder.term());
        let acked = match self.acked {
            (s, t, number) if s == session && t == term => number,
            _ => 0,
        };
        let poll = ToServer::Poll {
            session,
            term,
            acked,
        };
        cx.tell_server(self.guess, (self.index, 0), poll);
    }

    fn timed_out(&mut self, cx: &mut Cx, number: u64) {
        let Some(call) = self.calls.remove(&number) else {
            return;
        };
        self.guess = 1 - self.guess;
        match call {
            Call::Actor(actor) => self.again(cx, actor),
            // The answer may come yet.
            Call::Beat(_) => _ = self.calls.insert(number, call),
            Call::Open(new) => {
                let old = Some(self.session);
                self.send(cx, Call::Open(new), ToServer::Open { new, old });
            }
        }
    }

    fn again(&mut self, cx: &mut Cx, actor: usize) {
        let over = match &self.doing[actor] {
            Doing::Idle => return,
            Doing::Read(reading) => cx.now >= reading.until_us,
            Doing::Change(changing) => cx.now >= changing.until_us,
        };
        if over {
            return self.give_up(cx, actor);
        }
        self.ask(cx, actor);
    }

    fn give_up(&mut self, cx: &mut Cx, actor: usize) {
        if let Doing::Change(changing) = std::mem::replace(&mut self.doing[actor], Doing::Idle) {
            let now_ms = self.now_ms(cx);
            self.holder.end(changing.change, Outcome::Unknown, now_ms);
            cx.stats.given_up += 1;
        }
        self.rest(cx, actor);
    }

    fn ask(&mut self, cx: &mut Cx, actor: usize) {
        let now_ms = self.now_ms(cx);
        let message = match &mut self.doing[actor] {
            Doing::Idle => return,
            Doing::Read(reading) => {
                let first = match reading.what {
                    What::Page(_, page) => cx.keeps(UseRule::ListingRegisteredFirst) == (page == 0),
                    _ => true,
                };
                ToServer::Query {
                    session: self.session,
                    asked: reading.token.number(),
                    wants: first
                        && (cx.plan.eager || self.holder.wants(&reading.what.key(), now_ms)),
                    what: reading.what,
                }
            }
            Doing::Change(changing) => {
                let first = !std::mem::replace(&mut changing.sent, true);
                ToServer::Change {
                    session: changing.session,
                    seq: changing.seq,
                    began: changing.change.began(),
                    closed: changing.change.keys().to_vec(),
                    first,
                    cmd: changing.cmd.clone(),
                }
            }
        };
        self.send(cx, Call::Actor(actor), message);
    }

    // -- programs -----------------------------------------------------------------

    fn act(&mut self, cx: &mut Cx, actor: usize) {
        let healed = cx.now > cx.plan.heal_us;
        let until_us = match healed {
            true => cx.now + 5_000_000,
            false => cx.now + cx.random.range(100_000, 2_500_000),
        };
        if cx.random.percent(cx.plan.changes) {
            let cmd = self.any_change(cx);
            return self.change(cx, actor, cmd, until_us);
        }
        let what = match cx.random.below(10) {
            n if n >= 10 - cx.plan.listings => What::Page(cx.random.pick(&DIRS), 0),
            0..5 => What::Attr(any_inode(cx)),
            _ => What::Name(any_name(cx)),
        };
        if self.find_in_cache(cx, what) {
            return self.rest(cx, actor);
        }
        let listing = match what {
            What::Page(dir, _) => self.holder.list(dir),
            What::Attr(_) | What::Name(_) => None,
        };
        self.doing[actor] = Doing::Read(Reading {
            begin_us: cx.now,
            what,
            token: listing.unwrap_or_else(|| self.holder.ask()),
            leased: None,
            names: Vec::new(),
            until_us,
        });
        self.ask(cx, actor);
    }

    fn find_in_cache(&mut self, cx: &mut Cx, what: What) -> bool {
        let now_ms = self.now_ms(cx);
        let (found, right) = match what {
            What::Attr(ino) => match self.holder.inode(ino, now_ms).copied() {
                Some(value) => {
                    self.lend(cx, ino, value);
                    (true, cx.truth.was_value(ino, value, (cx.now, cx.now)))
                }
                None => (false, true),
            },
            What::Name(at) => match self.holder.name(at.0, &[at.1], now_ms) {
                Some(found) => (true, cx.truth.was_target(at, found, (cx.now, cx.now))),
                None => (false, true),
            },
            What::Page(dir, _) => {
                let found = self.holder.is_complete(dir, now_ms);
                cx.stats.directory_hits += u64::from(found);
                (found, true)
            }
        };
        cx.stats.hits += u64::from(found);
        if !right {
            let (now, index) = (cx.now, self.index);
            cx.wrong
                .push(format!("{now} us: mount {index} answers {what:?} wrongly"));
        }
        found
    }

    fn any_change(&self, cx: &mut Cx) -> Cmd {
        let most = if cx.plan.renames { 18 } else { 0 };
        match cx.random.range(most, 20) {
            0..7 => Cmd::Set(any_inode(cx)),
            7..12 => Cmd::Link(cx.random.pick(&FILES), any_name(cx)),
            12..15 => Cmd::Unlink(any_name(cx)),
            15..19 => Cmd::Rename(any_name(cx), any_name(cx)),
            _ if cx.now + 2_500_000 > cx.plan.end_us => Cmd::Set(any_inode(cx)),
            _ => Cmd::Atime(any_inode(cx)),
        }
    }

    fn change(&mut self, cx: &mut Cx, actor: usize, cmd: Cmd, until_us: u64) {
        cx.stats.changes += 1;
        if let Cmd::Atime(_) = cmd {
            let message = ToServer::Change {
                session: self.session,
                seq: 0,
                began: 0,
                closed: Vec::new(),
                first: true,
                cmd,
            };
            cx.tell_server(self.guess, (self.index, 0), message);
            return self.rest(cx, actor);
        }
        let now_ms = self.now_ms(cx);
        let mut keys = cmd.keys();
        for at in cmd.names() {
            // As far as this mount knows them.
            if let Some(Found::Inode(ino)) = self.holder.name(at.0, &[at.1], now_ms) {
                keys.push(Key::Inode(ino));
            }
        }
        keys.sort();
        keys.dedup();
        self.seq += 1;
        let change = self.holder.begin(keys);
        let loans = match cx.keeps(UseRule::LoansBackThenSend) {
            true => self.holder.loans_of_change(&change, now_ms),
            false => Vec::new(),
        };
        self.doing[actor] = Doing::Change(Changing {
            change,
            session: self.session,
            seq: self.seq,
            cmd,
            sent: false,
            until_us,
        });
        self.take_back(cx, loans, After::Send(actor));
    }

    // -- answers ------------------------------------------------------------------

    pub fn receive(&mut self, cx: &mut Cx, number: u64, message: ToMount) {
        let now_ms = self.now_ms(cx);
        if let ToMount::Recalls {
            session,
            term,
            recalls,
        } = message
        {
            return self.recalled(cx, session, term, recalls);
        }
        let Some(call) = self.calls.remove(&number) else {
            return;
        };
        match (message, call) {
            (ToMount::NotLeader, call) => {
                self.calls.insert(number, call);
                let timer = self.me(AtMount::TimedOut(number));
                cx.soon(30_000, timer);
            }
            (
                ToMount::Beat {
                    term,
                    leased,
                    alive,
                },
                Call::Beat(beat),
            ) => {
                let new = term > self.holder.term();
                self.holder.beat_answered(&beat, term, leased, now_ms);
                if !alive && beat.session == self.session && !self.opening {
                    self.open(cx, None);
                } else if new {
                    self.beat(cx);
                }
            }
            (ToMount::Opened, Call::Open(new)) => {
                let starts = self.seq == 0 && self.done_us.iter().all(|us| *us == 0);
                self.session = new;
                self.holder.replace_session(new);
                self.opening = false;
                if starts {
                    self.start(cx);
                }
            }
            (
                ToMount::Shown {
                    term,
                    leased,
                    shown,
                },
                Call::Actor(actor),
            ) => self.shown(cx, actor, leased.then_some(term), shown),
            (
                ToMount::Changed {
                    term,
                    leased,
                    facts,
                },
                Call::Actor(actor),
            ) => {
                cx.stats.own_kept += leased.len() as u64;
                let outcome = facts.map_or(Outcome::Nothing, |facts| Outcome::Done {
                    term,
                    leased,
                    facts,
                });
                self.changed(cx, actor, outcome);
            }
            _ => {}
        }
    }

    fn recalled(&mut self, cx: &mut Cx, session: SessionId, term: u64, recalls: Recalls) {
        let keys = recalls.keys;
        let mine = match cx.keeps(UseRule::CloseThenAcknowledge) {
            true => self.holder.recall(session, term, &keys),
            false => {
                let later = self.me(AtMount::Close(session, term, keys.clone()));
                cx.soon(20_000, later);
                self.holder.recall(session, term, &[])
            }
        };
        if !mine {
            return self.poll(cx);
        }
        let loans = match cx.keeps(UseRule::LoansBackThenAcknowledge) {
            true => self.holder.loans_of(&keys, self.now_ms(cx)),
            false => Vec::new(),
        };
        let after = After::Acknowledge(session, term, recalls.number);
        self.take_back(cx, loans, after);
    }

    fn changed(&mut self, cx: &mut Cx, actor: usize, outcome: Outcome<Value>) {
        let doing = std::mem::replace(&mut self.doing[actor], Doing::Idle);
        if let Doing::Change(changing) = doing {
            let now_ms = self.now_ms(cx);
            self.holder.end(changing.change, outcome, now_ms);
            self.rest(cx, actor);
        }
    }

    fn shown(&mut self, cx: &mut Cx, actor: usize, leased: Option<u64>, shown: Shown) {
        let now_ms = self.now_ms(cx);
        let Doing::Read(reading) = &mut self.doing[actor] else {
            return;
        };
        let (when, token) = ((reading.begin_us, cx.now), reading.token);
        let right = match (reading.what, shown) {
            (What::Attr(ino), Shown::Attr(value)) => {
                self.holder.keep_inode(token, leased, (ino, value), now_ms);
                cx.truth.was_value(ino, value, when)
            }
            (What::Name(at), Shown::Name(found)) => {
                self.holder
                    .keep_name(token, leased, (name(at), found), now_ms);
                cx.truth.was_target(at, found, when)
            }
            (What::Page(dir, 0), Shown::Page(names)) => {
                reading.leased = leased;
                reading.names = names;
                reading.what = What::Page(dir, 1);
                return self.ask(cx, actor);
            }
            (What::Page(dir, _), Shown::Page(names)) => {
                reading.names.extend(names);
                let leased = match cx.keeps(UseRule::ListingRegisteredFirst) {
                    true => reading.leased,
                    false => leased,
                };
                let all = reading.names.iter();
                let all: Vec<_> = all.map(|(n, ino)| (Arc::from([*n]), *ino)).collect();
                let names = std::mem::take(&mut reading.names);
                self.holder.keep_directory(token, leased, dir, all, now_ms);
                NAMES.into_iter().all(|n| {
                    let found = names.iter().find(|(of, _)| *of == n).map(|(_, ino)| *ino);
                    cx.truth.was_target((dir, n), found.into(), when)
                })
            }
            _ => return,
        };
        cx.stats.asked += 1;
        if !right {
            let (now, index) = (cx.now, self.index);
            cx.wrong
                .push(format!("{now} us: mount {index} was answered wrongly"));
        }
        self.rest(cx, actor);
    }

    // -- checks -------------------------------------------------------------------

    /// Whatever may be answered from the cache now must be so now.
    pub fn audit(&mut self, cx: &mut Cx, quiet: bool) {
        self.kernel.audit(cx, self.index);
        if self.dead {
            return;
        }
        let (now, now_ms, index) = (cx.now, self.now_ms(cx), self.index);
        for ino in DIRS.into_iter().chain(FILES) {
            let value = cx.truth.value(ino);
            if let Some(kept) = self.holder.inode(ino, now_ms)
                && (kept.0 != value.0 || (quiet && kept.1 != value.1))
            {
                cx.wrong.push(format!(
                    "{now} us: mount {index} keeps {kept:?} of {ino}, which is {value:?}"
                ));
            }
        }
        for dir in DIRS {
            for byte in NAMES {
                let target: Found = cx.truth.target((dir, byte)).into();
                if let Some(found) = self.holder.name(dir, &[byte], now_ms)
                    && found != target
                {
                    cx.wrong.push(format!(
                        "{now} us: mount {index} keeps {found:?} of {dir} {byte}, which is {target:?}"
                    ));
                }
            }
        }
    }
}

fn any_inode(cx: &mut Cx) -> Ino {
    match cx.random.percent(30) {
        true => cx.random.pick(&DIRS),
        false => cx.random.pick(&FILES),
    }
}

fn any_name(cx: &mut Cx) -> (Ino, u8) {
    (cx.random.pick(&DIRS), cx.random.pick(&NAMES))
}
