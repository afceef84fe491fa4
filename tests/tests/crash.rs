//! Processes die or stop in the middle of writes. Nothing acknowledged may be
//! lost, and no writer may see an error while enough servers live.

use crate::shorthands::{attribute, s};
use lagan_tests::cluster::Cluster;
use lagan_tests::processes::wait_gone;
use lagan_tests::random::Random;
use lagan_tests::run::LONG;
use lagan_tests::wait::until;
use lagan_tests::writer::{Writers, Written};
use lagan_tests::{Options, rot, sized, sys, with_cluster};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// A pause of the cluster ends within this, on a slow machine with other work.
const GO_ON: std::time::Duration = s(60);

fn work_dir(cluster: &Cluster) -> (PathBuf, PathBuf) {
    let (a, b) = (cluster.a().join("work"), cluster.b().join("work"));
    fs::create_dir(&a).expect("make the writers' directory");
    (a, b)
}

fn finish(cluster: &Cluster, writers: Writers, a: &Path, b: &Path) {
    let written = writers.stop();
    eprintln!(
        "{} files, slowest {:?}",
        written.acknowledged.0.len(),
        written.slowest
    );
    assert!(
        written.errors.is_empty(),
        "writers got errors: {:?}",
        written.errors
    );
    check_all(cluster, &written, a, b);
}

fn check_all(cluster: &Cluster, written: &Written, a: &Path, b: &Path) {
    written.check(b);
    written.check(a);
    cluster.wait_healthy();
    cluster.check();
}

#[test]
fn writers_go_on_while_one_server_after_the_other_is_killed() {
    let why = "servers are killed";
    with_cluster(Options::default().with_faults(why), LONG, |cluster| {
        let (a, b) = work_dir(cluster);
        let writers = Writers::start(&a, 4, 1);
        for server in cluster.servers() {
            writers.wait_more(30, GO_ON);
            cluster.kill(&server);
            writers.wait_more(60, GO_ON);
            cluster.start(&server);
            cluster.wait_healthy();
        }
        finish(cluster, writers, &a, &b);
    });
}

#[test]
fn writers_go_on_while_leaders_are_killed() {
    let why = "leaders are killed";
    with_cluster(Options::default().with_faults(why), LONG, |cluster| {
        let (a, b) = work_dir(cluster);
        let writers = Writers::start(&b, 4, 2);
        for _ in 0..sized(3, 20) {
            writers.wait_more(30, GO_ON);
            let leader = cluster.leader();
            cluster.kill(&leader);
            writers.wait_more(60, GO_ON);
            cluster.start(&leader);
            cluster.wait_healthy();
        }
        finish(cluster, writers, &a, &b);
    });
}

#[test]
fn writers_go_on_while_servers_hang() {
    let why = "servers are stopped";
    with_cluster(Options::default().with_faults(why), LONG, |cluster| {
        let (a, b) = work_dir(cluster);
        let writers = Writers::start(&a, 4, 3);
        let mut victims = cluster.servers();
        victims.push(cluster.leader());
        for victim in victims {
            writers.wait_more(30, GO_ON);
            let frozen = cluster.freeze(&victim);
            writers.wait_more(60, GO_ON);
            drop(frozen);
            cluster.wait_healthy();
        }
        finish(cluster, writers, &a, &b);
    });
}

#[test]
fn three_copies_are_made_whole_again_after_a_server_was_away() {
    let why = "a server is killed";
    let options = Options {
        copies: 3,
        ..Options::default()
    };
    with_cluster(options.with_faults(why), LONG, |cluster| {
        let (a, b) = work_dir(cluster);
        cluster.kill("server-2");
        let writers = Writers::start(&a, 2, 4);
        writers.wait_more(40, GO_ON);
        let written = writers.stop();
        assert!(written.errors.is_empty(), "{:?}", written.errors);
        let one = b.join(
            written
                .acknowledged
                .0
                .keys()
                .next()
                .expect("files were written"),
        );
        until("one copy is missing", s(60), || {
            (attribute(&one, "copies") == "2/3").then_some(())
        });
        cluster.status_when("degraded", |status, json| {
            status == 3 && json["degraded_chunks"].as_u64() > Some(0)
        });
        cluster.start("server-2");
        until("all copies are there again", s(120), || {
            (attribute(&one, "copies") == "3/3").then_some(())
        });
        check_all(cluster, &written, &a, &b);
        // now any two others may go, one after the other
        for server in ["server-1", "server-3"] {
            cluster.kill(server);
            written.check(&b);
            cluster.start(server);
            cluster.wait_healthy();
        }
    });
}

