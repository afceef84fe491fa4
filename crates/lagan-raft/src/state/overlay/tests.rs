//! Rows over redb against a plain map, with transactions at any time.

use super::super::store::{Applied, StateStore};
use crate::log::Floor;
use crate::types::alias::LogId;
use lagan_meta::kv::{Read, Table, Write};
use lagan_meta::layout::encode_raw;
use openraft::CommittedLeaderId;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

const TABLES: [Table; 2] = [Table::Inode, Table::Dentry];
const KEYS: u8 = 8;

type Model = BTreeMap<(Table, Vec<u8>), Vec<u8>>;

fn open(dir: &Path) -> StateStore {
    StateStore::open(dir.to_path_buf(), 4 << 20, Arc::new(Floor::default())).unwrap()
}

fn applied(index: u64) -> Applied {
    Applied {
        last: Some(LogId::new(CommittedLeaderId::new(1, 1), index)),
        ..Applied::default()
    }
}

#[derive(Debug, Clone)]
enum Step {
    /// Rows of tables by number; no value: removed.
    Change(Vec<(usize, u8, Option<u8>)>),
    /// A transaction that a crash forgets.
    Flush,
    /// One that it does not.
    Durable,
}

fn step() -> impl Strategy<Value = Step> {
    let row = (0..TABLES.len(), 0..KEYS, any::<Option<u8>>());
    prop_oneof![
        4 => prop::collection::vec(row, 1..6).prop_map(Step::Change),
        1 => Just(Step::Flush),
        1 => Just(Step::Durable),
    ]
}

fn check_ranges(view: &impl Read, model: &Model) {
    for table in TABLES {
        for start in 0..KEYS {
            for end in [None, Some(start), Some(start + 2), Some(KEYS)] {
                let end = end.map(|end| vec![end]);
                let inside =
                    |key: &[u8]| key >= &[start][..] && end.as_deref().is_none_or(|end| key < end);
                let expected: Vec<_> = model
                    .iter()
                    .filter(|((t, key), _)| *t == table && inside(key))
                    .map(|((_, key), value)| (key.clone(), value.clone()))
                    .collect();
                for limit in [1, 3, usize::MAX] {
                    let found = view.scan(table, &[start], end.as_deref(), limit).unwrap();
                    assert_eq!(found, expected[..expected.len().min(limit)]);
                }
                let last = view.last(table, &[start], end.as_deref()).unwrap();
                assert_eq!(last, expected.last().cloned());
            }
        }
    }
}

fn check(view: &impl Read, model: &Model) {
    for table in TABLES {
        for key in 0..KEYS {
            let found = view.get(table, &[key]).unwrap();
            assert_eq!(found.as_ref(), model.get(&(table, vec![key])));
        }
    }
    check_ranges(view, model);
}

fn change(state: &StateStore, model: &mut Model, at: u64, rows: &[(usize, u8, Option<u8>)]) {
    let changed = state.change(at, |writing| {
        for &(table, key, value) in rows {
            let (table, key) = (TABLES[table], vec![key]);
            match value {
                Some(value) => {
                    writing.put(table, &key, &[value])?;
                    model.insert((table, key), vec![value]);
                }
                None => {
                    writing.delete(table, &key)?;
                    model.remove(&(table, key));
                }
            }
        }
        check(writing, model);
        Ok(applied(at))
    });
    changed.unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn rows_read_the_same_wherever_they_are(steps in prop::collection::vec(step(), 1..24)) {
        let dir = tempfile::tempdir().unwrap();
        let state = open(dir.path());
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (mut model, mut kept) = (Model::new(), Vec::new());
        for (at, step) in steps.iter().enumerate() {
            match step {
                Step::Change(rows) => change(&state, &mut model, at as u64, rows),
                Step::Flush => state.flush_now().unwrap(),
                Step::Durable => {
                    let (_, view) = runtime.block_on(state.make_durable()).unwrap();
                    check(&view, &model);
                }
            }
            check(&state.view(), &model);
            kept.push((state.view(), model.clone()));
        }
        for (view, model) in &kept {
            check(view, model);
        }
    }
}

/// Each entry adds a row and says in another how many there are.
fn count_up(state: &StateStore, at: u64) {
    let changed = state.change(at, |rows| {
        rows.put(Table::Xattr, &at.to_be_bytes(), &encode_raw(b"row"))?;
        rows.put(Table::Symlink, b"n", &encode_raw(&at.to_be_bytes()))?;
        Ok(applied(at))
    });
    changed.unwrap();
}

fn assert_counted(view: &impl Read, at: u64) {
    let count = view.get(Table::Symlink, b"n").unwrap().unwrap();
    assert_eq!(count, encode_raw(&at.to_be_bytes()));
    let rows = view.scan(Table::Xattr, b"", None, usize::MAX).unwrap();
    assert_eq!(rows.len() as u64, at);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_state_is_at_one_entry_while_transactions_run_beside() {
    let dir = tempfile::tempdir().unwrap();
    let state = open(dir.path());
    count_up(&state, 1);
    let counting = {
        let state = state.clone();
        tokio::task::spawn_blocking(move || {
            for at in 2..=3_000 {
                count_up(&state, at);
                assert_counted(&state.view(), at);
            }
        })
    };
    while !counting.is_finished() {
        let (applied, view) = state.make_durable().await.unwrap();
        assert_counted(&view, applied.last.unwrap().index);
        state.flush_now().unwrap();
    }
    counting.await.unwrap();
    state.make_durable().await.unwrap();
    drop(state);
    let state = open(dir.path());
    assert_eq!(state.applied_index(), 3_000);
    assert_counted(&state.view(), 3_000);
}
