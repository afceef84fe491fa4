//! The replicated state, what is true with all its past, and a log that loses and keeps what a
//! log may.
//!
//! What servers read and commands change is the replicated state. What caches and answers must
//! show is true: beside it, the files that a mount has made by itself where nobody else could miss
//! them ([`Local`]).

mod local;

use super::message::{Applied, Cmd, DIRS, FILES, NAMES, Shown, Value, What, name};
use super::random::Random;
use crate::holder::Fact;
use crate::leader::ClaimId;
use lagan_types::lease::{Found, Key};
use lagan_types::{Ino, SessionId};
pub(super) use local::Local;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Values with the times since which they hold.
type Past<T> = Vec<(u64, T)>;

/// An entry of the log that is not committed.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    /// When it will be committed.
    pub at_us: u64,
    pub term: u64,
    pub server: usize,
    pub claim: Option<ClaimId>,
    pub asked: Option<(SessionId, u64)>,
    pub cmd: Cmd,
    /// For a barrier: the doubt that it resolves.
    pub doubt: Option<u64>,
}

#[derive(Debug)]
pub(super) struct Truth {
    pub term: u64,
    pub leader: usize,
    pub sessions: BTreeSet<SessionId>,
    pub log: VecDeque<Entry>,
    /// When the last entry of the log will be committed.
    pub last_us: u64,
    count: u64,
    /// The replicated state; no number or name: nothing was done to it.
    values: BTreeMap<Ino, u64>,
    targets: BTreeMap<(Ino, u8), Ino>,
    atimes: BTreeMap<Ino, u64>,
    /// Files that their mounts made, and that became part of it.
    made: BTreeSet<Ino>,
    /// Those that did not yet, and that nobody can miss.
    pub local: BTreeMap<Ino, Local>,
    /// What is true.
    inodes: BTreeMap<Ino, Past<u64>>,
    names: BTreeMap<(Ino, u8), Past<Option<Ino>>>,
    /// It changed without a command.
    is_new: bool,
    /// What is wrong about it.
    pub wrong: Vec<String>,
    answers: BTreeMap<(SessionId, u64), Option<Vec<Fact<Value>>>>,
}

impl Truth {
    pub fn new() -> Self {
        let inos = DIRS.into_iter().chain(FILES);
        let names = DIRS.into_iter().flat_map(|d| NAMES.map(|n| (d, n)));
        Truth {
            term: 0,
            leader: 0,
            sessions: BTreeSet::new(),
            log: VecDeque::new(),
            last_us: 0,
            count: 0,
            values: BTreeMap::new(),
            targets: BTreeMap::new(),
            atimes: BTreeMap::new(),
            made: BTreeSet::new(),
            local: BTreeMap::new(),
            inodes: inos.map(|ino| (ino, vec![(0, 0)])).collect(),
            names: names.map(|at| (at, vec![(0, None)])).collect(),
            is_new: false,
            wrong: Vec::new(),
            answers: BTreeMap::new(),
        }
    }

    // -- reads ------------------------------------------------------------------

    fn value(&self, ino: Ino) -> Value {
        let last = self.values.get(&ino).copied().unwrap_or(0);
        (last, self.atimes.get(&ino).copied().unwrap_or(0))
    }

    fn target(&self, at: (Ino, u8)) -> Option<Ino> {
        self.targets.get(&at).copied()
    }

    /// The attributes that whoever asks must be shown.
    pub fn true_value(&self, ino: Ino) -> Value {
        let last = self.inodes.get(&ino).and_then(|past| past.last());
        let last = last.map_or(0, |(_, v)| *v);
        (last, self.atimes.get(&ino).copied().unwrap_or(0))
    }

    /// What whoever asks must be shown of a name.
    pub fn true_target(&self, at: (Ino, u8)) -> Option<Ino> {
        self.names[&at].last().and_then(|(_, ino)| *ino)
    }

    /// Whether it changed without a command since the last call.
    pub fn take_new(&mut self) -> bool {
        std::mem::take(&mut self.is_new)
    }

    pub fn read(&self, what: What) -> Shown {
        match what {
            What::Attr(ino) => Shown::Attr(self.value(ino)),
            What::Name(at) => Shown::Name(self.target(at).into()),
            What::Page(dir, page) => {
                let of = NAMES
                    .into_iter()
                    .filter(|n| (*n == NAMES[0]) == (page == 0));
                let found = of.filter_map(|n| Some((n, self.target((dir, n))?)));
                Shown::Page(found.collect())
            }
        }
    }

