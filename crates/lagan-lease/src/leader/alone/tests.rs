//! Tests of exclusive leases.

use super::*;
use crate::leader::{Bounds, End, Ready};
use crate::times::{LEADER_LEASE_MS, MAKING_PATIENCE_MS, RECALL_PATIENCE_MS};

const A: SessionId = SessionId(1);
const B: SessionId = SessionId(2);
const TERM: u64 = 3;
const DIR: Ino = Ino(5);

fn name(name: &[u8]) -> Key {
    Key::name(DIR, name)
}

fn author(session: SessionId, began: u64, closed: &[Key]) -> Author {
    Author {
        session,
        began,
        closed: closed.to_vec(),
    }
}

fn create(of: &[u8]) -> Vec<Key> {
    vec![name(of), Key::Inode(DIR)]
}

/// A table after its hold, at time 0, in which A knows all of a directory.
fn known() -> Table {
    let mut table = Table::new(TERM, Bounds::default(), 0);
    for session in [A, B] {
        table.settle(session, TERM);
        assert!(table.renew(session, 0, 0));
    }
    table.end_hold_if_settled(&[A, B]);
    assert!(table.register(A, &Key::Directory(DIR), 1, 0));
    table
}

/// A creates a name by a change that began with that number. Returns whether the directory is its
/// alone then.
fn created(table: &mut Table, began: u64) -> bool {
    let keys = create(b"first");
    let claim = table.claim(Some(&author(A, began, &keys)), &keys, Turn::InOrder, 0);
    assert_eq!(table.ready(claim, 0), Ready::Now);
    let leased = table.end(claim, End::Done, 0);
    leased.contains(&Key::Inode(DIR)) && table.grant(A, DIR, began, 0)
}

/// The directory is A's alone, by a change with the number 10.
fn alone() -> Table {
    let mut table = known();
    assert!(created(&mut table, 10));
    table
}

fn acknowledge(table: &mut Table, session: SessionId, keys: &[Key]) {
    let recalls = table.poll(session, TERM, 0, 0).expect("a recall");
    assert_eq!(recalls.keys, keys);
    assert_eq!(table.poll(session, TERM, recalls.number, 0), None);
}

#[test]
fn directory_is_given_alone_if_nobody_else_knows_anything_of_it() {
    for key in [name(b"x"), Key::Inode(DIR), Key::Directory(DIR)] {
        let mut table = known();
        assert!(table.register(B, &key, 1, 0));
        let keys = create(b"first");
        let claim = table.claim(Some(&author(A, 10, &keys)), &keys, Turn::InOrder, 0);
        let waits = table.ready(claim, 0) != Ready::Now;
        assert_eq!(waits, key != name(b"x"));
        if waits {
            acknowledge(&mut table, B, std::slice::from_ref(&key));
        }
        table.end(claim, End::Done, 0);
        assert_eq!(table.grant(A, DIR, 10, 0), waits, "{key:?}");
    }
    let mut table = known();
    assert!(table.register(B, &name(b"x"), 1, 0));
    table.let_go(B, 0);
    assert!(created(&mut table, 10));
    assert!(!table.grant(B, DIR, 10, 0), "it is A's");
}

#[test]
fn directory_is_not_given_while_a_change_waits_for_it() {
    let mut table = known();
    let (keys, other) = (create(b"first"), create(b"other"));
    let claim = table.claim(Some(&author(A, 10, &keys)), &keys, Turn::InOrder, 0);
    let waits = table.claim(Some(&author(B, 1, &other)), &other, Turn::InOrder, 0);
    let leased = table.end(claim, End::Done, 0);
    assert!(!leased.contains(&Key::Inode(DIR)) && !table.grant(A, DIR, 10, 0));
    table.end(waits, End::Nothing, 0);
}

