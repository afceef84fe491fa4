use super::world::World;
use lagan_types::extent::Content;
use lagan_types::limits::{COPY_EXTENTS_MAX, FILE_LEN_MAX};
use lagan_types::op::{
    ArchiveFinish, ArchiveStart, CopyRange, FinishArchive, ReapOrphans, Release, SetAttr, SetAttrs,
    StartArchive,
};
use lagan_types::{ChunkId, FsError, Ino, NodeId};

fn is_reaped(w: &World, id: ChunkId) -> bool {
    (1..=3).any(|n| w.reaped(n).contains(&id))
}

fn shape(w: &World, ino: Ino) -> Vec<(u64, u64, ChunkId, u32)> {
    w.extents(ino)
        .into_iter()
        .map(|e| match e.content {
            Content::Chunk { id, skip, .. } => (e.offset, e.len, id, skip),
            other => panic!("{other:?}"),
        })
        .collect()
}

fn remove(w: &mut World, ino: Ino, name: &str) {
    w.unlink(Ino::ROOT, name).unwrap();
    w.system(ReapOrphans { inos: vec![ino] }).unwrap();
    w.check();
}

fn archive(w: &mut World, ino: Ino) {
    let version = w.attr(ino).version;
    let files = vec![ArchiveStart {
        ino,
        version,
        node: NodeId(1),
    }];
    let Ok(attempts) = w.system(StartArchive { files }) else {
        panic!("no attempts");
    };
    let attempt = attempts[0].as_ref().unwrap();
    let files = vec![ArchiveFinish {
        ino,
        version,
        attempt: attempt.number,
        key: attempt.key.clone(),
        size: attempt.size,
        crc: 1,
    }];
    w.system(FinishArchive { files }).unwrap();
}

fn release(w: &mut World, ino: Ino) {
    let files = vec![(ino, w.attr(ino).version)];
    w.system(Release { files }).unwrap();
    w.check();
}

#[test]
fn a_copy_names_the_same_chunks_and_both_must_go_before_they_do() {
    let mut w = World::new();
    let (a, b) = (w.file("a"), w.file("b"));
    let first = w.write(a, 0, 100);
    let second = w.write(a, 150, 50);
    assert_eq!(w.copy((a, 10), (b, 1000), 1000), Ok((190, 0)));
    w.check();
    assert_eq!(shape(&w, b), [(1000, 90, first, 10), (1140, 50, second, 0)]);
    assert_eq!(w.attr(b).size, 1190);
    remove(&mut w, a, "a");
    assert!(!is_reaped(&w, first) && !is_reaped(&w, second));
    remove(&mut w, b, "b");
    assert!(is_reaped(&w, first) && is_reaped(&w, second));
}

#[test]
fn overwritten_and_truncated_copies_leave_the_others_whole() {
    let mut w = World::new();
    let (a, b, c) = (w.file("a"), w.file("b"), w.file("c"));
    let id = w.write(a, 0, 100);
    w.copy((a, 0), (b, 0), 100).unwrap();
    w.copy((b, 50), (c, 0), 50).unwrap();
    w.write(a, 0, 100);
    w.check();
    let set = SetAttr {
        size: Some(10),
        ..SetAttr::default()
    };
    w.op(SetAttrs { ino: b, set }).unwrap();
    w.check();
    assert_eq!(shape(&w, b), [(0, 10, id, 0)]);
    assert_eq!(shape(&w, c), [(0, 50, id, 50)]);
    w.write(b, 0, 10);
    w.check();
    assert!(!is_reaped(&w, id));
    w.write(c, 0, 50);
    w.check();
    assert!(is_reaped(&w, id));
}

#[test]
fn one_file_may_name_a_chunk_at_two_places() {
    let mut w = World::new();
    let a = w.file("a");
    let id = w.write(a, 0, 100);
    assert_eq!(w.copy((a, 0), (a, 50), 60), Err(FsError::Invalid.into()));
    assert_eq!(w.copy((a, 60), (a, 30), 200), Err(FsError::Invalid.into()));
    assert_eq!(w.copy((a, 0), (a, 50), 50), Ok((50, 0)));
    assert_eq!(shape(&w, a), [(0, 50, id, 0), (50, 50, id, 0)]);
    w.check();
    w.write(a, 0, 50);
    w.check();
    assert!(!is_reaped(&w, id));
    w.write(a, 50, 50);
    w.check();
    assert!(is_reaped(&w, id));
}

