//! Tests of the table alone.

use super::*;
use crate::times::{HOLD_MS, LEADER_LEASE_MS, RECALL_PATIENCE_MS};
use lagan_types::Ino;

const A: SessionId = SessionId(1);
const B: SessionId = SessionId(2);
const TERM: u64 = 3;

fn key(ino: u64) -> Key {
    Key::Inode(Ino(ino))
}

/// A table after its hold, at time 0, with leases for both sessions.
fn table(bounds: Bounds) -> Table {
    let mut table = Table::new(TERM, bounds, 0);
    for session in [A, B] {
        table.settle(session, TERM);
        assert!(table.renew(session, 0, 0));
    }
    table.end_hold_if_settled(&[A, B]);
    table
}

fn author(session: SessionId, began: u64, closed: &[Key]) -> Author {
    Author {
        session,
        began,
        closed: closed.to_vec(),
    }
}

#[test]
fn change_waits_for_the_holder_and_not_for_its_author() {
    let mut table = table(Bounds::default());
    let (k, me) = (key(5), author(A, 2, &[key(5)]));
    assert!(table.register(A, &k, 1, 0) && table.register(B, &k, 1, 0));
    let claim = table.claim(Some(&me), std::slice::from_ref(&k), Turn::InOrder, 10);
    assert_eq!(table.take_woken().into_iter().collect::<Vec<_>>(), [B]);
    let end = Ready::At {
        ms: LEADER_LEASE_MS,
    };
    assert_eq!(table.ready(claim, 10), end);
    assert!(!table.register(B, &k, 2, 10), "it is claimed");
    let recalls = table.poll(B, TERM, 0, 11).expect("a recall");
    assert_eq!(recalls.keys, std::slice::from_ref(&k));
    assert_eq!(table.poll(B, TERM, 0, 12), Some(recalls.clone()), "again");
    assert_eq!(table.ready(claim, 12), end);
    assert_eq!(table.poll(B, TERM, recalls.number, 13), None);
    assert_eq!(table.ready(claim, 13), Ready::Now);
    assert_eq!(table.end(claim, End::Done, 14), [k]);
    assert_eq!(table.size().held, 1, "that of its author");
}

#[test]
fn change_waits_no_longer_than_the_lease() {
    let mut table = table(Bounds::default());
    assert!(table.register(B, &key(5), 1, 0));
    let claim = table.claim(None, &[key(5)], Turn::InOrder, 10);
    let last = LEADER_LEASE_MS - 1;
    assert_ne!(table.ready(claim, last), Ready::Now);
    assert_eq!(table.ready(claim, last + 1), Ready::Now);
    // It was away, and comes back: what it held is forgotten.
    assert!(table.renew(B, last + 2, last + 2));
    assert_eq!(table.ready(claim, last + 2), Ready::Now);
    assert_eq!(table.poll(B, TERM, 0, last + 2), None);
}

#[test]
fn heartbeats_do_not_renew_the_lease_of_a_session_that_acknowledges_nothing() {
    let mut table = table(Bounds::default());
    assert!(table.register(B, &key(5), 1, 0));
    let claim = table.claim(None, &[key(5)], Turn::InOrder, 0);
    let mut now = 0;
    while table.renew(B, now, now) {
        now += 50;
        assert!(now <= RECALL_PATIENCE_MS + 50, "it was renewed at {now}");
    }
    let end = LEADER_LEASE_MS + RECALL_PATIENCE_MS;
    assert_eq!(table.ready(claim, end), Ready::Now);
}

#[test]
fn acknowledgement_of_what_was_not_handed_out_is_ignored() {
    let mut table = table(Bounds::default());
    assert!(table.register(B, &key(5), 1, 0));
    let claim = table.claim(None, &[key(5)], Turn::InOrder, 0);
    assert!(table.poll(B, TERM - 1, u64::MAX, 1).is_none());
    assert!(table.poll(SessionId(77), TERM, 0, 1).is_none());
    let recalls = table.poll(B, TERM, u64::MAX, 1).expect("a recall");
    assert_ne!(table.ready(claim, 1), Ready::Now);
    assert!(table.poll(B, TERM, recalls.number + 1, 1).is_some());
    assert_ne!(table.ready(claim, 1), Ready::Now);
    assert_eq!(table.poll(B, TERM, recalls.number, 1), None);
    assert_eq!(table.ready(claim, 1), Ready::Now);
}

