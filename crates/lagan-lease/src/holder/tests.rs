//! Tests of the cache alone.

use super::*;
use crate::holder::complete::FOLLOWED_MAX;
use crate::times::LEASE_MS;

impl Attributes for u64 {
    fn over(self, shown: &Self) -> Self {
        self.max(*shown)
    }
}

const SESSION: SessionId = SessionId(1);
const DIR: Ino = Ino(1);

/// A cache with a lease of term 3 from time 0.
fn holder() -> Holder<u64> {
    let mut holder = Holder::new(SESSION, &CacheBounds::default());
    lease(&mut holder, 3, 0);
    holder
}

fn lease(holder: &mut Holder<u64>, term: u64, now_ms: u64) {
    let beat = holder.beat(now_ms);
    holder.beat_answered(&beat, term, true, now_ms);
}

fn keep(holder: &mut Holder<u64>, ino: u64, value: u64) -> bool {
    let token = holder.ask();
    holder.keep_inode(token, Some(3), (Ino(ino), value), 0)
}

fn list(holder: &mut Holder<u64>, names: &[(&str, u64)]) -> bool {
    let Some(token) = holder.list(DIR) else {
        return false;
    };
    let names = names
        .iter()
        .map(|(name, ino)| (name.as_bytes().into(), Ino(*ino)));
    holder.keep_directory(token, Some(3), DIR, names, 0)
}

#[test]
fn answer_is_kept_until_the_lease_ends() {
    let mut holder = holder();
    assert!(keep(&mut holder, 5, 50));
    assert_eq!(holder.inode(Ino(5), LEASE_MS - 1), Some(&50));
    assert_eq!(holder.inode(Ino(5), LEASE_MS), None);
    let beat = holder.beat(900);
    holder.beat_answered(&beat, 3, true, 950);
    assert_eq!(holder.inode(Ino(5), LEASE_MS), Some(&50));
    let beat = holder.beat(1_800);
    holder.beat_answered(&beat, 3, true, 1_950);
    assert_eq!(holder.inode(Ino(5), 1_950), None, "the lease had ended");
    assert!(holder.is_valid(1_950));
}

#[test]
fn answer_without_a_lease_is_not_kept() {
    let mut holder = holder();
    let token = holder.ask();
    assert!(!holder.keep_inode(token, None, (Ino(5), 50), 0));
    assert!(!holder.keep_inode(token, Some(2), (Ino(5), 50), 0));
    assert!(!holder.keep_inode(token, Some(3), (Ino(5), 50), LEASE_MS));
    assert!(
        !holder.keep_inode(token, Some(4), (Ino(5), 50), 0),
        "new term"
    );
    assert_eq!((holder.term(), holder.is_valid(0)), (4, false));
}

#[test]
fn answer_that_a_recall_overtook_is_not_kept() {
    let mut holder = holder();
    let token = holder.ask();
    assert!(holder.recall(SESSION, 3, &[Key::Inode(Ino(5))]));
    assert!(!holder.keep_inode(token, Some(3), (Ino(5), 50), 0));
    assert!(keep(&mut holder, 5, 51));
    assert!(holder.recall(SESSION, 3, &[Key::Inode(Ino(5))]));
    assert_eq!(holder.inode(Ino(5), 0), None);
}

#[test]
fn recall_for_another_session_or_of_an_earlier_term_is_not_acknowledged() {
    let mut holder = holder();
    assert!(keep(&mut holder, 5, 50));
    assert!(!holder.recall(SessionId(9), 3, &[Key::Inode(Ino(5))]));
    assert!(!holder.recall(SESSION, 2, &[Key::Inode(Ino(5))]));
    assert_eq!(holder.inode(Ino(5), 0), Some(&50));
    assert!(holder.recall(SESSION, 4, &[]));
    assert_eq!(holder.inode(Ino(5), 0), None, "the term is over");
}