#[test]
fn others_wait_until_it_has_come_back() {
    let mut table = alone();
    for key in [name(b"x"), Key::Inode(DIR), Key::Directory(DIR)] {
        assert!(!table.register(B, &key, 1, 0), "{key:?}");
    }
    let began = table.read_begins();
    let keys = [name(b"x"), Key::Inode(Ino(77))];
    assert!(table.may_show(A, &keys, began) && !table.may_show(B, &keys, began));
    assert!(table.may_show(B, &[Key::Inode(Ino(77))], began));
    let visit = table.visit(B, &keys, 0);
    assert_ne!(table.ready(visit, 0), Ready::Now);
    acknowledge(&mut table, A, &[Key::Exclusive(DIR)]);
    assert_eq!(table.ready(visit, 0), Ready::Now);
    assert!(!table.may_show(B, &keys, began), "it was read before");
    assert!(table.may_show(B, &keys, table.read_begins()));
    table.end(visit, End::Nothing, 0);
    assert!(!created(&mut table, 20), "somebody else looked");
    assert_eq!(table.size().claims, 0);
}

#[test]
fn change_of_another_waits_and_what_was_made_alone_does_not() {
    let mut table = alone();
    let foreign = table.claim(
        Some(&author(B, 1, &create(b"x"))),
        &create(b"x"),
        Turn::InOrder,
        0,
    );
    assert_ne!(table.ready(foreign, 0), Ready::Now);
    let file = Key::Inode(Ino(99));
    let keys = [create(b"x"), vec![file.clone()]].concat();
    let me = author(A, 30, std::slice::from_ref(&file));
    let made = table.claim(Some(&me), &keys, Turn::Early, 0);
    assert_eq!(table.ready(made, 0), Ready::Now, "the other waits for it");
    let recalled = table.poll(A, TERM, 0, 0).expect("a recall");
    assert!(recalled.keys.contains(&Key::Exclusive(DIR)));
    assert_eq!(table.poll(A, TERM, recalled.number, 0), None);
    assert_ne!(table.ready(foreign, 0), Ready::Now, "it is being made");
    assert_eq!(table.end(made, End::Done, 0), [file]);
    assert_eq!(table.ready(foreign, 0), Ready::Now);
}

#[test]
fn what_is_made_alone_takes_nothing_from_its_author() {
    let mut table = alone();
    let made = |table: &mut Table, began| {
        let file = Key::Inode(Ino(99));
        let keys = [create(b"x"), vec![file.clone()]].concat();
        table.claim(Some(&author(A, began, &[file])), &keys, Turn::Early, 0)
    };
    // An own change of another name, while what was made before comes and goes.
    let first = made(&mut table, 11);
    let keys = create(b"other");
    let own = table.claim(Some(&author(A, 20, &keys)), &keys, Turn::InOrder, 0);
    let second = made(&mut table, 12);
    assert_eq!(table.ready(own, 0), Ready::Now);
    table.end(first, End::Done, 0);
    table.end(second, End::Done, 0);
    let leased = table.end(own, End::Done, 0);
    assert!(leased.contains(&Key::Inode(DIR)), "{leased:?}");
    assert_eq!(table.poll(A, TERM, 0, 0), None, "nothing is recalled");
}

#[test]
fn change_of_the_directory_itself_ends_it_also_by_its_holder() {
    let mut table = alone();
    let keys = [Key::Inode(DIR)];
    let claim = table.claim(Some(&author(A, 20, &keys)), &keys, Turn::InOrder, 0);
    assert_ne!(table.ready(claim, 0), Ready::Now);
    acknowledge(&mut table, A, &[Key::Exclusive(DIR)]);
    assert_eq!(table.ready(claim, 0), Ready::Now);
    // Its holder may give it back with the change.
    let mut table = alone();
    let closed = [Key::Inode(DIR), Key::Exclusive(DIR)];
    let claim = table.claim(Some(&author(A, 20, &closed)), &keys, Turn::InOrder, 0);
    assert_eq!(table.ready(claim, 0), Ready::Now);
    assert!(table.register(A, &name(b"x"), 21, 0));
    // A late copy of it takes nothing that was given since.
    let mut table = alone();
    let claim = table.claim(Some(&author(A, 9, &closed)), &keys, Turn::InOrder, 0);
    assert_ne!(table.ready(claim, 0), Ready::Now);
}

