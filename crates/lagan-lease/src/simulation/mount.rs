//! A mount around its cache, and the programs that call it.

mod answers;
mod audit;
mod loans;
mod local;

use super::cx::Cx;
use super::kernel::Kernel;
use super::message::{
    After, AtMount, Cmd, DIRS, Event, FILES, NAMES, Query, ToServer, UseRule, Value, What,
};
use super::random::Clock;
use crate::holder::{Beat, CacheBounds, Change, Holder, Outcome, Token};
use crate::times::HEARTBEAT_MS;
use lagan_types::lease::{Found, Key};
use lagan_types::{Ino, SessionId};
use local::LocalFile;
use std::collections::BTreeMap;

#[derive(Debug)]
enum Call {
    Actor(usize),
    /// A heartbeat, and when it was sent.
    Beat(Beat, u64),
    Open(SessionId),
    /// The making of a local file, by the change of that number.
    Make(Ino, u64),
}

#[derive(Debug)]
struct Reading {
    begin_us: u64,
    what: What,
    token: Token,
    /// [`Holder::alone_number`].
    alone: u64,
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
    /// What is closed for it beside its keys.
    given_back: Vec<Key>,
    /// The directory that is wished for alone.
    alone: Option<Ino>,
    sent: bool,
    begun_us: u64,
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
    /// Its programs run.
    started: bool,
    /// Files that it made by itself, and that are not made for everybody yet.
    locals: BTreeMap<Ino, LocalFile>,
    /// What waits for some of them to be made.
    waiting: Vec<After>,
    /// Its lease, as far as it knows: of which session and term, and until when.
    lease: (SessionId, u64, u64),
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
            started: false,
            locals: BTreeMap::new(),
            waiting: Vec::new(),
            lease: (session, 0, 0),
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
        self.started = true;
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
            AtMount::Make(ino) => self.begin_make(cx, ino),
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
            said: (beat.term, self.settled_term(cx, beat.term)),
        };
        self.send(cx, Call::Beat(beat, now_ms), message);
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
            Call::Beat(..) => _ = self.calls.insert(number, call),
            Call::Make(ino, seq) => self.make_again(cx, ino, seq),
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
                ToServer::Query(Query {
                    session: self.session,
                    asked: reading.token.number(),
                    wants: first
                        && (cx.plan.eager || self.holder.wants(&reading.what.key(), now_ms)),
                    what: reading.what,
                })
            }
            Doing::Change(changing) => {
                let first = !std::mem::replace(&mut changing.sent, true);
                ToServer::Change {
                    session: changing.session,
                    seq: changing.seq,
                    began: changing.change.began(),
                    closed: [changing.change.keys(), &changing.given_back].concat(),
                    first,
                    alone: changing.alone,
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
            let creates = cx.random.percent(cx.plan.creates);
            let after = match creates {
                true => self.any_create(cx, actor, until_us),
                false => After::Change(actor, self.any_change(cx), until_us),
            };
            return self.when_made(cx, after);
        }
        let what = match cx.random.below(10) {
            n if n >= 10 - cx.plan.listings => What::Page(self.any_directory(cx), 0),
            0..5 => What::Attr(self.any_inode(cx)),
            _ => What::Name(self.any_name(cx)),
        };
        // Some answers show more than what was asked for.
        let asks = matches!(what, What::Attr(_)) && cx.random.percent(cx.plan.creates / 10);
        if !asks && self.find_in_cache(cx, what) {
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
            alone: 0,
            leased: None,
            names: Vec::new(),
            until_us,
        });
        self.when_made(cx, After::Ask(actor));
    }

    fn find_in_cache(&mut self, cx: &mut Cx, what: What) -> bool {
        let now_ms = self.now_ms(cx);
        let (found, right) = match what {
            What::Attr(ino) => match self.holder.inode(ino, now_ms).copied() {
                Some(value) => {
                    self.lend(cx, ino, value);
                    (true, self.is_true(cx, ino, value, cx.now))
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
            0..7 => Cmd::Set(self.any_inode(cx)),
            7..12 => Cmd::Link(cx.random.pick(&FILES), self.any_name(cx)),
            12..15 => Cmd::Unlink(self.any_name(cx)),
            15..19 => Cmd::Rename(self.any_name(cx), self.any_name(cx)),
            _ if cx.now + 2_500_000 > cx.plan.end_us => Cmd::Set(self.any_inode(cx)),
            _ => Cmd::Atime(self.any_inode(cx)),
        }
    }

    fn any_directory(&self, cx: &mut Cx) -> Ino {
        match cx.random.percent(cx.plan.home) {
            true => DIRS[self.index % DIRS.len()],
            false => cx.random.pick(&DIRS),
        }
    }

    fn any_inode(&self, cx: &mut Cx) -> Ino {
        match cx.random.percent(30) {
            true => self.any_directory(cx),
            false => cx.random.pick(&FILES),
        }
    }

    fn any_name(&self, cx: &mut Cx) -> (Ino, u8) {
        (self.any_directory(cx), cx.random.pick(&NAMES))
    }

    fn change(
        &mut self,
        cx: &mut Cx,
        actor: usize,
        cmd: Cmd,
        (until_us, alone): (u64, Option<Ino>),
    ) {
        cx.stats.changes += 1;
        if let Cmd::Atime(_) = cmd {
            let message = ToServer::Change {
                session: self.session,
                seq: 0,
                began: 0,
                closed: Vec::new(),
                first: true,
                alone: None,
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
        let given_back = self.holder.give_back(&keys);
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
            given_back,
            alone,
            sent: false,
            begun_us: cx.now,
            until_us,
        });
        self.take_back(cx, loans, After::Send(actor));
    }
}
