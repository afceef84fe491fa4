//! Files whose names a leader promised.

use super::world::World;
use crate::NotPromised;
use crate::preview;
use lagan_types::access::Times;
use lagan_types::answer::{Committed, Created, GrantedInos};
use lagan_types::attr::{Attr, Kind, Time};
use lagan_types::op::{
    Commit, CreateCommit, CreatePromised, EndSession, FileOp, GrantInos, Inline, MakePromised,
    NewFile, Rmdir, SetAttr, SetAttrs, SetTime, SetXattr, Unlink, XattrMode,
};
use lagan_types::{Answer, FsError, Ino, Refusal, SessionId, VolumeId};

const ROOT: Ino = Ino::ROOT;
/// A time before the commands that make the files.
const PROMISED_AT: Time = Time {
    secs: 1_000,
    nanos: 2,
};
/// A time after it.
const SET_AT: Time = Time {
    secs: 1_000,
    nanos: 9,
};

fn granted(w: &mut World) -> Ino {
    match w.system(GrantInos { count: 8 }) {
        Ok(GrantedInos { first, count: 8 }) => first,
        other => panic!("{other:?}"),
    }
}

fn new_file(ino: Ino, name: &str) -> NewFile {
    NewFile {
        ino,
        parent: ROOT,
        name: name.into(),
        mode: 0o640,
        uid: 10,
        gid: 20,
        time: PROMISED_AT,
        set: None,
    }
}

fn make(file: &NewFile) -> CreatePromised {
    let file = file.clone();
    CreatePromised { file }
}

/// The leader makes it; the session's call of that number was promised it.
fn make_for(file: &NewFile, session: SessionId, seq: u64) -> MakePromised {
    MakePromised {
        file: file.clone(),
        asked: (session, seq),
    }
}

fn create_commit(file: &NewFile, size_min: u64) -> CreateCommit {
    CreateCommit {
        file: file.clone(),
        commit: Commit {
            ino: file.ino,
            edits: Vec::new(),
            append: false,
            size_min,
            expect_version: None,
            kill_suid: false,
            mtime: None,
            inline: Inline::Stored,
        },
    }
}

fn seen(w: &World, file: &NewFile) -> Result<Attr, NotPromised> {
    preview(&w.store, VolumeId::ONLY, w.session, file).unwrap()
}

/// A mount that uses a directory alone computes them by itself.
#[test]
fn attributes_of_a_new_file_follow_from_those_of_its_directory() {
    let mut w = World::new();
    let ino = granted(&mut w);
    let parent = w.dir(ROOT, "d");
    for mode in [0o755, 0o2775] {
        let set = SetAttr {
            mode: Some(mode),
            gid: Some(77),
            ..SetAttr::default()
        };
        w.op(SetAttrs { ino: parent, set }).unwrap();
        for mode in [0o640, 0o6755] {
            let file = NewFile {
                parent,
                mode,
                ..new_file(ino, "a")
            };
            assert_eq!(seen(&w, &file), Ok(file.attr(&w.attr(parent))));
        }
    }
}

#[test]
fn attributes_set_before_a_file_is_made_are_those_set_after() {
    let at = |secs| Some(SetTime::At(Time { secs, nanos: 5 }));
    let none = SetAttr::default;
    let sets = [
        (
            SetAttr {
                mode: Some(0o4755),
                ..none()
            },
            false,
        ),
        (
            SetAttr {
                size: Some(5),
                ..none()
            },
            false,
        ),
        (
            SetAttr {
                mode: Some(0o1600),
                ..none()
            },
            true,
        ),
        (
            SetAttr {
                uid: Some(5),
                gid: Some(6),
                ..none()
            },
            true,
        ),
        (
            SetAttr {
                atime: at(7),
                mtime: at(-8),
                ..none()
            },
            true,
        ),
        (
            SetAttr {
                mtime: Some(SetTime::Now),
                ..none()
            },
            false,
        ),
        (
            SetAttr {
                uid: Some(0),
                kill_suid: true,
                ..none()
            },
            true,
        ),
    ];
    let mut w = World::new();
    let first = granted(&mut w);
    for (n, (set, plain)) in (0..).zip(sets) {
        let before = new_file(Ino(first.0 + n), &format!("f{n}"));
        let mut after = before.clone();
        let dir = w.attr(ROOT);
        assert_eq!(after.set(&dir, &set, SET_AT), plain, "{set:?}");
        assert_eq!(after == before, !plain, "{set:?}");
        let shown = seen(&w, &after).unwrap();
        assert_eq!(shown, after.attr(&dir));
        w.op(make(&after)).unwrap();
        assert_eq!(w.attr(after.ino), shown);
        let ino = w.file(&format!("g{n}"));
        let set = SetAttr {
            mode: set.mode.or(Some(0o640)),
            ..set
        };
        w.op(SetAttrs {
            ino,
            set: set.clone(),
        })
        .unwrap();
        let want = w.attr(ino);
        if plain {
            assert_eq!(shown.mode, want.mode);
            assert!(set.uid.is_none() || (shown.uid, shown.gid) == (want.uid, want.gid));
            assert!(set.atime.is_none() || shown.atime == want.atime);
            assert_eq!(shown.mtime == shown.ctime, want.mtime == want.ctime);
            assert!(shown.ctime > shown.btime);
        }
    }
    w.check();
}

