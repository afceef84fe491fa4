use super::world::World;
use lagan_types::extent::{Content, Edit, Extent};
use lagan_types::op::Rewrite;
use lagan_types::{ChunkId, FsError, Ino, Refusal};

/// The file's extents within the range.
fn within(w: &World, ino: Ino, start: u64, end: u64) -> Vec<Extent> {
    let mut extents = w.extents(ino);
    extents.retain(|e| e.offset >= start && e.end() <= end);
    extents
}

fn rewrite(w: &mut World, ino: Ino, from: Vec<Extent>) -> Result<ChunkId, Refusal> {
    let len = from.iter().map(|e| e.len as u32).sum();
    let chunk = w.chunk(len);
    let id = chunk.id;
    let done = w.op(Rewrite { ino, from, chunk });
    w.check();
    done.map(|()| id)
}

fn is_reaped(w: &World, id: ChunkId) -> bool {
    (1..=3).any(|n| w.reaped(n).contains(&id))
}

#[test]
fn many_extents_become_one_and_nothing_else_changes() {
    let mut w = World::new();
    let a = w.file("a");
    let large = w.write(a, 0, 100);
    let small: Vec<ChunkId> = (3..6).map(|n| w.write(a, n * 10, 10)).collect();
    let before = w.attr(a);
    let from = within(&w, a, 30, 60);
    assert_eq!(from.len(), 3);
    let id = rewrite(&mut w, a, from).unwrap();
    assert_eq!(w.attr(a), before);
    let extents = w.extents(a);
    let lens: Vec<u64> = extents.iter().map(|e| e.len).collect();
    assert_eq!(lens, [30, 30, 40]);
    assert!(matches!(extents[1].content, Content::Chunk { id: i, skip: 0, .. } if i == id));
    assert!(small.iter().all(|id| is_reaped(&w, *id)) && !is_reaped(&w, large));
}

#[test]
fn a_range_that_changed_meanwhile_is_left_alone() {
    let mut w = World::new();
    let a = w.file("a");
    w.write(a, 0, 10);
    w.write(a, 10, 10);
    let from = w.extents(a);
    w.write(a, 15, 2);
    let extents = w.extents(a);
    let refused = rewrite(&mut w, a, from.clone());
    assert_eq!(refused, Err(Refusal::VersionChanged));
    assert_eq!(w.extents(a), extents);
    // A change elsewhere in the file does not count.
    let from = within(&w, a, 0, 20);
    w.write(a, 100, 10);
    rewrite(&mut w, a, from.clone()).unwrap();
    assert_eq!(rewrite(&mut w, a, from), Err(Refusal::VersionChanged));
}

#[test]
fn parts_of_one_chunk_may_be_told_as_one() {
    let mut w = World::new();
    let a = w.file("a");
    w.write(a, 0, 100);
    w.write(a, 100, 10);
    let mut from = w.extents(a);
    let mut head = from[0].clone();
    head.len = 40;
    let Content::Chunk { skip, .. } = &mut from[0].content else {
        panic!("no chunk");
    };
    *skip = 40;
    from[0].offset = 40;
    from[0].len = 60;
    from.insert(0, head);
    rewrite(&mut w, a, from).unwrap();
    assert_eq!(w.extents(a).len(), 1);
}

#[test]
fn gaps_objects_and_foreign_chunks_are_refused() {
    let mut w = World::new();
    let a = w.file("a");
    w.write(a, 0, 10);
    w.write(a, 20, 10);
    let from = w.extents(a);
    assert_eq!(
        rewrite(&mut w, a, from.clone()),
        Err(FsError::Invalid.into())
    );
    assert_eq!(rewrite(&mut w, a, vec![]), Err(FsError::Invalid.into()));
    let mut object = vec![from[0].clone()];
    object[0].content = Content::Object {
        version: 1,
        offset: 0,
    };
    assert_eq!(rewrite(&mut w, a, object), Err(FsError::Invalid.into()));
    // A chunk that was named before is refused.
    let chunk = w.chunk(10);
    let edit = Edit {
        offset: 50,
        len: 10,
        content: Some(chunk.clone()),
    };
    w.op(World::commit_of(a, vec![edit])).unwrap();
    let from = vec![from[0].clone()];
    let twice = Rewrite {
        ino: a,
        from,
        chunk,
    };
    assert_eq!(w.op(twice), Err(FsError::Invalid.into()));
    w.check();
}