#[test]
fn without_quorum_calls_wait_and_go_on() {
    let why = "two servers are killed";
    with_cluster(Options::default().with_faults(why), LONG, |cluster| {
        let (a, b) = work_dir(cluster);
        let writers = Writers::start(&a, 2, 5);
        writers.wait_more(30, GO_ON);
        cluster.kill("server-1");
        cluster.kill("server-2");
        // one that led goes on answering for as long as it may think that it does
        cluster.status_when("nobody leads", |status, json| {
            status == 4 && json["leader"].is_null()
        });
        cluster.start("server-1");
        writers.wait_more(30, GO_ON);
        cluster.start("server-2");
        finish(cluster, writers, &a, &b);
    });
}

#[test]
fn everything_is_killed_while_mail_is_written() {
    let why = "everything is killed";
    with_cluster(Options::default().with_faults(why), LONG, |cluster| {
        let (a, b) = work_dir(cluster);
        for round in 0..sized(3, 20) as u64 {
            let (one, two) = (a.join(format!("a{round}")), b.join(format!("b{round}")));
            fs::create_dir(&one).expect("make a directory");
            fs::create_dir(&two).expect("make a directory");
            let writers = [
                Writers::start(&one, 3, 10 + round),
                Writers::start(&two, 3, 90 + round),
            ];
            writers[0].wait_more(40, GO_ON);
            let names: Vec<String> = cluster
                .record()
                .processes
                .into_iter()
                .map(|p| p.name)
                .collect();
            let pids: Vec<u32> = names.iter().map(|name| cluster.pid(name)).collect();
            // all at once, mounts last: what they hold is lost with them
            for &pid in &pids {
                sys::kill(pid, libc::SIGKILL).expect("kill");
            }
            let [first, second] = writers.map(Writers::stop);
            for &pid in &pids {
                wait_gone(pid, cluster.children(), GO_ON);
            }
            for name in &names {
                cluster.launch(name);
            }
            for name in &names {
                cluster.wait_ready(name);
            }
            check_all(cluster, &first, &one, &b.join(format!("a{round}")));
            check_all(cluster, &second, &a.join(format!("b{round}")), &two);
        }
    });
}

#[test]
fn killed_mount_harms_nobody_and_comes_back() {
    let why = "a mount is killed";
    with_cluster(Options::default().with_faults(why), LONG, |cluster| {
        let (a, b) = work_dir(cluster);
        let file = fs::File::create(a.join("locked")).expect("create");
        sys::flock(&file, libc::LOCK_EX).expect("lock");
        let mine = |top: &Path, name: &str| top.join(name);
        fs::create_dir(mine(&a, "doomed")).expect("make a directory");
        fs::create_dir(mine(&a, "other")).expect("make a directory");
        let doomed = Writers::start(&mine(&a, "doomed"), 2, 7);
        let other = Writers::start(&mine(&b, "other"), 2, 8);
        doomed.wait_more(30, GO_ON);
        cluster.kill("mount-1");
        let doomed = doomed.stop();
        drop(file);
        other.wait_more(30, GO_ON);
        cluster.start("mount-1");
        doomed.check(&mine(&b, "doomed"));
        doomed.check(&mine(&a, "doomed"));
        // its successor ends the session at once, and the lock with it
        let file = fs::File::open(b.join("locked")).expect("open");
        until("the lock is free", s(40), || {
            sys::flock(&file, libc::LOCK_EX | libc::LOCK_NB).ok()
        });
        finish(cluster, other, &mine(&b, "other"), &mine(&a, "other"));
    });
}

