//! Files that a mount makes by itself, and has made for everybody later.

use super::{Call, Doing, Mount};
use crate::holder::{Change, Made, Outcome};
use crate::simulation::cx::Cx;
use crate::simulation::message::{
    After, AtMount, Cmd, FILES, NAMES, ToServer, UseRule, Value, What, name,
};
use crate::simulation::truth::Local;
use crate::times::LEASE_MS;
use lagan_types::Ino;
use lagan_types::lease::{Found, Key};

/// Numbers of such files begin after this.
const INOS: u64 = 1_000;

/// A file that is not made for everybody yet.
#[derive(Debug)]
pub(super) struct LocalFile {
    at: (Ino, u8),
    /// The number that its directory got with it.
    value: u64,
    /// The term in which it was made.
    term: u64,
    /// The lease under which it was made ends then.
    until_ms: u64,
    made_us: u64,
    making: Option<Making>,
}

/// The change that makes it.
#[derive(Debug)]
struct Making {
    change: Change,
    seq: u64,
    sent: bool,
    until_us: u64,
}

impl Mount {
    /// A create, or the removal of what is in the way.
    pub(super) fn any_create(&mut self, cx: &mut Cx, actor: usize, until_us: u64) -> After {
        let now_ms = self.now_ms(cx);
        let mut at = self.any_name(cx);
        for _ in 0..2 {
            if self.holder.name(at.0, &[at.1], now_ms) == Some(Found::Absent) {
                break;
            }
            at.1 = cx.random.pick(&NAMES);
        }
        match self.holder.name(at.0, &[at.1], now_ms) {
            Some(Found::Inode(_)) if cx.random.percent(90) => {
                After::Change(actor, Cmd::Unlink(at), until_us)
            }
            _ => After::Create(actor, at, until_us),
        }
    }

    /// Makes a file here, or asks the leader to.
    pub(super) fn create(&mut self, cx: &mut Cx, actor: usize, at: (Ino, u8), until_us: u64) {
        if self.make_here(cx, at) {
            return self.rest(cx, actor);
        }
        let now_ms = self.now_ms(cx);
        let alone = self.holder.wants_alone(at.0, now_ms).then_some(at.0);
        let cmd = Cmd::Link(cx.random.pick(&FILES), at);
        self.change(cx, actor, cmd, (until_us, alone));
    }

    fn make_here(&mut self, cx: &mut Cx, at: (Ino, u8)) -> bool {
        let (now, now_ms) = (cx.now, self.now_ms(cx));
        let ino = Ino(INOS + cx.number());
        let local = Local {
            at,
            mount: self.index,
            value: 0,
            until_ms: self.lease.2,
        };
        let mut value = 0;
        let truth = &mut *cx.truth;
        let made = self.holder.make(&name(at), now_ms, |dir: &Value| {
            value = truth.make_alone(ino, local, now);
            Some(Made {
                ino,
                attr: (value, 0),
                dir: (value, dir.1),
            })
        });
        if made {
            cx.stats.changes += 1;
            cx.stats.made += 1;
            let file = LocalFile {
                at,
                value,
                term: self.holder.term(),
                until_ms: self.lease.2,
                made_us: now,
                making: None,
            };
            self.locals.insert(ino, file);
            let us = cx.now + cx.random.range(1_000, 100_000);
            let make = self.me(AtMount::Make(ino));
            cx.at(us, make);
        }
        made
    }

    /// Notes that the heartbeat that was sent then gave a lease.
    pub(super) fn leased(&mut self, cx: &mut Cx, sent_ms: u64) {
        let (session, term) = (self.session, self.holder.term());
        let end_ms = sent_ms + LEASE_MS;
        let end_ms = match self.lease {
            (s, t, before_ms) if (s, t) == (session, term) => end_ms.max(before_ms),
            _ => end_ms,
        };
        self.lease = (session, term, end_ms);
        for (ino, file) in self.locals.iter_mut().filter(|(_, file)| file.term == term) {
            if cx.truth.local.contains_key(ino) {
                file.until_ms = file.until_ms.max(end_ms);
            }
            if let Some(local) = cx.truth.local.get_mut(ino) {
                local.until_ms = local.until_ms.max(end_ms);
            }
        }
    }

    /// Returns the term of which the leader is told that nothing is held of earlier ones.
    pub(super) fn settled_term(&self, cx: &Cx, term: u64) -> u64 {
        let oldest = self.locals.values().map(|file| file.term).min();
        let oldest = oldest.filter(|_| cx.keeps(UseRule::LocalsMadeThenSettle));
        oldest.map_or(term, |oldest| oldest.min(term))
    }

    // -- what waits for them ------------------------------------------------------

    /// Goes on when the local files are made that stand in the way.
    pub(super) fn when_made(&mut self, cx: &mut Cx, after: After) {
        let first = self.first(cx, &after);
        if first.is_empty() {
            return self.go_on(cx, after);
        }
        self.waiting.push(after);
        for ino in first {
            self.begin_make(cx, ino);
        }
    }

    fn first(&mut self, cx: &Cx, after: &After) -> Vec<Ino> {
        let now_ms = self.now_ms(cx);
        let rule = match after {
            After::Acknowledge(..) => UseRule::OrphansMadeThenAcknowledge,
            _ => UseRule::OrphansMadeThenAsk,
        };
        let mut first = match cx.keeps(rule) {
            true => self.holder.orphans(now_ms),
            false => Vec::new(),
        };
        let names = match after {
            After::Change(_, cmd, _) => cmd.changes(),
            After::Create(_, at, _) => vec![*at],
            After::Ask(actor) => match &self.doing[*actor] {
                Doing::Read(reading) => names_of(reading.what),
                Doing::Idle | Doing::Change(_) => Vec::new(),
            },
            _ => Vec::new(),
        };
        if cx.keeps(UseRule::LocalsMadeThenAsk) {
            let touched = self.locals.iter();
            let touched = touched.filter(|(_, file)| names.contains(&file.at));
            first.extend(touched.map(|(ino, _)| *ino));
        }
        first.sort_unstable();
        first.dedup();
        first
    }

