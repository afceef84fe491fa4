//! A disk that is full: run on a small file system of one's own, named by
//! `LAGAN_SMALL_DISK` (a directory on 100 MB or so); does nothing without.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Got, get, id, put};
use lagan_chunk::{ChunkError, Options, Store};

#[test]
fn full_disk_is_said_cleanly_and_deletes_still_work() {
    let Some(disk) = std::env::var_os("LAGAN_SMALL_DISK") else {
        return;
    };
    let dir = tempfile::TempDir::new_in(disk).unwrap();
    let options = Options {
        segment_len: 4 << 20,
        prewrite: true,
        reserve_bytes: 8 << 20,
        ..Options::new(dir.path())
    };
    let store = Store::open(options.clone()).unwrap();
    let mut n = 0;
    let fill = |n: &mut u64| loop {
        match put(&store, *n) {
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
    assert!(matches!(put(&store, n), Err(ChunkError::NoSpace)));
    store.check().unwrap();
    drop(file);
    std::fs::remove_file(&other).unwrap();
    let gone: Vec<_> = (0..n / 2).map(id).collect();
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
        assert_eq!(get(&store, i), Got::Right);
    }
    for i in first..n {
        assert_eq!(get(&store, i), Got::Right);
    }
    assert_eq!(get(&store, 0), Got::Absent);
}
