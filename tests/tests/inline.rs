//! The bytes of small files come with their commits (docs/DESIGN.md "Bytes in the log"): on
//! which disks they are when `close` has returned, and after deaths in the middle.

use crate::shorthands::s;
use lagan_tests::cluster::Cluster;
use lagan_tests::random::Random;
use lagan_tests::run::LONG;
use lagan_tests::wait::until;
use lagan_tests::writer::Writers;
use lagan_tests::{Options, rot, sized, with_cluster};
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::PathBuf;

const GO_ON: std::time::Duration = s(60);

fn three_copies() -> Options {
    Options {
        copies: 3,
        ..Options::default()
    }
}

fn dir_of(cluster: &Cluster, server: &str) -> PathBuf {
    cluster.dir().join(server)
}

/// Bytes that no other file has.
fn bytes(seed: u64, len: usize) -> Vec<u8> {
    Random::new(seed).bytes(len)
}

#[test]
fn closed_bytes_are_in_every_members_log_and_come_to_its_chunk_store() {
    with_cluster(three_copies(), LONG, |cluster| {
        let (small, long) = (bytes(101, 20_000), bytes(102, 100_000));
        fs::write(cluster.a().join("small"), &small).expect("write");
        for server in cluster.servers() {
            let dir = dir_of(cluster, &server);
            assert!(rot::holds(&dir.join("meta/log"), &small[..64]), "{server}");
        }
        fs::write(cluster.a().join("long"), &long).expect("write");
        for server in cluster.servers() {
            let dir = dir_of(cluster, &server);
            assert!(!rot::holds(&dir.join("meta/log"), &long[..64]), "{server}");
            assert!(rot::holds(&dir.join("chunks"), &long[..64]), "{server}");
            until("it comes to the chunk store", GO_ON, || {
                rot::holds(&dir.join("chunks"), &small[..64]).then_some(())
            });
        }
        for mount in [cluster.a(), cluster.b()] {
            assert!(fs::read(mount.join("small")).expect("read") == small);
            assert!(fs::read(mount.join("long")).expect("read") == long);
        }
        cluster.check();
    });
}

#[test]
fn every_length_and_way_to_write_reads_back_from_the_other_mount() {
    with_cluster(three_copies(), LONG, |cluster| {
        let lens = [1, 4_095, 4_096, 65_535, 65_536, 65_537, 200_000];
        for (n, len) in (0u64..).zip(lens) {
            let first = bytes(200 + n, len);
            let name = format!("f{len}");
            let (here, there) = (cluster.a().join(&name), cluster.b().join(&name));
            fs::write(&here, &first).expect("write");
            assert!(fs::read(&there).expect("read") == first, "{len}");
            // Over a part of it, from the other mount.
            let part = bytes(300 + n, len.div_ceil(3));
            let file = OpenOptions::new().write(true).open(&there).expect("open");
            std::os::unix::fs::FileExt::write_all_at(&file, &part, 0).expect("write");
            drop(file);
            let mut file = OpenOptions::new().append(true).open(&here).expect("open");
            file.write_all(b"the end").expect("append");
            drop(file);
            let expected = [&part[..], &first[part.len()..], b"the end"].concat();
            for path in [&here, &there] {
                assert!(fs::read(path).expect("read") == expected, "{len}");
            }
        }
        // Several places of one file in one commit.
        let path = cluster.a().join("sparse");
        let file = fs::File::create(&path).expect("create");
        for n in 0..8u64 {
            let piece = [n as u8 + 1; 1000];
            std::os::unix::fs::FileExt::write_all_at(&file, &piece, n * 50_000).expect("write");
        }
        drop(file);
        let found = fs::read(cluster.b().join("sparse")).expect("read");
        for n in 0..8usize {
            assert!(
                found[n * 50_000..][..1000]
                    .iter()
                    .all(|b| *b == n as u8 + 1)
            );
        }
        assert!(found[1000..50_000].iter().all(|b| *b == 0));
        cluster.check();
    });
}

#[test]
fn close_beside_a_silent_member_leaves_the_bytes_on_all_that_live() {
    let why = "a server is stopped";
    with_cluster(three_copies().with_faults(why), LONG, |cluster| {
        fs::write(cluster.a().join("before"), bytes(400, 9_000)).expect("write");
        let leader = cluster.leader();
        let servers = cluster.servers();
        let victim = servers.iter().find(|s| **s != leader).expect("a follower");
        let frozen = cluster.freeze(victim);
        // Sent while nobody knows that the member is silent.
        let data: Vec<Vec<u8>> = (0..4).map(|n| bytes(500 + n, 15_000)).collect();
        for (n, data) in data.iter().enumerate() {
            fs::write(cluster.a().join(format!("f{n}")), data).expect("write");
            for server in servers.iter().filter(|s| *s != victim) {
                let dir = dir_of(cluster, server);
                assert!(rot::holds(&dir, &data[..64]), "f{n} on {server}");
            }
        }
        drop(frozen);
        cluster.wait_healthy();
        for (n, data) in data.iter().enumerate() {
            let path = cluster.b().join(format!("f{n}"));
            assert!(fs::read(path).expect("read") == *data);
        }
        cluster.check();
    });
}

#[test]
fn all_servers_die_at_once_and_no_closed_file_is_missing() {
    let why = "all servers are killed";
    with_cluster(three_copies().with_faults(why), LONG, |cluster| {
        let (a, b) = (cluster.a().join("work"), cluster.b().join("work"));
        fs::create_dir(&a).expect("make a directory");
        let mut random = Random::new(77);
        let writers = Writers::start(&a, 4, 3);
        for _ in 0..sized(3, 20) {
            writers.wait_more(40 + random.below(60), GO_ON);
            let servers = cluster.servers();
            servers.iter().for_each(|server| cluster.kill(server));
            for server in &servers {
                cluster.launch(server);
            }
            servers.iter().for_each(|server| cluster.wait_ready(server));
        }
        let written = writers.stop();
        assert!(written.errors.is_empty(), "{:?}", written.errors);
        written.check(&b);
        written.check(&a);
        cluster.wait_healthy();
        cluster.check();
    });
}