    pub(super) fn go_on_waiting(&mut self, cx: &mut Cx) {
        for after in std::mem::take(&mut self.waiting) {
            self.when_made(cx, after);
        }
    }

    // -- making them ----------------------------------------------------------------

    /// Begins to make a local file for everybody, unless that is under way.
    pub(super) fn begin_make(&mut self, cx: &mut Cx, ino: Ino) {
        let Some(file) = self.locals.get_mut(&ino).filter(|f| f.making.is_none()) else {
            return;
        };
        self.seq += 1;
        let until_us = match cx.now > cx.plan.heal_us {
            true => cx.now + 5_000_000,
            false => cx.now + cx.random.range(100_000, 2_500_000),
        };
        file.making = Some(Making {
            change: self.holder.begin(vec![Key::Inode(ino)]),
            seq: self.seq,
            sent: false,
            until_us,
        });
        self.send_make(cx, ino);
    }

    fn send_make(&mut self, cx: &mut Cx, ino: Ino) {
        let session = self.session;
        let Some(file) = self.locals.get_mut(&ino) else {
            return;
        };
        let make = Cmd::Make {
            ino,
            at: file.at,
            value: file.value,
        };
        let Some(making) = &mut file.making else {
            return;
        };
        let first = !std::mem::replace(&mut making.sent, true);
        let message = ToServer::Change {
            session,
            seq: making.seq,
            began: making.change.began(),
            closed: making.change.keys().to_vec(),
            first,
            alone: None,
            cmd: make,
        };
        let call = Call::Make(ino, making.seq);
        self.send(cx, call, message);
    }

    pub(super) fn make_again(&mut self, cx: &mut Cx, ino: Ino, seq: u64) {
        let Some(making) = self.take_making(ino, seq) else {
            return;
        };
        if cx.now < making.until_us {
            if let Some(file) = self.locals.get_mut(&ino) {
                file.making = Some(making);
            }
            return self.send_make(cx, ino);
        }
        let now_ms = self.now_ms(cx);
        self.holder.end(making.change, Outcome::Unknown, now_ms);
        cx.stats.given_up += 1;
        if !cx.random.percent(20) {
            return self.begin_make(cx, ino);
        }
        // Nobody has it open any more.
        self.holder.give_up(ino);
        self.lose(cx, ino);
    }

    fn take_making(&mut self, ino: Ino, seq: u64) -> Option<Making> {
        let making = &mut self.locals.get_mut(&ino)?.making;
        making.take_if(|making| making.seq == seq)
    }

    pub(super) fn make_answered(
        &mut self,
        cx: &mut Cx,
        (ino, seq): (Ino, u64),
        outcome: Outcome<Value>,
    ) {
        let Some(making) = self.take_making(ino, seq) else {
            return;
        };
        let made = !matches!(outcome, Outcome::Nothing);
        let now_ms = self.now_ms(cx);
        self.holder.end(making.change, outcome, now_ms);
        self.holder.made(ino);
        match made {
            true => {
                self.locals.remove(&ino);
                self.go_on_waiting(cx);
            }
            false => self.lose(cx, ino),
        }
    }

    /// Forgets a file that was not made.
    fn lose(&mut self, cx: &mut Cx, ino: Ino) {
        cx.stats.lost += 1;
        cx.truth.lapse(ino, cx.now);
        let now_ms = self.now_ms(cx);
        if let Some(file) = self.locals.remove(&ino) {
            check_loss(cx, &file);
            let (at, dir) = (Key::Name(name(file.at)), Key::Inode(file.at.0));
            let change = self.holder.begin(vec![at, dir, Key::Inode(ino)]);
            let loans = self.holder.loans_of(change.keys(), now_ms);
            self.holder.end(change, Outcome::Unproven, now_ms);
            self.take_back(cx, loans, After::Nothing);
        }
        self.go_on_waiting(cx);
    }

    /// Forgets all of them, since their session has ended.
    pub(super) fn forget_locals(&mut self, cx: &mut Cx) {
        let now_ms = self.now_ms(cx);
        for (_, file) in std::mem::take(&mut self.locals) {
            cx.stats.lost += 1;
            check_loss(cx, &file);
            if let Some(making) = file.making {
                self.holder.end(making.change, Outcome::Nothing, now_ms);
            }
        }
    }
}

/// Nothing is lost when the faults have ended, the last term has begun and every mount has been
/// heard.
fn check_loss(cx: &mut Cx, file: &LocalFile) {
    let calm_us = cx.plan.heal_us + 2_000_000;
    if file.made_us > calm_us && cx.plan.deaf.is_none() {
        let (now, at) = (cx.now, file.at);
        cx.wrong
            .push(format!("{now} us: the local file at {at:?} is lost"));
    }
}

/// The names that a read shows.
fn names_of(what: What) -> Vec<(Ino, u8)> {
    match what {
        What::Attr(_) => Vec::new(),
        What::Name(at) => vec![at],
        What::Page(dir, _) => NAMES.into_iter().map(|n| (dir, n)).collect(),
    }
}
