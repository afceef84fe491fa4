//! Files that are written in small pieces keep few extents.

use crate::shorthands::s;
use lagan_tests::cluster::Cluster;
use lagan_tests::random::Random;
use lagan_tests::run::LONG;
use lagan_tests::wait::until;
use lagan_tests::{Options, sized, with_cluster};
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Extents in one MiB, at most, when all is quiet.
const IN_A_MIB: u64 = 64;

fn extents(cluster: &Cluster, path: &Path) -> u64 {
    let json = cluster.lagan_on(&["file", "--json"], path).json();
    json["files"][0]["extent_count"].as_u64().expect("a number")
}

fn wait_for_few(cluster: &Cluster, path: &Path, most: u64) {
    until("the file has few extents", s(120), || {
        (extents(cluster, path) <= most).then_some(())
    });
}

#[test]
fn a_database_that_is_fsynced_page_by_page_keeps_few_extents() {
    with_cluster(Options::default(), LONG, |cluster| {
        let mib = sized(4, 64);
        let mut random = Random::new(12);
        let mut data = random.bytes(mib << 20);
        let path = cluster.a().join("database");
        fs::write(&path, &data).unwrap();
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        for n in 0..sized(700, 10_000) {
            let page = random.below((data.len() / 4096) as u64) as usize * 4096;
            data[page..page + 4096].fill(n as u8);
            file.write_all_at(&data[page..page + 4096], page as u64)
                .unwrap();
            file.sync_data().unwrap();
        }
        wait_for_few(cluster, &path, IN_A_MIB * mib as u64);
        assert!(fs::read(cluster.b().join("database")).unwrap() == data);
        let text = cluster.lagan_on(&["file"], &path).out;
        assert!(text.contains(" extents"), "{text}");
        cluster.check();
        // The other mount has it open, and its map is old.
        let other = fs::File::open(cluster.b().join("database")).unwrap();
        let mut byte = [0];
        other.read_exact_at(&mut byte, 0).unwrap();
        for n in 0..200 {
            data[n * 4096..(n + 1) * 4096].fill(7);
            file.write_all_at(&[7; 4096], n as u64 * 4096).unwrap();
            file.sync_data().unwrap();
        }
        wait_for_few(cluster, &path, IN_A_MIB * mib as u64);
        let mut seen = vec![0; data.len()];
        other.read_exact_at(&mut seen, 0).unwrap();
        assert!(seen == data);
        cluster.check();
    });
}

#[test]
fn a_log_that_is_fsynced_line_by_line_keeps_few_extents() {
    with_cluster(Options::default(), LONG, |cluster| {
        let path = cluster.a().join("log");
        let mut want = Vec::new();
        let mut log = OpenOptions::new();
        let mut log = log.create(true).append(true).open(&path).unwrap();
        for n in 0..sized(500, 5_000) {
            let line = format!("{n} {}\n", "x".repeat(n % 300));
            log.write_all(line.as_bytes()).unwrap();
            log.sync_data().unwrap();
            want.extend_from_slice(line.as_bytes());
        }
        wait_for_few(cluster, &path, IN_A_MIB);
        assert!(fs::read(cluster.b().join("log")).unwrap() == want);
    });
}
