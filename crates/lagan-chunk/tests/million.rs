//! A store with very many chunks: how long it takes to serve again.
#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use lagan_chunk::{Options, Store};
use lagan_types::chunk::block_crcs;
use lagan_types::{BlockId, ChunkId, SetId, VolumeId};
use std::path::Path;
use std::sync::mpsc;
use std::time::Instant;
use tempfile::TempDir;

fn id(n: u64) -> ChunkId {
    let set = SetId(n as u32 / 1024 % 30);
    ChunkId::new(VolumeId::ONLY, set, BlockId(n / 1024), (n % 1024) as u16)
}

fn options(dir: &Path) -> Options {
    Options {
        prewrite: false,
        reserve_bytes: 0,
        ..Options::new(dir)
    }
}

/// Says how much memory the process has and had at most.
fn say_memory(when: &str) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let lines = status
        .lines()
        .filter(|l| l.starts_with("VmHWM") || l.starts_with("VmRSS"));
    println!("{when}: {:?}", lines.collect::<Vec<_>>());
}

fn fill(store: &Store, count: u64) {
    let data = Bytes::from_static(&[7; 200]);
    let crcs = block_crcs(&data);
    let (sender, receiver) = mpsc::channel();
    for n in 0..count {
        let sender = sender.clone();
        let done = Box::new(move |result| sender.send(result).unwrap());
        store.write(id(n), data.clone(), &crcs, done);
    }
    drop(sender);
    assert_eq!(receiver.iter().filter(Result::is_ok).count() as u64, count);
}

/// Opens the store and says how many milliseconds that took.
fn open(dir: &Path, count: u64, what: &str) -> u128 {
    let begin = Instant::now();
    let store = Store::open(options(dir)).unwrap();
    let ms = begin.elapsed().as_millis();
    println!("{count} chunks, {what}: open in {ms} ms");
    say_memory(what);
    assert_eq!(store.usage().chunks, count);
    assert!(store.contains(id(count - 1)).unwrap());
    assert_eq!(
        store.read(id(count / 2), 0, 200).unwrap().data[..],
        [7; 200]
    );
    ms
}

#[test]
fn store_with_many_chunks_serves_again_soon() {
    let long = std::env::var_os("LAGAN_LONG_TESTS").is_some();
    let count = if long { 1_000_000 } else { 20_000 };
    let dir = TempDir::new().unwrap();
    let store = Store::open(options(dir.path())).unwrap();
    let begin = Instant::now();
    fill(&store, count);
    println!(
        "{count} chunks written in {} ms",
        begin.elapsed().as_millis()
    );
    say_memory("after writing");
    // As a crash: nothing is sealed or merged.
    drop(store);
    let crash = open(dir.path(), count, "after a crash");
    let again = open(dir.path(), count, "again");
    std::fs::remove_dir_all(dir.path().join("index")).unwrap();
    let anew = open(dir.path(), count, "index made anew");
    let store = Store::open(options(dir.path())).unwrap();
    store.close().unwrap();
    say_memory("after a clean end");
    drop(store);
    let closed = open(dir.path(), count, "after a clean end");
    if long {
        assert!(crash < 5000 && again < 5000 && anew < 5000 && closed < 5000);
    }
}
