//! One run: events in the order of time, all from one seed.

use super::cx::{Cx, Plan, Stats};
use super::message::{AtServer, Cmd, Event, Fault, NAMES, UseRule};
use super::mount::Mount;
use super::random::{Clock, Random};
use super::server::Server;
use super::truth::{Entry, Truth};
use lagan_types::{Ino, SessionId};
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::collections::BinaryHeap;

/// What came out of a run.
#[derive(Debug)]
pub(super) struct Report {
    pub stats: Stats,
    /// What was wrong; empty: nothing.
    pub wrong: Vec<String>,
}

struct World {
    plan: Plan,
    broken: Option<UseRule>,
    now: u64,
    order: u64,
    next: u64,
    times: BinaryHeap<Reverse<(u64, u64)>>,
    events: BTreeMap<u64, Event>,
    truth: Truth,
    random: Random,
    servers: Vec<Server>,
    mounts: Vec<Mount>,
    stats: Stats,
    wrong: Vec<String>,
}

/// Runs once. Stops at the first thing that is wrong.
pub(super) fn run(plan: &Plan, broken: Option<UseRule>) -> Report {
    let mut world = World::new(plan.clone(), broken);
    world.begin();
    while world.wrong.is_empty() && world.step() {}
    if world.wrong.is_empty() {
        world.finish();
    }
    Report {
        stats: world.stats,
        wrong: world.wrong,
    }
}

impl World {
    fn new(plan: Plan, broken: Option<UseRule>) -> Self {
        let mut random = Random::new(plan.seed);
        let servers = (0..2).map(|i| Server::new(i, Clock::any(&mut random)));
        World {
            servers: servers.collect(),
            plan,
            broken,
            now: 0,
            order: 0,
            next: 0,
            times: BinaryHeap::new(),
            events: BTreeMap::new(),
            truth: Truth::new(),
            random,
            mounts: Vec::new(),
            stats: Stats::default(),
            wrong: Vec::new(),
        }
    }

    /// Lets a part act, and takes up what it sends.
    fn with<T>(&mut self, act: impl FnOnce(&mut Vec<Server>, &mut Vec<Mount>, &mut Cx) -> T) -> T {
        let mut out = Vec::new();
        let mut cx = Cx {
            now: self.now,
            plan: &self.plan,
            truth: &mut self.truth,
            random: &mut self.random,
            stats: &mut self.stats,
            out: &mut out,
            wrong: &mut self.wrong,
            broken: self.broken,
            next: &mut self.next,
        };
        let done = act(&mut self.servers, &mut self.mounts, &mut cx);
        for (us, event) in out {
            let later = self.slow_us(us, &event);
            self.push(later, event);
        }
        done
    }

    /// When the event comes over a slow link.
    fn slow_us(&self, us: u64, event: &Event) -> u64 {
        let Event::ToMount((mount, _), _) = event else {
            return us;
        };
        let slow = self.mounts[*mount].slow;
        if self.now < slow.1 { us + slow.0 } else { us }
    }

    fn push(&mut self, us: u64, event: Event) {
        self.order += 1;
        self.times.push(Reverse((us, self.order)));
        self.events.insert(self.order, event);
    }

    fn begin(&mut self) {
        self.truth.elect(0, &mut self.random);
        self.push(0, Event::Server(0, AtServer::Lead(1)));
        for index in 0..self.plan.mounts {
            let clock = Clock::any(&mut self.random);
            self.with(|_, mounts, cx| {
                let session = SessionId(cx.number());
                cx.truth.sessions.insert(session);
                let mut mount = Mount::new(index, clock, session, cx);
                mount.start(cx);
                mounts.push(mount);
            });
        }
        for _ in 0..self.plan.faults {
            let fault = self.random.pick(self.plan.kinds);
            let us = self.random.below(self.plan.heal_us);
            self.push(us, Event::Fault(fault));
        }
        self.push(self.plan.heal_us, Event::Heal);
    }

    /// Carries out the next event; false: the run is over.
    fn step(&mut self) -> bool {
        let Some(Reverse((us, order))) = self.times.pop() else {
            return false;
        };
        if us > self.plan.end_us {
            return false;
        }
        let Some(event) = self.events.remove(&order) else {
            return true;
        };
        self.now = us;
        if let Some(later) = self.paused_us(&event) {
            self.push(later, event);
            return true;
        }
        self.stats.events += 1;
        self.lapse();
        self.carry_out(event);
        if self.truth.take_new() {
            self.audit();
        }
        self.wrong.append(&mut self.truth.wrong);
        true
    }

