//! Locks hold across mounts.

use crate::shorthands::{expect_errno, s};
use lagan_tests::cluster::PATIENCE;
use lagan_tests::run::LONG;
use lagan_tests::wait::until;
use lagan_tests::{Options, sys, with_cluster, with_shared};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::mpsc;

fn open(path: &Path) -> File {
    let mut options = OpenOptions::new();
    let file = options
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path);
    file.unwrap_or_else(|e| panic!("open {}: {e}", path.display()))
}

const TRY: i32 = libc::LOCK_EX | libc::LOCK_NB;

#[test]
fn flock_on_one_mount_keeps_the_other_out() {
    with_shared(s(60), |a, b| {
        let (on_a, on_b) = (open(&a.join("x")), open(&b.join("x")));
        sys::flock(&on_a, TRY).expect("lock");
        expect_errno(sys::flock(&on_b, TRY), libc::EWOULDBLOCK);
        expect_errno(
            sys::flock(&on_b, libc::LOCK_SH | libc::LOCK_NB),
            libc::EWOULDBLOCK,
        );
        sys::flock(&on_a, libc::LOCK_SH).expect("to shared");
        sys::flock(&on_b, libc::LOCK_SH | libc::LOCK_NB).expect("both share");
        expect_errno(sys::flock(&on_b, TRY), libc::EWOULDBLOCK);
        sys::flock(&on_a, libc::LOCK_UN).expect("unlock");
        sys::flock(&on_b, TRY).expect("alone now");
    });
}

#[test]
fn flock_ends_with_its_file() {
    with_shared(s(60), |a, b| {
        let (on_a, on_b) = (open(&a.join("x")), open(&b.join("x")));
        sys::flock(&on_a, TRY).expect("lock");
        drop(on_a);
        until("the lock is free", PATIENCE, || sys::flock(&on_b, TRY).ok());
    });
}

#[test]
fn record_locks_hold_ranges_across_mounts() {
    with_shared(s(60), |a, b| {
        let (on_a, on_b) = (open(&a.join("x")), open(&b.join("x")));
        let write = libc::F_WRLCK;
        sys::record_lock(&on_a, write, 100, 50, false).expect("lock a range");
        let other = sys::record_lock(&on_b, write, 149, 1, false);
        assert!(matches!(
            other.expect_err("inside").raw_os_error(),
            Some(libc::EAGAIN | libc::EACCES)
        ));
        sys::record_lock(&on_b, write, 150, 10, false).expect("behind it");
        sys::record_lock(&on_b, libc::F_RDLCK, 0, 100, false).expect("before it");
        sys::record_lock(&on_a, libc::F_UNLCK, 100, 25, false).expect("free half");
        sys::record_lock(&on_b, write, 100, 25, false).expect("the free half");
        let kept = sys::record_lock(&on_b, write, 125, 1, false);
        assert!(kept.is_err(), "the other half is still held");
    });
}

#[test]
fn lock_in_the_way_is_named() {
    with_shared(s(60), |a, b| {
        let (on_a, on_b) = (open(&a.join("x")), open(&b.join("x")));
        sys::process_lock(&on_a, libc::F_WRLCK, 10, 20).expect("lock");
        // one process, but two mounts: two owners
        let found = sys::lock_in_the_way(&on_b, libc::F_WRLCK, 0, 0).expect("ask");
        assert_eq!(found, (libc::F_WRLCK, 10, 20));
        let free = sys::lock_in_the_way(&on_b, libc::F_WRLCK, 50, 5).expect("ask");
        assert_eq!(free.0, libc::F_UNLCK);
    });
}

#[test]
fn record_lock_of_a_process_ends_when_it_closes_the_file() {
    with_shared(s(60), |a, b| {
        let (on_a, on_b) = (open(&a.join("x")), open(&b.join("x")));
        let again = open(&a.join("x"));
        sys::process_lock(&on_a, libc::F_WRLCK, 0, 0).expect("lock");
        assert!(sys::process_lock(&on_b, libc::F_WRLCK, 0, 0).is_err());
        // any close of that file by that process ends its locks (POSIX fcntl)
        drop(again);
        sys::process_lock(&on_b, libc::F_WRLCK, 0, 0).expect("free");
    });
}

