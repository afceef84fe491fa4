//! The state store across crashes and snapshots.

use super::StateStore;
use super::rows::{RowReader, push_row};
use crate::log::Floor;
use crate::types::alias::{Entry, LogId};
use crate::types::{Batch, BatchAnswer, SnapshotData};
use lagan_meta::kv::{Read, Table, Write};
use lagan_types::cluster::Config;
use lagan_types::op::{Init, SetConfig, SystemOp};
use lagan_types::{Command, Time};
use openraft::storage::RaftStateMachine;
use openraft::{CommittedLeaderId, EntryPayload, RaftSnapshotBuilder};
use proptest::prelude::*;
use std::path::Path;
use std::sync::Arc;

fn open(dir: &Path) -> StateStore {
    StateStore::open(dir.to_path_buf(), 4 << 20, Arc::new(Floor::default())).unwrap()
}

fn id(index: u64) -> LogId {
    LogId::new(CommittedLeaderId::new(1, 1), index)
}

/// An entry with the cluster's birth or, later, a new configuration.
fn entry(index: u64) -> Entry {
    let config = Config {
        archive_after_ms: 1_000 + index,
        ..Config::default()
    };
    let op: SystemOp = match index {
        0 => Init { config }.into(),
        _ => SetConfig { config }.into(),
    };
    let command = Command {
        time: Time::from_millis(1_000 + index),
        ..Command::system(op)
    };
    Entry {
        log_id: id(index),
        payload: EntryPayload::Normal(Batch::new(1, vec![command])),
    }
}

fn setting(state: &StateStore) -> u64 {
    let map = lagan_meta::cluster_map(&state.view()).unwrap();
    map.unwrap().config.archive_after_ms
}

async fn apply(state: &mut StateStore, range: std::ops::Range<u64>) {
    for index in range {
        RaftStateMachine::apply(state, [entry(index)])
            .await
            .unwrap();
    }
}

/// Copies the files as the kernel has them now, which is all that a crash would leave.
fn crashed(dir: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for file in std::fs::read_dir(dir).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), copy.path().join(file.file_name())).unwrap();
    }
    copy
}

#[tokio::test]
async fn a_crash_leaves_exactly_the_last_durable_state() {
    let dir = tempfile::tempdir().unwrap();
    let mut state = open(dir.path());
    apply(&mut state, 0..10).await;
    state.make_durable().await.unwrap();
    assert!(!state.is_dirty());
    assert_eq!(state.durable_index(), 9);
    apply(&mut state, 10..20).await;
    assert!(state.is_dirty());
    assert_eq!(state.durable_index(), 9);
    let after = crashed(dir.path());
    let survivor = open(after.path());
    assert_eq!(survivor.applied().last, Some(id(9)));
    assert_eq!(survivor.durable_index(), 9);
    assert_eq!(survivor.last_time(), Time::from_millis(1_009));
    assert_eq!(setting(&survivor), 1_009);
    assert_eq!(setting(&state), 1_019);
}

#[tokio::test]
async fn state_of_an_older_build_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let mut state = open(dir.path());
    apply(&mut state, 0..1).await;
    let applied = state.applied();
    state
        .change(1, |rows| {
            rows.put(Table::Inode, &1u64.to_be_bytes(), &[1, 0])?;
            Ok((*applied).clone())
        })
        .unwrap();
    state.make_durable().await.unwrap();
    drop(state);
    let refused = StateStore::open(dir.path().to_path_buf(), 4 << 20, Arc::default());
    let why = refused.err().unwrap().to_string();
    for part in [
        "table Inode have version 1",
        "reads version 2",
        "older build",
    ] {
        assert!(why.contains(part), "{why}");
    }
}

#[tokio::test]
async fn a_view_stays_at_its_entry() {
    let dir = tempfile::tempdir().unwrap();
    let mut state = open(dir.path());
    apply(&mut state, 0..3).await;
    let view = state.view();
    apply(&mut state, 3..6).await;
    state.make_durable().await.unwrap();
    let old = lagan_meta::cluster_map(&view).unwrap().unwrap();
    assert_eq!(old.config.archive_after_ms, 1_002);
    assert_eq!(setting(&state), 1_005);
}

