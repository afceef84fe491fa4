//! Directories that one mount uses alone: it makes files there by itself, and nobody sees that.

use crate::shorthands::{expect_errno, metric, s};
use lagan_tests::cluster::Cluster;
use lagan_tests::options::Options;
use lagan_tests::random::Random;
use lagan_tests::wait::until;
use lagan_tests::with_cluster;
use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What a foreign look waits for: a lease that runs out.
const LEASE_MAX: Duration = Duration::from_millis(1_250);
/// Time for everything else that a call does on a busy machine.
const SLACK: Duration = Duration::from_secs(3);

/// Creates that mounts have asked the leader for so far.
fn creates(cluster: &Cluster) -> u64 {
    metric(cluster, "lagan_meta_requests_total{ask=\"Create\"}")
}

/// The error of a call, if it failed.
fn errno<T>(result: std::io::Result<T>) -> Option<i32> {
    result.err().and_then(|error| error.raw_os_error())
}

/// A look of the other mount at a file, in its directory.
type Look = fn(&Path, &Path);

fn create_new(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().write(true).create_new(true).open(path)
}

/// Creates files in a directory until the mount makes them by itself. A machine that stalls lets
/// the lease run out, and what others have looked at is not given alone for a while.
pub(crate) fn warm(cluster: &Cluster, dir: &Path) {
    let mut n = 0;
    until("files are made without a request", s(90), || {
        let before = creates(cluster);
        for _ in 0..5 {
            n += 1;
            let warmer = dir.join(format!("warm-{n}"));
            fs::write(&warmer, b"x").expect("a call on a mount");
        }
        (creates(cluster) == before).then_some(())
    });
}

#[test]
fn file_is_made_without_a_request_and_is_there_for_everybody() {
    with_cluster(Options::default(), s(180), |cluster| {
        let (a, b) = (cluster.a().join("d"), cluster.b().join("d"));
        fs::create_dir(&a).expect("a call on a mount");
        warm(cluster, &a);
        // Open, and closed by nobody: the other mount sees it in each way there is.
        let looks: [(&str, Look); 5] = [
            ("stat", |_, path| assert!(fs::metadata(path).is_ok())),
            ("list", |dir, path| {
                let mut names = fs::read_dir(dir).expect("a call on a mount");
                let name = path.file_name().expect("a name");
                assert!(names.any(|entry| entry.expect("an entry").file_name() == name));
            }),
            ("create", |_, path| {
                assert_eq!(errno(create_new(path)), Some(libc::EEXIST));
            }),
            ("rename", |dir, path| {
                fs::rename(path, dir.join("renamed")).expect("a call on a mount");
            }),
            ("unlink", |_, path| {
                fs::remove_file(path).expect("a call on a mount");
            }),
        ];
        for (name, look) in looks {
            warm(cluster, &a);
            let mut file = create_new(&a.join(name)).expect("a call on a mount");
            file.write_all(b"bytes").expect("a call on a mount");
            look(&b, &b.join(name));
            file.write_all(b" more").expect("a call on a mount");
            drop(file);
            let gone = name == "unlink" || name == "rename";
            assert_eq!(fs::metadata(a.join(name)).is_err(), gone, "{name}");
        }
        assert_eq!(
            fs::read(b.join("renamed")).expect("a call on a mount"),
            b"bytes more"
        );
    });
}

#[test]
fn directory_shows_what_was_made_in_it() {
    with_cluster(Options::default(), s(180), |cluster| {
        let (a, b) = (cluster.a().join("d"), cluster.b().join("d"));
        fs::create_dir(&a).expect("a call on a mount");
        warm(cluster, &a);
        let mut times = Vec::new();
        let mut files = Vec::new();
        for n in 0..20 {
            files.push(create_new(&a.join(format!("f{n}"))).expect("a call on a mount"));
            let meta = fs::metadata(&a).expect("a call on a mount");
            times.push((meta.ctime(), meta.ctime_nsec()));
            assert_eq!((meta.mtime(), meta.mtime_nsec()), times[n]);
        }
        assert!(times.windows(2).all(|pair| pair[0] < pair[1]), "{times:?}");
        let meta = fs::metadata(&b).expect("a call on a mount");
        assert!((meta.ctime(), meta.ctime_nsec()) >= times[19]);
        let mine = fs::metadata(&a).expect("a call on a mount");
        assert_eq!(
            (mine.mtime(), mine.mtime_nsec()),
            (meta.mtime(), meta.mtime_nsec())
        );
        // A listing of its own has all of them, too.
        let names = fs::read_dir(&a).expect("a call on a mount");
        let count = names.filter(|entry| {
            let name = entry.as_ref().expect("an entry").file_name();
            name.as_encoded_bytes().starts_with(b"f")
        });
        assert_eq!(count.count(), 20);
    });
}