#[test]
fn group_of_the_directory_is_not_set_before_a_file_is_made() {
    let mut w = World::new();
    let dir = w.dir(ROOT, "d");
    let mode = Some(0o2775);
    w.op(SetAttrs {
        ino: dir,
        set: SetAttr {
            mode,
            ..SetAttr::default()
        },
    })
    .unwrap();
    let mut file = new_file(granted(&mut w), "a");
    let set = SetAttr {
        gid: Some(9),
        ..SetAttr::default()
    };
    assert!(!file.set(&w.attr(dir), &set, SET_AT));
    assert!(file.set(&w.attr(ROOT), &set, SET_AT));
}

#[test]
fn times_that_are_none_are_refused() {
    let mut w = World::new();
    let mut file = new_file(granted(&mut w), "a");
    let bad = Time {
        secs: 1,
        nanos: 1_000_000_000,
    };
    let set = SetAttr {
        atime: Some(SetTime::At(bad)),
        ..SetAttr::default()
    };
    assert!(!file.set(&w.attr(ROOT), &set, SET_AT));
    file.set = Some(Times {
        atime: SET_AT,
        mtime: bad,
        ctime: SET_AT,
    });
    assert_eq!(w.op(make(&file)), Err(FsError::Invalid.into()));
    assert_eq!(w.lookup(ROOT, "a"), Err(FsError::NotFound.into()));
    w.check();
}

#[test]
fn content_has_the_time_that_was_set_after_it_was_written() {
    let mut w = World::new();
    let mut file = new_file(granted(&mut w), "a");
    let time = Time {
        secs: 12,
        nanos: 34,
    };
    let mtime = Some(SetTime::At(time));
    let set = SetAttr {
        mtime,
        ..SetAttr::default()
    };
    assert!(file.set(&w.attr(ROOT), &set, SET_AT));
    let commit = |size, mtime| {
        let mut commit = create_commit(&file, size);
        commit.commit.mtime = mtime;
        commit
    };
    // Made before its bytes are committed, or with them, and in several commits.
    w.op(make(&file)).unwrap();
    for size in [100, 200] {
        let done = w.op(commit(size, Some(time))).unwrap();
        assert_eq!((done.attr.mtime, done.attr.size), (time, size));
        assert!(done.attr.ctime > SET_AT);
    }
    // Somebody else has changed it since.
    let done = w.op(commit(300, None)).unwrap();
    assert_eq!(done.attr.mtime, done.attr.ctime, "the command's time");
    let done = w.op(commit(400, Some(time))).unwrap();
    assert_eq!(done.attr.mtime, done.attr.ctime, "the command's time");
    // It changes nothing.
    let same = w.op(commit(400, Some(time))).unwrap();
    assert_eq!(same.attr.mtime, done.attr.mtime);
    w.check();
}

#[test]
fn granted_numbers_are_given_to_nothing_else() {
    let mut w = World::new();
    let first = granted(&mut w);
    let other = w.file("other");
    assert_eq!(other.0, first.0 + 8);
    for count in [0, u32::MAX] {
        assert_eq!(w.system(GrantInos { count }), Err(FsError::Invalid.into()));
    }
    let beyond = new_file(Ino(other.0 + 1), "a");
    assert_eq!(w.op(make(&beyond)), Err(FsError::Invalid.into()));
    w.check();
}

#[test]
fn file_is_as_the_preview_showed_it_and_made_once() {
    let mut w = World::new();
    let file = new_file(granted(&mut w), "a");
    let shown = seen(&w, &file).unwrap();
    assert_eq!(w.lookup(ROOT, "a"), Err(FsError::NotFound.into()));
    w.op(make(&file)).unwrap();
    assert_eq!(w.lookup(ROOT, "a"), Ok(shown));
    w.system(make_for(&file, SessionId(77), 1)).unwrap();
    assert_eq!(w.names(ROOT), ["a"]);
    let taken = NotPromised::Refused(FsError::Exists.into());
    assert_eq!(seen(&w, &file), Err(taken));
    w.check();
}

