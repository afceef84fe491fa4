//! What a mount lends its kernel, and how it comes back.

use super::{Doing, Mount};
use crate::holder::{Loan, Way};
use crate::simulation::cx::Cx;
use crate::simulation::message::{After, AtMount, DIRS, NAMES, UseRule, Value};
use lagan_types::Ino;

impl Mount {
    pub(super) fn lend(&mut self, cx: &mut Cx, ino: Ino, value: Value) {
        let (named, evicted) = (cx.random.percent(40), cx.random.percent(20));
        let way = if named {
            Way::Name(DIRS[0], &NAMES[..1])
        } else {
            Way::Attributes
        };
        if self
            .holder
            .lend(ino, way, self.now_ms(cx), |held| *held == value)
        {
            if evicted {
                self.kernel.evict(ino);
            }
            cx.stats.lent += 1;
            self.kernel.answer(cx, self.index, (ino, value), way);
        }
    }

    /// Has loans come back, and then goes on.
    pub(super) fn take_back(&mut self, cx: &mut Cx, loans: Vec<Loan>, after: After) {
        match loans.is_empty() {
            true => self.go_on(cx, after),
            false => {
                let told = self.me(AtMount::Back(loans, after));
                cx.soon(3_000, told);
            }
        }
    }

    pub(super) fn tell_kernel(&mut self, cx: &mut Cx, mut loans: Vec<Loan>, after: After) {
        let (now_ms, waits) = (self.now_ms(cx), cx.keeps(UseRule::ArrivingWaitedFor));
        loans.retain(|loan| {
            let known = self.kernel.forget(loan.ino);
            let stays = !known && waits && loan.arriving_ms(now_ms) > 0;
            if !stays {
                self.holder.returned(loan);
            }
            stays
        });
        let arriving = loans.iter().map(|loan| loan.arriving_ms(now_ms)).max();
        match arriving {
            None => self.go_on(cx, after),
            Some(ms) => {
                let again = self.me(AtMount::Back(loans, after));
                cx.at(cx.now + 1_000 * ms, again);
            }
        }
    }

    pub(super) fn go_on(&mut self, cx: &mut Cx, after: After) {
        match after {
            After::Acknowledge(session, term, number) => {
                let same = (session, term) == (self.session, self.holder.term());
                if same && (self.acked.0, self.acked.1, self.acked.2) < (session, term, number) {
                    self.acked = (session, term, number);
                }
                self.poll(cx);
            }
            After::Nothing => {}
            After::Recalled(session, term, number) => {
                self.when_made(cx, After::Acknowledge(session, term, number));
            }
            After::Ask(actor) => {
                let number = self.holder.alone_number();
                if let Doing::Read(reading) = &mut self.doing[actor] {
                    reading.alone = number;
                }
                self.ask(cx, actor);
            }
            After::Change(actor, cmd, until_us) => self.change(cx, actor, cmd, (until_us, None)),
            After::Create(actor, at, until_us) => self.create(cx, actor, at, until_us),
            After::Send(actor) => self.ask(cx, actor),
            After::Settle(term) => {
                self.settled = self.settled.max(term);
                self.beat(cx);
            }
        }
    }
}