#[test]
fn directory_itself_changes_as_ever() {
    with_cluster(Options::default(), s(180), |cluster| {
        let a = cluster.a();
        for n in 0..6 {
            let dir = a.join(format!("d{n}"));
            fs::create_dir(&dir).expect("a call on a mount");
            let file = create_new(&dir.join("f")).expect("a call on a mount");
            match n {
                0 => {
                    let mode = PermissionsExt::from_mode(0o2750);
                    fs::set_permissions(&dir, mode).expect("a call on a mount");
                    std::os::unix::fs::chown(&dir, Some(5), Some(7)).expect("a call on a mount");
                    let later = create_new(&dir.join("later")).expect("a call on a mount");
                    assert_eq!(later.metadata().expect("a call on a mount").gid(), 7);
                }
                1 => expect_errno(fs::remove_dir(&dir), libc::ENOTEMPTY),
                2 => {
                    fs::remove_file(dir.join("f")).expect("a call on a mount");
                    fs::remove_dir(&dir).expect("a call on a mount");
                    expect_errno(create_new(&dir.join("g")), libc::ENOENT);
                }
                3 => {
                    let moved = a.join("moved");
                    fs::rename(&dir, &moved).expect("a call on a mount");
                    create_new(&moved.join("g")).expect("a call on a mount");
                    expect_errno(create_new(&moved.join("f")), libc::EEXIST);
                    assert_eq!(
                        fs::read_dir(cluster.b().join("moved"))
                            .expect("a call")
                            .count(),
                        2
                    );
                }
                4 => {
                    let onto = a.join("onto");
                    fs::create_dir(&onto).expect("a call on a mount");
                    create_new(&onto.join("f")).expect("a call on a mount");
                    expect_errno(fs::rename(&dir, &onto), libc::ENOTEMPTY);
                    expect_errno(
                        fs::rename(cluster.b().join("d4"), cluster.b().join("onto")),
                        libc::ENOTEMPTY,
                    );
                }
                _ => {
                    fs::hard_link(dir.join("f"), dir.join("g")).expect("a call on a mount");
                    let meta = file.metadata().expect("a call on a mount");
                    assert_eq!(meta.nlink(), 2);
                }
            }
        }
    });
}

/// Two mounts make, look at and remove the same names in three directories: one of them is told
/// that it made a name, and whoever looks afterwards sees that.
#[test]
fn two_mounts_in_the_same_directories_agree() {
    with_cluster(Options::default(), s(240), |cluster| {
        const ROUNDS: usize = 60;
        let dirs = ["one", "two", "three"];
        for dir in dirs {
            fs::create_dir(cluster.a().join(dir)).expect("a call on a mount");
        }
        let longest = AtomicU64::new(0);
        let made: Vec<AtomicU64> = (0..ROUNDS).map(|_| AtomicU64::new(0)).collect();
        let barrier = Barrier::new(4);
        std::thread::scope(|scope| {
            for (worker, mount) in [cluster.a(), cluster.b(), cluster.a(), cluster.b()]
                .into_iter()
                .enumerate()
            {
                let (longest, made, barrier) = (&longest, &made, &barrier);
                scope.spawn(move || {
                    let mut random = Random::new(worker as u64);
                    for (round, made) in made.iter().enumerate() {
                        let dir = mount.join(dirs[round / 3 % 3]);
                        // Time in which one of them has the directory alone.
                        if random.below(3) == 0 {
                            for n in 0..random.below(6) {
                                let own = dir.join(format!("own-{worker}-{round}-{n}"));
                                fs::write(&own, b"x").expect("a call on a mount");
                                fs::remove_file(&own).expect("a call on a mount");
                            }
                        }
                        barrier.wait();
                        let path = dir.join(format!("name-{round}"));
                        let began = Instant::now();
                        let file = create_new(&path);
                        longest.fetch_max(began.elapsed().as_millis() as u64, Ordering::Relaxed);
                        match &file {
                            Ok(_) => _ = made.fetch_add(1, Ordering::Relaxed),
                            Err(error) => assert_eq!(error.raw_os_error(), Some(libc::EEXIST)),
                        }
                        barrier.wait();
                        assert!(fs::metadata(&path).is_ok(), "round {round}");
                        assert_eq!(made.load(Ordering::Relaxed), 1, "round {round}");
                        barrier.wait();
                        if file.is_ok() {
                            drop(file);
                            fs::remove_file(&path).expect("a call on a mount");
                        }
                        barrier.wait();
                        expect_errno(fs::metadata(&path), libc::ENOENT);
                    }
                });
            }
        });
        let longest = Duration::from_millis(longest.load(Ordering::Relaxed));
        assert!(longest < LEASE_MAX + SLACK, "{longest:?}");
    });
}

