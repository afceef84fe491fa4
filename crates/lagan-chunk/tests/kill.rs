//! kill -9 in the middle of writes, deletes and compaction: what was
//! acknowledged is there afterwards, what was deleted stays away.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Got, get, id, options, put};
use lagan_chunk::{Options, Store};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use tempfile::TempDir;

const DIR: &str = "LAGAN_CHUNK_KILL_DIR";
const FIRST: &str = "LAGAN_CHUNK_KILL_FIRST";
/// Chunk numbers of one round and thread.
const STRIDE: u64 = 100_000;
const THREADS: u64 = 4;

fn store_options(dir: &std::path::Path) -> Options {
    Options {
        prewrite: true,
        ..options(dir)
    }
}

fn say(line: String) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").unwrap();
    out.flush().unwrap();
}

/// Not a test of its own: the process that is killed.
#[test]
#[ignore = "run by killed_store_keeps_what_it_acknowledged in a process of its own"]
fn child_writes_until_killed() {
    let Ok(dir) = std::env::var(DIR) else {
        return;
    };
    let first: u64 = std::env::var(FIRST).unwrap().parse().unwrap();
    let store = Store::open(store_options(dir.as_ref())).unwrap();
    std::thread::scope(|scope| {
        for t in 0..THREADS {
            let store = &store;
            scope.spawn(move || {
                for i in 0..STRIDE {
                    let n = first + t * STRIDE + i;
                    put(store, n).unwrap();
                    say(format!("w {n}"));
                    if i >= 5 && i % 4 != 0 {
                        say(format!("t {}", n - 5));
                        store.delete(&[id(n - 5)]).unwrap();
                        say(format!("d {}", n - 5));
                    }
                }
            });
        }
    });
}

/// Runs the child until it has said `lines` lines, kills it, and notes what
/// it had acknowledged: `Some(true)` written, `Some(false)` deleted, `None` unknown.
fn run_child(
    dir: &std::path::Path,
    first: u64,
    lines: usize,
    known: &mut BTreeMap<u64, Option<bool>>,
) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "child_writes_until_killed",
            "--include-ignored",
            "--nocapture",
        ])
        .env(DIR, dir)
        .env(FIRST, first.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut count = 0;
    let reader = BufReader::new(child.stdout.take().unwrap());
    for line in reader.lines() {
        let line = line.unwrap();
        if let Some((what, n)) = line.split_once(' ')
            && let Ok(n) = n.parse::<u64>()
        {
            let fact = match what {
                "w" => Some(true),
                "d" => Some(false),
                "t" => None,
                _ => continue,
            };
            known.insert(n, fact);
            count += 1;
        }
        if count == lines {
            child.kill().unwrap();
        }
    }
    child.wait().unwrap();
    assert!(count >= lines, "child ended by itself after {count} lines");
}

#[test]
fn killed_store_keeps_what_it_acknowledged() {
    let rounds = if std::env::var_os("LAGAN_LONG_TESTS").is_some() {
        40
    } else {
        5
    };
    let dir = TempDir::new().unwrap();
    let mut known = BTreeMap::new();
    for round in 0..rounds {
        let first = round * THREADS * STRIDE;
        run_child(
            dir.path(),
            first,
            150 + 173 * round as usize % 900,
            &mut known,
        );
        if round % 3 == 2 {
            std::fs::remove_dir_all(dir.path().join("index")).unwrap();
        }
        let store = Store::open(store_options(dir.path())).unwrap();
        for (n, fact) in &known {
            let got = get(&store, *n);
            match fact {
                Some(true) => assert_eq!(got, Got::Right, "chunk {n} in round {round}"),
                Some(false) => assert_eq!(got, Got::Absent, "chunk {n} in round {round}"),
                None => assert_ne!(got, Got::Corrupt, "chunk {n} in round {round}"),
            }
        }
        assert_eq!(store.damage(), [], "round {round}");
        let counted: u64 = store.set_counts().values().sum();
        let listed = store.list(None, None, usize::MAX).unwrap().len() as u64;
        assert_eq!((counted, store.usage().chunks), (listed, listed));
    }
}
