use super::world::World;
use lagan_types::op::{DropLocks, LockKind, LockRange, ReapOrphans, SetLock};
use lagan_types::query::GetLock;
use lagan_types::{FsError, Ino, Refusal, SessionId};

fn lock(owner: u64, start: u64, end: u64, kind: LockKind) -> LockRange {
    LockRange {
        owner,
        start,
        end,
        kind,
        pid: owner as u32,
    }
}

fn set(w: &mut World, session: SessionId, ino: Ino, lock: LockRange) -> Result<(), Refusal> {
    let answer = w.op_as(session, SetLock { ino, lock });
    w.check();
    answer
}

fn holder(w: &World, ino: Ino, lock: LockRange) -> Option<(SessionId, LockRange)> {
    match w.query(GetLock { ino, lock }) {
        Ok(held) => held,
        other => panic!("{other:?}"),
    }
}

use LockKind::{Read, Unlock, Write};

#[test]
fn writers_exclude_all_and_readers_share() {
    let mut w = World::new();
    let (a, one) = (w.file("a"), w.session);
    let two = w.open_session(2, None);
    set(&mut w, one, a, lock(1, 0, 99, Read)).unwrap();
    set(&mut w, two, a, lock(1, 50, 60, Read)).unwrap();
    let blocked = Err(FsError::WouldBlock.into());
    assert_eq!(set(&mut w, one, a, lock(1, 55, 55, Write)), blocked);
    assert_eq!(set(&mut w, two, a, lock(1, 99, 200, Write)), blocked);
    set(&mut w, two, a, lock(1, 100, 200, Write)).unwrap();
    assert_eq!(set(&mut w, one, a, lock(2, 150, 150, Read)), blocked);
    let held = holder(&w, a, lock(2, 150, 150, Read));
    assert_eq!(held, Some((two, lock(1, 100, 200, Write))));
}

#[test]
fn unlocking_the_middle_splits_and_locking_it_again_joins() {
    let mut w = World::new();
    let (a, one) = (w.file("a"), w.session);
    let two = w.open_session(2, None);
    set(&mut w, one, a, lock(1, 0, u64::MAX, Write)).unwrap();
    set(&mut w, one, a, lock(1, 10, 19, Unlock)).unwrap();
    set(&mut w, two, a, lock(7, 10, 19, Write)).unwrap();
    set(&mut w, two, a, lock(7, 0, u64::MAX, Unlock)).unwrap();
    let after = holder(&w, a, lock(7, 15, 25, Write));
    assert_eq!(after.unwrap().1, lock(1, 20, u64::MAX, Write));
    set(&mut w, one, a, lock(1, 10, 19, Write)).unwrap();
    let whole = holder(&w, a, lock(7, 15, 25, Read));
    assert_eq!(whole.unwrap().1, lock(1, 0, u64::MAX, Write));
}

#[test]
fn an_owner_changes_the_kind_of_its_own_range() {
    let mut w = World::new();
    let (a, one) = (w.file("a"), w.session);
    set(&mut w, one, a, lock(1, 0, 99, Write)).unwrap();
    set(&mut w, one, a, lock(1, 20, 29, Read)).unwrap();
    assert_eq!(holder(&w, a, lock(2, 20, 29, Read)), None);
    let write = holder(&w, a, lock(2, 20, 30, Read)).unwrap().1;
    assert_eq!(write, lock(1, 30, 99, Write));
}

#[test]
fn dropping_takes_all_of_one_owner_only() {
    let mut w = World::new();
    let (a, one) = (w.file("a"), w.session);
    set(&mut w, one, a, lock(1, 0, 9, Write)).unwrap();
    set(&mut w, one, a, lock(1, 20, 29, Write)).unwrap();
    set(&mut w, one, a, lock(2, 40, 49, Write)).unwrap();
    w.op(DropLocks { ino: a, owner: 1 }).unwrap();
    w.check();
    let held = holder(&w, a, lock(3, 0, u64::MAX, Write));
    assert_eq!(held, Some((one, lock(2, 40, 49, Write))));
}

#[test]
fn ranges_upside_down_and_absent_inodes_are_refused() {
    let mut w = World::new();
    let (a, one) = (w.file("a"), w.session);
    let upside = set(&mut w, one, a, lock(1, 5, 4, Write));
    assert_eq!(upside, Err(FsError::Invalid.into()));
    let absent = set(&mut w, one, Ino(99), lock(1, 0, 4, Write));
    assert_eq!(absent, Err(FsError::Stale.into()));
}

#[test]
fn locks_of_a_reaped_orphan_are_gone() {
    let mut w = World::new();
    let (a, one) = (w.file("a"), w.session);
    set(&mut w, one, a, lock(1, 0, 9, Write)).unwrap();
    w.unlink(Ino::ROOT, "a").unwrap();
    w.system(ReapOrphans { inos: vec![a] }).unwrap();
    w.check();
}

#[test]
fn an_unlock_asks_for_the_owners_own_locks() {
    let mut w = World::new();
    let (a, one) = (w.file("a"), w.session);
    let two = w.open_session(2, None);
    set(&mut w, two, a, lock(1, 0, 99, Read)).unwrap();
    assert_eq!(holder(&w, a, lock(1, 0, 99, Unlock)), None);
    set(&mut w, one, a, lock(1, 50, 60, Read)).unwrap();
    let own = holder(&w, a, lock(1, 55, 200, Unlock));
    assert_eq!(own, Some((one, lock(1, 50, 60, Read))));
    assert_eq!(holder(&w, a, lock(1, 61, 200, Unlock)), None);
    assert_eq!(holder(&w, a, lock(2, 55, 200, Unlock)), None);
}
