use super::world::World;
use lagan_types::access::Access;
use lagan_types::attr::{Attr, Kind, Time};
use lagan_types::limits::ACCESSES_MAX;
use lagan_types::op::{EndSession, NoteAccesses, ReapOrphans, SetAttr, SetAttrs, SetTime};
use lagan_types::{FsError, Ino, Refusal};

/// A read of the inode in its present state, a minute from now.
fn read(w: &World, ino: Ino) -> Access {
    Access {
        ino,
        ctime: w.attr(ino).ctime,
        at: Time::from_millis(w.now_ms + 60_000),
    }
}

/// Reports reads in a command that is later than each of them.
fn tell(w: &mut World, reads: &[Access]) {
    w.now_ms += 120_000;
    let answer = w.op(NoteAccesses {
        reads: reads.to_vec(),
    });
    assert_eq!(answer, Ok(()));
    w.check();
}

fn utimens(w: &mut World, ino: Ino, atime: SetTime) {
    let set = SetAttr {
        atime: Some(atime),
        ..SetAttr::default()
    };
    w.op(SetAttrs { ino, set }).unwrap();
}

#[test]
fn read_moves_the_access_time_and_nothing_else() {
    let mut w = World::new();
    let a = w.file("a");
    w.write(a, 0, 10);
    let d = w.dir(Ino::ROOT, "d");
    let l = w.create(Ino::ROOT, "l", Kind::Symlink);
    let before: Vec<Attr> = [a, d, l].map(|ino| w.attr(ino)).into();
    let reads = [a, d, l].map(|ino| read(&w, ino));
    let counters = w.counters();
    tell(&mut w, &reads);
    for (before, read) in before.iter().zip(reads) {
        let moved = Attr {
            atime: read.at,
            ..before.clone()
        };
        assert_eq!(w.attr(read.ino), moved);
    }
    assert_eq!(w.counters(), counters);
}

#[test]
fn only_the_first_read_after_a_change_counts() {
    let mut w = World::new();
    let a = w.file("a");
    let (first, again) = (read(&w, a), read(&w, a));
    tell(&mut w, &[first]);
    // Another mount read as well, and did not know yet that the time had moved.
    let late = Access {
        at: Time::from_millis(w.now_ms + 1),
        ..again
    };
    tell(&mut w, &[late, late]);
    assert_eq!(w.attr(a).atime, first.at);
    w.write(a, 0, 10);
    let third = read(&w, a);
    tell(&mut w, &[third, again]);
    assert_eq!(w.attr(a).atime, third.at);
    w.now_ms += 24 * 60 * 60 * 1000;
    let next_day = read(&w, a);
    tell(&mut w, &[next_day]);
    assert_eq!(w.attr(a).atime, next_day.at);
}

#[test]
fn change_after_the_read_wins() {
    let mut w = World::new();
    let a = w.file("a");
    let was = read(&w, a);
    let set = Time { secs: 5, nanos: 6 };
    utimens(&mut w, a, SetTime::At(set));
    tell(&mut w, &[was]);
    assert_eq!(w.attr(a).atime, set);
    let was = read(&w, a);
    w.write(a, 0, 10);
    tell(&mut w, &[was]);
    assert_eq!(w.attr(a).atime, set);
    // A read after a change that did not happen is not believed.
    let ahead = Access {
        ctime: w.attr(a).ctime.succ(),
        ..read(&w, a)
    };
    tell(&mut w, &[ahead]);
    assert_eq!(w.attr(a).atime, set);
}

#[test]
fn reader_with_a_wrong_clock_is_believed_within_reason() {
    let mut w = World::new();
    let a = w.file("a");
    let behind = Access {
        at: Time { secs: -9, nanos: 0 },
        ..read(&w, a)
    };
    tell(&mut w, &[behind]);
    let attr = w.attr(a);
    assert_eq!(attr.atime, attr.ctime.succ());
    w.write(a, 0, 10);
    let ahead = Access {
        at: Time {
            secs: i64::MAX,
            nanos: 0,
        },
        ..read(&w, a)
    };
    tell(&mut w, &[ahead]);
    assert_eq!(w.attr(a).atime, Time::from_millis(w.now_ms));
}

#[test]
fn what_is_gone_or_never_was_is_passed_over() {
    let mut w = World::new();
    let (a, b) = (w.file("a"), w.file("b"));
    let (gone, there) = (read(&w, a), read(&w, b));
    w.unlink(Ino::ROOT, "a").unwrap();
    w.system(ReapOrphans { inos: vec![a] }).unwrap();
    let never = Access {
        ino: Ino(u64::MAX),
        ..there
    };
    tell(&mut w, &[gone, never, there]);
    assert_eq!(w.attr(b).atime, there.at);
}

#[test]
fn too_many_and_times_that_are_none_are_refused() {
    let mut w = World::new();
    let a = w.file("a");
    let (good, before) = (read(&w, a), w.attr(a));
    let many = vec![good; ACCESSES_MAX + 1];
    assert_eq!(
        w.op(NoteAccesses { reads: many }),
        Err(FsError::Invalid.into())
    );
    let at = Time {
        nanos: 1_000_000_000,
        ..good.at
    };
    let bad = Access { at, ..good };
    let refused = w.op(NoteAccesses {
        reads: vec![good, bad],
    });
    assert_eq!(refused, Err(FsError::Invalid.into()));
    assert_eq!(w.attr(a), before);
    let most = vec![good; ACCESSES_MAX];
    tell(&mut w, &most);
    assert_eq!(w.attr(a).atime, good.at);
}

#[test]
fn only_a_live_session_may_tell() {
    let mut w = World::new();
    let a = w.file("a");
    let (was, before) = (read(&w, a), w.attr(a));
    let session = w.session;
    w.system(EndSession { session }).unwrap();
    let refused = w.op(NoteAccesses { reads: vec![was] });
    assert_eq!(refused, Err(Refusal::SessionEnded));
    assert_eq!(w.attr(a), before);
}