/// A mount that is stopped has its directory no longer than a lease lasts; what it made and did
/// not close is there when it runs again, unless somebody has the name.
#[test]
fn mount_that_is_stopped_loses_its_directory() {
    with_cluster(Options::default(), s(180), |cluster| {
        let (a, b) = (cluster.a().join("d"), cluster.b().join("d"));
        fs::create_dir(&a).expect("a call on a mount");
        warm(cluster, &a);
        let _ = fs::metadata(&b);
        let mut lost = 0;
        for round in 0..4 {
            let (kept, taken) = (format!("kept-{round}"), format!("taken-{round}"));
            warm(cluster, &a);
            let mut held = create_new(&a.join(&kept)).expect("a call on a mount");
            let mut taken_here = create_new(&a.join(&taken)).expect("a call on a mount");
            let frozen = cluster.freeze("mount-1");
            let began = Instant::now();
            let there = create_new(&b.join(&taken));
            let waited = began.elapsed();
            assert!(waited < LEASE_MAX + SLACK, "{waited:?}");
            drop(frozen);
            held.write_all(b"kept").expect("a call on a mount");
            assert_eq!(held.sync_all().err().map(|e| e.to_string()), None);
            assert_eq!(fs::read(b.join(&kept)).expect("a call on a mount"), b"kept");
            let _ = taken_here.write_all(b"here");
            let synced = taken_here.sync_all();
            // Either it was told to the leader in time, or it is lost and says so.
            assert_ne!(there.is_ok(), synced.is_ok(), "{there:?} {synced:?}");
            lost += u32::from(synced.is_err());
        }
        println!("{lost} of 4 were lost");
    });
}

#[test]
fn leader_that_dies_takes_nothing_along() {
    let options = Options::default().with_faults("a server is killed");
    with_cluster(options, s(240), |cluster| {
        let (a, b) = (cluster.a().join("d"), cluster.b().join("d"));
        fs::create_dir(&a).expect("a call on a mount");
        for round in 0..3 {
            warm(cluster, &a);
            let names: Vec<String> = (0..8).map(|n| format!("r{round}-{n}")).collect();
            let mut files: Vec<File> = Vec::new();
            for name in &names {
                files.push(create_new(&a.join(name)).expect("a call on a mount"));
            }
            let leader = cluster.leader();
            cluster.kill(&leader);
            // Nobody may be told that a name is not there which the other mount has made.
            for name in &names {
                let made = create_new(&b.join(name));
                assert_eq!(errno(made), Some(libc::EEXIST), "{name}");
            }
            for file in &mut files {
                file.write_all(b"bytes").expect("a call on a mount");
                file.sync_all().expect("a call on a mount");
            }
            cluster.start(&leader);
            for name in &names {
                assert_eq!(fs::read(b.join(name)).expect("a call on a mount"), b"bytes");
            }
        }
    });
}

/// One mount delivers as a mail server does, the other one looks into the directories all the
/// time and reads each mail once: none is missed, none is half.
#[test]
fn mails_are_delivered_while_another_mount_looks_for_them() {
    with_cluster(Options::default(), s(240), |cluster| {
        const THREADS: usize = 4;
        const MAILS: usize = 100;
        let (a, b) = (cluster.a().join("box"), cluster.b().join("box"));
        for dir in ["", "tmp", "new", "cur"] {
            fs::create_dir(a.join(dir)).expect("a call on a mount");
        }
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let (a, over) = (&a, &over);
            let reader = scope.spawn(move || {
                let mut seen = BTreeSet::new();
                loop {
                    let last = over.load(Ordering::Acquire);
                    for entry in fs::read_dir(b.join("new")).expect("a call on a mount") {
                        let name = entry.expect("an entry").file_name();
                        let mail = fs::read(b.join("new").join(&name)).expect("a call on a mount");
                        assert_eq!(mail, name.as_encoded_bytes().repeat(100));
                        fs::rename(b.join("new").join(&name), b.join("cur").join(&name))
                            .expect("a call on a mount");
                        assert!(seen.insert(name));
                    }
                    if last {
                        return seen.len();
                    }
                    std::thread::sleep(Duration::from_millis(300));
                }
            });
            let workers: Vec<_> = (0..THREADS)
                .map(|worker| {
                    scope.spawn(move || {
                        for n in 0..MAILS {
                            let name = format!("mail-{worker}-{n}");
                            let tmp = a.join("tmp").join(&name);
                            let mut file = create_new(&tmp).expect("a call on a mount");
                            file.write_all(&name.as_bytes().repeat(100))
                                .expect("a call on a mount");
                            file.sync_all().expect("a call on a mount");
                            drop(file);
                            fs::rename(&tmp, a.join("new").join(&name)).expect("a call on a mount");
                        }
                    })
                })
                .collect();
            for worker in workers {
                worker.join().expect("a worker");
            }
            over.store(true, Ordering::Release);
            assert_eq!(reader.join().expect("the reader"), THREADS * MAILS);
        });
        assert_eq!(
            fs::read_dir(a.join("tmp"))
                .expect("a call on a mount")
                .count(),
            0
        );
        assert_eq!(
            fs::read_dir(a.join("cur"))
                .expect("a call on a mount")
                .count(),
            THREADS * MAILS
        );
    });
}
