//! Prints how many durable writes a store takes, and what they cost.
//!
//! `cargo run --profile dist -p lagan-benches --bin chunk-rate -- [DIR] [LEN] [SECONDS]`
//!
//! DIR must be on the disk to be measured; what is made there is removed.

use bytes::Bytes;
use lagan_benches::cpu;
use lagan_chunk::{Options, Store};
use lagan_types::chunk::block_crcs;
use lagan_types::{BlockId, ChunkId, SetId, VolumeId};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

fn run(dir: &std::path::Path, writers: u64, len: usize, time: Duration, prewrite: bool) {
    let work = dir.join(format!("rate-{}", std::process::id()));
    let options = Options {
        prewrite,
        ..Options::new(&work)
    };
    let store = Store::open(options).expect("store opens");
    std::thread::sleep(Duration::from_millis(500));
    let data = Bytes::from(vec![0x5a; len]);
    let crcs = Arc::new(block_crcs(&data));
    let slowest_us = Arc::new(AtomicU64::new(0));
    let (cpu, begin) = (cpu::used(), Instant::now());
    let threads: Vec<_> = (0..writers)
        .map(|w| {
            let (store, data, crcs) = (store.clone(), data.clone(), crcs.clone());
            let slowest_us = slowest_us.clone();
            std::thread::spawn(move || {
                let mut count = 0u64;
                while begin.elapsed() < time {
                    let block = BlockId((w << 32) | (count / 1024));
                    let id = ChunkId::new(VolumeId::ONLY, SetId(1), block, (count % 1024) as u16);
                    let start = Instant::now();
                    store
                        .write_blocking(id, data.clone(), &crcs)
                        .expect("chunk is written");
                    slowest_us.fetch_max(start.elapsed().as_micros() as u64, Ordering::Relaxed);
                    count += 1;
                }
                count
            })
        })
        .collect();
    let count: u64 = threads.into_iter().map(|t| t.join().unwrap_or(0)).sum();
    let (cpu, wall) = (cpu::used() - cpu, begin.elapsed().as_secs_f64());
    println!(
        "{writers:>2} writers, {len} bytes, prewrite {prewrite}: {:>7.0}/s {:>6.1} MB/s, cpu {:>5.1} us each, slowest {} ms",
        count as f64 / wall,
        count as f64 * len as f64 / wall / 1e6,
        cpu.as_secs_f64() / count as f64 * 1e6,
        slowest_us.load(Ordering::Relaxed) / 1000,
    );
    drop(store);
    if let Err(error) = std::fs::remove_dir_all(&work) {
        eprintln!("remove {}: {error}", work.display());
    }
}

fn main() {
    let mut args = std::env::args().skip(1);
    let dir = args.next().unwrap_or_else(|| ".".into());
    let len = args
        .next()
        .and_then(|a| a.parse().ok())
        .unwrap_or(16 * 1024);
    let seconds = args.next().and_then(|a| a.parse().ok()).unwrap_or(3);
    for prewrite in [false, true] {
        for writers in [1, 16] {
            run(
                dir.as_ref(),
                writers,
                len,
                Duration::from_secs(seconds),
                prewrite,
            );
        }
    }
}