#[test]
fn oldest_keys_are_recalled_when_there_are_too_many() {
    let bounds = Bounds {
        inodes_max: 10,
        session_bytes_max: 160 * 12,
        ..Bounds::default()
    };
    let mut table = table(bounds);
    for ino in 0..20 {
        assert!(table.register(A, &key(ino), ino, 0));
    }
    let recalls = table.poll(A, TERM, 0, 0).expect("recalls");
    assert_eq!(recalls.keys, (0..10).map(key).collect::<Vec<_>>());
    assert_eq!(table.poll(A, TERM, recalls.number, 0), None);
    assert_eq!((table.size().held, table.size().keys), (10, 10));
    // Bytes are bounded over all kinds.
    for n in 0..10u8 {
        assert!(table.register(A, &Key::name(Ino(1), &[n]), 99, 0));
    }
    assert_eq!(table.size().held, 11);
}

#[test]
fn session_with_too_many_recalls_is_granted_nothing() {
    let bounds = Bounds {
        recalls_max: 3,
        cool_min_ms: 0,
        ..Bounds::default()
    };
    let mut table = table(bounds);
    for ino in 0..3 {
        assert!(table.register(A, &key(ino), 1, 0));
        table.recall_quietly(None, &[key(ino)], 0);
    }
    assert!(!table.register(A, &key(9), 1, 0));
    let recalls = table.poll(A, TERM, 0, 0).expect("recalls");
    assert_eq!(table.poll(A, TERM, recalls.number, 0), None);
    assert!(table.register(A, &key(9), 1, 0));
}

#[test]
fn new_term_holds_changes_and_not_leases() {
    let mut table = Table::new(TERM, Bounds::default(), 100);
    let claim = table.claim(None, &[key(5)], Turn::InOrder, 100);
    assert_eq!(table.ready(claim, 100), Ready::At { ms: 100 + HOLD_MS });
    table.settle(A, TERM);
    assert!(table.renew(A, 100, 100) && table.register(A, &key(6), 1, 100));
    table.settle(B, TERM - 1);
    table.end_hold_if_settled(&[A, B]);
    assert_ne!(table.ready(claim, 101), Ready::Now, "B may hold something");
    assert_eq!(table.hold_left_ms(101), HOLD_MS - 1);
    table.settle(B, TERM);
    table.end_hold_if_settled(&[A, B]);
    assert_eq!(table.ready(claim, 102), Ready::Now);
}

#[test]
fn hold_ends_by_itself() {
    let mut table = Table::new(TERM, Bounds::default(), 0);
    let claim = table.claim(None, &[key(5)], Turn::InOrder, 0);
    assert_ne!(table.ready(claim, HOLD_MS - 1), Ready::Now);
    assert_eq!(table.ready(claim, HOLD_MS), Ready::Now);
}

#[test]
fn session_is_retired_until_its_lease_ends() {
    let mut table = table(Bounds::default());
    assert!(table.register(B, &key(5), 1, 0));
    assert_eq!(table.retire(B, 100), LEADER_LEASE_MS - 100);
    assert!(!table.renew(B, 100, 100) && !table.register(B, &key(6), 1, 100));
    table.session_ended(B, 200);
    let claim = table.claim(None, &[key(5)], Turn::InOrder, 200);
    assert_ne!(table.ready(claim, LEADER_LEASE_MS - 1), Ready::Now);
    assert_eq!(table.ready(claim, LEADER_LEASE_MS), Ready::Now);
    assert_eq!(table.size().sessions, 1);
    table.keep_sessions(&[SessionId(9)], LEADER_LEASE_MS);
    assert_eq!(table.size().sessions, 0);
    assert!(table.renew(SessionId(10), LEADER_LEASE_MS, LEADER_LEASE_MS));
    table.keep_sessions(&[SessionId(9)], LEADER_LEASE_MS);
    assert_eq!(table.size().sessions, 1, "it was opened since");
    // Nobody knows what it has from before the term.
    let mut table = Table::new(TERM + 1, Bounds::default(), 0);
    assert_eq!(table.retire(B, 0), HOLD_MS);
}

