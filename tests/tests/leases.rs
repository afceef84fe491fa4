//! Mounts remember names and attributes, and nobody ever sees an old one.
//!
//! `coherence` shows what two mounts see of each other; all of that runs with leases. Here is
//! what only leases can get wrong: that something is answered without asking, that a mount
//! which was away fences itself, and that a change waits for it no longer than it must.

use crate::shorthands::{expect_errno, metric, s};
use lagan_tests::cluster::Cluster;
use lagan_tests::options::Options;
use lagan_tests::random::Random;
use lagan_tests::wait::until;
use lagan_tests::{sys, with_cluster};
use std::fs;
use std::path::Path;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// A lease ends at the leader that long after the last heartbeat, and a mount that
/// acknowledges nothing gets none: with both, a change waits no longer.
const WAIT_MAX: Duration = Duration::from_millis(1_500);
/// Time for everything else that a change does on a busy machine.
const SLACK: Duration = Duration::from_secs(3);
/// A lease ends at its mount that long after the heartbeat, and a little later it is over.
const LEASE: Duration = Duration::from_millis(1_100);

fn figure(cluster: &Cluster, name: &str) -> u64 {
    let (_, status) = cluster.status();
    let figure = status["leases"][name].as_u64();
    figure.unwrap_or_else(|| panic!("leases.{name}: {status}"))
}

