use super::world::{World, identity};
use crate::apply;
use crate::memory::MemoryStore;
use lagan_types::attr::Kind;
use lagan_types::limits::SESSION_WINDOW;
use lagan_types::op::{
    ChunksReaped, CloseBlock, CloseSession, EndSession, GrantBlock, LockKind, LockRange,
    OpenSession, SetLock, Unlink,
};
use lagan_types::query::{Blocks, ChunkReap, GetLock, ReapChunks};
use lagan_types::{Answer, FsError, Ino, NodeId, Refusal, SessionId};

#[test]
fn retried_command_returns_its_first_answer() {
    let mut w = World::new();
    let op = World::create_op(Ino::ROOT, "a", Kind::File);
    let command = w.command(w.session, op);
    let first = w.apply(&command);
    assert!(first.is_ok());
    let before = w.store.clone();
    let mut again = command.clone();
    again.time = lagan_types::Time::from_millis(w.now_ms + 50_000);
    assert_eq!(w.apply(&again), first);
    assert!(w.store == before);
}

#[test]
fn errors_are_remembered_too() {
    let mut w = World::new();
    let name = b"a".to_vec();
    let op = Unlink {
        parent: Ino::ROOT,
        name,
    };
    let command = w.command(w.session, op);
    assert_eq!(w.apply(&command), Err(FsError::NotFound.into()));
    w.file("a");
    assert_eq!(w.apply(&command), Err(FsError::NotFound.into()));
    assert!(w.lookup(Ino::ROOT, "a").is_ok());
}

#[test]
fn failed_command_changes_nothing_but_its_answer() {
    let mut w = World::new();
    let a = w.file("a");
    let edits = vec![w.edit(0, 10), {
        let mut bad = w.edit(10, 10);
        bad.len = 11;
        bad
    }];
    let op = World::commit_of(a, edits);
    let before = w.store.row_count();
    let rows: Vec<_> = dump(&w.store);
    assert_eq!(w.op(op), Err(FsError::Invalid.into()));
    assert_eq!(w.store.row_count(), before + 1);
    let now = dump(&w.store);
    let kept = rows.iter().all(|row| now.contains(row));
    assert!(kept);
    w.check();
}

fn dump(store: &MemoryStore) -> Vec<(crate::kv::Table, Vec<u8>, Vec<u8>)> {
    store
        .rows()
        .map(|(t, k, v)| (t, k.to_vec(), v.to_vec()))
        .collect()
}

#[test]
fn sequences_outside_the_window_are_refused() {
    let mut w = World::new();
    let mut command = w.command(w.session, World::create_op(Ino::ROOT, "a", Kind::File));
    let base = command.seq;
    command.unanswered = base;
    command.seq = base + SESSION_WINDOW;
    assert_eq!(w.apply(&command), Err(Refusal::OutsideWindow));
    command.seq = base + SESSION_WINDOW - 1;
    assert!(w.apply(&command).is_ok());
    command.seq = base - 1;
    // Sequences below the window were answered or are forgotten: none is carried out.
    let before = w.store.clone();
    let _ = w.apply(&command);
    assert!(w.store == before);
    command.seq = 0;
    assert_eq!(w.apply(&command), Err(Refusal::OutsideWindow));
}

#[test]
fn answers_below_the_unanswered_are_forgotten_and_refused() {
    let mut w = World::new();
    let first = w.command(w.session, World::create_op(Ino::ROOT, "a", Kind::File));
    w.apply(&first).unwrap();
    for i in 0..200 {
        w.file(&format!("f{i}"));
    }
    let rows = w
        .store
        .rows()
        .filter(|(t, ..)| *t == crate::kv::Table::Answer)
        .count();
    assert!(rows < 70, "{rows} answers");
    assert_eq!(w.apply(&first), Err(Refusal::OutsideWindow));
    w.check();
}

#[test]
fn commands_may_arrive_out_of_order() {
    let mut w = World::new();
    let mut a = w.command(w.session, World::create_op(Ino::ROOT, "a", Kind::File));
    let mut b = w.command(w.session, World::create_op(Ino::ROOT, "b", Kind::File));
    (a.unanswered, b.unanswered) = (a.seq, a.seq);
    assert!(w.apply(&b).is_ok());
    assert!(w.apply(&a).is_ok());
    assert_eq!(w.names(Ino::ROOT), ["b", "a"]);
}

