//! copy_file_range(2) and cp(1): copies share chunks, and nobody can tell.

use crate::shorthands::{attribute, expect_errno, release, s};
use lagan_tests::cluster::Cluster;
use lagan_tests::command::must;
use lagan_tests::random::Random;
use lagan_tests::run::LONG;
use lagan_tests::wait::until;
use lagan_tests::{Options, sized, sys, with_cluster, with_shared};
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;

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

/// The chunks of a file, in order, as `lagan file` shows them.
fn chunks(cluster: &Cluster, path: &Path) -> Vec<String> {
    let json = cluster.lagan_on(&["file", "--json"], path).json();
    let extents = json["files"][0]["extents"].as_array().cloned();
    let extents = extents.unwrap_or_default();
    let chunk = |e: &serde_json::Value| e["chunk"].as_str().map(str::to_owned);
    extents.iter().filter_map(chunk).collect()
}

fn cp(from: &Path, to: &Path) {
    let (from, to) = (from.to_str().expect("UTF-8"), to.to_str().expect("UTF-8"));
    must("cp", &[from, to], s(120));
}

#[test]
fn cp_shares_every_chunk_and_each_copy_lives_by_itself() {
    with_cluster(Options::default(), LONG, |cluster| {
        let (a, b) = (cluster.a(), cluster.b());
        let data = Random::new(1).bytes(sized(40 << 20, 1 << 30) + 12_345);
        fs::write(a.join("x"), &data).unwrap();
        cp(&a.join("x"), &a.join("y"));
        cp(&b.join("y"), &b.join("z"));
        let named = chunks(cluster, &a.join("x"));
        assert!(named.len() > 10);
        assert_eq!(chunks(cluster, &a.join("y")), named);
        assert_eq!(chunks(cluster, &a.join("z")), named);
        assert!(fs::read(b.join("y")).unwrap() == data);
        // One is cut, one overwritten, one removed: the others do not change.
        open(&b.join("y")).set_len(5_000_000).unwrap();
        let mut changed = data.clone();
        changed[9_000_000..9_000_005].copy_from_slice(b"other");
        let z = open(&a.join("z"));
        z.write_all_at(b"other", 9_000_000).unwrap();
        z.sync_all().unwrap();
        assert!(fs::read(a.join("x")).unwrap() == data);
        fs::remove_file(a.join("x")).unwrap();
        cluster.check();
        assert!(fs::read(b.join("z")).unwrap() == changed);
        assert!(fs::read(a.join("y")).unwrap() == data[..5_000_000]);
        fs::remove_file(a.join("z")).unwrap();
        cluster.check();
        assert!(fs::read(b.join("y")).unwrap() == data[..5_000_000]);
    });
}

#[test]
fn copies_of_archived_and_released_files_have_the_bytes() {
    let options = Options {
        archive_after: "1s".into(),
        ..Options::default()
    };
    with_cluster(options, LONG, |cluster| {
        let (a, b) = (cluster.a(), cluster.b());
        let data = Random::new(2).bytes(9_000_000);
        fs::write(a.join("x"), &data).unwrap();
        cp(&a.join("x"), &a.join("y"));
        for name in ["x", "y"] {
            until("both are archived", s(90), || {
                (attribute(&a.join(name), "state") == "archived").then_some(())
            });
        }
        release(cluster, &a.join("x"), &[a.join("x")]);
        // The copy's chunks stay; a copy of what is in S3 brings it back.
        assert_eq!(attribute(&a.join("y"), "state"), "archived");
        assert!(fs::read(b.join("y")).unwrap() == data);
        cp(&b.join("x"), &b.join("z"));
        assert!(fs::read(a.join("z")).unwrap() == data);
        fs::remove_file(a.join("x")).unwrap();
        cluster.check();
        assert!(fs::read(a.join("y")).unwrap() == data);
        assert!(fs::read(b.join("z")).unwrap() == data);
    });
}

#[test]
fn copy_file_range_follows_the_rules_of_linux() {
    with_shared(s(60), |a, b| {
        let data = Random::new(3).bytes(300_000);
        fs::write(a.join("x"), &data).unwrap();
        let (x, y) = (open(&a.join("x")), open(&a.join("y")));
        let end = data.len() as u64;
        assert_eq!(sys::copy_range((&x, end), (&y, 0), 10).unwrap(), 0);
        assert_eq!(
            sys::copy_range((&x, 100_000), (&y, 50), 1 << 20).unwrap(),
            200_000
        );
        expect_errno(sys::copy_range((&x, 0), (&x, 10), 11), libc::EINVAL);
        assert_eq!(sys::copy_range((&x, 0), (&x, end), 1000).unwrap(), 1000);
        let append = OpenOptions::new().append(true).open(a.join("y")).unwrap();
        expect_errno(sys::copy_range((&x, 0), (&append, 0), 1), libc::EBADF);
        sys::set_append(&append, false).expect("no longer");
        assert_eq!(sys::copy_range((&x, 100_000), (&append, 50), 1).unwrap(), 1);
        let read_only = File::open(a.join("y")).unwrap();
        expect_errno(sys::copy_range((&x, 0), (&read_only, 0), 1), libc::EBADF);
        expect_errno(sys::copy_range((&x, 0), (&y, 1 << 62), 1), libc::EFBIG);
        // From one mount into the other the bytes go through the kernel.
        let z = open(&b.join("z"));
        let copied = sys::copy_range((&x, 0), (&z, 0), 70_000).unwrap();
        assert!(copied > 0 && copied <= 70_000);
        drop(z);
        assert!(fs::read(a.join("z")).unwrap() == data[..copied]);
        let seen = fs::read(b.join("y")).unwrap();
        assert!(seen[..50] == [0; 50] && seen[50..] == data[100_000..]);
        let seen = fs::read(b.join("x")).unwrap();
        assert!(seen[..300_000] == data && seen[300_000..] == data[..1000]);
    });
}

#[test]
fn what_was_written_before_a_copy_is_in_it_and_open_handles_see_it() {
    with_shared(s(60), |a, b| {
        let (mut x, y) = (open(&a.join("x")), open(&a.join("y")));
        let held = open(&b.join("y"));
        x.write_all(&[1; 100_000]).unwrap();
        y.write_all_at(&[2; 150_000], 0).unwrap();
        assert_eq!(
            sys::copy_range((&x, 0), (&y, 4096), 100_000).unwrap(),
            100_000
        );
        let mut want = vec![2; 150_000];
        want[4096..104_096].fill(1);
        for file in [&y, &held] {
            let mut seen = vec![0; 150_000];
            file.read_exact_at(&mut seen, 0).unwrap();
            assert!(seen == want);
        }
    });
}