/// Looks at the path until its mount has remembered it.
fn warm(path: &Path) {
    for _ in 0..20 {
        let _ = fs::symlink_metadata(path);
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn what_is_remembered_is_answered_while_no_server_answers() {
    with_cluster(Options::default(), s(120), |cluster| {
        let (file, none) = (cluster.a().join("file"), cluster.a().join("none"));
        fs::write(&file, b"text").unwrap();
        // A machine that stalls just here lets the lease run out: then look again.
        let answered = (0..10).any(|_| {
            warm(&file);
            warm(&none);
            let frozen: Vec<_> = cluster
                .servers()
                .iter()
                .map(|s| cluster.freeze(s))
                .collect();
            let began = Instant::now();
            let seen = std::thread::scope(|scope| {
                let look = scope.spawn(|| {
                    let len = fs::metadata(&file).map(|meta| meta.len());
                    let gone = fs::metadata(&none).map_err(|e| e.raw_os_error());
                    (len.unwrap(), gone.map(|_| ()), began.elapsed())
                });
                std::thread::sleep(LEASE);
                drop(frozen);
                look.join().unwrap()
            });
            assert_eq!((seen.0, seen.1), (4, Err(Some(libc::ENOENT))));
            seen.2 < LEASE
        });
        assert!(answered, "it asked the leader each time");
        until("something is held", s(20), || {
            warm(&file);
            (figure(cluster, "held") > 0).then_some(())
        });
    });
}

/// `ls -l` asks for an attribute that hardly any file has.
#[test]
fn that_a_file_has_no_extended_attributes_is_known_until_it_has_one() {
    with_cluster(Options::default(), s(120), |cluster| {
        let name = |n: u64| format!("f{n}");
        for n in 0..20 {
            fs::write(cluster.a().join(name(n)), b"x").expect("a call on a mount");
        }
        let asked = || metric(cluster, "lagan_meta_requests_total{ask=\"GetXattr\"}");
        let before = asked();
        for _ in 0..5 {
            for n in 0..20 {
                let path = cluster.b().join(name(n));
                expect_errno(sys::get_xattr(&path, "user.note"), libc::ENODATA);
                assert_eq!(sys::list_xattrs(&path).expect("a call"), [""; 0]);
            }
        }
        assert_eq!(asked(), before);
        for n in 0..20 {
            let (here, there) = (cluster.a().join(name(n)), cluster.b().join(name(n)));
            let file = fs::File::open(&there).expect("a call on a mount");
            sys::set_xattr(&here, "user.note", b"new", 0).expect("a call on a mount");
            assert_eq!(sys::get_xattr(&there, "user.note").expect("it"), b"new");
            assert_eq!(sys::list_xattrs(&there).expect("a call"), ["user.note"]);
            drop(file);
            sys::remove_xattr(&here, "user.note").expect("a call on a mount");
            expect_errno(sys::get_xattr(&there, "user.note"), libc::ENODATA);
        }
    });
}

#[test]
fn mount_with_nolease_remembers_nothing() {
    with_cluster(Options::default(), s(120), |cluster| {
        for mount in ["mount-1", "mount-2"] {
            let config = cluster.process(mount).config;
            cluster.stop(mount);
            let text = fs::read_to_string(&config).unwrap();
            fs::write(&config, format!("lease = false\n{text}")).unwrap();
            cluster.start(mount);
        }
        let file = cluster.a().join("file");
        fs::write(&file, b"text").unwrap();
        warm(&file);
        assert_eq!(figure(cluster, "held"), 0);
        fs::write(cluster.b().join("file"), b"longer text").unwrap();
        assert_eq!(fs::metadata(&file).unwrap().len(), 11);
    });
}

/// The stopped mount is asked nothing while it is stopped: whatever it answers later, it
/// answers after it runs again.
#[test]
fn mount_that_was_stopped_shows_nothing_old() {
    with_cluster(Options::default(), s(180), |cluster| {
        let (a, b) = (cluster.a(), cluster.b());
        for round in 0..5 {
            let names = ["gone", "changed", "moved", "new"].map(|name| format!("{name}-{round}"));
            let [gone, changed, moved, new] = &names;
            for name in [gone, changed, moved] {
                fs::write(a.join(name), b"old").unwrap();
            }
            for name in &names {
                warm(&b.join(name));
            }
            let frozen = cluster.freeze("mount-2");
            let began = Instant::now();
            fs::remove_file(a.join(gone)).unwrap();
            let waited = began.elapsed();
            fs::write(a.join(changed), b"newer").unwrap();
            fs::rename(a.join(moved), a.join(new)).unwrap();
            assert!(waited < WAIT_MAX + SLACK, "unlink waited {waited:?}");
            drop(frozen);
            expect_errno(fs::metadata(b.join(gone)), libc::ENOENT);
            expect_errno(fs::metadata(b.join(moved)), libc::ENOENT);
            assert_eq!(fs::read(b.join(changed)).unwrap(), b"newer");
            assert_eq!(fs::read(b.join(new)).unwrap(), b"old");
        }
        assert!(figure(cluster, "waited") > 0);
    });
}

#[test]
fn leader_that_dies_takes_no_lease_along() {
    let options = Options::default().with_faults("a server is killed");
    with_cluster(options, s(240), |cluster| {
        let (a, b) = (cluster.a(), cluster.b());
        for round in 0..2 {
            let (old, new) = (format!("old-{round}"), format!("new-{round}"));
            fs::write(a.join(&old), b"text").unwrap();
            warm(&b.join(&old));
            warm(&b.join(&new));
            let leader = cluster.leader();
            cluster.kill(&leader);
            fs::rename(a.join(&old), a.join(&new)).unwrap();
            expect_errno(fs::metadata(b.join(&old)), libc::ENOENT);
            assert_eq!(fs::read(b.join(&new)).unwrap(), b"text");
            cluster.start(&leader);
            cluster.wait_healthy();
        }
    });
}

/// What one thread did is what all look at next, on both mounts.
#[test]
fn mounts_that_work_in_one_directory_agree_after_every_step() {
    with_cluster(Options::default(), s(240), |cluster| {
        let roots = [cluster.a(), cluster.b()];
        let mut random = Random::new(9);
        let mut there = std::collections::BTreeMap::new();
        for step in 0..600 {
            let root = &roots[random.below(2) as usize];
            let name = |n: u64| format!("f{n}");
            let (n, m) = (random.below(6), random.below(6));
            match random.below(5) {
                0 | 1 => {
                    let text = format!("step {step}");
                    fs::write(root.join(name(n)), &text).unwrap();
                    there.insert(n, text);
                }
                2 => {
                    let removed = fs::remove_file(root.join(name(n)));
                    assert_eq!(removed.is_ok(), there.remove(&n).is_some(), "step {step}");
                }
                3 if n != m => {
                    let moved = fs::rename(root.join(name(n)), root.join(name(m)));
                    let text = there.remove(&n);
                    assert_eq!(moved.is_ok(), text.is_some(), "step {step}");
                    there.extend(text.map(|text| (m, text)));
                }
                _ => {
                    let other = &roots[random.below(2) as usize];
                    let changed = || fs::metadata(other).unwrap().modified().unwrap();
                    let before = changed();
                    let made = fs::File::create_new(root.join(name(n)));
                    let free = !there.contains_key(&n);
                    assert_eq!(made.is_ok(), free, "step {step}");
                    if free {
                        there.insert(n, String::new());
                        // Before the file is closed, and when it was.
                        assert!(changed() > before, "step {step}");
                        drop(made);
                        assert!(changed() > before, "step {step}");
                    }
                }
            }
            for (at, root) in roots.iter().enumerate() {
                for n in 0..6 {
                    let len = fs::metadata(root.join(name(n))).ok().map(|meta| meta.len());
                    let expected = there.get(&n).map(|text| text.len() as u64);
                    assert_eq!(len, expected, "step {step}, f{n} on mount {at}");
                }
            }
        }
    });
}

#[test]
fn listing_ends_while_files_are_made() {
    with_cluster(Options::default(), s(120), |cluster| {
        let (a, b) = (cluster.a(), cluster.b());
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for thread in 0..6 {
                let (root, stop) = (if thread % 2 == 0 { &a } else { &b }, &stop);
                scope.spawn(move || {
                    for n in 0.. {
                        if stop.load(Ordering::Relaxed) {
                            return;
                        }
                        let path = root.join(format!("f{thread}-{n}"));
                        drop(fs::File::create_new(&path).unwrap());
                        fs::remove_file(&path).unwrap();
                    }
                });
            }
            for _ in 0..10 {
                let began = Instant::now();
                crate::shorthands::names(&b);
                let took = began.elapsed();
                assert!(took < SLACK, "a listing took {took:?}");
            }
            stop.store(true, Ordering::Relaxed);
        });
    });
}

