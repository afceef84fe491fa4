//! Prints how fast anything durable on three servers can be that is done one at a time:
//! `sync-floor DIR [--len N] [--rounds N]`.
//!
//! Three threads have a file each in DIR, which must be on the disk to be measured. In a
//! round all of them write `len` bytes and sync at the same time. Then the same with the
//! messages that tell them to: a client sends the bytes to the first thread (one request),
//! this to the two others (one replication), over TCP without a byte of protocol, and the
//! client has its answer when all three have synced.
//!
//! One line of JSON: the mean and the median of both in milliseconds.

use anyhow::{Context, Result, bail};
use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Barrier;
use std::thread;
use std::time::Instant;

/// Bytes of each file. They are written before the first round, so that a sync in a round
/// is one of bytes alone, as in a log that is written again.
const FILE_LEN: u64 = 64 << 20;

/// Rounds that are not counted: the first ones find cold threads and an unquiet disk.
const WARM_UP: usize = 20;

/// One server's file.
struct Log {
    file: File,
    bytes: Vec<u8>,
    at: u64,
}

impl Log {
    fn create(path: &Path, len: usize) -> Result<Log> {
        let file = File::create_new(path).with_context(|| format!("create {}", path.display()))?;
        let zeros = vec![0; 1 << 20];
        for at in (0..FILE_LEN).step_by(zeros.len()) {
            file.write_all_at(&zeros, at)?;
        }
        file.sync_all()?;
        Ok(Log {
            file,
            bytes: vec![7; len],
            at: 0,
        })
    }

    /// Writes `bytes` behind those of the round before, and syncs.
    fn append(&mut self) -> Result<()> {
        self.file.write_all_at(&self.bytes, self.at)?;
        self.file.sync_data()?;
        self.at += self.bytes.len() as u64;
        if self.at + self.bytes.len() as u64 > FILE_LEN {
            self.at = 0;
        }
        Ok(())
    }
}

/// A connected pair.
fn connection() -> Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let near = TcpStream::connect(listener.local_addr()?)?;
    let (far, _) = listener.accept()?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    Ok((near, far))
}

/// Milliseconds of each counted round of `one`.
fn rounds(count: usize, mut one: impl FnMut() -> Result<()>) -> Result<Vec<f64>> {
    let mut took = Vec::with_capacity(count);
    for round in 0..WARM_UP + count {
        let begin = Instant::now();
        one()?;
        if round >= WARM_UP {
            took.push(begin.elapsed().as_secs_f64() * 1e3);
        }
    }
    took.sort_by(f64::total_cmp);
    Ok(took)
}

/// All logs are synced at the same time, again and again.
fn syncs(logs: &mut [Log; 3], count: usize) -> Result<Vec<f64>> {
    let barrier = Barrier::new(logs.len() + 1);
    thread::scope(|scope| {
        for log in logs {
            scope.spawn(|| {
                for _ in 0..WARM_UP + count {
                    barrier.wait();
                    if let Err(error) = log.append() {
                        // The others would wait at the barrier for ever.
                        eprintln!("sync-floor: {error:#}");
                        std::process::exit(1);
                    }
                    barrier.wait();
                }
            });
        }
        rounds(count, || {
            barrier.wait();
            barrier.wait();
            Ok(())
        })
    })
}

/// Takes the bytes of a round from `from`, syncs them, and says so there, until it ends.
fn follow(log: &mut Log, mut from: TcpStream) -> Result<()> {
    while from.read_exact(&mut log.bytes).is_ok() {
        log.append()?;
        from.write_all(&[1])?;
    }
    Ok(())
}

/// Does the same, with the followers at the other ends of `to`, who sync meanwhile.
fn lead(log: &mut Log, mut from: TcpStream, mut to: [TcpStream; 2]) -> Result<()> {
    while from.read_exact(&mut log.bytes).is_ok() {
        for follower in &mut to {
            follower.write_all(&log.bytes)?;
        }
        log.append()?;
        for follower in &mut to {
            follower.read_exact(&mut [0])?;
        }
        from.write_all(&[1])?;
    }
    Ok(())
}

/// One request, one replication, and the syncs, again and again.
fn requests(logs: &mut [Log; 3], count: usize) -> Result<Vec<f64>> {
    let (mut client, leader) = connection()?;
    let ((near_b, far_b), (near_c, far_c)) = (connection()?, connection()?);
    let bytes = vec![9; logs[0].bytes.len()];
    let [a, b, c] = logs;
    thread::scope(|scope| {
        scope.spawn(move || lead(a, leader, [near_b, near_c]));
        scope.spawn(move || follow(b, far_b));
        scope.spawn(move || follow(c, far_c));
        let took = rounds(count, || {
            client.write_all(&bytes)?;
            client.read_exact(&mut [0])?;
            Ok(())
        });
        drop(client);
        took
    })
}

fn main() -> Result<()> {
    let (mut dir, mut len, mut count) = (None, 16 << 10, 400);
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || -> Result<usize> { Ok(args.next().context("a number")?.parse()?) };
        match arg.as_str() {
            "--len" => len = value()?,
            "--rounds" => count = value()?,
            _ if dir.is_none() && !arg.starts_with('-') => dir = Some(PathBuf::from(arg)),
            _ => bail!("usage: sync-floor DIR [--len N] [--rounds N]"),
        }
    }
    let dir = dir.context("usage: sync-floor DIR [--len N] [--rounds N]")?;
    if count == 0 || len == 0 || len as u64 > FILE_LEN {
        bail!("no rounds, or no bytes, or too many");
    }
    let paths = ["a", "b", "c"].map(|name| dir.join(format!("floor-{name}")));
    let [a, b, c] = &paths;
    let mut logs = [
        Log::create(a, len)?,
        Log::create(b, len)?,
        Log::create(c, len)?,
    ];
    let (syncs, requests) = (syncs(&mut logs, count)?, requests(&mut logs, count)?);
    for path in &paths {
        std::fs::remove_file(path)?;
    }
    let mean = |took: &[f64]| took.iter().sum::<f64>() / count as f64;
    println!(
        "{{\"len\":{len},\"rounds\":{count},\"syncs_ms\":{:.4},\"syncs_p50_ms\":{:.4},\"round_ms\":{:.4},\"round_p50_ms\":{:.4}}}",
        mean(&syncs),
        syncs[count / 2],
        mean(&requests),
        requests[count / 2],
    );
    Ok(())
}