#[test]
fn doubtful_change_keeps_its_keys_closed_until_it_is_resolved() {
    let mut table = table(Bounds::default());
    let name = Key::name(Ino(1), b"a");
    let claim = table.claim(None, &[name.clone(), key(5)], Turn::InOrder, 0);
    assert_eq!(table.ready(claim, 0), Ready::Now);
    table.end(claim, End::Unknown, 0);
    let doubt = table.doubt().expect("a doubt");
    let second = table.claim(None, std::slice::from_ref(&name), Turn::InOrder, 0);
    assert_eq!(table.ready(second, 0), Ready::At { ms: u64::MAX });
    assert!(!table.register(A, &key(5), 1, 0));
    table.resolve(doubt - 1, 0);
    assert!(!table.register(A, &key(5), 1, 0));
    table.resolve(doubt, 0);
    assert_eq!(table.doubt(), None);
    assert_eq!(table.ready(second, 0), Ready::Now);
    assert!(table.register(A, &key(5), 1, 0));
}

#[test]
fn names_wait_for_each_other_and_inodes_do_not() {
    let mut table = table(Bounds::default());
    let (a, b) = (Key::name(Ino(1), b"a"), Key::name(Ino(1), b"b"));
    let first = table.claim(None, &[a.clone(), key(1)], Turn::InOrder, 0);
    let second = table.claim(None, &[a.clone(), b.clone(), key(1)], Turn::InOrder, 0);
    let third = table.claim(None, &[b, key(1)], Turn::InOrder, 0);
    let fourth = table.claim(None, &[key(1)], Turn::InOrder, 0);
    let ready = |table: &mut Table| {
        let all = [first, second, third, fourth];
        all.map(|id| table.ready(id, 0) == Ready::Now)
    };
    assert_eq!(ready(&mut table), [true, false, false, true]);
    table.end(first, End::Done, 0);
    assert_eq!(ready(&mut table), [false, true, false, true]);
    table.end(second, End::Nothing, 0);
    assert_eq!(ready(&mut table), [false, false, true, true]);
}

#[test]
fn name_breaks_the_completeness_of_its_directory_for_others() {
    let mut table = table(Bounds {
        cool_min_ms: 0,
        ..Bounds::default()
    });
    let (dir, name) = (Key::Directory(Ino(1)), Key::name(Ino(1), b"a"));
    assert!(table.register(A, &dir, 1, 0) && table.register(B, &dir, 1, 0));
    let me = author(A, 2, std::slice::from_ref(&name));
    let claim = table.claim(Some(&me), std::slice::from_ref(&name), Turn::InOrder, 0);
    assert!(table.poll(A, TERM, 0, 0).is_none());
    let recalls = table.poll(B, TERM, 0, 0).expect("a recall");
    assert_eq!(recalls.keys, std::slice::from_ref(&dir));
    assert!(!table.register(B, &dir, 2, 0), "names of it are claimed");
    table.poll(B, TERM, recalls.number, 0);
    let leased = table.end(claim, End::Done, 0);
    assert_eq!(leased, [name, dir]);
}

#[test]
fn author_is_recalled_from_for_what_it_did_not_close_or_asked_for_since() {
    let mut table = table(Bounds::default());
    assert!(table.register(A, &key(5), 1, 0) && table.register(A, &key(6), 3, 0));
    let me = author(A, 2, &[key(6)]);
    let claim = table.claim(Some(&me), &[key(5), key(6)], Turn::InOrder, 0);
    let recalls = table.poll(A, TERM, 0, 0).expect("recalls");
    assert_eq!(recalls.keys, [key(5), key(6)]);
    assert_ne!(table.ready(claim, 0), Ready::Now);
}

#[test]
fn answer_is_no_lease_if_another_claim_crossed_it() {
    let mut table = table(Bounds::default());
    let me = author(A, 2, &[key(5)]);
    let first = table.claim(Some(&me), &[key(5)], Turn::InOrder, 0);
    let second = table.claim(Some(&author(A, 3, &[key(5)])), &[key(5)], Turn::InOrder, 0);
    assert!(table.end(second, End::Done, 0).is_empty());
    assert!(table.end(first, End::Done, 0).is_empty());
    let third = table.claim(Some(&author(A, 4, &[key(5)])), &[key(5)], Turn::InOrder, 0);
    assert_eq!(table.end(third, End::Done, 0), [key(5)]);
}

#[test]
fn quiet_recall_makes_nobody_wait() {
    let mut table = table(Bounds::default());
    assert!(table.register(A, &key(5), 1, 0) && table.register(B, &key(5), 1, 0));
    table.recall_quietly(Some(A), &[key(5)], 0);
    assert!(table.poll(A, TERM, 0, 0).is_none());
    assert!(table.register(A, &key(5), 2, 0), "nothing is claimed");
    assert_eq!(
        table.poll(B, TERM, 0, 0).map(|r| r.keys),
        Some(vec![key(5)])
    );
}