#[tokio::test]
async fn a_batch_that_is_late_in_the_log_is_not_carried_out() {
    let dir = tempfile::tempdir().unwrap();
    let mut state = open(dir.path());
    apply(&mut state, 0..2).await;
    // The entry that follows, but in the log in a later term than it is for, or an earlier.
    let EntryPayload::Normal(batch) = entry(2).payload else {
        panic!("it has a batch");
    };
    let read = Batch::from_bytes(batch.bytes().clone());
    for (index, term, batch) in [(2, 2, batch.clone()), (3, 0, batch), (4, 2, read)] {
        let late = Entry {
            log_id: LogId::new(CommittedLeaderId::new(term, 1), index),
            payload: EntryPayload::Normal(batch),
        };
        let answers = RaftStateMachine::apply(&mut state, [late.clone()]).await;
        assert_eq!(answers.unwrap(), [BatchAnswer::Late]);
        assert_eq!(state.applied().last, Some(late.log_id));
        assert_eq!(state.last_time(), Time::from_millis(1_001));
        assert_eq!(setting(&state), 1_001);
    }
    let answers = RaftStateMachine::apply(&mut state, [entry(5)]).await;
    assert!(matches!(&answers.unwrap()[..], [BatchAnswer::Done(done)] if done.len() == 1));
    assert_eq!(setting(&state), 1_005);
}

#[tokio::test]
async fn a_batch_without_commands_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut state = open(dir.path());
    apply(&mut state, 0..2).await;
    let empty = Entry {
        log_id: id(2),
        payload: EntryPayload::Normal(Batch::new(1, Vec::new())),
    };
    let answers = RaftStateMachine::apply(&mut state, [empty]).await;
    assert_eq!(answers.unwrap(), [BatchAnswer::Done(Vec::new())]);
    assert_eq!(state.applied().last, Some(id(2)));
    assert_eq!(setting(&state), 1_001);
}

#[tokio::test]
async fn views_are_the_same_only_after_the_same_entry() {
    let (dir, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut state = open(dir.path());
    apply(&mut state, 0..3).await;
    let view = state.view();
    assert!(view.is_same(&view.clone()) && view.is_same(&state.view()));
    // Nor after an entry that changes no row.
    let empty = Entry {
        log_id: id(3),
        payload: EntryPayload::Normal(Batch::new(1, Vec::new())),
    };
    RaftStateMachine::apply(&mut state, [empty]).await.unwrap();
    let after = state.view();
    assert!(!view.is_same(&after) && !after.is_same(&view));
    // Nor when all rows are in redb before and behind it.
    state.make_durable().await.unwrap();
    let flushed = state.view();
    apply(&mut state, 4..5).await;
    state.make_durable().await.unwrap();
    assert!(!flushed.is_same(&state.view()));
    let mut other = open(elsewhere.path());
    apply(&mut other, 0..3).await;
    assert!(!view.is_same(&other.view()));
}

#[tokio::test]
async fn opening_after_a_crash_needs_no_repair_of_the_whole_file() {
    let dir = tempfile::tempdir().unwrap();
    let mut state = open(dir.path());
    apply(&mut state, 0..200).await;
    state.make_durable().await.unwrap();
    apply(&mut state, 200..300).await;
    let after = crashed(dir.path());
    let repaired = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let seen = repaired.clone();
    let opened = redb::Database::builder()
        .set_repair_callback(move |_| {
            seen.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        })
        .open(after.path().join("state.redb"));
    assert!(opened.is_ok());
    assert_eq!(repaired.load(std::sync::atomic::Ordering::Relaxed), 0);
}

#[tokio::test]
async fn an_installed_snapshot_is_the_state_at_once_and_after_a_crash() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut source = open(from.path());
    apply(&mut source, 0..50).await;
    let mut target = open(to.path());
    apply(&mut target, 0..5).await;
    let old = target.view();
    let snapshot = source.build_snapshot().await.unwrap();
    assert_eq!(snapshot.meta.last_log_id, Some(id(49)));
    let meta = snapshot.meta.clone();
    RaftStateMachine::install_snapshot(&mut target, &meta, snapshot.snapshot)
        .await
        .unwrap();
    assert_eq!(setting(&target), 1_049);
    assert_eq!(target.durable_index(), 49);
    let stays = lagan_meta::cluster_map(&old).unwrap().unwrap();
    assert_eq!(stays.config.archive_after_ms, 1_004);
    apply(&mut target, 50..52).await;
    let survivor = crashed(to.path());
    let survivor = open(survivor.path());
    assert_eq!(survivor.applied().last, Some(id(49)));
    assert_eq!(setting(&survivor), 1_049);
}

