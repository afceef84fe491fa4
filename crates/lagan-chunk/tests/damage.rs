//! Cut, flipped and garbled bytes anywhere: no panic, no wrong bytes, and
//! nothing acknowledged is lost by a torn tail.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Got, content, copy_dir, get, id, options, put, segments};
use lagan_chunk::{Store, record};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use std::fs;
use std::path::Path;
use tempfile::TempDir;

const CHUNKS: u64 = 120;

fn deleted(n: u64) -> bool {
    n % 7 == 3 && n % 10 != 9
}

/// A store as a crash leaves it: several segments, the last one not sealed.
fn crashed_store() -> TempDir {
    let dir = TempDir::new().unwrap();
    let store = Store::open(options(dir.path())).unwrap();
    for n in 0..CHUNKS {
        if n % 10 == 9 {
            let gone: Vec<_> = (n - 9..n).filter(|n| deleted(*n)).map(id).collect();
            store.delete(&gone).unwrap();
        }
        put(&store, n).unwrap();
        if n == CHUNKS / 2 {
            store.flush_index().unwrap();
        }
    }
    drop(store);
    dir
}

/// Where the records of an unsealed segment end, and where each starts.
fn walk(bytes: &[u8]) -> (Vec<usize>, usize) {
    let (mut starts, mut at) = (Vec::new(), 0);
    while let Some(header) = bytes.get(at..).and_then(record::parse_head) {
        if header.kind == record::Kind::Table {
            break;
        }
        starts.push(at);
        at += header.record_len() as usize;
    }
    (starts, at)
}

fn last_segment(dir: &Path) -> std::path::PathBuf {
    segments(dir)
        .into_iter()
        .rfind(|p| !walk(&fs::read(p).unwrap()).0.is_empty())
        .expect("a segment has records")
}

fn check_all_right(store: &Store) {
    for n in 0..CHUNKS {
        let expected = if deleted(n) { Got::Absent } else { Got::Right };
        assert_eq!(get(store, n), expected, "chunk {n}");
    }
}

fn run(
    cases: u32,
    input: impl Strategy<Value = (u64, u64, u8, bool)>,
    test: impl Fn(u64, u64, u8, bool),
) {
    let config = Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    };
    TestRunner::new(config)
        .run(&input, |(a, b, c, d)| {
            test(a, b, c, d);
            Ok(())
        })
        .unwrap();
}

#[test]
fn garbage_behind_the_last_acknowledged_record_costs_nothing() {
    let template = crashed_store();
    let input = (any::<u64>(), 1u64..5000, any::<u8>(), any::<bool>());
    run(12, input, |skip, len, fill, wipe| {
        let dir = TempDir::new().unwrap();
        copy_dir(template.path(), dir.path());
        let path = last_segment(dir.path());
        let mut bytes = fs::read(&path).unwrap();
        let (_, end) = walk(&bytes);
        let room = bytes.len() - end;
        let from = end + skip as usize % room;
        let to = (from + len as usize).min(bytes.len());
        for (i, b) in bytes[from..to].iter_mut().enumerate() {
            *b = fill.wrapping_add((i as u8).wrapping_mul(skip as u8));
        }
        fs::write(&path, bytes).unwrap();
        if wipe {
            fs::remove_dir_all(dir.path().join("index")).unwrap();
        }
        let store = Store::open(options(dir.path())).unwrap();
        check_all_right(&store);
        assert_eq!(store.damage(), []);
    });
}

#[test]
fn torn_last_record_costs_only_itself() {
    let template = crashed_store();
    let input = (any::<u64>(), any::<u64>(), any::<u8>(), any::<bool>());
    run(12, input, |at, _, _, cut| {
        let dir = TempDir::new().unwrap();
        copy_dir(template.path(), dir.path());
        fs::remove_dir_all(dir.path().join("index")).unwrap();
        let path = last_segment(dir.path());
        let mut bytes = fs::read(&path).unwrap();
        let (starts, end) = walk(&bytes);
        let start = *starts.last().unwrap();
        let header = record::parse_head(&bytes[start..]).unwrap();
        let used = start + header.head_len() as usize + header.len as usize;
        let at = start + at as usize % (used - start);
        if cut {
            bytes[at..end].fill(0);
            bytes[at] = 1;
        } else {
            bytes[at] ^= 0x10;
        }
        fs::write(&path, bytes).unwrap();
        let store = Store::open(options(dir.path())).unwrap();
        let lost = (0..CHUNKS).filter(|n| !deleted(*n) && get(&store, *n) == Got::Absent);
        let lost: Vec<u64> = lost.collect();
        assert_eq!(lost.iter().map(|n| id(*n)).collect::<Vec<_>>(), [header.id]);
        for n in lost {
            put(&store, n).unwrap();
        }
        check_all_right(&store);
        drop(store);
        check_all_right(&Store::open(options(dir.path())).unwrap());
    });
}