    /// Has the truth forget the local files of mounts whose lease has ended.
    fn lapse(&mut self) {
        let (now, mounts) = (self.now, &self.mounts);
        let over = self.truth.local.iter().filter(|(_, local)| {
            let now_ms = mounts[local.mount].clock.ms(now);
            now_ms >= local.until_ms
        });
        let over: Vec<Ino> = over.map(|(ino, _)| *ino).collect();
        for ino in over {
            self.truth.lapse(ino, now);
        }
        if self.truth.take_new() {
            self.audit();
        }
    }

    fn audit(&mut self) {
        for mount in 0..self.mounts.len() {
            self.with(|_, mounts, cx| mounts[mount].audit(cx, false));
        }
    }

    /// When the process can take the event that is stopped now.
    fn paused_us(&self, event: &Event) -> Option<u64> {
        let until = match event {
            Event::ToServer(server, ..) | Event::Server(server, _) => {
                self.servers[*server].paused_us
            }
            Event::ToMount((mount, _), _) | Event::Mount(mount, _) => self.mounts[*mount].paused_us,
            _ => 0,
        };
        (until > self.now).then_some(until)
    }

    fn is_cut(&self, mount: usize, server: Option<usize>) -> bool {
        let of = &self.mounts[mount];
        let split = of.split.1 > self.now && server.is_some_and(|s| s != of.split.0);
        let mute = of.mute.0 <= self.now && of.mute.1 > self.now && server.is_some();
        of.dead || of.cut_us > self.now || split || mute
    }

    fn carry_out(&mut self, event: Event) {
        match event {
            Event::ToServer(server, from, message) => {
                if !self.is_cut(from.0, Some(server)) {
                    self.with(|servers, _, cx| servers[server].receive(cx, from, message));
                }
                self.audit_server(server);
            }
            Event::Server(server, event) => {
                self.with(|servers, _, cx| servers[server].event(cx, event));
            }
            Event::ToMount(to, message) => {
                if !self.is_cut(to.0, None) {
                    self.with(|_, mounts, cx| mounts[to.0].receive(cx, to.1, message));
                    self.with(|_, mounts, cx| mounts[to.0].audit(cx, false));
                }
            }
            Event::Mount(mount, event) => {
                if !self.mounts[mount].dead {
                    self.with(|_, mounts, cx| mounts[mount].event(cx, event));
                }
            }
            Event::Kernel(mount, answer) => {
                self.mounts[mount].kernel.install(self.now, &answer);
                self.with(|_, mounts, cx| mounts[mount].audit(cx, false));
            }
            Event::Commit => self.commit(),
            Event::Fault(fault) => self.fault(fault),
            Event::Heal => {
                for server in &mut self.servers {
                    server.paused_us = server.paused_us.min(self.now);
                }
                for mount in &mut self.mounts {
                    mount.paused_us = mount.paused_us.min(self.now);
                    mount.cut_us = 0;
                    mount.slow = (0, 0);
                    mount.mute = (0, 0);
                    mount.split = (0, 0);
                }
                if !self.plan.is_one_term() {
                    self.push(self.now + 50_000, Event::Fault(Fault::Election));
                }
            }
        }
    }

    // -- the log --------------------------------------------------------------------

    fn commit(&mut self) {
        while let Some(entry) = self.truth.log.front()
            && entry.at_us <= self.now
        {
            let Some(entry) = self.truth.log.pop_front() else {
                return;
            };
            let applied = self.apply(&entry);
            let term = entry.term;
            let event = match (entry.claim, entry.doubt) {
                (Some(claim), _) => AtServer::Outcome {
                    term,
                    claim,
                    applied: Some(applied),
                },
                (None, Some(doubt)) => AtServer::Resolved { term, doubt },
                (None, None) => continue,
            };
            let us = self.now + self.random.below(900);
            self.push(us, Event::Server(entry.server, event));
        }
    }

    fn apply(&mut self, entry: &Entry) -> super::message::Applied {
        let (applied, keys) = self.truth.apply(entry, self.now);
        if !keys.is_empty() && !matches!(entry.cmd, Cmd::Atime(_)) {
            self.audit();
        }
        applied
    }

    // -- faults -----------------------------------------------------------------------