#[test]
fn late_change_of_its_holder_ends_it() {
    let mut table = alone();
    let claim = table.claim(
        Some(&author(A, 9, &create(b"x"))),
        &create(b"x"),
        Turn::InOrder,
        0,
    );
    assert_ne!(table.ready(claim, 0), Ready::Now, "it had been given up");
    let made = table.claim(Some(&author(A, 9, &[])), &create(b"y"), Turn::Early, 0);
    assert_ne!(table.ready(made, 0), Ready::Now);
}

#[test]
fn it_ends_with_the_lease() {
    let mut table = alone();
    let began = table.read_begins();
    let keys = create(b"x");
    let visit = table.visit(B, &keys, 0);
    let last = LEADER_LEASE_MS - 1;
    assert_ne!(table.ready(visit, last), Ready::Now);
    assert_eq!(table.ready(visit, last + 1), Ready::Now);
    assert!(!table.may_show(B, &keys, began));
    let late = table.claim(Some(&author(A, 30, &[])), &keys, Turn::Early, last + 1);
    let foreign = table.claim(None, &keys, Turn::InOrder, last + 1);
    assert_eq!(table.ready(late, last + 1), Ready::Now);
    assert_ne!(table.ready(foreign, last + 1), Ready::Now, "in order");
}

#[test]
fn what_is_being_made_is_waited_for_though_the_lease_is_over() {
    let mut table = alone();
    let file = Key::Inode(Ino(99));
    let keys = [create(b"x"), vec![file.clone()]].concat();
    let made = table.claim(Some(&author(A, 30, &[file])), &keys, Turn::Early, 0);
    let over = LEADER_LEASE_MS;
    table.lapse(over);
    let began = table.read_begins();
    assert!(!table.may_show(B, &create(b"x"), began), "it is on its way");
    let visit = table.visit(B, &create(b"x"), over);
    assert_ne!(table.ready(visit, over), Ready::Now);
    assert!(!table.take_progress() || table.ready(visit, over) != Ready::Now);
    table.end(made, End::Done, over);
    assert!(table.take_progress());
    assert_eq!(table.ready(visit, over), Ready::Now);
    assert!(table.may_show(B, &create(b"x"), table.read_begins()));
}

#[test]
fn session_that_makes_its_files_keeps_its_lease_for_longer() {
    let mut table = alone();
    let file = Key::Inode(Ino(99));
    let keys = [create(b"x"), vec![file.clone()]].concat();
    table.visit(B, &create(b"x"), 0);
    let patient = |table: &mut Table, now_ms| table.renew(A, now_ms, now_ms);
    assert!(patient(&mut table, RECALL_PATIENCE_MS));
    assert!(!patient(&mut table, RECALL_PATIENCE_MS + 1));
    let me = author(A, 30, &[file]);
    let made = table.claim(Some(&me), &keys, Turn::Early, RECALL_PATIENCE_MS + 2);
    assert!(patient(&mut table, RECALL_PATIENCE_MS + 3));
    assert!(patient(&mut table, 1_400) && patient(&mut table, MAKING_PATIENCE_MS));
    assert!(
        !patient(&mut table, MAKING_PATIENCE_MS + 1),
        "for ever it is not"
    );
    table.end(made, End::Done, MAKING_PATIENCE_MS + 1);
}

#[test]
fn quiet_change_of_the_directory_ends_it() {
    let mut table = alone();
    table.recall_quietly(None, &[Key::Inode(DIR)], 0);
    acknowledge(&mut table, A, &[Key::Inode(DIR), Key::Exclusive(DIR)]);
}
