use super::*;
use lagan_types::op::{
    Commit, CreateCommit, FileOp, Inline, Rename, Rmdir, SetAttr, SetAttrs, Unlink,
};
use lagan_types::query::{GetCounters, Lookup, Open, ReadDir};
use lagan_types::{Kind, attr::ArchiveState};

const OWNER: SessionId = SessionId(7);
const OTHER: SessionId = SessionId(8);
const DIR: Ino = Ino(1);

fn attr(ino: Ino, kind: Kind, secs: i64) -> Attr {
    let time = Time { secs, nanos: 0 };
    Attr {
        ino,
        kind,
        mode: 0o644,
        uid: 0,
        gid: 0,
        nlink: 1,
        size: 0,
        allocated: 0,
        rdev: 0,
        atime: time,
        mtime: time,
        ctime: time,
        btime: time,
        version: 1,
        archive: ArchiveState::Local,
    }
}

fn file(name: &str) -> NewFile {
    NewFile {
        ino: Ino(0),
        parent: DIR,
        name: name.into(),
        mode: 0o644,
        uid: 0,
        gid: 0,
        time: Time::default(),
        set: None,
    }
}

fn names() -> Names {
    let mut names = Names::default();
    names.enter(1);
    names.grant(1, Ino(100), INOS_GRANT);
    names
}

/// Promises a name to the owner.
fn hold(names: &mut Names, name: &str, seq: u64) -> NewFile {
    let Wish::Look(file) = names.wish((OWNER, seq), file(name)) else {
        panic!("not promised: {name}");
    };
    let attr = attr(file.ino, Kind::File, 50);
    let time = attr.btime;
    assert!(names.promise(file.ino, attr));
    // It is made with the time that it was promised with.
    NewFile { time, ..file }
}

#[test]
fn names_of_a_mutation_in_doubt_are_busy_until_it_is_settled() {
    let mut names = names();
    let mark = names.begin(&unlink("a"), Directories::Removes);
    let doubtful = names.end(mark, End::Unknown).expect("a mark");
    for name in ["a", "b"] {
        assert_eq!(names.wish((OWNER, 1), file(name)), Wish::Not);
    }
    assert!(names.moves_directories());
    names.settle(doubtful);
    assert!(!names.moves_directories());
    hold(&mut names, "a", 2);
}

#[test]
fn version_rises_with_what_reads_are_shown() {
    let mut names = names();
    let before = names.version();
    let file = hold(&mut names, "a", 1);
    let promised = names.version();
    assert!(promised > before);
    names.claim(file.ino);
    assert_eq!(names.version(), promised);
    names.made(file.ino, End::Done);
    assert!(names.version() > promised);
    assert_eq!((names.promised(file.ino), names.time_of(DIR)), (None, None));
}

fn unlink(name: &str) -> FileOp {
    Unlink {
        parent: DIR,
        name: name.into(),
    }
    .into()
}

fn rename(from: &str, to: &str) -> FileOp {
    Rename {
        parent: DIR,
        name: from.into(),
        new_parent: DIR,
        new_name: to.into(),
        no_replace: false,
        exchange: false,
    }
    .into()
}

fn commit(file: &NewFile) -> FileOp {
    CreateCommit {
        file: file.clone(),
        commit: Commit {
            ino: file.ino,
            edits: Vec::new(),
            append: false,
            size_min: 0,
            expect_version: None,
            kill_suid: false,
            mtime: None,
            inline: Inline::Stored,
        },
    }
    .into()
}

fn lookup(name: &str) -> Query {
    Lookup {
        parent: DIR,
        name: name.into(),
    }
    .into()
}

#[test]
fn a_name_is_promised_once_and_a_retry_gets_the_same_answer() {
    let mut names = names();
    let held = hold(&mut names, "a", 1);
    assert_eq!(names.wish((OTHER, 1), file("a")), Wish::Not);
    assert_eq!(names.wish((OWNER, 2), file("a")), Wish::Not);
    let again = names.wish((OWNER, 1), file("a"));
    assert_eq!(again, Wish::Again(attr(held.ino, Kind::File, 50)));
    let other = hold(&mut names, "b", 2);
    assert_ne!(held.ino, other.ino);
}

