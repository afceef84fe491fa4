use super::world::{START_MS, World};
use lagan_types::answer::{Attempt, ReleasedFiles};
use lagan_types::attr::ArchiveState;
use lagan_types::extent::Content;
use lagan_types::op::{
    ArchiveFail, ArchiveFinish, ArchiveNow, ArchiveStart, FailArchive, FinishArchive, MarkLost,
    ObjectsDeleted, ReapOrphans, Release, ReleaseExtent, SetAttr, SetAttrs, SetConfig,
    StartArchive,
};
use lagan_types::query::{
    Attempts, Due, DueFile, GetAttrs, ObjectReap, Objects, ObjectsPage, ObjectsToDelete,
    Releasable, TooLarge,
};
use lagan_types::{Ino, NodeId, Time};

fn due(w: &World, now_ms: u64) -> Vec<DueFile> {
    match w.query(Due { now_ms, limit: 100 }) {
        Ok(files) => files,
        other => panic!("{other:?}"),
    }
}

fn start(w: &mut World, ino: Ino, version: u64) -> Option<Attempt> {
    let files = vec![ArchiveStart {
        ino,
        version,
        node: NodeId(1),
    }];
    match w.system(StartArchive { files }) {
        Ok(mut attempts) => attempts.pop().flatten(),
        other => panic!("{other:?}"),
    }
}

fn finish(w: &mut World, ino: Ino, version: u64, attempt: &Attempt) {
    let files = vec![ArchiveFinish {
        ino,
        version,
        attempt: attempt.number,
        key: attempt.key.clone(),
        size: attempt.size,
        crc: 1,
    }];
    w.system(FinishArchive { files }).unwrap();
    w.check();
}

/// Archives the current version and returns the object's key.
fn archive(w: &mut World, ino: Ino) -> String {
    let version = w.attr(ino).version;
    let attempt = start(w, ino, version).unwrap();
    w.check();
    finish(w, ino, version, &attempt);
    attempt.key
}

fn release(w: &mut World, ino: Ino) -> (u64, u64) {
    let version = w.attr(ino).version;
    let files = vec![(ino, version)];
    let answer = w.system(Release { files });
    w.check();
    match answer {
        Ok(ReleasedFiles { files, bytes }) => (files, bytes),
        other => panic!("{other:?}"),
    }
}

fn state(w: &World, ino: Ino) -> ArchiveState {
    w.attr(ino).archive
}

#[test]
fn a_file_is_due_ten_minutes_after_its_last_content_change() {
    let mut w = World::new();
    let a = w.file("a");
    let id = w.write(a, 0, 10);
    let at = w.now_ms + 600_000;
    let set = SetAttr {
        mode: Some(0o600),
        ..SetAttr::default()
    };
    w.op(SetAttrs { ino: a, set }).unwrap();
    w.rename((Ino::ROOT, "a"), (Ino::ROOT, "b")).unwrap();
    assert_eq!(due(&w, at - 1), []);
    let files = due(&w, at);
    assert_eq!(
        (files[0].ino, files[0].size, files[0].chunk),
        (a, 10, Some(id))
    );
    assert_eq!((w.counters().due_files, w.counters().due_bytes), (1, 10));
    w.check();
}

#[test]
fn the_cycle_from_local_to_released_and_dirty() {
    let mut w = World::new();
    let a = w.file("a b");
    w.write(a, 0, 100);
    w.write(a, 100, 50);
    assert_eq!(state(&w, a), ArchiveState::Local);
    let version = w.attr(a).version;
    let attempt = start(&mut w, a, version).unwrap();
    assert_eq!(attempt.size, 150);
    let end = format!("/1/{}-{version}-{}/a%20b", a.0, attempt.number);
    assert!(attempt.key.starts_with("pre/"), "{}", attempt.key);
    assert!(attempt.key.ends_with(&end), "{}", attempt.key);
    assert_eq!(state(&w, a), ArchiveState::Archiving);
    assert_eq!(due(&w, u64::MAX), []);
    assert_eq!(start(&mut w, a, version), None);
    finish(&mut w, a, version, &attempt);
    assert_eq!(state(&w, a), ArchiveState::Archived);
    assert_eq!(w.counters().archived_files, 1);
    assert_eq!(release(&mut w, a), (1, 150));
    assert_eq!(state(&w, a), ArchiveState::Released);
    let extents = w.extents(a);
    assert_eq!(extents.len(), 1);
    let content = Content::Object { version, offset: 0 };
    assert_eq!((extents[0].len, &extents[0].content), (150, &content));
    assert_eq!((1..=3).map(|n| w.reaped(n).len()).sum::<usize>(), 4);
    w.write(a, 50, 10);
    assert_eq!(state(&w, a), ArchiveState::Dirty);
    assert_eq!(w.extents(a).len(), 3);
    assert_eq!(due(&w, u64::MAX).len(), 1);
    w.check();
}