    /// Whether the attributes held at some time from `begin` to `end`.
    pub fn was_value(&self, ino: Ino, value: Value, (begin, end): (u64, u64)) -> bool {
        held(&self.inodes[&ino], &value.0, (begin, end))
    }

    /// Whether the name led there at some time from `begin` to `end`.
    pub fn was_target(&self, at: (Ino, u8), found: Found, when: (u64, u64)) -> bool {
        let ino = match found {
            Found::Inode(ino) => Some(ino),
            Found::Absent => None,
        };
        held(&self.names[&at], &ino, when)
    }

    // -- changes ------------------------------------------------------------------

    /// The keys that the command would touch now.
    pub fn keys(&self, cmd: &Cmd) -> Vec<Key> {
        let mut keys = cmd.keys();
        let victims = cmd.names().into_iter().filter_map(|at| self.target(at));
        keys.extend(victims.map(Key::Inode));
        keys
    }

    fn touch(&mut self, ino: Ino, now: u64) {
        self.count += 1;
        self.values.insert(ino, self.count);
        self.reflect_value(ino, now);
    }

    fn point(&mut self, at: (Ino, u8), to: Option<Ino>, now: u64) {
        match to {
            Some(ino) => _ = self.targets.insert(at, ino),
            None => _ = self.targets.remove(&at),
        }
        self.reflect(at, now);
        self.touch(at.0, now);
    }

    /// Carries a command out. Returns its result and the keys that changed.
    pub fn apply(&mut self, entry: &Entry, now: u64) -> (Applied, Vec<Key>) {
        if let Some(asked) = entry.asked {
            if let Some(facts) = self.answers.get(&asked) {
                let facts = facts.clone();
                let remembered = true;
                return (Applied { facts, remembered }, Vec::new());
            }
            if !self.sessions.contains(&asked.0) {
                let (facts, remembered) = (None, false);
                return (Applied { facts, remembered }, Vec::new());
            }
        }
        let keys = self.keys(&entry.cmd);
        let done = self.change(&entry.cmd, now);
        let facts = done.then(|| keys.iter().map(|k| self.fact(k)).collect());
        if let Some(asked) = entry.asked {
            self.answers.insert(asked, Clone::clone(&facts));
        }
        let remembered = false;
        let keys = if done { keys } else { Vec::new() };
        (Applied { facts, remembered }, keys)
    }

    fn fact(&self, key: &Key) -> Fact<Value> {
        match key {
            Key::Name(of) => {
                let at = (of.dir, of.name[0]);
                Fact::Name(name(at), self.target(at).into())
            }
            Key::Inode(ino) | Key::Directory(ino) | Key::Exclusive(ino) => {
                Fact::Inode(*ino, self.value(*ino))
            }
        }
    }

    fn change(&mut self, cmd: &Cmd, now: u64) -> bool {
        self.check_names(&cmd.changes(), now);
        match *cmd {
            Cmd::Make { ino, at, value, .. } => return self.make(ino, at, value, now),
            Cmd::Set(ino) => self.touch(ino, now),
            Cmd::Link(ino, at) if self.target(at).is_none() => {
                self.point(at, Some(ino), now);
                self.touch(ino, now);
            }
            Cmd::Unlink(at) => {
                let Some(ino) = self.target(at) else {
                    return false;
                };
                self.point(at, None, now);
                self.touch(ino, now);
            }
            Cmd::Rename(from, to) if from != to => {
                let Some(ino) = self.target(from) else {
                    return false;
                };
                if let Some(victim) = self.target(to) {
                    self.touch(victim, now);
                }
                self.point(from, None, now);
                self.point(to, Some(ino), now);
                self.touch(ino, now);
            }
            Cmd::Atime(ino) => {
                self.count += 1;
                self.atimes.insert(ino, self.count);
            }
            Cmd::Link(..) | Cmd::Rename(..) => return false,
            Cmd::Barrier => {}
        }
        true
    }

    /// Begins a term under that leader. Returns the entries of the log that stay, which
    /// are carried out now: those before the first that is lost.
    pub fn elect(&mut self, leader: usize, random: &mut Random) -> Vec<Entry> {
        self.term += 1;
        self.leader = leader;
        let log = std::mem::take(&mut self.log);
        log.into_iter().take_while(|_| random.percent(60)).collect()
    }
}

fn held<T: PartialEq>(past: &Past<T>, value: &T, (begin, end): (u64, u64)) -> bool {
    past.iter().enumerate().any(|(i, (since, v))| {
        let until = past.get(i + 1).map_or(u64::MAX, |(next, _)| *next);
        v == value && *since <= end && until >= begin
    })
}