#[test]
fn long_lists_of_recalls_are_handed_out_in_pages() {
    let mut table = table(Bounds::default());
    let count = RECALLS_PAGE_MAX as u64 + 5;
    for ino in 0..count {
        assert!(table.register(B, &key(ino), 1, 0));
    }
    let all: Vec<Key> = (0..count).map(key).collect();
    let claim = table.claim(None, &all, Turn::InOrder, 0);
    let first = table.poll(B, TERM, 0, 0).expect("a page");
    assert_eq!(first.keys.len(), RECALLS_PAGE_MAX);
    let second = table.poll(B, TERM, first.number, 0).expect("the rest");
    assert_eq!(second.keys.len(), 5);
    assert_ne!(table.ready(claim, 0), Ready::Now);
    assert!(table.poll(B, TERM, second.number, 0).is_none());
    assert_eq!(table.ready(claim, 0), Ready::Now);
    assert_eq!(table.size().recalls, 0);
}

#[test]
fn what_was_shown_before_the_term_is_carried_out_before_the_hold_ends() {
    let mut table = Table::new(TERM, Bounds::default(), 0);
    let name = Key::name(Ino(1), b"a");
    let only = std::slice::from_ref(&name);
    let waiting = table.claim(None, only, Turn::InOrder, 0);
    let first = table.claim(None, only, Turn::Early, 0);
    let second = table.claim(None, only, Turn::Early, 0);
    assert_eq!(table.ready(waiting, 0), Ready::At { ms: HOLD_MS });
    // A mount may have been shown in an earlier term that it is not there.
    assert_eq!(table.ready(first, 0), Ready::At { ms: HOLD_MS });
    table.knows(A, TERM);
    table.end_hold_if_settled(&[A, B]);
    assert_eq!(table.ready(first, 0), Ready::At { ms: HOLD_MS });
    table.knows(B, TERM);
    table.end_hold_if_settled(&[A, B]);
    assert!(table.take_progress());
    assert_eq!(table.ready(waiting, 0), Ready::At { ms: HOLD_MS });
    assert_eq!(table.ready(first, 0), Ready::Now);
    assert_eq!(table.ready(second, 0), Ready::At { ms: u64::MAX });
    // The hold ends while the first is under way: nobody overtakes it.
    table.end_hold_if_settled(&[]);
    assert_eq!(table.ready(waiting, 0), Ready::At { ms: u64::MAX });
    table.end(first, End::Done, 0);
    assert_eq!(table.ready(second, 0), Ready::Now);
    table.end(second, End::Done, 0);
    assert_eq!(table.ready(waiting, 0), Ready::Now);
    let late = table.claim(None, only, Turn::Early, 0);
    assert_eq!(table.ready(waiting, 0), Ready::Now, "the hold is over");
    assert_eq!(table.ready(late, 0), Ready::At { ms: u64::MAX });
}

#[test]
fn claim_that_grows_waits_again() {
    let mut table = table(Bounds::default());
    let name = Key::name(Ino(1), b"a");
    assert!(table.register(B, &key(5), 1, 0));
    let claim = table.claim(None, std::slice::from_ref(&name), Turn::InOrder, 0);
    assert_eq!(table.ready(claim, 0), Ready::Now);
    table.extend(claim, None, &[key(5), name.clone()], 0);
    assert_ne!(table.ready(claim, 0), Ready::Now);
    let recalls = table.poll(B, TERM, 0, 0).expect("a recall");
    assert_eq!(recalls.keys, [key(5)]);
    table.poll(B, TERM, recalls.number, 0);
    assert_eq!(table.ready(claim, 0), Ready::Now);
    table.end(claim, End::Done, 0);
    assert!(table.register(A, &name, 1, 0) && table.register(A, &key(5), 1, 0));
}

#[test]
fn nobody_waits_for_a_session_that_let_go() {
    let mut table = table(Bounds::default());
    assert!(table.register(B, &key(5), 1, 0));
    let claim = table.claim(None, &[key(5)], Turn::InOrder, 0);
    assert_ne!(table.ready(claim, 0), Ready::Now);
    table.let_go(B, 0);
    assert_eq!(table.ready(claim, 0), Ready::Now);
    assert!(!table.renew(B, 1, 1), "it said that it will not hold any");
    assert!(!table.register(B, &key(6), 1, 1));
}
