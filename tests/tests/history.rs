//! Concurrent calls through two mounts, recorded and checked: names are
//! linearizable, content is from close to open, locks exclude, also while
//! leaders die.

use crate::shorthands::s;
use lagan_tests::history::{Content, ContentCall, Event, Model, NameCall, Names, ends};
use lagan_tests::random::Random;
use lagan_tests::run::LONG;
use lagan_tests::{Cluster, Options, sized, sys, with_cluster};
use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

const NAMES: [&str; 4] = ["a", "b", "c", "d"];
/// Workers, half of them on each mount, and calls that each makes in one part.
const WORKERS: usize = 6;
const CALLS: usize = 10;

#[test]
fn concurrent_calls_on_two_mounts_have_an_order_that_explains_them() {
    let options = Options::default().with_faults("servers are killed");
    with_cluster(options, LONG, |cluster| {
        play(cluster, sized(30, 1000), sized(2, 40));
        cluster.wait_healthy();
        cluster.check();
    });
}

/// Parts without faults, then as many while leaders die.
fn play(cluster: &Cluster, parts: usize, kills: usize) {
    let mut history = History::new(cluster);
    for part in 0..parts {
        history.part(part as u64);
    }
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let killer = scope.spawn(|| {
            for _ in 0..kills {
                let leader = cluster.leader();
                cluster.kill(&leader);
                std::thread::sleep(s(3));
                cluster.start(&leader);
                cluster.wait_healthy();
            }
            over.store(true, Ordering::Relaxed);
        });
        let mut part = parts as u64;
        while !over.load(Ordering::Relaxed) && !killer.is_finished() {
            history.part(part);
            part += 1;
        }
        killer.join().expect("the killer");
    });
}

/// States that the parts so far leave possible.
struct History {
    mounts: [PathBuf; 2],
    names: HashSet<Names>,
    registers: [HashSet<Content>; 2],
    log: HashSet<Content>,
    next: AtomicU64,
}

/// Calls of one part.
#[derive(Default)]
struct Part {
    names: Mutex<Vec<Event<NameCall>>>,
    registers: [Mutex<Vec<Event<ContentCall>>>; 2],
    log: Mutex<Vec<Event<ContentCall>>>,
    held: Mutex<Vec<(Instant, Instant)>>,
}

impl History {
    fn new(cluster: &Cluster) -> Self {
        for name in ["register-0", "register-1", "log", "lock"] {
            File::create(cluster.a().join(name)).expect("make a file");
        }
        let start = || HashSet::from([Content::default()]);
        History {
            mounts: [cluster.a(), cluster.b()],
            names: HashSet::from([Names::default()]),
            registers: [start(), start()],
            log: start(),
            next: AtomicU64::new(1),
        }
    }

    fn part(&mut self, number: u64) {
        let part = Part::default();
        std::thread::scope(|scope| {
            for worker in 0..WORKERS {
                let (mount, next) = (&self.mounts[worker % 2], &self.next);
                let worker = Worker {
                    part: &part,
                    next,
                    mount,
                    random: Random::new(number * 1000 + worker as u64),
                    by: format!("worker {worker}"),
                };
                scope.spawn(move || worker.work());
            }
        });
        self.names = judge(number, &self.names, part.names);
        for (states, events) in self.registers.iter_mut().zip(part.registers) {
            *states = judge(number, states, events);
        }
        self.log = judge(number, &self.log, part.log);
        let mut held = part.held.into_inner().expect("no worker panicked");
        held.sort();
        for pair in held.windows(2) {
            assert!(pair[0].1 <= pair[1].0, "part {number}: two held the lock");
        }
    }
}

fn judge<M>(number: u64, starts: &HashSet<M>, events: Mutex<Vec<Event<M::Call>>>) -> HashSet<M>
where
    M: Model + std::fmt::Debug,
    M::Call: std::fmt::Debug,
{
    let mut events = events.into_inner().expect("no worker panicked");
    events.sort_by_key(|e| e.from);
    let ends = ends(starts, &events);
    assert!(
        !ends.is_empty(),
        "part {number}: no order explains this, from {starts:?}:\n{}",
        shown(&events)
    );
    ends
}

/// One line a call, with milliseconds since the first.
fn shown<C: std::fmt::Debug>(events: &[Event<C>]) -> String {
    let mut text = String::new();
    for event in events {
        let ms = |at: Instant| (at - events[0].from).as_secs_f64() * 1000.0;
        let (from, to) = (ms(event.from), ms(event.to));
        text.push_str(&format!(
            "{from:9.3} to {to:9.3} {}: {:?}\n",
            event.by, event.call
        ));
    }
    text
}