#[test]
fn without_numbers_creates_are_replicated() {
    let mut names = Names::default();
    names.enter(1);
    assert!(names.wants_inos());
    assert_eq!(names.wish((OWNER, 1), file("a")), Wish::Not);
    names.grant(2, Ino(5), 10);
    assert_eq!(names.wish((OWNER, 1), file("a")), Wish::Not);
}

#[test]
fn another_term_forgets_promises_and_numbers() {
    let mut names = names();
    let held = hold(&mut names, "a", 1);
    names.enter(2);
    assert!(names.is_empty());
    assert_eq!(names.claim(held.ino), Claim::Gone);
    assert_eq!(names.wish((OWNER, 2), file("b")), Wish::Not);
}

#[test]
fn name_that_is_not_free_is_given_up() {
    let mut names = names();
    let Wish::Look(looked) = names.wish((OWNER, 1), file("a")) else {
        panic!("not promised");
    };
    assert_eq!(names.claim(looked.ino), Claim::Wait);
    names.cancel(looked.ino);
    assert!(names.is_empty());
    let held = hold(&mut names, "a", 2);
    names.cancel(held.ino);
    assert_eq!(names.claim(held.ino), Claim::Propose(held, (OWNER, 2)));
}

#[test]
fn mutation_under_way_keeps_its_names_from_being_promised() {
    let mut names = names();
    let mark = names.begin(&rename("x", "a"), Directories::Keeps);
    assert_eq!(names.wish((OWNER, 1), file("a")), Wish::Not);
    assert_eq!(names.wish((OWNER, 1), file("x")), Wish::Not);
    names.end(mark, End::Done);
    hold(&mut names, "a", 1);
    let mark = names.begin(&unlink("x"), Directories::Keeps);
    names.end(mark, End::Unknown);
    assert_eq!(names.wish((OWNER, 2), file("x")), Wish::Not);
}

#[test]
fn what_a_mutation_touches_is_made_first() {
    let mut names = names();
    let a = hold(&mut names, "a", 1);
    let b = hold(&mut names, "b", 2);
    let mark = names.begin(&unlink("a"), Directories::Keeps);
    assert_eq!(mark.first, [a.ino]);
    names.end(mark, End::Refused);
    let chmod = SetAttrs {
        ino: b.ino,
        set: SetAttr::default(),
    };
    assert_eq!(
        names.begin(&chmod.into(), Directories::Keeps).first,
        [b.ino]
    );
    assert!(
        names
            .begin(&unlink("c"), Directories::Keeps)
            .first
            .is_empty()
    );
}

#[test]
fn files_are_made_before_their_directorys_attributes_change() {
    let mut names = names();
    let a = hold(&mut names, "a", 1);
    let chmod = |ino| {
        FileOp::SetAttrs(SetAttrs {
            ino,
            set: SetAttr::default(),
        })
    };
    let first = |names: &mut Names, ino| names.begin(&chmod(ino), Directories::Keeps).first;
    assert_eq!(first(&mut names, DIR), [a.ino]);
    assert!(first(&mut names, Ino(2)).is_empty());
}

#[test]
fn removal_of_a_directory_has_everything_made_and_promises_nothing() {
    let mut names = names();
    let a = hold(&mut names, "a", 1);
    let rmdir = Rmdir {
        parent: Ino(9),
        name: b"d".to_vec(),
    };
    assert!(!names.moves_directories());
    let mark = names.begin(&rmdir.into(), Directories::Removes);
    assert_eq!(mark.first, [a.ino]);
    assert!(names.moves_directories());
    assert_eq!(names.wish((OWNER, 2), file("b")), Wish::Not);
    names.end(mark, End::Done);
    assert!(!names.moves_directories());
    hold(&mut names, "b", 2);
}

#[test]
fn owners_commit_ends_the_promise_if_it_was_carried_out() {
    let mut names = names();
    let a = hold(&mut names, "a", 1);
    let mark = names.begin(&commit(&a), Directories::Keeps);
    assert!(mark.first.is_empty());
    assert_eq!(names.claim(a.ino), Claim::Wait);
    names.end(mark, End::Refused);
    assert!(matches!(names.touched(OWNER, &lookup("a")), Touch::Own(_)));
    let mark = names.begin(&commit(&a), Directories::Keeps);
    names.end(mark, End::Done);
    assert!(names.is_empty());
    assert_eq!(names.touched(OWNER, &lookup("a")), Touch::None);
}