/// Eight threads on each mount make, remove and rename each other's files in three
/// directories. Nobody waits for long, and at the end both mounts show the same.
#[test]
fn threads_on_two_mounts_do_not_wait_for_each_other_in_a_circle() {
    with_cluster(Options::default(), s(240), |cluster| {
        let roots = [cluster.a(), cluster.b()];
        for dir in 0..3 {
            fs::create_dir(roots[0].join(format!("d{dir}"))).unwrap();
        }
        let time = Duration::from_secs(lagan_tests::sized(8, 60) as u64);
        let (stop, start) = (AtomicBool::new(false), Barrier::new(17));
        let work = |seed: u64| {
            let root = &roots[seed as usize % 2];
            let mut random = Random::new(seed);
            let mut longest = Duration::ZERO;
            start.wait();
            while !stop.load(Ordering::Relaxed) {
                let mut path = || root.join(format!("d{}/f{}", random.below(3), random.below(8)));
                let (from, to) = (path(), path());
                let began = Instant::now();
                let done = match random.below(3) {
                    0 => fs::write(&to, b"text"),
                    1 => fs::remove_file(&to),
                    _ => fs::rename(&from, &to),
                };
                longest = longest.max(began.elapsed());
                if let Err(error) = done {
                    let errno = error.raw_os_error();
                    assert!(
                        matches!(errno, Some(libc::ENOENT | libc::ESTALE)),
                        "{error}"
                    );
                }
            }
            longest
        };
        let work = &work;
        let longest = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..16)
                .map(|seed| scope.spawn(move || work(seed)))
                .collect();
            start.wait();
            std::thread::sleep(time);
            stop.store(true, Ordering::Relaxed);
            let longest = threads.into_iter().map(|thread| thread.join().unwrap());
            longest.max().unwrap()
        });
        eprintln!("the longest call took {longest:?}");
        assert!(longest < SLACK, "a call took {longest:?}");
        for dir in 0..3 {
            let names = |root: &Path| crate::shorthands::names(&root.join(format!("d{dir}")));
            assert_eq!(names(&roots[0]), names(&roots[1]));
        }
    });
}