#[test]
fn open_file_description_lock_ends_with_its_file() {
    with_shared(s(60), |a, b| {
        let (on_a, on_b) = (open(&a.join("x")), open(&b.join("x")));
        sys::record_lock(&on_a, libc::F_WRLCK, 0, 0, false).expect("lock");
        drop(open(&a.join("x")));
        assert!(
            sys::record_lock(&on_b, libc::F_WRLCK, 0, 0, false).is_err(),
            "another description's close ends nothing"
        );
        drop(on_a);
        until("the lock is free", PATIENCE, || {
            sys::record_lock(&on_b, libc::F_WRLCK, 0, 0, false).ok()
        });
    });
}

#[test]
fn waiting_lock_is_given_when_the_other_mount_lets_go() {
    with_shared(s(60), |a, b| {
        for kind in ["flock", "record"] {
            let (on_a, on_b) = (open(&a.join(kind)), open(&b.join(kind)));
            let lock = move |file: &File| match kind {
                "flock" => sys::flock(file, libc::LOCK_EX),
                _ => sys::record_lock(file, libc::F_WRLCK, 0, 0, true),
            };
            let unlock = |file: &File| match kind {
                "flock" => sys::flock(file, libc::LOCK_UN),
                _ => sys::record_lock(file, libc::F_UNLCK, 0, 0, false),
            };
            lock(&on_a).expect("lock");
            let (send, given) = mpsc::sync_channel(1);
            let waiter = std::thread::spawn(move || {
                let result = lock(&on_b);
                let _ = send.send(format!("{result:?}"));
                result.map(|()| on_b)
            });
            let early = given.recv_timeout(std::time::Duration::from_millis(500));
            assert!(
                early.is_err(),
                "{kind}: ended while the other held it: {early:?}"
            );
            unlock(&on_a).expect("unlock");
            given
                .recv_timeout(PATIENCE)
                .unwrap_or_else(|_| panic!("{kind}: not given"));
            let waited = waiter.join().expect("the waiter does not panic");
            drop(waited.expect("lock"));
        }
    });
}

#[test]
fn waiting_process_can_be_killed() {
    with_shared(s(60), |a, b| {
        let held = open(&a.join("x"));
        sys::flock(&held, TRY).expect("lock");
        let mut waiter = std::process::Command::new("flock")
            .arg(b.join("x"))
            .arg("true")
            .spawn()
            .expect("start flock(1)");
        std::thread::sleep(std::time::Duration::from_millis(500));
        assert!(waiter.try_wait().expect("ask").is_none(), "it waits");
        waiter.kill().expect("kill it");
        until("it is gone", PATIENCE, || waiter.try_wait().expect("ask"));
        sys::flock(&held, libc::LOCK_UN).expect("unlock");
        let other = open(&b.join("x"));
        until("nobody holds it", PATIENCE, || sys::flock(&other, TRY).ok());
    });
}

#[test]
fn processes_that_wait_for_each_other_get_edeadlk_once() {
    with_shared(s(60), |a, b| {
        let write = libc::F_WRLCK;
        // one process, but two mounts: two owners
        let (x_a, y_a) = (open(&a.join("x")), open(&a.join("y")));
        let (x_b, y_b) = (open(&b.join("x")), open(&b.join("y")));
        sys::process_lock(&x_a, write, 0, 0).expect("x on the first mount");
        sys::process_lock(&y_b, write, 5, 5).expect("y on the second");
        let (send, ended) = mpsc::channel();
        let waits = [(y_a, "y"), (x_b, "x")].map(|(file, name)| {
            let send = send.clone();
            std::thread::spawn(move || {
                let result = sys::await_process_lock(&file, write, 0, 8);
                send.send((name, result.map_err(|e| e.raw_os_error())))
                    .expect("the test waits");
                file
            })
        });
        let (loser, refused) = ended.recv_timeout(PATIENCE).expect("one is refused");
        assert_eq!(refused, Err(Some(libc::EDEADLK)));
        let early = ended.recv_timeout(std::time::Duration::from_millis(700));
        assert!(early.is_err(), "the other goes on waiting: {early:?}");
        match loser {
            "y" => sys::process_lock(&x_a, libc::F_UNLCK, 0, 0).expect("unlock x"),
            _ => sys::process_lock(&y_b, libc::F_UNLCK, 0, 0).expect("unlock y"),
        }
        let (_, got) = ended.recv_timeout(PATIENCE).expect("the other ends");
        assert_eq!(got, Ok(()));
        for wait in waits {
            wait.join().expect("a waiter does not panic");
        }
    });
}