struct Worker<'a> {
    part: &'a Part,
    next: &'a AtomicU64,
    mount: &'a Path,
    random: Random,
    by: String,
}

impl Worker<'_> {
    fn work(mut self) {
        for _ in 0..CALLS {
            match self.random.below(20) {
                0..11 => self.name(),
                11..15 => self.register(),
                15..18 => self.log(),
                _ => self.lock(),
            }
        }
    }

    fn record<C>(&self, events: &Mutex<Vec<Event<C>>>, from: Instant, call: C) {
        let to = Instant::now();
        let by = self.by.clone();
        let event = Event { by, call, from, to };
        events.lock().expect("no worker panicked").push(event);
    }

    fn name(&mut self) {
        let name = NAMES[self.random.below(4) as usize];
        // never the same one: rename(2) of a name to itself says nothing
        let at = NAMES.iter().position(|n| *n == name).unwrap_or(0);
        let other = NAMES[(at + 1 + self.random.below(3) as usize) % 4];
        let (path, to) = (self.mount.join(name), self.mount.join(other));
        let from = Instant::now();
        let call = match self.random.below(7) {
            0 | 1 => NameCall::Create(name, create(&path)),
            2 => NameCall::Unlink(name, answer(fs::remove_file(&path))),
            3 | 4 => NameCall::Rename(name, other, answer(fs::rename(&path, &to))),
            _ => NameCall::Look(name, answer(fs::symlink_metadata(&path)).map(|m| m.ino())),
        };
        self.record(&self.part.names, from, call);
    }

    fn register(&mut self) {
        let which = self.random.below(2) as usize;
        let path = self.mount.join(format!("register-{which}"));
        let value = self.next.fetch_add(1, Ordering::Relaxed);
        let from = Instant::now();
        let call = if self.random.below(2) == 0 {
            let file = OpenOptions::new().write(true).open(&path).expect("open");
            file.write_all_at(&value.to_le_bytes(), 0).expect("write");
            sys::close(std::os::fd::IntoRawFd::into_raw_fd(file)).expect("close");
            ContentCall::Write(value)
        } else {
            ContentCall::Read(read(&path))
        };
        self.record(&self.part.registers[which], from, call);
    }

    fn log(&mut self) {
        let path = self.mount.join("log");
        let value = self.next.fetch_add(1, Ordering::Relaxed);
        let from = Instant::now();
        let call = if self.random.below(2) == 0 {
            let mut file = OpenOptions::new().append(true).open(&path).expect("open");
            file.write_all(&value.to_le_bytes()).expect("append");
            sys::close(std::os::fd::IntoRawFd::into_raw_fd(file)).expect("close");
            ContentCall::Append(value)
        } else {
            ContentCall::Read(read_log(&path))
        };
        self.record(&self.part.log, from, call);
    }

    fn lock(&mut self) {
        let file = File::open(self.mount.join("lock")).expect("open");
        sys::flock(&file, libc::LOCK_EX).expect("lock");
        let from = Instant::now();
        std::thread::sleep(std::time::Duration::from_micros(self.random.below(2000)));
        let to = Instant::now();
        sys::flock(&file, libc::LOCK_UN).expect("unlock");
        let mut held = self.part.held.lock().expect("no worker panicked");
        held.push((from, to));
    }
}

/// The number of the file that was made, before anybody else can take it away.
fn create(path: &Path) -> Option<u64> {
    let file = OpenOptions::new().write(true).create_new(true).open(path);
    answer(file).map(|file| file.metadata().expect("fstat").ino())
}

/// `None` for ENOENT and EEXIST; nothing else may happen.
fn answer<T>(result: io::Result<T>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::EEXIST)) => None,
        Err(e) => panic!("a call failed: {e}"),
    }
}

/// The records of a file that grows at its end. Linux may show zeros there while another worker of
/// the mount looks at the file (docs/SEMANTICS.md, "What a mount remembers"), but not twice.
fn read_log(path: &Path) -> Vec<u64> {
    let whole = || Some(read(path)).filter(|records| !records.contains(&0));
    let mut tries = (0..3).filter_map(|_| whole());
    tries.next().expect("a log without records of zeros")
}

/// The records of a file.
fn read(path: &Path) -> Vec<u64> {
    let mut bytes = Vec::new();
    let mut file = File::open(path).expect("open");
    file.read_to_end(&mut bytes).expect("read");
    assert!(bytes.len().is_multiple_of(8), "half a record");
    let record = |b: &[u8]| u64::from_le_bytes(b.try_into().expect("8 bytes"));
    bytes.chunks(8).map(record).collect()
}
