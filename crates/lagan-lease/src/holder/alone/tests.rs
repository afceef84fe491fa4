//! Tests of directories that a mount uses alone.

use super::*;
use crate::holder::{CacheBounds, Change, Fact, Outcome};
use crate::times::LEASE_MS;
use lagan_types::SessionId;

const SESSION: SessionId = SessionId(1);
const DIR: Ino = Ino(5);

fn name(name: &str) -> Name {
    Name::new(DIR, name.as_bytes())
}

fn done(exclusive: Option<Ino>, attr: u64, more: Vec<Fact<u64>>) -> Outcome<u64> {
    let mut facts = vec![Fact::Inode(DIR, attr)];
    facts.extend(more);
    Outcome::Done {
        term: 3,
        leased: vec![Key::Inode(DIR), Key::Directory(DIR)],
        facts,
        exclusive,
    }
}

/// A cache with a lease of term 3 from time 0.
fn holder() -> Holder<u64> {
    let mut holder = Holder::new(SESSION, &CacheBounds::default());
    let beat = holder.beat(0);
    holder.beat_answered(&beat, 3, true, 0);
    holder
}

fn mkdir(holder: &mut Holder<u64>) -> Change {
    let parent = Ino(1);
    holder.begin(vec![Key::name(parent, b"d"), Key::Inode(parent)])
}

/// A cache whose new directory with the attributes 50 is its own.
fn alone() -> Holder<u64> {
    let mut holder = holder();
    let change = mkdir(&mut holder);
    holder.end(change, done(Some(DIR), 50, vec![Fact::Empty(DIR)]), 0);
    assert!(holder.is_alone(DIR, 0));
    holder
}

/// Makes a file with that number, which gives the directory these attributes.
fn make(holder: &mut Holder<u64>, of: &str, ino: u64, dir: u64, now_ms: u64) -> bool {
    holder.make(&name(of), now_ms, |before| {
        assert!(*before < dir);
        Some(Made {
            ino: Ino(ino),
            attr: 1,
            dir,
        })
    })
}

#[test]
fn file_is_made_where_nobody_else_can_miss_it() {
    let mut holder = alone();
    assert!(make(&mut holder, "a", 10, 60, 0));
    assert!(!make(&mut holder, "a", 11, 70, 0), "the name is taken");
    assert_eq!(holder.name(DIR, b"a", 0), Some(Found::Inode(Ino(10))));
    assert_eq!(holder.name(DIR, b"b", 0), Some(Found::Absent));
    assert_eq!(holder.inode(Ino(10), 0), Some(&1));
    assert_eq!(holder.inode(DIR, 0), Some(&60));
    assert!(holder.is_local(Ino(10)) && holder.orphans(0).is_empty());
    holder.made(Ino(10));
    assert!(!holder.is_local(Ino(10)));
    assert!(
        !make(&mut holder, "b", 12, 70, LEASE_MS),
        "the lease is over"
    );
    let refused = holder.make(&name("b"), 0, |_| None);
    assert!(!refused && holder.name(DIR, b"b", 0) == Some(Found::Absent));
}

#[test]
fn attributes_of_a_local_file_are_set_while_nobody_else_sees_them() {
    let mut holder = alone();
    assert!(make(&mut holder, "a", 10, 60, 0));
    let file = Ino(10);
    let set = |holder: &mut Holder<u64>, now_ms| {
        holder.set_local(file, now_ms, |dir| {
            assert_eq!(*dir, 60);
            Some(2)
        })
    };
    let asked = holder.ask();
    assert!(set(&mut holder, 0) && holder.inode(file, 0) == Some(&2));
    let older = holder.keep_inode(asked, Some(3), (file, 1), 0);
    assert!(!older && holder.inode(file, 0) == Some(&2));
    assert!(!holder.set_local(file, 0, |_| None));
    assert!(!holder.set_local(DIR, 0, |_| Some(2)), "it is no such file");
    assert!(!set(&mut holder, LEASE_MS), "the lease is over");
    assert!(holder.recall(SESSION, 3, &[Key::Exclusive(DIR)]));
    assert!(!set(&mut holder, 0), "others may see it");
    holder.made(file);
    assert!(!set(&mut holder, 0), "they do");
}

#[test]
fn directory_that_is_recalled_leaves_orphans() {
    let mut holder = alone();
    assert!(make(&mut holder, "a", 10, 60, 0));
    assert!(holder.recall(SESSION, 3, &[Key::Inode(DIR)]));
    assert_eq!(
        holder.inode(DIR, 0),
        Some(&60),
        "nobody else has changed it"
    );
    assert!(holder.recall(SESSION, 3, &[Key::Exclusive(DIR)]));
    assert_eq!(holder.orphans(0), [Ino(10)]);
    assert_eq!(holder.inode(DIR, 0), None);
    assert_eq!(holder.inode(Ino(10), 0), None);
    assert!(!make(&mut holder, "b", 11, 70, 0));
    holder.made(Ino(10));
    assert!(holder.orphans(0).is_empty());
}

