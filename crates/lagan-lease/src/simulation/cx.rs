//! The plan of a run, what it counts, and the network between its parts.

use super::message::{Event, Fault, From, ToMount, ToServer, UseRule};
use super::random::Random;
use super::truth::Truth;

/// What a run is like. Times are real, in microseconds.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub seed: u64,
    pub mounts: usize,
    pub actors: usize,
    /// Faults stop then.
    pub heal_us: u64,
    /// The run goes on long enough after this for every call to end.
    pub patient: bool,
    /// The run ends then.
    pub end_us: u64,
    /// Messages lost, sent twice, and late, in a hundred.
    pub lost: u64,
    pub twice: u64,
    pub late: u64,
    /// Commands whose outcome the leader does not learn, in a hundred.
    pub unknown: u64,
    /// Changes among the calls of a mount, in a hundred.
    pub changes: u64,
    /// Listings among the reads, in ten.
    pub listings: u64,
    /// Longest pause of an actor between calls.
    pub think_us: u64,
    pub faults: u64,
    /// The kinds of faults that there are.
    pub kinds: &'static [Fault],
    /// Mounts want leases even where these are not worth it.
    pub eager: bool,
    /// Most changes are renames.
    pub renames: bool,
    /// Small bounds: keys are recalled for want of room.
    pub small: bool,
    pub cool_ms: u64,
    /// The mount that never gets the answer to a poll.
    pub deaf: Option<usize>,
    /// Creates among the changes, in a hundred.
    pub creates: u64,
    /// What a mount does in the directory of its own, in a hundred.
    pub home: u64,
}

const KINDS: [&[Fault]; 7] = [
    &[
        Fault::Election,
        Fault::PauseServer,
        Fault::PauseMount,
        Fault::CutMount,
        Fault::Restart,
        Fault::Takeover,
        Fault::SlowMount,
        Fault::Split,
    ],
    &[Fault::Election, Fault::Takeover],
    &[Fault::Election, Fault::PauseMount],
    &[Fault::SlowMount, Fault::CutMount],
    &[Fault::Split],
    &[Fault::Election, Fault::PauseServer],
    &[Fault::Remount],
];

impl Plan {
    pub fn of(seed: u64) -> Self {
        let mut random = Random::new(seed ^ 0x5eed);
        let quiet = random.percent(15);
        let faulty = |n: u64| if quiet { 0 } else { n };
        let heal_us = 1_000 * random.range(800, 3_500);
        let kinds = random.pick(&KINDS);
        let patient = random.percent(25);
        let rest_us = if patient { 3_800_000 } else { 300_000 };
        Plan {
            seed,
            mounts: random.range(2, 5) as usize,
            actors: random.range(1, 4) as usize,
            heal_us,
            end_us: heal_us + rest_us,
            patient,
            lost: faulty(random.pick(&[0, 1, 5])),
            twice: faulty(random.pick(&[0, 1, 5])),
            late: faulty(random.pick(&[0, 2, 8])),
            unknown: faulty(random.pick(&[0, 3, 15])),
            changes: random.pick(&[5, 15, 40]),
            listings: 1,
            think_us: random.pick(&[15_000, 40_000, 120_000]),
            faults: faulty(random.below(7)),
            kinds,
            eager: random.percent(20),
            renames: random.percent(10),
            small: random.percent(25),
            cool_ms: random.pick(&[0, 1, 20, 100]),
            deaf: random.percent(8).then_some(0),
            creates: random.pick(&[0, 0, 30]),
            home: random.pick(&[0, 0, 70]),
        }
    }

    /// A run of one term in which processes take each other's place.
    pub fn of_takeovers(seed: u64) -> Self {
        Plan {
            kinds: &[Fault::Takeover],
            faults: 4,
            changes: 15,
            deaf: None,
            ..Plan::of(seed)
        }
    }

    /// A run in which mounts list directories while they and others change the names.
    pub fn of_listings(seed: u64) -> Self {
        let plan = Plan::of(seed);
        Plan {
            actors: 4,
            listings: 7,
            changes: 30,
            think_us: 20_000,
            late: 12,
            lost: 0,
            unknown: 0,
            twice: 0,
            kinds: &[Fault::SlowMount],
            faults: 4,
            cool_ms: 0,
            eager: seed.is_multiple_of(2),
            small: false,
            deaf: None,
            ..plan
        }
    }

    /// The same, while requests and answers get lost, come twice, and mounts give up.
    pub fn of_lost_listings(seed: u64) -> Self {
        let plan = Plan::of(seed);
        Plan {
            lost: 5,
            unknown: 12,
            twice: 12,
            kinds: plan.kinds,
            faults: plan.faults,
            ..Plan::of_listings(seed)
        }
    }

