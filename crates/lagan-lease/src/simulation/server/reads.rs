//! Queries at a server: what they show, and when they wait.

use super::Server;
use crate::leader::{End, Ready, Table};
use crate::simulation::cx::Cx;
use crate::simulation::message::{
    AtServer, DIRS, From, Grant, Query, Shown, ToMount, UseRule, What,
};
use lagan_types::lease::Found;

/// A query that waits until a directory is used alone no more.
#[derive(Debug)]
pub(super) struct Visit {
    pub to: From,
    query: Query,
    pub since_us: u64,
}

impl Server {
    pub(super) fn query(&mut self, cx: &mut Cx, to: From, query: Query) {
        let (now_ms, term) = (self.now_ms(cx), self.term);
        let Some(table) = &mut self.table else {
            return cx.tell_mount(to, ToMount::NotLeader);
        };
        let early = cx.keeps(UseRule::RegisterThenRead);
        let key = query.what.key();
        let leased =
            query.wants && early && table.register(query.session, &key, query.asked, now_ms);
        let began = table.read_begins();
        let read = AtServer::Read {
            term,
            to,
            query,
            grant: Grant { leased, began },
        };
        let event = self.me(read);
        cx.soon(3_000, event);
    }

    pub(super) fn read(
        &mut self,
        cx: &mut Cx,
        (term, to): (u64, From),
        query: Query,
        grant: Grant,
    ) {
        if term != self.term || !self.leads(cx) {
            return cx.tell_mount(to, ToMount::NotLeader);
        }
        let now_ms = self.now_ms(cx);
        let held = self
            .table
            .as_mut()
            .is_some_and(|t| t.hold_left_ms(now_ms) > 0);
        let shown = cx.truth.read(query.what);
        let waits = match query.what {
            What::Attr(ino) => DIRS.contains(&ino) && cx.keeps(UseRule::DirectoriesAfterHold),
            what => denies(what, &shown) && cx.keeps(UseRule::AbsentAfterHold),
        };
        if held && waits {
            let event = self.me(AtServer::Query { term, to, query });
            return cx.soon(20_000, event);
        }
        let early = cx.keeps(UseRule::RegisterThenRead) || !query.wants;
        let next = match early {
            true => AtServer::Answer {
                term,
                to,
                query,
                grant,
                shown,
            },
            false => AtServer::Late {
                term,
                to,
                query,
                grant,
                shown,
            },
        };
        let event = self.me(next);
        cx.soon(if early { 500 } else { 3_000 }, event);
    }

    /// Registers after the read: a broken rule.
    pub(super) fn late(
        &mut self,
        cx: &mut Cx,
        (term, to): (u64, From),
        query: Query,
        (mut grant, shown): (Grant, Shown),
    ) {
        let now_ms = self.now_ms(cx);
        let table = self.table.as_mut().filter(|t| t.term() == term);
        let key = query.what.key();
        grant.leased = table.is_some_and(|t| t.register(query.session, &key, query.asked, now_ms));
        self.answer(cx, (term, to), query, (grant, shown));
    }

    pub(super) fn answer(
        &mut self,
        cx: &mut Cx,
        (term, to): (u64, From),
        query: Query,
        (grant, shown): (Grant, Shown),
    ) {
        let now_ms = self.now_ms(cx);
        let Some(table) = self.table.as_mut().filter(|t| t.term() == term) else {
            return cx.tell_mount(to, ToMount::NotLeader);
        };
        let keys = [query.what.key()];
        let may = table.may_show(query.session, &keys, grant.began);
        if !may && cx.keeps(UseRule::VisitorsWait) {
            let id = table.visit(query.session, &keys, now_ms);
            let since_us = cx.now;
            let visit = Visit {
                to,
                query,
                since_us,
            };
            self.visits.insert(id, visit);
            return;
        }
        let shown = ToMount::Shown {
            term,
            leased: grant.leased,
            shown,
        };
        cx.tell_mount(to, shown);
    }

    pub(super) fn step_visits(&mut self, cx: &mut Cx) {
        let now_ms = self.now_ms(cx);
        let ids: Vec<_> = self.visits.keys().copied().collect();
        for id in ids {
            match self.table.as_mut().map(|table| table.ready(id, now_ms)) {
                Some(Ready::Now) => {
                    let end = |table: &mut Table| table.end(id, End::Nothing, now_ms);
                    self.table.as_mut().map(end);
                    if let Some(visit) = self.visits.remove(&id) {
                        self.query(cx, visit.to, visit.query);
                    }
                }
                Some(Ready::At { ms }) => self.wake_at(cx, ms),
                None => return,
            }
        }
    }
}

/// Whether the answer says that something is not there. In a new term a mount may have made it
/// under the lease of an earlier one.
fn denies(what: What, shown: &Shown) -> bool {
    matches!(what, What::Page(..)) || matches!(shown, Shown::Name(Found::Absent))
}