#[test]
fn the_next_version_replaces_the_object_and_its_extents() {
    let mut w = World::new();
    let a = w.file("a");
    w.write(a, 0, 100);
    let first = archive(&mut w, a);
    release(&mut w, a);
    w.write(a, 20, 10);
    let second = archive(&mut w, a);
    assert_ne!(first, second);
    assert_eq!(w.reaped_objects(), [first]);
    let version = w.attr(a).version;
    let named: Vec<_> = w
        .extents(a)
        .into_iter()
        .filter(|e| matches!(e.content, Content::Object { version: v, offset } if v == version && offset == e.offset))
        .collect();
    assert_eq!(named.len(), 2);
    assert_eq!(release(&mut w, a), (1, 10));
    assert_eq!(w.extents(a).len(), 1);
}

#[test]
fn an_upload_that_was_overtaken_loses() {
    let mut w = World::new();
    let a = w.file("a");
    w.write(a, 0, 100);
    let version = w.attr(a).version;
    let attempt = start(&mut w, a, version).unwrap();
    w.write(a, 0, 10);
    assert_eq!(state(&w, a), ArchiveState::Local);
    w.check();
    let next = start(&mut w, a, version + 1).unwrap();
    finish(&mut w, a, version, &attempt);
    assert_eq!(w.reaped_objects(), std::slice::from_ref(&attempt.key));
    assert_eq!(state(&w, a), ArchiveState::Archiving);
    finish(&mut w, a, version, &attempt);
    finish(&mut w, a, version + 1, &next);
    assert_eq!(state(&w, a), ArchiveState::Archived);
    assert_eq!(w.reaped_objects().len(), 1);
    let rows = w.query(ObjectReap {
        now_ms: START_MS,
        limit: 9,
    });
    assert_eq!(rows, Ok(vec![]));
}

#[test]
fn a_failed_upload_is_due_again_and_its_key_is_deleted() {
    let mut w = World::new();
    let a = w.file("a");
    let version = w.attr(a).version;
    let attempt = start(&mut w, a, version).unwrap();
    let files = vec![ArchiveFail {
        ino: a,
        version,
        attempt: attempt.number,
        key: attempt.key.clone(),
        retry_at: Time::from_millis(77_000_000),
    }];
    let op = FailArchive { files };
    w.system(op.clone()).unwrap();
    w.system(op).unwrap();
    w.check();
    assert_eq!(w.counters().failed_files, 1);
    assert_eq!(w.counters().attempts, 0);
    assert_eq!(due(&w, 77_000_000 - 1), []);
    assert_eq!(due(&w, 77_000_000).len(), 1);
    assert_eq!(w.reaped_objects(), [attempt.key]);
    w.system(ArchiveNow { inos: vec![a] }).unwrap();
    assert_eq!(due(&w, w.now_ms).len(), 1);
    let ObjectRows(rows) = object_rows(&w);
    w.system(ObjectsDeleted { rows }).unwrap();
    assert_eq!(w.counters().reap_objects, 0);
    archive(&mut w, a);
    assert_eq!(w.counters().failed_files, 0);
}

struct ObjectRows(Vec<u64>);

