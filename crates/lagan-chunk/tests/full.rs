//! A disk that is full: a small file system of the test's own.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Got, get, id, put};
use lagan_chunk::{ChunkError, Options, Store};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The `n`th of the chunks of many blocks: a disk is full of them before the index is
/// written out, which a full disk could fail.
fn long(n: u64) -> u64 {
    n * 11
}

/// An ext4 in a file, mounted; gone when this is dropped.
struct Disk {
    point: PathBuf,
    _root: tempfile::TempDir,
}

impl Disk {
    fn mount(mib: u64) -> Self {
        let root = tempfile::tempdir().unwrap();
        let (image, point) = (root.path().join("image"), root.path().join("disk"));
        let file = std::fs::File::create(&image).unwrap();
        file.set_len(mib << 20).unwrap();
        std::fs::create_dir(&point).unwrap();
        run(&["mkfs.ext4", "-q", "-F", "-m", "0"], &[&image]);
        run(&["mount", "-o", "loop"], &[&image, &point]);
        Disk { point, _root: root }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        run(&["umount", "-l"], &[&self.point]);
    }
}

fn run(words: &[&str], paths: &[&Path]) {
    let (program, args) = words.split_first().unwrap();
    let status = Command::new(program).args(args).args(paths).status();
    assert!(status.unwrap().success(), "{words:?} {paths:?}");
}

#[test]
fn full_disk_is_said_cleanly_and_deletes_still_work() {
    let disk = Disk::mount(96);
    let dir = tempfile::TempDir::new_in(&disk.point).unwrap();
    let options = Options {
        segment_len: 4 << 20,
        prewrite: true,
        reserve_bytes: 8 << 20,
        ..Options::new(dir.path())
    };
    let store = Store::open(options.clone()).unwrap();
    let mut n = 0;
    let fill = |n: &mut u64| loop {
        match put(&store, long(*n)) {
            Ok(()) => *n += 1,
            Err(e) => break e,
        }
    };
    let error = fill(&mut n);
    assert!(matches!(error, ChunkError::NoSpace), "{error}");
    assert!(store.usage().full, "{:?}", store.usage());
    // Somebody else takes the rest of the disk, the reserve too.
    let other = dir.path().join("other");
    let mut file = std::fs::File::create(&other).unwrap();
    while std::io::Write::write_all(&mut file, &[1; 65_536]).is_ok() {}
    assert!(matches!(put(&store, long(n)), Err(ChunkError::NoSpace)));
    store.check().unwrap();
    drop(file);
    std::fs::remove_file(&other).unwrap();
    let gone: Vec<_> = (0..n / 2).map(|n| id(long(n))).collect();
    assert_eq!(store.delete(&gone).unwrap() as u64, n / 2);
    while store.compact_once().unwrap() {}
    assert!(!store.usage().full, "{:?}", store.usage());
    let first = n + 10;
    let mut n = first;
    let error = fill(&mut n);
    assert!(matches!(error, ChunkError::NoSpace), "{error}");
    assert!(n > first + 100, "only {} chunks fit again", n - first);
    drop(store);
    let store = Store::open(options).unwrap();
    for i in first - 10 - (first - 10) / 3..first - 10 {
        assert_eq!(get(&store, long(i)), Got::Right);
    }
    for i in first..n {
        assert_eq!(get(&store, long(i)), Got::Right);
    }
    assert_eq!(get(&store, 0), Got::Absent);
}
