//! What a mount does with what it is told.

use super::{Call, Doing, Mount};
use crate::holder::{Beat, Outcome};
use crate::leader::Recalls;
use crate::simulation::cx::Cx;
use crate::simulation::message::{
    After, AtMount, NAMES, Shown, ToMount, UseRule, Value, What, name,
};
use lagan_types::SessionId;
use lagan_types::lease::Key;
use std::sync::Arc;

impl Mount {
    pub fn receive(&mut self, cx: &mut Cx, number: u64, message: ToMount) {
        self.hear(cx, number, message);
    }

    fn hear(&mut self, cx: &mut Cx, number: u64, message: ToMount) {
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
                Call::Beat(beat, sent_ms),
            ) => self.beat_answered(cx, (beat, sent_ms), (term, leased, alive)),
            (ToMount::Opened, Call::Open(new)) => self.opened(cx, new),
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
                    exclusive,
                },
                call,
            ) => {
                cx.stats.own_kept += leased.len() as u64;
                let outcome = facts.map_or(Outcome::Nothing, |facts| Outcome::Done {
                    term,
                    leased,
                    facts,
                    exclusive,
                });
                match call {
                    Call::Actor(actor) => self.changed(cx, actor, outcome),
                    Call::Make(ino, seq) => self.make_answered(cx, (ino, seq), outcome),
                    Call::Beat(..) | Call::Open(_) => {}
                }
            }
            _ => {}
        }
    }

    fn beat_answered(
        &mut self,
        cx: &mut Cx,
        (beat, sent_ms): (Beat, u64),
        (term, leased, alive): (u64, bool, bool),
    ) {
        let (now_ms, new) = (self.now_ms(cx), term > self.holder.term());
        self.holder.beat_answered(&beat, term, leased, now_ms);
        if leased && beat.session == self.session && term == self.holder.term() {
            self.leased(cx, sent_ms);
        }
        if !alive && beat.session == self.session && !self.opening {
            self.open(cx, None);
        } else if new {
            self.beat(cx);
        }
    }

    /// Goes on with another session.
    fn opened(&mut self, cx: &mut Cx, new: SessionId) {
        self.forget_locals(cx);
        self.session = new;
        self.holder.replace_session(new);
        self.opening = false;
        self.go_on_waiting(cx);
        if !self.started {
            self.start(cx);
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
        let alone = keys.iter().any(|key| matches!(key, Key::Exclusive(_)));
        let after = match alone {
            true => After::Recalled(session, term, recalls.number),
            false => After::Acknowledge(session, term, recalls.number),
        };
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
            (What::Attr(ino), Shown::Attr(mut value)) => {
                let (number, corrects) = (reading.alone, cx.keeps(UseRule::ShownCorrected));
                let correct = |known: &Value| {
                    if corrects {
                        value = *known;
                    }
                };
                let shows = self.holder.shows(ino, number, now_ms, correct);
                if !shows && corrects {
                    return self.when_made(cx, After::Ask(actor));
                }
                self.holder.keep_inode(token, leased, (ino, value), now_ms);
                self.is_true(cx, ino, value, when.0)
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
                return self.when_made(cx, After::Ask(actor));
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
}