    /// A run in which each mount makes files in a directory of its own, and looks into that of
    /// another now and then.
    pub fn of_exclusives(seed: u64) -> Self {
        let plan = Plan::of(seed);
        let mut random = Random::new(seed ^ 0xa10e);
        Plan {
            mounts: random.pick(&[2, 2, 3]),
            actors: random.pick(&[1, 1, 2, 3]),
            changes: random.pick(&[30, 50, 70]),
            creates: random.pick(&[70, 90, 98]),
            home: random.pick(&[85, 95, 99]),
            listings: 5,
            think_us: random.pick(&[5_000, 15_000, 40_000]),
            cool_ms: random.pick(&[0, 0, 1, 20]),
            renames: false,
            small: random.percent(8),
            deaf: random.percent(4).then_some(0),
            ..plan
        }
    }

    /// The same, while mounts are cut off for longer than their leases last, and leaders change
    /// soon after: others have seen what is there without their files.
    pub fn of_missed(seed: u64) -> Self {
        Plan {
            mounts: 3,
            kinds: &[Fault::CutMount, Fault::CutMount, Fault::Election],
            faults: 7,
            home: 80,
            lost: 1,
            late: 8,
            unknown: 0,
            small: false,
            deaf: None,
            ..Plan::of_exclusives(seed)
        }
    }

    /// Whether there is one term only.
    pub fn is_one_term(&self) -> bool {
        self.kinds == [Fault::Takeover]
    }
}

/// What happened in runs.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stats {
    pub events: u64,
    /// Reads answered from a cache, and by a leader.
    pub hits: u64,
    pub asked: u64,
    pub changes: u64,
    /// Changes whose mount gave up.
    pub given_up: u64,
    pub directory_hits: u64,
    pub own_kept: u64,
    /// Attributes lent to kernels.
    pub lent: u64,
    /// Directories that mounts were given alone, and files that they made there by themselves.
    pub alone: u64,
    pub made: u64,
    /// Such files that were lost.
    pub lost: u64,
}

impl Stats {
    pub fn add(&mut self, other: &Stats) {
        self.events += other.events;
        self.hits += other.hits;
        self.asked += other.asked;
        self.changes += other.changes;
        self.given_up += other.given_up;
        self.directory_hits += other.directory_hits;
        self.own_kept += other.own_kept;
        self.lent += other.lent;
        self.alone += other.alone;
        self.made += other.made;
        self.lost += other.lost;
    }
}

/// What each part of a run may use.
pub(super) struct Cx<'a> {
    pub now: u64,
    pub plan: &'a Plan,
    pub truth: &'a mut Truth,
    pub random: &'a mut Random,
    pub stats: &'a mut Stats,
    /// Events to come, each with its time.
    pub out: &'a mut Vec<(u64, Event)>,
    pub wrong: &'a mut Vec<String>,
    pub broken: Option<UseRule>,
    /// Numbers for calls and sessions.
    pub next: &'a mut u64,
}

impl Cx<'_> {
    pub fn keeps(&self, rule: UseRule) -> bool {
        self.broken != Some(rule)
    }

    pub fn number(&mut self) -> u64 {
        *self.next += 1;
        *self.next
    }

    pub fn at(&mut self, us: u64, event: Event) {
        self.out.push((us.max(self.now), event));
    }

    /// After a short time.
    pub fn soon(&mut self, max_us: u64, event: Event) {
        let us = self.now + self.random.below(max_us + 1);
        self.at(us, event);
    }

    fn delay(&mut self) -> u64 {
        let faulty = self.now < self.plan.heal_us;
        if faulty && self.random.percent(self.plan.late) {
            return match self.random.percent(80) {
                true => self.random.range(2_000, 60_000),
                false => self.random.range(60_000, 3_000_000),
            };
        }
        self.random.range(50, 1_200)
    }

    fn carry(&mut self, event: Event) {
        let faulty = self.now < self.plan.heal_us;
        if faulty && self.random.percent(self.plan.twice) {
            let us = self.now + self.delay();
            self.at(us, event.clone());
        }
        if faulty && self.random.percent(self.plan.lost) {
            return;
        }
        let us = self.now + self.delay();
        self.at(us, event);
    }

    pub fn tell_server(&mut self, server: usize, from: From, message: ToServer) {
        self.carry(Event::ToServer(server, from, message));
    }

    pub fn tell_mount(&mut self, to: From, message: ToMount) {
        if self.plan.deaf == Some(to.0) && matches!(message, ToMount::Recalls { .. }) {
            return;
        }
        self.carry(Event::ToMount(to, message));
    }
}