#[test]
fn names_are_present_absent_or_not_known() {
    let mut holder = holder();
    for (name, found) in [
        (&b"a"[..], Found::Inode(Ino(5))),
        (&b"b"[..], Found::Absent),
    ] {
        let token = holder.ask();
        assert!(holder.keep_name(token, Some(3), (Name::new(DIR, name), found), 0));
        assert_eq!(holder.name(DIR, name, 0), Some(found));
    }
    assert_eq!(holder.name(DIR, b"c", 0), None);
    assert!(list(&mut holder, &[("a", 5)]));
    assert_eq!(holder.name(DIR, b"c", 0), Some(Found::Absent));
    assert!(holder.is_complete(DIR, 0));
    assert!(holder.recall(SESSION, 3, &[Key::Directory(DIR)]));
    assert_eq!(holder.name(DIR, b"c", 0), None);
    assert_eq!(holder.name(DIR, b"a", 0), Some(Found::Inode(Ino(5))));
}

#[test]
fn complete_directory_follows_own_changes() {
    let mut holder = holder();
    assert!(list(&mut holder, &[("a", 5)]));
    let name = Key::name(DIR, b"b");
    let change = holder.begin(vec![name.clone()]);
    assert!(!holder.wants(&name, 0) && !holder.wants(&Key::Directory(DIR), 0));
    assert_eq!(holder.name(DIR, b"b", 0), None, "it is under way");
    assert_eq!(holder.name(DIR, b"c", 0), Some(Found::Absent));
    let outcome = Outcome::Done {
        term: 3,
        leased: Vec::new(),
        facts: vec![Fact::Name(Name::new(DIR, b"b"), Found::Inode(Ino(6)))],
        exclusive: None,
    };
    holder.end(change, outcome, 0);
    assert_eq!(holder.name(DIR, b"b", 0), Some(Found::Inode(Ino(6))));
    let change = holder.begin(vec![name.clone()]);
    holder.end(change, Outcome::Nothing, 0);
    assert_eq!(holder.name(DIR, b"b", 0), Some(Found::Inode(Ino(6))));
    let change = holder.begin(vec![name]);
    holder.end(change, Outcome::Unknown, 0);
    assert_eq!(holder.name(DIR, b"b", 0), None, "it is in doubt");
    assert_eq!(holder.name(DIR, b"a", 0), Some(Found::Inode(Ino(5))));
    assert_eq!(holder.name(DIR, b"c", 0), Some(Found::Absent));
    assert_eq!(holder.size()[3], 0);
}

#[test]
fn own_answer_is_kept_if_leased_and_not_crossed() {
    let mut holder = holder();
    let key = Key::Inode(Ino(5));
    let done = |leased: &[Key], value| Outcome::Done {
        term: 3,
        leased: leased.to_vec(),
        facts: vec![Fact::Inode(Ino(5), value)],
        exclusive: None,
    };
    assert!(keep(&mut holder, 5, 50));
    let change = holder.begin(vec![key.clone()]);
    assert_eq!(holder.inode(Ino(5), 0), None);
    holder.end(change, done(std::slice::from_ref(&key), 51), 0);
    assert_eq!(holder.inode(Ino(5), 0), Some(&51));
    let change = holder.begin(vec![key.clone()]);
    holder.end(change, done(&[], 52), 0);
    assert_eq!(holder.inode(Ino(5), 0), None, "it is not leased");
    let change = holder.begin(vec![key.clone()]);
    assert!(holder.recall(SESSION, 3, std::slice::from_ref(&key)));
    holder.end(change, done(std::slice::from_ref(&key), 53), 0);
    assert_eq!(holder.inode(Ino(5), 0), None, "it was recalled");
    let first = holder.begin(vec![key.clone()]);
    let second = holder.begin(vec![key.clone()]);
    holder.end(second, done(std::slice::from_ref(&key), 54), 0);
    holder.end(first, done(std::slice::from_ref(&key), 55), 0);
    assert_eq!(holder.inode(Ino(5), 0), None, "nobody knows their order");
}