#[test]
fn file_that_may_be_made_is_not_shown_as_it_was_promised() {
    let mut names = names();
    let a = hold(&mut names, "a", 1);
    let mark = names.begin(&commit(&a), Directories::Keeps);
    names.end(mark, End::Unknown);
    assert_eq!(names.touched(OWNER, &lookup("a")), Touch::Make(vec![a.ino]));
    assert_eq!(names.claim(a.ino), Claim::Propose(a.clone(), (OWNER, 1)));
    names.made(a.ino, End::Unknown);
    assert!(matches!(names.claim(a.ino), Claim::Propose(..)));
    names.made(a.ino, End::Done);
    assert_eq!(names.claim(a.ino), Claim::Gone);
}

#[test]
fn promise_outlives_a_moment_in_which_nothing_can_be_proposed() {
    let mut names = names();
    let a = hold(&mut names, "a", 1);
    assert!(matches!(names.claim(a.ino), Claim::Propose(..)));
    names.made(a.ino, End::NotProposed);
    assert!(matches!(names.touched(OWNER, &lookup("a")), Touch::Own(_)));
    assert_eq!(names.touched(OTHER, &lookup("a")), Touch::Make(vec![a.ino]));
    let mark = names.begin(&commit(&a), Directories::Keeps);
    names.end(mark, End::NotProposed);
    assert!(matches!(names.claim(a.ino), Claim::Propose(..)));
    names.made(a.ino, End::Done);
    assert!(names.is_empty());
}

#[test]
fn other_sessions_see_a_promised_file_only_once_it_is_made() {
    let mut names = names();
    let a = hold(&mut names, "a", 1);
    let make = Touch::Make(vec![a.ino]);
    assert_eq!(names.touched(OTHER, &lookup("a")), make);
    assert_eq!(names.touched(OTHER, &Open { ino: a.ino }.into()), make);
    let list = |ino| ReadDir {
        ino,
        cookie: 0,
        limit: 10,
        attrs: false,
    };
    assert_eq!(names.touched(OWNER, &list(DIR).into()), make);
    assert_eq!(names.touched(OTHER, &list(Ino(2)).into()), Touch::None);
    assert_eq!(names.touched(OTHER, &lookup("b")), Touch::None);
    assert_eq!(names.touched(OTHER, &GetCounters.into()), Touch::None);
}

#[test]
fn directory_shows_the_time_of_the_last_promise_in_it() {
    let mut names = names();
    let a = hold(&mut names, "a", 1);
    let mut answer = QueryAnswer::Attr(attr(DIR, Kind::Directory, 10));
    names.show(&mut answer);
    assert_eq!(
        answer,
        QueryAnswer::Attr(Attr {
            mtime: Time { secs: 50, nanos: 0 },
            ctime: Time { secs: 50, nanos: 0 },
            ..attr(DIR, Kind::Directory, 10)
        })
    );
    // A time to come that somebody set ends with the next change.
    let later = Time { secs: 99, nanos: 0 };
    let mut answer = QueryAnswer::Attr(Attr {
        mtime: later,
        ..attr(DIR, Kind::Directory, 10)
    });
    names.show(&mut answer);
    let QueryAnswer::Attr(shown) = answer else {
        unreachable!()
    };
    assert_eq!((shown.mtime.secs, shown.ctime.secs), (50, 50));
    let _ = names.claim(a.ino);
    names.made(a.ino, End::Done);
    let mut answer = QueryAnswer::Attr(attr(DIR, Kind::Directory, 10));
    names.show(&mut answer);
    assert_eq!(answer, QueryAnswer::Attr(attr(DIR, Kind::Directory, 10)));
}

#[test]
fn promises_end_with_their_session_unless_they_are_being_made() {
    let mut names = names();
    let a = hold(&mut names, "a", 1);
    let b = hold(&mut names, "b", 2);
    let _ = names.claim(b.ino);
    names.session_ended(OTHER);
    names.session_ended(OWNER);
    assert_eq!(names.claim(a.ino), Claim::Gone);
    assert_eq!(names.claim(b.ino), Claim::Wait);
}