#[test]
fn rot_below_the_frontier_is_reported_and_the_rest_stays() {
    let template = crashed_store();
    let dir = TempDir::new().unwrap();
    copy_dir(template.path(), dir.path());
    fs::remove_dir_all(dir.path().join("index")).unwrap();
    let path = last_segment(dir.path());
    let mut bytes = fs::read(&path).unwrap();
    let (starts, _) = walk(&bytes);
    assert!(starts.len() >= 3, "{starts:?}");
    let rotten = starts[starts.len() - 3];
    let header = record::parse_head(&bytes[rotten..]).unwrap();
    bytes[rotten + 20] ^= 1;
    fs::write(&path, bytes).unwrap();
    let store = Store::open(options(dir.path())).unwrap();
    assert_eq!(store.usage().damaged, 1);
    let damage = store.damage()[0];
    assert_eq!(damage.at.offset as usize, rotten);
    assert_eq!(damage.len as u64, header.record_len());
    for n in (0..CHUNKS).filter(|n| !deleted(*n)) {
        let expected = if id(n) == header.id {
            Got::Absent
        } else {
            Got::Right
        };
        assert_eq!(get(&store, n), expected, "chunk {n}");
    }
}

#[test]
fn any_byte_flipped_anywhere_never_gives_wrong_bytes() {
    let template = crashed_store();
    let input = (any::<u64>(), any::<u64>(), 1u8.., any::<bool>());
    run(24, input, |which, at, flip, wipe| {
        let dir = TempDir::new().unwrap();
        copy_dir(template.path(), dir.path());
        let all = segments(dir.path());
        let path = &all[which as usize % all.len()];
        let mut bytes = fs::read(path).unwrap();
        if bytes.is_empty() {
            return;
        }
        let at = at as usize % bytes.len();
        bytes[at] ^= flip;
        fs::write(path, bytes).unwrap();
        if wipe {
            fs::remove_dir_all(dir.path().join("index")).unwrap();
        }
        let store = Store::open(options(dir.path())).unwrap();
        let bad = (0..CHUNKS).filter(|n| !deleted(*n) && get(&store, *n) != Got::Right);
        assert!(bad.count() <= 1);
        let n = CHUNKS + 1;
        put(&store, n).unwrap();
        assert_eq!(get(&store, n), Got::Right);
    });
}

#[test]
fn segment_cut_anywhere_never_gives_wrong_bytes() {
    let template = crashed_store();
    let input = (any::<u64>(), any::<u64>(), any::<u8>(), any::<bool>());
    run(12, input, |which, at, _, wipe| {
        let dir = TempDir::new().unwrap();
        copy_dir(template.path(), dir.path());
        let all = segments(dir.path());
        let path = &all[which as usize % all.len()];
        let mut bytes = fs::read(path).unwrap();
        bytes.truncate(at as usize % (bytes.len() + 1));
        fs::write(path, bytes).unwrap();
        if wipe {
            fs::remove_dir_all(dir.path().join("index")).unwrap();
        }
        let store = Store::open(options(dir.path())).unwrap();
        for n in 0..CHUNKS {
            get(&store, n);
        }
        put(&store, CHUNKS + 1).unwrap();
        assert_eq!(get(&store, CHUNKS + 1), Got::Right);
    });
}

#[test]
fn garbage_in_the_index_makes_it_anew() {
    let template = crashed_store();
    let input = (any::<u64>(), 1u64..2000, 1u8.., any::<bool>());
    run(8, input, |at, len, flip, cut| {
        let dir = TempDir::new().unwrap();
        copy_dir(template.path(), dir.path());
        let path = dir.path().join("index/db");
        let mut bytes = fs::read(&path).unwrap();
        let at = at as usize % bytes.len();
        let end = (at + len as usize).min(bytes.len());
        if cut {
            bytes.truncate(at);
        } else {
            bytes[at..end].iter_mut().for_each(|b| *b ^= flip);
        }
        fs::write(&path, bytes).unwrap();
        let store = Store::open(options(dir.path())).unwrap();
        check_all_right(&store);
        assert_eq!(content(1).len(), common::len(1));
    });
}