#[test]
fn directory_has_the_time_of_the_promise_though_its_attributes_changed_since() {
    let mut w = World::new();
    let ino = granted(&mut w);
    let dir = w.dir(ROOT, "d");
    let made = w.attr(dir).mtime;
    let file = NewFile {
        parent: dir,
        time: made.succ(),
        ..new_file(ino, "a")
    };
    for value in [b"1", b"2"] {
        w.op(SetXattr {
            ino: dir,
            name: b"user.a".to_vec(),
            value: value.to_vec(),
            mode: XattrMode::Any,
        })
        .unwrap();
    }
    let changed = w.attr(dir).ctime;
    assert!(changed > file.time);
    w.op(make(&file)).unwrap();
    let attr = w.attr(dir);
    assert_eq!((attr.mtime, attr.ctime), (file.time, changed));
    w.check();
}

#[test]
fn first_commit_makes_the_file_in_the_same_step() {
    let mut w = World::new();
    let file = new_file(granted(&mut w), "a");
    let before = seen(&w, &file).unwrap().version;
    match w.op(create_commit(&file, 100)) {
        Ok(Committed {
            before: b, attr, ..
        }) => {
            assert_eq!(b, before);
            assert_eq!((attr.ino, attr.size), (file.ino, 100));
        }
        other => panic!("{other:?}"),
    }
    match w.op(create_commit(&file, 200)) {
        Ok(Committed { attr, .. }) => assert_eq!(attr.size, 200),
        other => panic!("{other:?}"),
    }
    assert_eq!(w.names(ROOT), ["a"]);
    w.check();
}

#[test]
fn name_or_directory_that_is_gone_makes_nothing() {
    let mut w = World::new();
    let first = granted(&mut w);
    w.file("taken");
    let taken = new_file(first, "taken");
    assert_eq!(w.op(create_commit(&taken, 1)), Err(FsError::Exists.into()));
    let dir = w.dir(ROOT, "d");
    let inside = NewFile {
        parent: dir,
        ..new_file(Ino(first.0 + 1), "a")
    };
    assert!(seen(&w, &inside).is_ok());
    let (parent, name) = (ROOT, b"d".to_vec());
    w.op(Rmdir { parent, name }).unwrap();
    let ops = [
        FileOp::from(make(&inside)),
        create_commit(&inside, 1).into(),
    ];
    for op in ops {
        let error = w.give(w.session, op).unwrap_err();
        assert!(
            matches!(error, Refusal::Fs(FsError::NotFound | FsError::Stale)),
            "{error}"
        );
    }
    w.check();
}

#[test]
fn unlinked_while_it_is_open_it_stays_unlinked() {
    let mut w = World::new();
    let file = new_file(granted(&mut w), "a");
    w.system(make_for(&file, SessionId(77), 1)).unwrap();
    let (parent, name) = (ROOT, b"a".to_vec());
    w.op(Unlink { parent, name }).unwrap();
    match w.op(create_commit(&file, 5)) {
        Ok(Committed { attr, .. }) => assert_eq!((attr.nlink, attr.size), (0, 5)),
        other => panic!("{other:?}"),
    }
    assert_eq!(w.lookup(ROOT, "a"), Err(FsError::NotFound.into()));
    w.check();
}

#[test]
fn retry_of_the_call_that_was_promised_finds_the_file_as_its_own() {
    let mut w = World::new();
    let file = new_file(granted(&mut w), "a");
    let session = w.session;
    let create = World::create_op(ROOT, "a", Kind::File);
    let retry = w.command(session, create.clone());
    w.system(make_for(&file, session, retry.seq)).unwrap();
    match w.apply(&retry) {
        Ok(Answer::Created(Created { attr, created })) => {
            assert_eq!((attr.ino, created), (file.ino, true));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(
        w.op(create),
        Err(FsError::Exists.into()),
        "another call is another call"
    );
    w.check();
}

#[test]
fn session_that_is_over_is_promised_nothing() {
    let mut w = World::new();
    let file = new_file(granted(&mut w), "a");
    let session = w.session;
    w.system(EndSession { session }).unwrap();
    let ended = NotPromised::Refused(Refusal::SessionEnded);
    assert_eq!(seen(&w, &file), Err(ended));
    assert_eq!(w.op(create_commit(&file, 1)), Err(Refusal::SessionEnded));
    w.system(make_for(&file, session, 1)).unwrap();
    w.check();
}