#[test]
fn opening_is_done_once_per_nonce_and_ends_the_predecessor() {
    let mut w = World::new();
    let first = w.session;
    assert_eq!(w.open_session(1, None), first);
    let next = w.open_session(2, Some(first));
    assert_ne!(next, first);
    let late = w.op_as(first, World::create_op(Ino::ROOT, "a", Kind::File));
    assert_eq!(late, Err(Refusal::SessionEnded));
    let mut other = identity(3);
    other.mount_point = "/other".into();
    w.system(OpenSession {
        nonce: 3,
        identity: other,
        predecessor: Some(next),
    })
    .unwrap();
    let op = World::create_op(Ino::ROOT, "a", Kind::File);
    assert!(w.op_as(next, op).is_ok());
    w.check();
}

#[test]
fn ended_session_loses_locks_and_blocks() {
    let mut w = World::new();
    let a = w.file("a");
    let id = w.write(a, 0, 10);
    let lock = LockRange {
        owner: 5,
        start: 0,
        end: u64::MAX,
        kind: LockKind::Write,
        pid: 1,
    };
    w.op(SetLock { ino: a, lock }).unwrap();
    let (session, block) = (w.session, w.block);
    w.system(EndSession { session }).unwrap();
    w.check();
    let held = w.query(GetLock { ino: a, lock });
    assert_eq!(held, Ok(None));
    let blocks = w.query(Blocks {
        blocks: vec![block],
    });
    assert_eq!(blocks, Ok(vec![None]));
    for node in 1..=3 {
        let rows = w.query(ChunkReap {
            node: NodeId(node),
            from: 0,
            now_ms: u64::MAX,
            limit: 10,
        });
        let Ok(rows) = rows else {
            panic!("{rows:?}");
        };
        let named = vec![1 << id.index()];
        assert_eq!(rows[0].1, ReapChunks::UnnamedOf { block, named });
        let through = rows[0].0;
        let node = NodeId(node);
        w.system(ChunksReaped { node, through }).unwrap();
    }
    assert_eq!(w.counters().reap_chunks, 0);
    w.check();
}

#[test]
fn a_session_may_close_itself_and_retry_that() {
    let mut w = World::new();
    let session = w.session;
    let command = w.command(session, CloseSession);
    assert_eq!(w.apply(&command), Ok(Answer::Done(())));
    assert_eq!(w.apply(&command), Ok(Answer::Done(())));
    w.check();
}

#[test]
fn sessions_cannot_give_the_clusters_own_commands() {
    let mut w = World::new();
    let other = w.open_session(9, None);
    let op = EndSession { session: other };
    assert_eq!(w.op(op), Err(FsError::NotPermitted.into()));
    assert_eq!(
        w.op_as(SessionId::SYSTEM, GrantBlock),
        Err(Refusal::SessionEnded)
    );
}

#[test]
fn blocks_are_bounded_and_closing_is_idempotent() {
    let mut w = World::new();
    let block = w.block;
    for _ in 1..16 {
        w.grant();
    }
    assert_eq!(w.op(GrantBlock), Err(FsError::Busy.into()));
    w.op(CloseBlock { block }).unwrap();
    w.op(CloseBlock { block }).unwrap();
    let newer = w.grant();
    assert_ne!(newer, block);
    let other = w.open_session(9, None);
    let theft = w.op_as(other, CloseBlock { block: newer });
    assert_eq!(theft, Err(FsError::NotPermitted.into()));
    w.check();
}

#[test]
fn two_stores_reach_the_same_bytes() {
    let mut w = World::new();
    let mut log = Vec::new();
    for i in 0..20 {
        let op = World::create_op(Ino::ROOT, &format!("f{}", i % 15), Kind::File);
        log.push(w.command(w.session, op));
    }
    let mut a = w.store.clone();
    let mut b = w.store.clone();
    for command in &log {
        let first = apply(&mut a, command).unwrap();
        assert_eq!(apply(&mut b, command).unwrap(), first);
    }
    assert!(a == b);
}

#[test]
fn overlong_identity_is_refused() {
    let mut w = World::new();
    let mut hostile = identity(1);
    hostile.mount_point = "/".repeat(4097);
    let open = OpenSession {
        nonce: 9,
        identity: hostile,
        predecessor: None,
    };
    assert_eq!(w.system(open), Err(FsError::Invalid.into()));
}

#[test]
fn what_a_session_asks_for_is_refused_without_one() {
    let mut w = World::new();
    let create = World::create_op(Ino::ROOT, "a", Kind::File);
    let before = w.store.clone();
    let refused = w.give(SessionId::SYSTEM, create);
    assert_eq!(refused, Err(Refusal::SessionEnded));
    assert!(w.store == before);
}