#[test]
fn orphans_are_those_of_any_reason() {
    let mut holder = alone();
    assert!(make(&mut holder, "a", 10, 60, 0));
    assert_eq!(holder.orphans(LEASE_MS), [Ino(10)], "the lease is over");
    holder.learn_term(4);
    assert_eq!(holder.orphans(0), [Ino(10)], "another leader");
    holder.replace_session(SessionId(2));
    assert!(holder.orphans(0).is_empty(), "it is lost");
}

#[test]
fn recall_that_overtakes_the_grant_counts() {
    let mut holder = holder();
    let change = mkdir(&mut holder);
    assert!(holder.recall(SESSION, 3, &[Key::Exclusive(DIR)]));
    holder.end(change, done(Some(DIR), 50, vec![Fact::Empty(DIR)]), 0);
    assert!(!holder.is_alone(DIR, 0));
    assert_eq!(holder.inode(DIR, 0), Some(&50), "the others are no worse");
}

#[test]
fn directory_is_taken_only_if_all_of_it_is_known() {
    let mut holder = holder();
    let change = mkdir(&mut holder);
    holder.end(change, done(Some(DIR), 50, Vec::new()), 0);
    assert!(!holder.is_alone(DIR, 0), "its names are not");
    let change = mkdir(&mut holder);
    let outcome = Outcome::Done {
        term: 3,
        leased: vec![Key::Directory(DIR)],
        facts: vec![Fact::Inode(DIR, 50), Fact::Empty(DIR)],
        exclusive: Some(DIR),
    };
    holder.end(change, outcome, 0);
    assert!(!holder.is_alone(DIR, 0), "its attributes are not leased");
    let mut holder = alone();
    holder.close(&Key::Directory(DIR));
    assert!(!holder.is_alone(DIR, 0) && !make(&mut holder, "a", 10, 60, 0));
}

#[test]
fn own_changes_leave_the_directory_with_what_was_made_there() {
    let mut holder = alone();
    assert!(make(&mut holder, "a", 10, 80, 0));
    let keys = vec![Key::Name(name("x")), Key::Inode(DIR)];
    let change = holder.begin(keys.clone());
    assert_eq!(holder.inode(DIR, 0), Some(&80), "nobody can have seen more");
    assert!(make(&mut holder, "b", 11, 90, 0));
    assert!(!make(&mut holder, "x", 12, 95, 0), "it is being made");
    holder.end(change, done(None, 70, Vec::new()), 0);
    assert_eq!(
        holder.inode(DIR, 0),
        Some(&90),
        "the leader does not know all"
    );
    let change = holder.begin(keys.clone());
    holder.end(change, Outcome::Nothing, 0);
    assert!(holder.is_alone(DIR, 0));
    let change = holder.begin(keys);
    holder.end(change, Outcome::Unknown, 0);
    assert!(!holder.is_alone(DIR, 0), "who knows what it is like");
}

#[test]
fn directory_is_given_back_for_a_change_of_itself_if_nothing_is_left_to_make() {
    let mut holder = alone();
    let keys = [Key::Inode(DIR)];
    assert!(make(&mut holder, "a", 10, 60, 0));
    assert_eq!(holder.give_back(&keys), []);
    holder.made(Ino(10));
    assert_eq!(
        holder.give_back(&[Key::Name(name("x")), Key::Inode(DIR)]),
        []
    );
    assert_eq!(holder.give_back(&keys), [Key::Exclusive(DIR)]);
    assert!(!holder.is_alone(DIR, 0));
}

#[test]
fn nothing_is_remembered_where_a_file_was_given_up() {
    let mut holder = alone();
    assert!(make(&mut holder, "a", 10, 60, 0));
    holder.give_up(Ino(10));
    assert!(holder.orphans(0).is_empty() && holder.inode(DIR, 0).is_none());
    let token = holder.ask();
    assert!(!holder.keep_inode(token, Some(3), (DIR, 60), 0));
    assert!(holder.keep_inode(token, Some(3), (Ino(6), 60), 0));
    assert_eq!(holder.list(DIR).map(|_| ()), None);
}

#[test]
fn answers_show_what_only_this_mount_knows() {
    let mut holder = alone();
    let number = holder.alone_number();
    let mut shown = 0;
    assert!(make(&mut holder, "a", 10, 60, 0));
    assert!(holder.shows(DIR, number, 0, |known| shown = *known) && shown == 60);
    assert!(!holder.shows(DIR, number, LEASE_MS, |_| {}), "who knows");
    holder.close(&Key::Exclusive(DIR));
    assert!(!holder.shows(DIR, number, 0, |_| {}), "it was its alone");
    assert!(holder.shows(DIR, holder.alone_number(), 0, |_| {}));
}