#[tokio::test]
async fn an_unfinished_snapshot_is_gone_after_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    let mut state = open(dir.path());
    apply(&mut state, 0..5).await;
    state.make_durable().await.unwrap();
    let mut incoming = state.incoming().unwrap();
    let mut piece = Vec::new();
    push_row(&mut piece, b"k", b"v");
    incoming.add(&piece).unwrap();
    let after = crashed(dir.path());
    assert_eq!(std::fs::read_dir(after.path()).unwrap().count(), 2);
    let survivor = open(after.path());
    assert_eq!(std::fs::read_dir(after.path()).unwrap().count(), 1);
    assert_eq!(setting(&survivor), 1_004);
    drop(incoming);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[tokio::test]
async fn rows_of_another_state_are_not_installed() {
    let dir = tempfile::tempdir().unwrap();
    let mut state = open(dir.path());
    apply(&mut state, 0..5).await;
    let (meta, _) = state.take_snapshot().await.unwrap();
    let mut incoming = state.incoming().unwrap();
    incoming.finish().unwrap();
    let received = Box::new(SnapshotData::Received(Box::new(incoming)));
    assert!(
        RaftStateMachine::install_snapshot(&mut state, &meta, received)
            .await
            .is_err()
    );
    assert_eq!(setting(&state), 1_004);
}

#[tokio::test]
async fn ranges_stay_in_their_table() {
    let dir = tempfile::tempdir().unwrap();
    let state = open(dir.path());
    let mut incoming = state.incoming().unwrap();
    let mut piece = Vec::new();
    for (table, key) in [
        (Table::Inode, b"a"),
        (Table::Inode, b"b"),
        (Table::Inode, b"c"),
        (Table::Dentry, b"a"),
    ] {
        push_row(&mut piece, &[table as u8, key[0]], b"x");
    }
    incoming.add(&piece).unwrap();
    incoming.finish().unwrap();
    let meta = state.applied().meta();
    state.install(&meta, incoming).await.unwrap();
    let view = state.view();
    let keys = |start: &[u8], end: Option<&[u8]>, limit| {
        let rows = view.scan(Table::Inode, start, end, limit).unwrap();
        rows.into_iter().map(|(k, _)| k).collect::<Vec<_>>()
    };
    assert_eq!(keys(b"", None, 9), [b"a", b"b", b"c"]);
    assert_eq!(keys(b"b", None, 9), [b"b", b"c"]);
    assert_eq!(keys(b"", Some(b"c"), 9), [b"a", b"b"]);
    assert_eq!(keys(b"", None, 1), [b"a"]);
    assert!(keys(b"c", Some(b"a"), 9).is_empty());
    let last = view.last(Table::Inode, b"", Some(b"c")).unwrap();
    assert_eq!(last.unwrap().0, b"b");
    assert_eq!(view.get(Table::Dentry, b"a").unwrap(), Some(b"x".to_vec()));
    assert_eq!(view.get(Table::Dentry, b"b").unwrap(), None);
}

#[test]
fn golden_bytes_of_a_piece() {
    let mut piece = Vec::new();
    // a key begins with its table's number
    push_row(&mut piece, &[Table::Inode as u8, 1, 2], b"xyz1");
    push_row(&mut piece, &[Table::Shared as u8], b"");
    let wanted = b"\x03\0\0\0\x04\0\0\0\x0a\x01\x02xyz1\x01\0\0\0\0\0\0\0\x1d";
    assert_eq!(piece, wanted);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn rows_come_back_from_a_piece(
        rows in prop::collection::vec((any::<Vec<u8>>(), any::<Vec<u8>>()), 0..20),
    ) {
        let mut piece = Vec::new();
        for (key, value) in &rows {
            push_row(&mut piece, key, value);
        }
        let read: Result<Vec<_>, _> = RowReader::new(&piece)
            .map(|row| row.map(|(k, v)| (k.to_vec(), v.to_vec())))
            .collect();
        prop_assert_eq!(read.unwrap(), rows);
    }

    #[test]
    fn any_bytes_are_rows_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
        let _ = RowReader::new(&bytes).count();
    }
}