#[test]
fn open_files_go_on_with_another_leader_though_their_names_are_gone() {
    let why = "a leader is killed";
    with_cluster(Options::default().with_faults(why), LONG, |cluster| {
        let (a, b) = work_dir(cluster);
        let count = sized(1_000, 100_000);
        sys::allow_files(count as u64 + 1_000).expect("allow as many open files");
        // before the files are open: a process that is started meanwhile flushes them
        let leader = cluster.leader();
        let files: Vec<File> = (0..count)
            .map(|n| {
                let path = a.join(n.to_string());
                let file = File::create_new(path).expect("create");
                file.write_all_at(&n.to_le_bytes(), 0).expect("write");
                file
            })
            .collect();
        // one is unlinked under the old leader, the others under the new one
        fs::remove_file(b.join("0")).expect("unlink");
        cluster.kill(&leader);
        let began = std::time::Instant::now();
        files[0].write_all_at(b"x", 100).expect("write");
        files[0].sync_all().expect("fsync");
        eprintln!("the first write took {:?}", began.elapsed());
        for n in 1..count {
            fs::remove_file(b.join(n.to_string())).expect("unlink");
        }
        cluster.start(&leader);
        cluster.wait_healthy();
        // the leader looks for unlinked files that nobody has open
        std::thread::sleep(s(15));
        for (n, file) in files.iter().enumerate() {
            let mut bytes = [0; 8];
            file.read_exact_at(&mut bytes, 0).expect("read");
            assert_eq!(usize::from_le_bytes(bytes), n);
        }
        drop(files);
        cluster.check();
    });
}

#[test]
fn new_leader_tells_the_space_of_all_servers_that_live() {
    let why = "a leader is killed";
    with_cluster(Options::default().with_faults(why), LONG, |cluster| {
        let total = || {
            let answer = sys::statvfs(&cluster.a()).expect("statvfs");
            answer.f_blocks * answer.f_frsize
        };
        let three = total();
        cluster.kill(&cluster.leader());
        for _ in 0..40 {
            let now = total();
            // two of three live; the disk has other users
            assert!(now > three / 2, "{now} of {three}");
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    });
}

#[test]
fn flipped_bit_on_one_disk_is_never_served() {
    let why = "bytes are damaged on disk";
    with_cluster(Options::default().with_faults(why), LONG, |cluster| {
        let bytes = Random::new(11).bytes(3 << 20);
        fs::write(cluster.a().join("x"), &bytes).expect("write");
        cluster.try_down().expect(0);
        let damaged = (1..=3).any(|n| {
            let store = cluster.dir().join(format!("server-{n}"));
            rot::flip(&store, &bytes[500_000..500_032]) > 0
        });
        assert!(damaged, "the bytes were not found in any store");
        cluster.try_up(&[]).expect(0);
        for _ in 0..4 {
            assert!(fs::read(cluster.b().join("x")).expect("read") == bytes);
            assert!(fs::read(cluster.a().join("x")).expect("read") == bytes);
        }
        let done = cluster.lagan(&["check"]);
        assert!(matches!(done.status, Some(0 | 1 | 3)), "{done}");
        // what check or a reader finds is healed from the other replica
        cluster.check();
    });
}

/// Whether the first check that sees all servers finds that a chunk is missing on this
/// one, which it tells it.
fn check_misses_one(cluster: &Cluster, server: &str) -> bool {
    until("check has seen all servers", GO_ON, || {
        let done = cluster.lagan(&["check"]);
        let missing = done.out.contains("missing") && done.out.contains(server);
        (missing || done.status == Some(0)).then_some(missing)
    })
}

#[test]
fn replica_that_one_server_lost_is_brought_back() {
    let why = "a record is damaged on disk";
    with_cluster(Options::default().with_faults(why), LONG, |cluster| {
        // Two blocks: more than a commit brings along, so that only the store has them.
        let bytes = Random::new(12).bytes(100_000);
        fs::write(cluster.a().join("x"), &bytes).expect("write");
        fs::write(cluster.a().join("y"), Random::new(13).bytes(100_000)).expect("write");
        cluster.check();
        let lost = cluster.servers().into_iter().find(|server| {
            // Its log is not sealed and its index is gone: the next start walks from
            // header to header.
            cluster.kill(server);
            let store = cluster.dir().join(server);
            let found = rot::unhead(&store, &bytes[..32]);
            fs::remove_dir_all(store.join("chunks/index")).expect("remove an index");
            cluster.start(server);
            cluster.wait_healthy();
            // a first attempt that came late leaves bytes that nothing names
            found > 0 && check_misses_one(cluster, server)
        });
        lost.expect("a server has the bytes");
        cluster.check();
        for mount in [cluster.a(), cluster.b()] {
            assert!(fs::read(mount.join("x")).expect("read") == bytes);
        }
        // What is deleted does not come back with the one that was away.
        fs::remove_file(cluster.a().join("x")).expect("remove");
        cluster.check();
    });
}