    /// Begins a term; the old leader hears of it within that time.
    fn elect(&mut self, leader: usize, unaware_us: (u64, u64)) {
        let old = self.truth.leader;
        for entry in self.truth.elect(leader, &mut self.random) {
            self.apply(&entry);
        }
        self.truth.last_us = self.now;
        let term = self.truth.term;
        let us = self.now + self.random.range(5_000, 200_000);
        self.push(us, Event::Server(leader, AtServer::Lead(term)));
        if old != leader {
            let us = self.now + self.random.range(unaware_us.0, unaware_us.1);
            self.push(us, Event::Server(old, AtServer::Deposed(term - 1)));
        }
    }

    fn fault(&mut self, fault: Fault) {
        let mount = self.random.below(self.mounts.len() as u64) as usize;
        let until = self.now + self.random.range(50_000, 2_500_000);
        let until = until.min(self.plan.heal_us);
        match fault {
            Fault::Election => {
                let leader = self.random.below(2) as usize;
                self.elect(leader, (0, 700_000));
            }
            Fault::PauseServer => {
                let leader = self.truth.leader;
                self.servers[leader].paused_us = until;
                if self.random.percent(80) {
                    self.elect(1 - leader, (0, 700_000));
                }
            }
            Fault::PauseMount => self.mounts[mount].paused_us = until,
            Fault::CutMount => self.mounts[mount].cut_us = until,
            Fault::SlowMount => {
                let us = self.random.range(100_000, 950_000);
                self.mounts[mount].slow = (us, until);
                self.mounts[mount].mute = (self.now + 200_000, until);
            }
            Fault::Split => {
                let leader = self.truth.leader;
                let until = (self.now + 2_200_000).min(self.plan.heal_us);
                self.mounts[mount].split = (leader, until);
                self.elect(1 - leader, (1_800_000, 2_200_000));
            }
            Fault::Remount => {
                self.mounts[mount].cut_us = until;
                self.follow(mount, false);
                self.push(self.now + 60_000, Event::Fault(Fault::Election));
            }
            Fault::Restart => self.follow(mount, true),
            Fault::Takeover => self.follow(mount, false),
        }
    }

    /// Another process takes a mount's place; the old one ends or goes on.
    fn follow(&mut self, mount: usize, dies: bool) {
        if self.mounts[mount].dead {
            return;
        }
        self.mounts[mount].dead = dies;
        let (index, clock) = (self.mounts.len(), self.mounts[mount].clock);
        let old = self.mounts[mount].session;
        self.with(|_, mounts, cx| {
            let mut mount = Mount::new(index, clock, old, cx);
            mount.open(cx, Some(old));
            mounts.push(mount);
        });
    }

    // -- checks -----------------------------------------------------------------------

    fn audit_server(&mut self, server: usize) {
        if self.now > self.plan.heal_us {
            self.with(|servers, _, cx| servers[server].audit(cx));
        }
    }

    fn finish(&mut self) {
        // The last quiet change is long ago, and everybody has heard of it.
        let quiet = self.plan.patient && self.plan.deaf.is_none();
        for mount in 0..self.mounts.len() {
            self.with(|_, mounts, cx| mounts[mount].audit(cx, quiet));
            let of = &self.mounts[mount];
            let idle = of.done_us.iter().min().copied().unwrap_or(0);
            if self.plan.patient && !of.dead && idle < self.plan.heal_us {
                self.wrong
                    .push(format!("mount {mount} is idle since {idle} us"));
            }
            if of.holder.size()[3] > 16 * self.plan.actors {
                self.wrong.push(format!("mount {mount} keeps changes"));
            }
        }
        let leader = self.truth.leader;
        let size = self.with(|servers, _, cx| servers[leader].audit(cx));
        let calls = self.mounts.len() * self.plan.actors;
        // Sixteen keys, those of files that mounts made, and the claims of calls under way; four
        // processes and those that followed them.
        let size = size.unwrap_or_default();
        let keys_max = 16 + self.stats.made as usize;
        let bounded = size.keys <= keys_max && size.held <= keys_max * size.sessions;
        // Each call, and each making of a local file, may have been sent again.
        let makes = self.mounts.len() * NAMES.len();
        let claims_max = if self.plan.patient {
            2 * (calls + makes)
        } else {
            usize::MAX
        };
        if !bounded || size.claims > claims_max || size.recalls > 50 * size.sessions {
            self.wrong.push(format!("{size:?} of {calls} calls"));
        }
    }
}
