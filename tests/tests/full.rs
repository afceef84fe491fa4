//! The servers' disks are full, all of them: small file systems made for the test.

use crate::shorthands::{attribute, expect_errno, metric, release, s};
use lagan_tests::cluster::{Cluster, PATIENCE};
use lagan_tests::manifest::Entry;
use lagan_tests::random::Random;
use lagan_tests::run::LONG;
use lagan_tests::wait::until;
use lagan_tests::writer::{Written, write_file};
use lagan_tests::{Manifest, Options, sys, with_cluster};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Room for about five segments beside reserve and metadata.
const DISK_MIB: u64 = 768;
/// More than three such disks hold.
const FILES_MAX: usize = 2000;

#[test]
fn full_disks_are_said_cleanly_and_space_comes_back() {
    let options = Options {
        disk_mib: Some(DISK_MIB),
        ..Options::default()
    };
    let why = "full disks of a busy machine are slow";
    with_cluster(options.with_faults(why), LONG, |cluster| {
        let (a, b) = (cluster.a().join("work"), cluster.b().join("work"));
        fs::create_dir(&a).expect("make a directory");
        let empty = space(&a);
        written_bytes_are_no_longer_free(&cluster.a(), &b);
        let mut written = fill(&a);
        eprintln!("{} files fit", written.acknowledged.0.len());
        write_answers_at_once(&a);
        let full = space(&a);
        assert!(full.free < empty.free / 2, "{empty:?}, then {full:?}");
        cluster.status_when("a server is full", |_, json| {
            json.to_string().contains("\"full\"")
        });
        written.check(&b);

        what_needs_no_space_works(cluster, &a, &b, &mut written);
        delete_most(&a, &mut written);
        space_comes_back(&a, &mut written);
        until("statfs says so", PATIENCE, || {
            (space(&b).free > full.free).then_some(())
        });
        cluster.wait_healthy();
        written.check(&b);
        cluster.check();
    });
}

#[test]
fn archived_files_are_released_when_a_disk_is_above_high_water() {
    const FILES: u64 = 4;
    const LEN: usize = 8 << 20;
    let options = Options {
        disk_mib: Some(DISK_MIB),
        ..Options::default()
    };
    with_cluster(options, LONG, |cluster| {
        let bytes = |n: u64| Random::new(70 + n).bytes(LEN);
        let files: Vec<PathBuf> = (0..FILES)
            .map(|n| cluster.a().join(n.to_string()))
            .collect();
        for (n, file) in (0..).zip(&files) {
            fs::write(file, bytes(n)).expect("write");
        }
        for file in &files {
            cluster.lagan_on(&["archive", "now", "--timeout", "90s"], file);
            assert_eq!(attribute(file, "state"), "archived");
        }
        let released = || metric(cluster, "lagan_mover_released_bytes_total");
        assert_eq!(released(), 0, "no disk is full");
        // two copies of these files are more than that on one of three disks
        let marks = ["set", "high_water=1%", "low_water=0%"];
        cluster.lagan(&marks).expect(0);
        until("they are released", PATIENCE, || {
            let mut states = files.iter().map(|file| attribute(file, "state"));
            states.all(|state| state == "released").then_some(())
        });
        until("it is counted", PATIENCE, || {
            (released() == FILES * LEN as u64).then_some(())
        });
        for n in 0..FILES {
            let read = fs::read(cluster.b().join(n.to_string())).expect("read");
            assert!(read == bytes(n), "file {n} comes back");
        }
        cluster.check();
    });
}

#[derive(Debug, Clone, Copy)]
struct Space {
    free: u64,
}

fn space(path: &Path) -> Space {
    let answer = sys::statvfs(path).expect("statvfs");
    assert_eq!(answer.f_bavail, answer.f_bfree, "nobody has more");
    let bytes = |blocks: u64| blocks * answer.f_frsize;
    let (total, free) = (bytes(answer.f_blocks), bytes(answer.f_bfree));
    assert!(free <= total && total <= (3 * DISK_MIB) << 20, "{answer:?}");
    Space { free }
}

