//! What a mount asks for together: bytes with an open, and the neighbours of what a program
//! looks at. Requests are counted at the servers; what comes along is never old.

use crate::shorthands::{metric, s};
use lagan_tests::cluster::Cluster;
use lagan_tests::options::Options;
use lagan_tests::wait::until;
use lagan_tests::with_cluster;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Requests that mounts send all the time, while a test counts: chunk ids, and whatever begins
/// anew when a lease ran out on a busy machine.
const OTHERS: u64 = 10;

/// Three servers that have all chunks, so that the leader has the bytes whichever it is.
fn everywhere() -> Options {
    Options {
        copies: 3,
        ..Options::default()
    }
}

/// What mounts have asked of the servers for files so far. Servers forward chunks to one
/// another, which nobody does here meanwhile.
fn asked(cluster: &Cluster) -> u64 {
    let of = |service| {
        metric(
            cluster,
            &format!("lagan_net_requests_total{{service=\"{service}\"}}"),
        )
    };
    of("meta") + of("chunk")
}

/// Waits until the other mount remembers the directory: what was just changed by somebody else is
/// not leased for a while.
fn wait_until_leased(cluster: &Cluster, dir: &Path) {
    until("the directory is remembered", s(60), || {
        let before = asked(cluster);
        for _ in 0..50 {
            fs::metadata(dir).expect("a call on a mount");
        }
        (asked(cluster) < before + OTHERS).then_some(())
    });
}

/// The bytes of a file: some 10 KiB that no other file has.
fn bytes(n: usize) -> Vec<u8> {
    let word = format!("file {n} of many; ");
    word.into_bytes().repeat(600)
}

fn name(n: usize) -> String {
    format!("f{n:04}")
}

/// Makes files by several threads, so that they lie in the directory nearly in order.
fn make(dir: &Path, count: usize) {
    fs::create_dir(dir).expect("a call on a mount");
    let next = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed) as usize;
                    if n >= count {
                        return;
                    }
                    fs::write(dir.join(name(n)), bytes(n)).expect("a call on a mount");
                }
            });
        }
    });
}

#[test]
fn small_file_of_another_mount_is_read_with_two_requests() {
    with_cluster(everywhere(), s(120), |cluster| {
        make(&cluster.a().join("d"), 400);
        let dir = cluster.b().join("d");
        wait_until_leased(cluster, &dir);
        let before = asked(cluster);
        // They lie too far apart for a walk.
        let read: Vec<usize> = (0..400).step_by(40).collect();
        for n in &read {
            let found = fs::read(dir.join(name(*n))).expect("a call on a mount");
            assert!(found == bytes(*n), "file {n}");
        }
        let count = asked(cluster) - before;
        let most = 2 * read.len() as u64 + OTHERS;
        assert!(count <= most, "{count} requests for {} files", read.len());
        let before = asked(cluster);
        for n in &read {
            assert!(fs::read(dir.join(name(*n))).expect("a call on a mount") == bytes(*n));
        }
        let again = asked(cluster) - before;
        assert!(again <= OTHERS, "{again} requests for what is cached");
    });
}

#[test]
fn files_are_asked_for_many_at_a_time_by_a_walk() {
    with_cluster(everywhere(), s(120), |cluster| {
        const COUNT: usize = 600;
        make(&cluster.a().join("looked"), COUNT);
        make(&cluster.a().join("read"), COUNT);
        wait_until_leased(cluster, &cluster.b().join("looked"));
        wait_until_leased(cluster, &cluster.b().join("read"));
        let before = asked(cluster);
        for n in 0..COUNT {
            let meta = fs::metadata(cluster.b().join("looked").join(name(n)));
            let len = meta.expect("a call on a mount").len();
            assert_eq!(len, bytes(n).len() as u64);
        }
        let looks = asked(cluster) - before;
        let before = asked(cluster);
        // Several programs share the walk.
        let next = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    loop {
                        let n = next.fetch_add(1, Ordering::Relaxed) as usize;
                        if n >= COUNT {
                            return;
                        }
                        let found = fs::read(cluster.b().join("read").join(name(n)));
                        assert!(found.expect("a call on a mount") == bytes(n), "file {n}");
                    }
                });
            }
        });
        let reads = asked(cluster) - before;
        println!("{COUNT} files: {looks} requests for looks, {reads} for reads");
        assert!(looks <= COUNT as u64 / 4, "{looks} requests");
        assert!(reads <= COUNT as u64 / 4, "{reads} requests");
    });
}

/// While one mount walks, the other rewrites, renames and removes what is asked for ahead.
#[test]
fn what_was_asked_for_ahead_is_never_old() {
    with_cluster(Options::default(), s(180), |cluster| {
        const COUNT: usize = 60;
        const ROUNDS: u64 = 12;
        let (a, b) = (cluster.a().join("d"), cluster.b().join("d"));
        fs::create_dir(&a).expect("a call on a mount");
        // The version that is the file's content, acknowledged.
        let acked: Vec<AtomicU64> = (0..COUNT).map(|_| AtomicU64::new(0)).collect();
        // What is written in place has one length: a reader may be between two reads.
        let content = |n: usize, version: u64| match n % 3 {
            0 => format!("{version:08}"),
            _ => version.to_string().repeat(1 + version as usize % 7),
        };
        for n in 0..COUNT {
            fs::write(a.join(name(n)), content(n, 0)).expect("a call on a mount");
        }
        let ended = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for version in 1..=ROUNDS {
                    for n in (0..COUNT).rev() {
                        let path = a.join(name(n));
                        match n % 3 {
                            0 => fs::write(&path, content(n, version)).expect("a call on a mount"),
                            1 => {
                                let new = a.join(format!("new{n}"));
                                fs::write(&new, content(n, version)).expect("a call on a mount");
                                fs::rename(&new, &path).expect("a call on a mount");
                            }
                            _ => {
                                fs::remove_file(&path).expect("a call on a mount");
                                acked[n].store(u64::MAX, Ordering::SeqCst);
                                fs::write(&path, content(n, version)).expect("a call on a mount");
                            }
                        }
                        acked[n].store(version, Ordering::SeqCst);
                    }
                }
                ended.store(true, Ordering::SeqCst);
            });
            while !ended.load(Ordering::SeqCst) {
                for (n, acked) in acked.iter().enumerate() {
                    let least = acked.load(Ordering::SeqCst);
                    let found = fs::read_to_string(b.join(name(n)));
                    let text = match found {
                        Ok(text) => text,
                        Err(error) => {
                            assert!(n % 3 == 2, "{n}: {error}");
                            continue;
                        }
                    };
                    if least == u64::MAX || text.is_empty() {
                        // It is being made anew, or was cut to be written.
                        assert!(n % 3 != 1, "{n} is replaced as a whole");
                        continue;
                    }
                    let right = (least..=ROUNDS).any(|version| content(n, version) == text);
                    assert!(right, "{n} has {text}, {least} was acknowledged before");
                }
            }
        });
        for n in 0..COUNT {
            let text = fs::read_to_string(b.join(name(n))).expect("a call on a mount");
            assert_eq!(text, content(n, ROUNDS));
        }
    });
}