#[test]
fn listing_follows_own_changes_that_were_claimed_after_it() {
    let done = |name: &[u8], found: Found, listed: bool| Outcome::Done {
        term: 3,
        leased: listed.then_some(Key::Directory(DIR)).into_iter().collect(),
        facts: vec![Fact::Name(Name::new(DIR, name), found)],
        exclusive: None,
    };
    let pages = || [(Arc::from(*b"a"), Ino(5)), (Arc::from(*b"c"), Ino(7))];
    let mut holder = holder();
    let token = holder.list(DIR).expect("a listing");
    let change = holder.begin(vec![Key::name(DIR, b"b")]);
    holder.end(change, done(b"b", Found::Inode(Ino(6)), true), 0);
    let change = holder.begin(vec![Key::name(DIR, b"a")]);
    holder.end(change, done(b"a", Found::Absent, true), 0);
    assert_eq!(holder.name(DIR, b"b", 0), None, "not all is known");
    // The pages may have been read before both.
    assert!(holder.keep_directory(token, Some(3), DIR, pages(), 0));
    assert_eq!(holder.name(DIR, b"a", 0), Some(Found::Absent));
    assert_eq!(holder.name(DIR, b"b", 0), Some(Found::Inode(Ino(6))));
    assert_eq!(holder.name(DIR, b"c", 0), Some(Found::Inode(Ino(7))));
    assert!(holder.list(DIR).is_none(), "all is known");

    for outcome in [done(b"b", Found::Inode(Ino(6)), false), Outcome::Unknown] {
        let mut holder = self::holder();
        let token = holder.list(DIR).expect("a listing");
        let change = holder.begin(vec![Key::name(DIR, b"b")]);
        holder.end(change, outcome, 0);
        assert!(holder.keep_directory(token, Some(3), DIR, pages(), 0));
        assert_eq!(holder.name(DIR, b"b", 0), None, "it is in doubt");
        assert_eq!(holder.name(DIR, b"c", 0), Some(Found::Inode(Ino(7))));
        assert_eq!(holder.name(DIR, b"d", 0), Some(Found::Absent));
    }
    let mut holder = self::holder();
    let token = holder.list(DIR).expect("a listing");
    assert!(holder.recall(SESSION, 3, &[Key::Directory(DIR)]));
    assert!(!holder.keep_directory(token, Some(3), DIR, pages(), 0));
}

#[test]
fn names_are_asked_for_ahead_in_the_order_of_the_listing() {
    let mut holder = holder();
    walked(&mut holder, 60);
    let mut ahead = |name: &[u8]| looked_ahead(&mut holder, name);
    assert_eq!(ahead(b"n5"), None, "it is the first");
    assert_eq!(
        ahead(b"n6"),
        Some((100..114).collect()),
        "those before it, too"
    );
    assert_eq!(ahead(b"other"), None);
    assert_eq!(
        ahead(b"n7"),
        None,
        "it was asked for, and could not be kept"
    );
    assert_eq!(ahead(b"n14"), Some((114..130).collect()), "twice as many");
    assert!(keep(&mut holder, 135, 1));
    // What is answered counts as looked for.
    assert_eq!(holder.name(DIR, b"n29", 0), Some(Found::Inode(Ino(129))));
    let next = looked_ahead(&mut holder, b"n30").expect("a walk");
    assert_eq!((next[0], next.len()), (130, 29), "those that are not known");
    assert_eq!(holder.ahead(DIR, b"n30", 64, LEASE_MS), None);
}

/// A directory of names `n0`, `n1`, ... of inodes 100, 101, ..., all known by name.
fn walked(holder: &mut Holder<u64>, count: u64) {
    let names: Vec<(String, u64)> = (0..count).map(|n| (format!("n{n}"), 100 + n)).collect();
    let listed: Vec<(&str, u64)> = names.iter().map(|(n, ino)| (n.as_str(), *ino)).collect();
    assert!(list(holder, &listed));
}

/// Looks for a name as a mount does, which sees first whether it knows the answer.
fn looked_ahead(holder: &mut Holder<u64>, name: &[u8]) -> Option<Vec<u64>> {
    let _ = holder.name(DIR, name, 0);
    let ahead = holder.ahead(DIR, name, 64, 0)?;
    Some(ahead.names.iter().map(|(ino, _)| ino.0).collect())
}

#[test]
fn names_are_asked_for_ahead_where_they_come_nearly_in_order() {
    let mut holder = holder();
    walked(&mut holder, 200);
    let mut ahead = |n: u64| {
        let inos = looked_ahead(&mut holder, format!("n{n}").as_bytes());
        inos.map(|inos| (inos[0], inos.len()))
    };
    assert_eq!(ahead(50), None);
    assert_eq!(ahead(40), Some((124, 24)), "those near before it, too");
    assert_eq!(ahead(55), Some((148, 23)), "but not twice");
    assert_eq!(ahead(120), None, "another place");
    assert_eq!(ahead(20), None);
    assert_eq!(ahead(70), None);
}