#[test]
fn pieces_that_are_copied_one_after_the_other_become_one_extent() {
    let mut w = World::new();
    let (a, b) = (w.file("a"), w.file("b"));
    let id = w.write(a, 0, 100);
    w.copy((a, 60), (b, 60), 40).unwrap();
    w.copy((a, 0), (b, 0), 30).unwrap();
    w.copy((a, 30), (b, 30), 30).unwrap();
    assert_eq!(shape(&w, b), [(0, 100, id, 0)]);
    w.check();
}

#[test]
fn release_and_archive_of_one_file_leave_the_other_local() {
    let mut w = World::new();
    let (a, b) = (w.file("a"), w.file("b"));
    let id = w.write(a, 0, 100);
    w.copy((a, 0), (b, 0), 100).unwrap();
    archive(&mut w, a);
    release(&mut w, a);
    assert!(!is_reaped(&w, id));
    // The caller copies bytes that are only in the object.
    let c = w.file("c");
    assert_eq!(w.copy((a, 30), (c, 0), 50), Ok((0, 50)));
    assert_eq!(w.attr(c).version, 1);
    w.write(a, 0, 20);
    assert_eq!(w.copy((a, 0), (c, 0), 1000), Ok((20, 80)));
    archive(&mut w, b);
    release(&mut w, b);
    assert!(is_reaped(&w, id));
}

#[test]
fn the_content_of_a_copy_is_a_change_of_the_target() {
    let mut w = World::new();
    let (a, b) = (w.file("a"), w.file("b"));
    w.write(a, 0, 100);
    w.write(b, 0, 10);
    let set = SetAttr {
        mode: Some(0o6755),
        ..SetAttr::default()
    };
    w.op(SetAttrs { ino: b, set }).unwrap();
    archive(&mut w, b);
    let before = w.attr(b);
    let copy = CopyRange {
        from: a,
        from_offset: 0,
        to: b,
        to_offset: 0,
        len: 5,
        kill_suid: true,
    };
    w.op(copy).unwrap();
    let after = w.attr(b);
    assert!(after.version > before.version && after.mtime > before.mtime);
    assert_eq!((after.mode, after.size), (0o755, 10));
    assert_eq!(after.archive, lagan_types::attr::ArchiveState::Dirty);
    w.check();
}

#[test]
fn ends_bounds_and_kinds_are_those_of_linux() {
    let mut w = World::new();
    let (a, b) = (w.file("a"), w.file("b"));
    let d = w.dir(Ino::ROOT, "d");
    w.write(a, 0, 100);
    assert_eq!(w.copy((a, 100), (b, 0), 10), Ok((0, 0)));
    assert_eq!(w.copy((a, u64::MAX), (b, u64::MAX), 10), Ok((0, 0)));
    assert_eq!(w.attr(b).version, 1);
    let far = FILE_LEN_MAX - 50;
    assert_eq!(
        w.copy((a, 0), (b, far), 100),
        Err(FsError::FileTooLarge.into())
    );
    assert_eq!(w.copy((a, 0), (b, far), 50), Ok((50, 0)));
    assert_eq!(w.copy((a, 0), (d, 0), 1), Err(FsError::IsDirectory.into()));
    assert_eq!(w.copy((d, 0), (a, 0), 1), Err(FsError::IsDirectory.into()));
    assert_eq!(w.copy((Ino(99), 0), (a, 0), 1), Err(FsError::Stale.into()));
    w.check();
}

#[test]
fn one_command_shares_a_bounded_number_of_extents() {
    let mut w = World::new();
    let (a, b) = (w.file("a"), w.file("b"));
    let pieces = COPY_EXTENTS_MAX as u64 + 10;
    for n in 0..pieces {
        w.write(a, n * 10, 5);
    }
    let end = (pieces - 1) * 10 + 5;
    let (done, _) = w.copy((a, 0), (b, 0), end).unwrap();
    assert_eq!(done, (COPY_EXTENTS_MAX as u64 - 1) * 10 + 5);
    assert_eq!(w.copy((a, done), (b, done), end), Ok((end - done, 0)));
    assert_eq!(w.attr(b).allocated, w.attr(a).allocated);
    w.check();
}