#[test]
fn open_files_that_wait_for_each_other_wait_until_killed() {
    with_shared(s(60), |a, b| {
        let (x_a, y_b) = (open(&a.join("x")), open(&b.join("y")));
        sys::record_lock(&x_a, libc::F_WRLCK, 0, 0, false).expect("x on the first mount");
        sys::flock(&y_b, TRY).expect("y on the second");
        let mut waiters = [b.join("x"), a.join("y")].map(|path| {
            let mut flock = std::process::Command::new("flock");
            flock.arg(path).arg("true");
            flock.spawn().expect("start flock(1)")
        });
        std::thread::sleep(std::time::Duration::from_secs(1));
        for waiter in &mut waiters {
            let early = waiter.try_wait().expect("ask");
            waiter.kill().expect("kill it");
            assert!(early.is_none(), "ended by itself: {early:?}");
        }
        for mut waiter in waiters {
            until("it is gone", PATIENCE, || waiter.try_wait().expect("ask"));
        }
    });
}

#[test]
fn ranges_that_overflow_are_refused_as_linux_does() {
    with_shared(s(60), |a, _| {
        let file = open(&a.join("x"));
        let lock = |start: i64, len: i64| {
            sys::record_lock(&file, libc::F_WRLCK, start as u64, len as u64, false)
        };
        expect_errno(lock(i64::MAX, 2), libc::EOVERFLOW);
        expect_errno(lock(-1, 1), libc::EINVAL);
        expect_errno(lock(10, -11), libc::EINVAL);
        lock(i64::MAX, 1).expect("the last byte");
        lock(10, -10).expect("what is before");
        lock(0, 0).expect("all");
    });
}

#[test]
fn locked_counter_loses_no_increment() {
    with_shared(LONG, |a, b| {
        std::fs::write(a.join("counter"), b"00000000").expect("write");
        let count = |path: &Path| {
            for _ in 0..40 {
                let file = open(path);
                sys::flock(&file, libc::LOCK_EX).expect("lock");
                let mut text = [0; 8];
                file.read_exact_at(&mut text, 0).expect("read");
                let number: u64 = std::str::from_utf8(&text).unwrap().parse().unwrap();
                file.write_all_at(format!("{:08}", number + 1).as_bytes(), 0)
                    .expect("write");
                file.sync_all().expect("sync");
                sys::flock(&file, libc::LOCK_UN).expect("unlock");
            }
        };
        let count = &count;
        std::thread::scope(|scope| {
            for path in [a.join("counter"), b.join("counter"), a.join("counter")] {
                scope.spawn(move || count(&path));
            }
        });
        assert_eq!(std::fs::read(b.join("counter")).expect("read"), b"00000120");
    });
}

#[test]
fn local_locks_are_their_mounts_own_business() {
    with_cluster(Options::default(), LONG, |cluster| {
        let mount = cluster.process("mount-1");
        cluster.stop("mount-1");
        let text = std::fs::read_to_string(&mount.config).expect("read the configuration");
        std::fs::write(&mount.config, format!("locallocks = true\n{text}"))
            .expect("write the configuration");
        cluster.start("mount-1");
        let (a, b) = (cluster.a().join("x"), cluster.b().join("x"));
        let (one, two, other) = (open(&a), open(&a), open(&b));
        // among themselves they hold
        sys::flock(&one, TRY).expect("lock");
        expect_errno(sys::flock(&two, TRY), libc::EWOULDBLOCK);
        // nobody else knows them, and they know of nobody
        sys::flock(&other, TRY).expect("lock on the other mount");
        drop(one);
        // a program that another test just starts may have a copy of the file still
        until("it has what the other mount has locked", PATIENCE, || {
            sys::flock(&two, TRY).ok()
        });
        let write = libc::F_WRLCK;
        sys::record_lock(&two, write, 0, 10, false).expect("lock a range");
        sys::record_lock(&other, write, 0, 10, false).expect("the same on the other mount");
        let third = open(&a);
        assert!(sys::record_lock(&third, write, 5, 1, false).is_err());
        // the data are everybody's all the same
        two.write_all_at(b"shared", 0).expect("write");
        two.sync_all().expect("fsync");
        assert_eq!(std::fs::read(&b).expect("read"), b"shared");
    });
}