#[test]
fn names_are_asked_for_ahead_by_a_walk_backwards() {
    let mut holder = holder();
    walked(&mut holder, 200);
    let mut asked = 0;
    for n in (60..=120).rev() {
        if let Some(inos) = looked_ahead(&mut holder, format!("n{n}").as_bytes()) {
            asked += 1;
            assert!(inos.iter().all(|ino| keep(&mut holder, *ino, 1)));
        }
    }
    assert!((3..=6).contains(&asked), "{asked}");
}

#[test]
fn order_of_names_ends_with_the_lease() {
    let mut holder = holder();
    walked(&mut holder, 9);
    assert!(holder.has_order(DIR));
    lease(&mut holder, 3, LEASE_MS);
    assert!(!holder.has_order(DIR), "all is asked for anew");
}

#[test]
fn the_order_of_names_outlives_the_lease_on_them() {
    let mut holder = holder();
    walked(&mut holder, 50);
    assert!(holder.recall(SESSION, 3, &[Key::Directory(DIR)]));
    assert_eq!(holder.name(DIR, b"n5", 0), None);
    assert_eq!(holder.name(DIR, b"other", 0), None);
    let _ = holder.name(DIR, b"n6", 0);
    let next = holder.ahead(DIR, b"n6", 64, 0).expect("the order is known");
    assert!(!next.sure);
    let names: Vec<&[u8]> = next.names.iter().map(|(_, name)| &**name).collect();
    assert_eq!((names[0], names.len()), (&b"n0"[..], 14));

    // A listing that may not be remembered gives an order, too, and nothing else.
    let token = holder.list(DIR).expect("it is not known");
    let names = [b"b", b"a"].map(|name| (name.as_slice().into(), Ino(name[0].into())));
    assert!(!holder.keep_directory(token, None, DIR, names, 0));
    assert!(!holder.is_complete(DIR, 0));
    assert_eq!(holder.name(DIR, b"b", 0), None);
    assert_eq!(holder.name(DIR, b"a", 0), None);
    let next = holder.ahead(DIR, b"a", 3, 0).expect("it follows");
    assert_eq!((next.sure, next.names.len()), (false, 2));
}

#[test]
fn files_are_opened_ahead_in_the_order_of_their_names() {
    let mut holder = holder();
    walked(&mut holder, 100);
    let opens = |holder: &mut Holder<u64>, n: u64| {
        // The kernel looks for the name first.
        let _ = holder.name(DIR, format!("n{n}").as_bytes(), 0);
        let inos = holder.opens_ahead(Ino(100 + n), 32, 0, |attr| *attr == 7);
        inos.map(|inos| inos.iter().map(|ino| ino.0).collect::<Vec<_>>())
    };
    assert_eq!(opens(&mut holder, 20), None);
    let first = opens(&mut holder, 21).expect("a walk");
    assert_eq!((first[0], first.len()), (121, 16 + 8), "itself first");
    assert!(first.contains(&105) && first.contains(&128) && !first.contains(&129));
    assert_eq!(
        opens(&mut holder, 23),
        None,
        "it was asked for, and could not be kept"
    );
    let next = opens(&mut holder, 29).expect("it goes on where the last ones end");
    assert_eq!((next[0], next.len()), (129, 16));
    for n in [80, 80, 80, 35, 80] {
        assert_eq!(opens(&mut holder, n), None, "{n} is somewhere else");
    }
    assert!(keep(&mut holder, 134, 7) && keep(&mut holder, 135, 8));
    assert_eq!(opens(&mut holder, 30), None);
    let next = opens(&mut holder, 31).expect("a walk");
    assert!(!next.contains(&134) && next.contains(&135), "one is ready");
    assert_eq!(holder.opens_ahead(Ino(133), 8, LEASE_MS, |_| false), None);
}

#[test]
fn another_session_begins_with_nothing() {
    let mut holder = holder();
    assert!(keep(&mut holder, 5, 50));
    let (beat, token) = (holder.beat(0), holder.ask());
    holder.replace_session(SessionId(2));
    holder.beat_answered(&beat, 3, true, 0);
    assert!(!holder.is_valid(0), "that beat was of the old session");
    lease(&mut holder, 3, 0);
    assert_eq!(holder.inode(Ino(5), 0), None);
    assert!(!holder.keep_inode(token, Some(3), (Ino(5), 50), 0));
}