fn object_rows(w: &World) -> ObjectRows {
    let q = ObjectReap {
        now_ms: u64::MAX,
        limit: 100,
    };
    match w.query(q) {
        Ok(rows) => ObjectRows(rows.iter().map(|r| r.0).collect()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_empty_file_is_archived_and_has_nothing_to_release() {
    let mut w = World::new();
    let a = w.file("a");
    archive(&mut w, a);
    assert_eq!(state(&w, a), ArchiveState::Archived);
    assert_eq!(release(&mut w, a), (0, 0));
}

#[test]
fn releasable_files_are_listed_until_released_or_changed() {
    let mut w = World::new();
    let files: Vec<Ino> = (0..3)
        .map(|i| {
            let ino = w.file(&format!("f{i}"));
            w.write(ino, 0, 10 + i);
            archive(&mut w, ino);
            ino
        })
        .collect();
    let listed = |w: &World| -> Vec<(Ino, u64)> {
        let q = Releasable {
            from: (0, Ino(0)),
            limit: 10,
        };
        match w.query(q) {
            Ok(rows) => rows.iter().map(|r| (r.ino, r.bytes)).collect(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(listed(&w), [(files[0], 10), (files[1], 11), (files[2], 12)]);
    release(&mut w, files[0]);
    w.write(files[1], 0, 1);
    assert_eq!(listed(&w), [(files[2], 12)]);
    w.unlink(Ino::ROOT, "f2").unwrap();
    assert_eq!(listed(&w), []);
    w.check();
}

#[test]
fn release_of_another_version_is_skipped() {
    let mut w = World::new();
    let a = w.file("a");
    w.write(a, 0, 10);
    let version = w.attr(a).version;
    archive(&mut w, a);
    w.write(a, 0, 10);
    let files = vec![(a, version), (a, version + 1), (Ino(99), 1)];
    let answer = w.system(Release { files });
    assert_eq!(answer, Ok(ReleasedFiles { files: 0, bytes: 0 }));
    w.check();
}

#[test]
fn truncate_and_punch_cut_object_extents() {
    let mut w = World::new();
    let a = w.file("a");
    w.write(a, 0, 100);
    archive(&mut w, a);
    release(&mut w, a);
    let hole = lagan_types::extent::Edit {
        offset: 10,
        len: 20,
        content: None,
    };
    w.op(World::commit_of(a, vec![hole])).unwrap();
    let set = SetAttr {
        size: Some(50),
        ..SetAttr::default()
    };
    w.op(SetAttrs { ino: a, set }).unwrap();
    let shape: Vec<_> = w.extents(a).iter().map(|e| (e.offset, e.len)).collect();
    assert_eq!(shape, [(0, 10), (30, 20)]);
    w.check();
}

#[test]
fn reaped_orphans_give_up_their_objects_and_late_uploads_lose() {
    let mut w = World::new();
    let a = w.file("a");
    w.write(a, 0, 10);
    let first = archive(&mut w, a);
    w.write(a, 0, 20);
    let version = w.attr(a).version;
    let attempt = start(&mut w, a, version).unwrap();
    w.unlink(Ino::ROOT, "a").unwrap();
    w.check();
    w.system(ReapOrphans { inos: vec![a] }).unwrap();
    w.check();
    finish(&mut w, a, version, &attempt);
    assert_eq!(w.reaped_objects(), [first, attempt.key]);
    assert_eq!(w.counters().attempts, 0);
}

#[test]
fn lost_chunks_read_as_lost_unless_the_object_has_them() {
    let mut w = World::new();
    let (a, b) = (w.file("a"), w.file("b"));
    let (lost, kept) = (w.write(a, 0, 10), w.write(b, 0, 10));
    archive(&mut w, b);
    for (ino, chunk) in [(a, lost), (b, kept), (a, kept)] {
        w.system(MarkLost {
            ino,
            offset: 0,
            chunk,
        })
        .unwrap();
    }
    w.check();
    assert_eq!(w.extents(a)[0].content, Content::Lost);
    assert!(matches!(w.extents(b)[0].content, Content::Object { .. }));
    assert_eq!(w.counters().lost_extents, 1);
    w.write(a, 0, 10);
    assert_eq!(w.counters().lost_extents, 0);
    w.check();
}

#[test]
fn extent_without_replicas_turns_to_the_object_of_its_version_or_stays() {
    let mut w = World::new();
    let (a, b) = (w.file("a"), w.file("b"));
    let (first, second) = (w.write(a, 0, 10), w.write(a, 10, 10));
    let local = w.write(b, 0, 10);
    archive(&mut w, a);
    let version = w.attr(a).version;
    let turn = |w: &mut World, ino, version, offset, chunk| {
        let answer = w.system(ReleaseExtent {
            ino,
            version,
            offset,
            chunk,
        });
        w.check();
        match answer {
            Ok(ReleasedFiles { files, bytes }) => (files, bytes),
            other => panic!("{other:?}"),
        }
    };
    // Another version, another chunk, a file that is not archived.
    assert_eq!(turn(&mut w, a, version - 1, 0, first), (0, 0));
    assert_eq!(turn(&mut w, a, version, 0, second), (0, 0));
    let of_b = w.attr(b).version;
    assert_eq!(turn(&mut w, b, of_b, 0, local), (0, 0));
    assert!(matches!(w.extents(b)[0].content, Content::Chunk { .. }));

    assert_eq!(turn(&mut w, a, version, 10, second), (1, 10));
    let content = |w: &World, n: usize| w.extents(a)[n].content.clone();
    assert!(matches!(content(&w, 0), Content::Chunk { id, .. } if id == first));
    let object = Content::Object {
        version,
        offset: 10,
    };
    assert_eq!(content(&w, 1), object);
    assert_eq!(turn(&mut w, a, version, 10, second), (0, 0));

    // After a change the object is of an older version: nothing is given up.
    w.write(a, 30, 10);
    let version = w.attr(a).version;
    assert_eq!(turn(&mut w, a, version, 0, first), (0, 0));
    assert!(matches!(content(&w, 0), Content::Chunk { id, .. } if id == first));
}

#[test]
fn nothing_is_uploaded_without_an_archive() {
    let mut w = World::new();
    let a = w.file("a");
    let mut config = super::world::config(2);
    config.archive = None;
    w.system(SetConfig { config }).unwrap();
    let version = w.attr(a).version;
    assert_eq!(start(&mut w, a, version), None);
}

#[test]
fn attempts_are_listed_from_a_number_on() {
    let mut w = World::new();
    let (a, b) = (w.file("a"), w.file("b"));
    let first = start(&mut w, a, 1).unwrap();
    let second = start(&mut w, b, 1).unwrap();
    let from = first.number + 1;
    match w.query(Attempts { from, limit: 10 }) {
        Ok(rows) => {
            assert_eq!(rows.len(), 1);
            assert_eq!((rows[0].number, rows[0].ino), (second.number, b));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn shorter_wait_counts_for_files_that_wait_already() {
    let mut w = World::new();
    let a = w.file("a");
    w.write(a, 0, 10);
    let changed_ms = w.now_ms;
    assert_eq!(due(&w, changed_ms + 599_999), []);
    let mut config = w.map().config;
    config.archive_after_ms = 1_000;
    w.system(SetConfig { config }).unwrap();
    assert_eq!(due(&w, changed_ms + 999), []);
    let files = due(&w, changed_ms + 1_000);
    assert_eq!((files[0].ino, files[0].due_ms), (a, changed_ms + 1_000));
    let counters = w.counters();
    assert_eq!(counters.oldest_due_ms, changed_ms + 1_000);
    assert_eq!(counters.oldest_change_ms, changed_ms);
    w.check();
}

#[test]
fn file_that_is_on_its_way_for_long_is_the_oldest() {
    let mut w = World::new();
    let a = w.file("a");
    w.write(a, 0, 10);
    let (changed_ms, version) = (w.now_ms, w.attr(a).version);
    start(&mut w, a, version).unwrap();
    w.now_ms += 60_000;
    let b = w.file("b");
    w.write(b, 0, 10);
    assert_eq!(w.counters().oldest_change_ms, changed_ms);
    // A file that was changed meanwhile waits anew.
    w.write(a, 0, 20);
    assert!(w.counters().oldest_change_ms >= changed_ms + 60_000);
    w.check();
}

#[test]
fn longer_wait_does_not_hold_back_what_was_asked_for_or_failed() {
    let mut w = World::new();
    let (a, b) = (w.file("a"), w.file("b"));
    w.write(a, 0, 10);
    w.write(b, 0, 10);
    w.system(ArchiveNow { inos: vec![a] }).unwrap();
    let version = w.attr(a).version;
    let attempt = start(&mut w, a, version).unwrap();
    let retry_ms = w.now_ms + 50;
    let files = vec![ArchiveFail {
        ino: a,
        version,
        attempt: attempt.number,
        key: attempt.key,
        retry_at: Time::from_millis(retry_ms),
    }];
    w.system(FailArchive { files }).unwrap();
    let mut config = w.map().config;
    config.archive_after_ms = 86_400_000;
    w.system(SetConfig { config }).unwrap();
    let files: Vec<Ino> = due(&w, retry_ms).iter().map(|f| f.ino).collect();
    assert_eq!(files, [a]);
    let files: Vec<Ino> = due(&w, u64::MAX).iter().map(|f| f.ino).collect();
    assert_eq!(files, [a, b]);
    w.check();
}

#[test]
fn file_that_s3_cannot_take_waits_for_a_change_and_is_counted() {
    let mut w = World::new();
    let a = w.file("a");
    w.write(a, 0, 10);
    let size = |size| {
        let set = SetAttr {
            size: Some(size),
            ..SetAttr::default()
        };
        SetAttrs { ino: a, set }
    };
    for (len, too_large) in [
        (64 << 30, false),
        (11 + (64 << 30), true),
        ((5 << 40) + 1, true),
        (1 << 20, false),
        (1 << 61, true),
    ] {
        w.op(size(len)).unwrap();
        w.check();
        let counters = w.counters();
        assert_eq!(counters.too_large_files, u64::from(too_large), "{len}");
        assert_eq!(counters.due_files, u64::from(!too_large), "{len}");
        assert_eq!(due(&w, u64::MAX).is_empty(), too_large, "{len}");
        assert_eq!(w.attr(a).unfit_for_s3().is_some(), too_large, "{len}");
    }
    let named = w.query(TooLarge { limit: 9 });
    assert_eq!(named, Ok(vec![a]));
    let version = w.attr(a).version;
    assert_eq!(start(&mut w, a, version), None);
    w.op(size(10)).unwrap();
    archive(&mut w, a);
    assert_eq!(state(&w, a), ArchiveState::Archived);
}

#[test]
fn nothing_is_released_without_an_archive() {
    let mut w = World::new();
    let a = w.file("a");
    w.write(a, 0, 10);
    archive(&mut w, a);
    let before = w.map().config;
    let mut config = before.clone();
    config.archive = None;
    w.system(SetConfig { config }).unwrap();
    assert_eq!(release(&mut w, a), (0, 0));
    assert_eq!(state(&w, a), ArchiveState::Archived);
    w.system(SetConfig { config: before }).unwrap();
    assert_eq!(release(&mut w, a), (1, 10));
}

#[test]
fn attributes_of_several_inodes_come_in_one_answer() {
    let mut w = World::new();
    let (a, b) = (w.file("a"), w.file("b"));
    let inos = vec![b, Ino(999), a];
    let Ok(attrs) = w.query(GetAttrs { inos }) else {
        panic!("no attributes");
    };
    let found: Vec<Option<Ino>> = attrs.iter().map(|x| x.as_ref().map(|x| x.ino)).collect();
    assert_eq!(found, [Some(b), None, Some(a)]);
    let inos = vec![a; lagan_types::limits::ATTRS_PAGE_MAX + 1];
    assert!(w.query(GetAttrs { inos }).is_err());
}

#[test]
fn objects_are_listed_in_pages_and_those_to_delete_before_their_time() {
    let mut w = World::new();
    let mut named = Vec::new();
    for name in ["a", "b", "c"] {
        let ino = w.file(name);
        w.write(ino, 0, 10);
        named.push((ino, archive(&mut w, ino)));
    }
    let (mut found, mut from) = (Vec::new(), Some((Ino(0), 0)));
    while let Some(at) = from {
        let query = Objects { from: at, limit: 2 };
        let Ok(ObjectsPage { objects, next }) = w.query(query) else {
            panic!("no objects");
        };
        assert!(objects.len() <= 2);
        found.extend(objects.into_iter().map(|(ino, object)| (ino, object.key)));
        from = next;
    }
    assert_eq!(found, named);

    let to_delete = |w: &World, from| match w.query(ObjectsToDelete { from, limit: 9 }) {
        Ok(rows) => rows,
        other => panic!("{other:?}"),
    };
    assert_eq!(to_delete(&w, 0), []);
    w.unlink(Ino::ROOT, "b").unwrap();
    let inos = vec![named[1].0];
    w.system(ReapOrphans { inos }).unwrap();
    let rows = to_delete(&w, 0);
    let keys: Vec<_> = rows.iter().map(|(_, key)| key.clone()).collect();
    assert_eq!(keys, [named[1].1.clone()]);
    assert_eq!(to_delete(&w, rows[0].0 + 1), []);
}