/// To a quarter, as servers count in segments. Once or twice another file of a
/// server may grow beside it, as the spare one of its log.
fn written_bytes_are_no_longer_free(a: &Path, b: &Path) {
    const LEN: u64 = 96 << 20;
    const TURNS: u64 = 3;
    let is_right = |turn: u64| {
        let before = space(b).free;
        let bytes = Random::new(33 + turn).bytes(LEN as usize);
        write_file(&a.join(format!("large-{turn}")), &bytes).expect("there is room for it");
        let deadline = Instant::now() + s(20);
        loop {
            let taken = before.saturating_sub(space(b).free);
            if (LEN * 3 / 4..LEN * 5 / 4).contains(&taken) {
                return true;
            }
            if Instant::now() > deadline {
                eprintln!("of {before} free bytes, {LEN} written ones took {taken}");
                return false;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    };
    assert!((0..TURNS).any(is_right), "statfs counts what was written");
}

/// Writes files until there is no space; each that was acknowledged counts.
fn fill(top: &Path) -> Written {
    let mut acknowledged = Manifest::default();
    let mut random = Random::new(31);
    for n in 0..FILES_MAX {
        let name = PathBuf::from(format!("{n:04}"));
        let len = random.size(64 << 10, 3 << 20);
        let bytes = random.bytes(len as usize);
        match write_file(&top.join(&name), &bytes) {
            Ok(()) => acknowledged.0.insert(name, Entry::of(&bytes)),
            Err(error) => {
                assert_eq!(error.raw_os_error(), Some(libc::ENOSPC), "{error}");
                fs::remove_file(top.join(&name)).expect("remove what did not fit");
                return Written {
                    acknowledged,
                    errors: Vec::new(),
                    slowest: Duration::ZERO,
                };
            }
        };
    }
    panic!("{FILES_MAX} files fit on {DISK_MIB} MiB disks");
}

/// Close reports a full disk before the leader knows of it; later, writes fail themselves.
fn write_answers_at_once(top: &Path) {
    let path = top.join("refused");
    until("write answers ENOSPC", PATIENCE, || {
        let mut file = File::create(&path).expect("names need no chunks");
        let wrote = file.write_all(b"some bytes");
        let closed = sys::close(std::os::fd::IntoRawFd::into_raw_fd(file));
        if wrote.is_err() {
            expect_errno(wrote, libc::ENOSPC);
            return Some(());
        }
        // a short chunk may still have found room
        if closed.is_err() {
            expect_errno(closed, libc::ENOSPC);
        }
        None
    });
    fs::remove_file(&path).expect("remove");
}

/// Names, attributes, archiving and releasing.
fn what_needs_no_space_works(cluster: &Cluster, a: &Path, b: &Path, written: &mut Written) {
    let names: Vec<PathBuf> = written.acknowledged.0.keys().take(2).cloned().collect();
    fs::rename(a.join(&names[0]), a.join("renamed")).expect("rename");
    fs::rename(b.join("renamed"), b.join(&names[0])).expect("rename");
    fs::create_dir(a.join("directory")).expect("mkdir");
    std::os::unix::fs::symlink("x", a.join("directory/link")).expect("symlink");
    fs::remove_dir_all(b.join("directory")).expect("remove");
    let path = a.join(&names[1]);
    cluster.lagan_on(&["archive", "now", "--timeout", "90s"], &path);
    assert_eq!(attribute(&path, "state"), "archived");
    release(cluster, &path, &[b.join(&names[1])]);
}

fn delete_most(top: &Path, written: &mut Written) {
    let most = written.acknowledged.0.len() * 2 / 3;
    let gone: Vec<PathBuf> = written.acknowledged.0.keys().take(most).cloned().collect();
    for name in gone {
        fs::remove_file(top.join(&name)).expect("unlink needs no space");
        written.acknowledged.0.remove(&name);
    }
}

fn space_comes_back(top: &Path, written: &mut Written) {
    let bytes = Random::new(32).bytes(2 << 20);
    for n in 0..5 {
        let name = PathBuf::from(format!("again-{n}"));
        until("there is space again", s(120), || {
            let done = write_file(&top.join(&name), &bytes);
            if done.is_err() {
                expect_errno(done, libc::ENOSPC);
                fs::remove_file(top.join(&name)).expect("remove");
                return None;
            }
            Some(())
        });
        written.acknowledged.0.insert(name, Entry::of(&bytes));
    }
}