#[test]
fn cache_stays_within_its_bounds() {
    let bounds = CacheBounds {
        hot: 4,
        inodes_max: 10,
        names_bytes_max: 10 * (NAME_ROW_BYTES + 1),
        directories_bytes_max: 5 * NAME_ROW_BYTES,
        orders_bytes_max: 5 * NAME_ROW_BYTES,
    };
    let mut holder = Holder::new(SESSION, &bounds);
    lease(&mut holder, 3, 0);
    for n in 0..100u8 {
        assert!(keep(&mut holder, u64::from(n), 1));
        let (token, name) = (holder.ask(), Name::new(DIR, &[n]));
        assert!(holder.keep_name(token, Some(3), (name, Found::Absent), 0));
        let dir = Ino(u64::from(n));
        let token = holder.list(dir).expect("a listing");
        let names = [(Arc::from([n]), Ino(2))];
        assert!(holder.keep_directory(token, Some(3), dir, names, 0));
    }
    assert_eq!(holder.size(), [10, 10, 2, 0]);
}

#[test]
fn what_a_change_made_is_kept_unless_it_was_recalled_meanwhile() {
    let mut holder = holder();
    let made = |ino: u64| Outcome::Done {
        term: 3,
        leased: vec![Key::Inode(Ino(ino)), Key::Directory(Ino(ino))],
        facts: vec![Fact::Inode(Ino(ino), 70), Fact::Empty(Ino(ino))],
        exclusive: None,
    };
    let change = holder.begin(vec![Key::name(DIR, b"new")]);
    holder.end(change, made(7), 0);
    assert_eq!(holder.inode(Ino(7), 0), Some(&70));
    assert_eq!(holder.name(Ino(7), b"x", 0), Some(Found::Absent));
    let change = holder.begin(vec![Key::name(DIR, b"other")]);
    // Others found it before its maker heard of it.
    assert!(holder.recall(SESSION, 3, &[Key::Inode(Ino(8)), Key::Directory(Ino(8))]));
    holder.end(change, made(8), 0);
    assert_eq!(holder.inode(Ino(8), 0), None);
    assert_eq!(holder.name(Ino(8), b"x", 0), None);
}

#[test]
fn late_answer_does_not_tell_a_newer_listing() {
    let mut holder = holder();
    assert!(list(&mut holder, &[("x", 9)]));
    let change = holder.begin(vec![Key::name(DIR, b"x")]);
    // The leader unlinks it, and others make it anew before the answer comes.
    assert!(holder.recall(SESSION, 3, &[Key::Directory(DIR)]));
    assert!(list(&mut holder, &[("x", 10)]));
    let outcome = Outcome::Done {
        term: 3,
        leased: vec![Key::Directory(DIR)],
        facts: vec![Fact::Name(Name::new(DIR, b"x"), Found::Absent)],
        exclusive: None,
    };
    holder.end(change, outcome, 0);
    assert_ne!(holder.name(DIR, b"x", 0), Some(Found::Absent));
}

#[test]
fn new_directory_is_not_empty_if_something_was_made_in_it_meanwhile() {
    let mut holder = holder();
    let new = Ino(300);
    let mkdir = holder.begin(vec![Key::name(DIR, b"new"), Key::Inode(DIR)]);
    let create = holder.begin(vec![Key::name(new, b"x"), Key::Inode(new)]);
    holder.end(create, Outcome::Unknown, 0);
    let made = Outcome::Done {
        term: 3,
        leased: vec![Key::Directory(new)],
        facts: vec![Fact::Empty(new)],
        exclusive: None,
    };
    holder.end(mkdir, made, 0);
    assert_eq!(holder.name(new, b"x", 0), None);
}

#[test]
fn listing_that_nobody_goes_on_with_takes_no_more_room() {
    let mut holder = holder();
    let abandoned = holder.list(DIR);
    assert!(abandoned.is_some());
    for n in 0..2 * FOLLOWED_MAX {
        let name = n.to_le_bytes();
        let change = holder.begin(vec![Key::name(DIR, &name)]);
        let done = Outcome::Done {
            term: 3,
            leased: vec![Key::Directory(DIR)],
            facts: vec![Fact::Name(Name::new(DIR, &name), Found::Absent)],
            exclusive: None,
        };
        holder.end(change, done, 0);
    }
    assert_eq!(holder.size()[2], 0);
}
