//! Random operations against a map in memory, with reopening.
#![allow(clippy::unwrap_used)]

mod common;

use bytes::Bytes;
use common::{Got, content, get, id, len, options, put};
use lagan_chunk::{ChunkError, Options, Store};
use lagan_types::SetId;
use lagan_types::chunk::block_crcs;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use tempfile::TempDir;

/// Operands are taken modulo what exists.
#[derive(Debug, Clone)]
enum Op {
    Write(u8),
    WriteAgain(u16),
    WriteOther(u16),
    Delete(Vec<u16>),
    Read(u16),
    List(Option<u8>, u16, u8),
    Flush,
    Compact,
    Reopen { close: bool, wipe: bool },
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => (1u8..8).prop_map(Op::Write),
        1 => any::<u16>().prop_map(Op::WriteAgain),
        1 => any::<u16>().prop_map(Op::WriteOther),
        4 => prop::collection::vec(any::<u16>(), 1..12).prop_map(Op::Delete),
        3 => any::<u16>().prop_map(Op::Read),
        2 => (any::<Option<u8>>(), any::<u16>(), any::<u8>()).prop_map(|(s, a, l)| Op::List(s, a, l)),
        1 => Just(Op::Flush),
        2 => Just(Op::Compact),
        1 => (any::<bool>(), any::<bool>()).prop_map(|(close, wipe)| Op::Reopen { close, wipe }),
    ]
}

struct Run<'a> {
    dir: &'a Path,
    store: Option<Arc<Store>>,
    here: BTreeSet<u64>,
    next: u64,
}

fn settings(dir: &Path) -> Options {
    Options {
        segment_len: 192 * 1024,
        ..options(dir)
    }
}

impl Run<'_> {
    fn store(&self) -> &Store {
        self.store.as_ref().unwrap()
    }

    fn some(&self, n: u16) -> Option<u64> {
        let count = self.here.len().max(1);
        self.here.iter().nth(n as usize % count).copied()
    }

    fn step(&mut self, op: Op) {
        match op {
            Op::Write(count) => {
                for _ in 0..count {
                    put(self.store(), self.next).unwrap();
                    self.here.insert(self.next);
                    self.next += 1;
                }
            }
            Op::WriteAgain(n) => {
                if let Some(n) = self.some(n) {
                    put(self.store(), n).unwrap();
                }
            }
            Op::WriteOther(n) => {
                if let Some(n) = self.some(n) {
                    let data = Bytes::from(vec![9; len(n) + 1]);
                    let result =
                        self.store()
                            .write_blocking(id(n), data.clone(), &block_crcs(&data));
                    assert!(matches!(result, Err(ChunkError::Conflict(_))));
                }
            }
            Op::Delete(which) => {
                let gone: BTreeSet<u64> = which.iter().filter_map(|n| self.some(*n)).collect();
                let ids: Vec<_> = gone.iter().map(|n| id(*n)).collect();
                assert_eq!(self.store().delete(&ids).unwrap(), gone.len());
                self.here.retain(|n| !gone.contains(n));
            }
            Op::Read(n) => self.check_one(n as u64 % (self.next + 1)),
            Op::List(set, after, limit) => self.check_list(set, after as u64, limit as usize),
            Op::Flush => self.store().flush_index().unwrap(),
            Op::Compact => {
                self.store().compact_once().unwrap();
            }
            Op::Reopen { close, wipe } => self.reopen(close, wipe),
        }
    }

    fn reopen(&mut self, close: bool, wipe: bool) {
        if close {
            self.store().close().unwrap();
        }
        self.store = None;
        if wipe {
            fs::remove_dir_all(self.dir.join("index")).unwrap();
        }
        self.store = Some(Store::open(settings(self.dir)).unwrap());
        self.check_all();
    }

    fn check_one(&self, n: u64) {
        let expected = match self.here.contains(&n) {
            true => Got::Right,
            false => Got::Absent,
        };
        assert_eq!(get(self.store(), n), expected, "chunk {n}");
    }

    fn check_list(&self, set: Option<u8>, after: u64, limit: usize) {
        let set = set.map(|s| SetId(s as u32 % 4));
        let mut expected: Vec<_> = self.here.iter().map(|n| (id(*n), len(*n) as u32)).collect();
        expected.sort();
        expected.retain(|(i, _)| *i > id(after) && set.is_none_or(|s| i.set() == s));
        expected.truncate(limit);
        let got = self.store().list(set, Some(id(after)), limit).unwrap();
        assert_eq!(got, expected);
    }

    fn check_all(&self) {
        for n in 0..self.next + 1 {
            self.check_one(n);
        }
        let store = self.store();
        let count = self.here.len() as u64;
        assert_eq!(store.usage().chunks, count);
        assert_eq!(store.set_counts().values().sum::<u64>(), count);
        assert_eq!(store.damage(), []);
        let bytes: u64 = self
            .here
            .iter()
            .map(|n| lagan_chunk::record::chunk_record_len(len(*n) as u32))
            .sum();
        assert_eq!(store.usage().used_bytes, bytes);
    }
}

#[test]
fn random_operations_agree_with_a_map() {
    let long = std::env::var_os("LAGAN_LONG_TESTS").is_some();
    let config = Config {
        cases: if long { 300 } else { 10 },
        failure_persistence: None,
        max_shrink_iters: 100,
        ..Config::default()
    };
    TestRunner::new(config)
        .run(&prop::collection::vec(op(), 1..80), |ops| {
            let dir = TempDir::new().unwrap();
            let mut run = Run {
                dir: dir.path(),
                store: Some(Store::open(settings(dir.path())).unwrap()),
                here: BTreeSet::new(),
                next: 0,
            };
            for op in ops {
                run.step(op);
            }
            run.check_all();
            run.reopen(false, true);
            assert_eq!(content(0).len(), len(0));
            Ok(())
        })
        .unwrap();
}
