//! Power loss: of what was not synced, anything may be missing or garbled.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Got, copy_dir, get, id, options, put, segments};
use lagan_chunk::{Store, record};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tempfile::TempDir;

const WRITERS: u64 = 6;

/// Copies the store's files while it is written to, the index first: the
/// index may lag behind the segments but never name what is not there.
fn copy_live(from: &Path, to: &Path) {
    copy_dir(&from.join("index"), &to.join("index"));
    fs::copy(from.join("FORMAT"), to.join("FORMAT")).unwrap();
    fs::create_dir_all(to.join("segments")).unwrap();
    for path in segments(from) {
        fs::copy(&path, to.join("segments").join(path.file_name().unwrap())).unwrap();
    }
}

/// Garbles sectors of the newest segment behind what is known to be synced: its
/// last acknowledged record, and the highest frontier in it.
fn lose_power(dir: &Path, acknowledged: &BTreeSet<u64>, seed: u64) {
    let ids: BTreeSet<_> = acknowledged.iter().map(|n| id(*n)).collect();
    for path in segments(dir).into_iter().rev() {
        let mut bytes = fs::read(&path).unwrap();
        let (mut at, mut end) = (0, 0);
        while let Some(header) = bytes.get(at..).and_then(record::parse_head) {
            at += header.record_len() as usize;
            if header.kind == record::Kind::Table {
                return;
            }
            if ids.contains(&header.id) {
                end = end.max(at);
            }
            if header.frontier.generation == header.at.generation {
                end = end.max(header.frontier.offset as usize);
            }
        }
        let mut x = seed | 1;
        for sector in bytes[end..].chunks_mut(512) {
            x = x
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            match x >> 61 {
                0 => sector.fill(0),
                1 => sector.fill(0xa5),
                2 => sector.iter_mut().for_each(|b| *b ^= (x >> 32) as u8),
                _ => {}
            }
        }
        fs::write(&path, bytes).unwrap();
        if at > 0 {
            return;
        }
    }
}

#[test]
fn power_loss_costs_only_what_was_not_acknowledged() {
    let dir = TempDir::new().unwrap();
    let store = Store::open(options(dir.path())).unwrap();
    let acknowledged = Mutex::new(BTreeSet::new());
    let stop = AtomicBool::new(false);
    let next = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..WRITERS {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) && next.load(Ordering::Relaxed) < 5000 {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    put(&store, n).unwrap();
                    acknowledged.lock().unwrap().insert(n);
                }
            });
        }
        for round in 0..6 {
            std::thread::sleep(Duration::from_millis(30));
            let known = acknowledged.lock().unwrap().clone();
            let image = TempDir::new().unwrap();
            copy_live(dir.path(), image.path());
            lose_power(image.path(), &known, round * 77 + 1);
            let after = Store::open(options(image.path())).unwrap();
            for n in &known {
                assert_eq!(get(&after, *n), Got::Right, "chunk {n} in round {round}");
            }
            for n in 0..next.load(Ordering::Relaxed) {
                assert_ne!(get(&after, n), Got::Corrupt, "chunk {n} in round {round}");
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
}
