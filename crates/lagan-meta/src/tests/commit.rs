use super::world::World;
use lagan_types::answer::Committed;
use lagan_types::attr::Kind;
use lagan_types::cluster::NodeState;
use lagan_types::extent::{Content, Edit};
use lagan_types::limits::FILE_LEN_MAX;
use lagan_types::op::{
    CloseBlock, Commit, FileOp, Inline, ReapOrphans, RemoveXattr, SetAttr, SetAttrs, SetNodeState,
    SetTime, SetXattr,
};
use lagan_types::query::{ChunkReap, GetXattr, ListXattr};
use lagan_types::{ChunkId, FsError, Ino, NodeId, Refusal, Time, VolumeId};

fn shape(w: &World, ino: Ino) -> Vec<(u64, u64, u32)> {
    w.extents(ino)
        .into_iter()
        .map(|e| match e.content {
            Content::Chunk { skip, .. } => (e.offset, e.len, skip),
            other => panic!("{other:?}"),
        })
        .collect()
}

fn truncate(w: &mut World, ino: Ino, size: u64) {
    let set = SetAttr {
        size: Some(size),
        ..SetAttr::default()
    };
    w.op(SetAttrs { ino, set }).unwrap();
}

fn punch(offset: u64, len: u64) -> Edit {
    Edit {
        offset,
        len,
        content: None,
    }
}

#[test]
fn overwrite_in_the_middle_leaves_two_pieces_of_one_chunk() {
    let mut w = World::new();
    let a = w.file("a");
    let old = w.write(a, 0, 100);
    w.write(a, 40, 10);
    assert_eq!(shape(&w, a), [(0, 40, 0), (40, 10, 0), (50, 50, 50)]);
    assert_eq!(w.attr(a).allocated, 100);
    assert!(!w.reaped(1).contains(&old));
    w.check();
    w.write(a, 0, 40);
    assert!((1..=3).all(|n| !w.reaped(n).contains(&old)));
    truncate(&mut w, a, 45);
    let members = (1..=3).filter(|n| w.reaped(*n).contains(&old)).count();
    assert_eq!(members, 2);
    assert_eq!(shape(&w, a), [(0, 40, 0), (40, 5, 0)]);
    w.check();
}

#[test]
fn freed_chunks_wait_for_readers() {
    let mut w = World::new();
    let a = w.file("a");
    w.write(a, 0, 100);
    w.write(a, 0, 100);
    let freed_ms = w.now_ms;
    let ready = |w: &World, now_ms| {
        (1..=3)
            .map(|n| {
                let q = ChunkReap {
                    node: NodeId(n),
                    from: 0,
                    now_ms,
                    limit: 10,
                };
                w.query(q).unwrap().len()
            })
            .sum::<usize>()
    };
    assert_eq!(ready(&w, freed_ms + 4_999), 0);
    assert_eq!(ready(&w, freed_ms + 5_000), 2);
}

#[test]
fn rows_of_freed_chunks_are_read_page_by_page() {
    let mut w = World::new();
    let a = w.file("a");
    for _ in 0..=300 {
        w.write(a, 0, 100);
    }
    let page = |node, from| {
        let q = ChunkReap {
            node: NodeId(node),
            from,
            now_ms: u64::MAX,
            limit: u32::MAX,
        };
        w.query(q).unwrap()
    };
    let mut seen = 0;
    for node in 1..=3 {
        let mut from = 0;
        loop {
            let rows = page(node, from);
            let Some((last, _)) = rows.last() else { break };
            assert!(rows.len() <= 128 && rows[0].0 >= from);
            seen += rows.len();
            from = last + 1;
        }
    }
    assert_eq!(seen, 600, "two members have a row of each");
}

#[test]
fn version_rises_with_each_commit_and_guards_it() {
    let mut w = World::new();
    let a = w.file("a");
    let v = w.attr(a).version;
    w.write(a, 0, 10);
    assert_eq!(w.attr(a).version, v + 1);
    let edit = w.edit(10, 10);
    let mut commit = World::commit_of(a, vec![edit]);
    commit.expect_version = Some(v);
    let refused = w.op(commit.clone());
    assert_eq!(refused, Err(Refusal::VersionChanged));
    commit.expect_version = Some(v + 1);
    match w.op(commit) {
        Ok(Committed { before, attr, .. }) => {
            assert_eq!((before, attr.version, attr.size), (v + 1, v + 2, 20));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn append_lands_at_the_true_end() {
    let mut w = World::new();
    let a = w.file("a");
    w.write(a, 0, 10);
    let edits = vec![w.edit(0, 5), w.edit(5, 6)];
    let mut commit = World::commit_of(a, edits);
    commit.append = true;
    match w.op(commit) {
        Ok(Committed { appended_at, .. }) => assert_eq!(appended_at, 10),
        other => panic!("{other:?}"),
    }
    assert_eq!(shape(&w, a), [(0, 10, 0), (10, 5, 0), (15, 6, 0)]);
    w.check();
}

#[test]
fn holes_and_size_min_make_sparse_files() {
    let mut w = World::new();
    let a = w.file("a");
    w.write(a, 0, 100);
    let mut commit = World::commit_of(a, vec![punch(10, 20), punch(90, 500)]);
    commit.size_min = 1000;
    w.op(commit).unwrap();
    assert_eq!(shape(&w, a), [(0, 10, 0), (30, 60, 30)]);
    let attr = w.attr(a);
    assert_eq!((attr.size, attr.allocated), (1000, 70));
    truncate(&mut w, a, 5);
    truncate(&mut w, a, 2000);
    assert_eq!(shape(&w, a), [(0, 5, 0)]);
    w.check();
}

#[test]
fn chunks_of_foreign_or_used_ids_are_refused() {
    let mut w = World::new();
    let a = w.file("a");
    let good = w.edit(0, 10);
    let commit = |w: &mut World, change: &dyn Fn(&mut ChunkId)| {
        let mut edit = good.clone();
        change(&mut edit.content.as_mut().unwrap().id);
        w.op(World::commit_of(a, vec![edit]))
    };
    let (set, block) = (w.open_set().0, w.block);
    let with = |volume, block, index| ChunkId::new(VolumeId(volume), set, block, index);
    let invalid = Err(FsError::Invalid.into());
    assert_eq!(commit(&mut w, &|id| *id = with(2, block, 0)), invalid);
    assert_eq!(commit(&mut w, &|id| *id = with(1, block, 1024)), invalid);
    let other = lagan_types::BlockId(77);
    assert_eq!(commit(&mut w, &|id| *id = with(1, other, 0)), invalid);
    let thief = w.open_session(9, None);
    let edits = vec![good.clone()];
    let stolen = w.op_as(thief, World::commit_of(a, edits));
    assert_eq!(stolen, invalid);
    assert!(commit(&mut w, &|_| {}).is_ok());
    assert_eq!(commit(&mut w, &|_| {}), invalid);
    w.op(CloseBlock { block }).unwrap();
    assert_eq!(commit(&mut w, &|id| *id = with(1, block, 9)), invalid);
    w.check();
}

#[test]
fn stale_or_sealed_sets_refuse_the_whole_commit() {
    let mut w = World::new();
    let a = w.file("a");
    let edits = vec![w.edit(0, 10)];
    let set = w.open_set().0;
    let member = w.map().set(set).unwrap().nodes[0];
    let op = World::commit_of(a, edits);
    for state in [NodeState::Down, NodeState::Up] {
        w.system(SetNodeState {
            node: member,
            state,
        })
        .unwrap();
        assert_eq!(w.op(op.clone()), Err(Refusal::StaleEpoch));
    }
    assert_eq!(w.attr(a).size, 0);
    w.check();
}

#[test]
fn lengths_and_bounds_are_checked() {
    let mut w = World::new();
    let a = w.file("a");
    let mut check = |change: &dyn Fn(&mut Commit), wanted| {
        let mut commit = World::commit_of(a, vec![w.edit(0, 10), w.edit(10, 10)]);
        change(&mut commit);
        assert_eq!(w.op(commit), Err(wanted));
    };
    check(&|c| c.edits[0].len = 0, FsError::Invalid.into());
    check(&|c| c.edits[0].len = u64::MAX, FsError::FileTooLarge.into());
    check(&|c| c.edits[1].offset = 9, FsError::Invalid.into());
    check(
        &|c| c.edits[1].offset = FILE_LEN_MAX,
        FsError::FileTooLarge.into(),
    );
    check(
        &|c| c.edits[1].offset = u64::MAX,
        FsError::FileTooLarge.into(),
    );
    check(
        &|c| c.size_min = FILE_LEN_MAX + 1,
        FsError::FileTooLarge.into(),
    );
    check(
        &|c| c.edits[0].content.as_mut().unwrap().skip = 1,
        FsError::Invalid.into(),
    );
    check(
        &|c| c.edits[0].content.as_mut().unwrap().skip = u32::MAX,
        FsError::Invalid.into(),
    );
    check(
        &|c| c.edits[0].content.as_mut().unwrap().chunk_len = u32::MAX,
        FsError::Invalid.into(),
    );
    check(&|c| c.ino = Ino::ROOT, FsError::IsDirectory.into());
    check(&|c| c.ino = Ino(99), FsError::Stale.into());
    assert_eq!(w.attr(a).size, 0);
    w.check();
}

#[test]
fn same_chunk_twice_in_a_commit_is_refused() {
    let mut w = World::new();
    let a = w.file("a");
    let first = w.edit(0, 10);
    let mut second = first.clone();
    second.offset = 10;
    let commit = World::commit_of(a, vec![first, second]);
    assert_eq!(w.op(commit), Err(FsError::Invalid.into()));
}

#[test]
fn set_id_bits_go_with_new_owners_and_what_the_unprivileged_write() {
    let mut w = World::new();
    let a = w.file("a");
    let with_mode = |w: &mut World, mode| {
        let set = SetAttr {
            mode: Some(mode),
            ..SetAttr::default()
        };
        w.op(SetAttrs { ino: a, set }).unwrap();
    };
    with_mode(&mut w, 0o6775);
    let set = SetAttr {
        uid: Some(3),
        ..SetAttr::default()
    };
    w.op(SetAttrs { ino: a, set }).unwrap();
    assert_eq!((w.attr(a).mode, w.attr(a).uid), (0o775, 3));
    with_mode(&mut w, 0o6764);
    truncate(&mut w, a, 4);
    assert_eq!(w.attr(a).mode, 0o6764);
    let set = SetAttr {
        size: Some(5),
        kill_suid: true,
        ..SetAttr::default()
    };
    w.op(SetAttrs { ino: a, set }).unwrap();
    assert_eq!(w.attr(a).mode, 0o2764);
    with_mode(&mut w, 0o4755);
    let mut commit = World::commit_of(a, vec![w.edit(0, 1)]);
    commit.kill_suid = true;
    w.op(commit).unwrap();
    assert_eq!(w.attr(a).mode, 0o755);
    with_mode(&mut w, 0o177_777);
    assert_eq!(w.attr(a).mode, 0o7777);
}

#[test]
fn times_are_set_as_asked() {
    let mut w = World::new();
    let a = w.file("a");
    let old = Time { secs: -5, nanos: 7 };
    let set = SetAttr {
        atime: Some(SetTime::Now),
        mtime: Some(SetTime::At(old)),
        ..SetAttr::default()
    };
    let before = w.attr(a);
    w.op(SetAttrs { ino: a, set }).unwrap();
    let after = w.attr(a);
    assert_eq!(after.mtime, old);
    assert!(after.atime > before.atime && after.ctime > before.ctime);
    assert_eq!(after.version, before.version);
    let mtime = Some(SetTime::At(Time {
        secs: 0,
        nanos: 1_000_000_000,
    }));
    let set = SetAttr {
        mtime,
        ..SetAttr::default()
    };
    assert_eq!(w.op(SetAttrs { ino: a, set }), Err(FsError::Invalid.into()));
}

#[test]
fn only_files_have_a_size_to_set() {
    let mut w = World::new();
    let fifo = w.create(Ino::ROOT, "p", Kind::Fifo);
    let mut try_size = |ino, size| {
        let set = SetAttr {
            size: Some(size),
            ..SetAttr::default()
        };
        w.op(SetAttrs { ino, set })
    };
    assert_eq!(try_size(Ino::ROOT, 0), Err(FsError::IsDirectory.into()));
    assert_eq!(try_size(fifo, 0), Err(FsError::Invalid.into()));
    let a = w.file("a");
    let set = SetAttr {
        size: Some(FILE_LEN_MAX + 1),
        ..SetAttr::default()
    };
    assert_eq!(
        w.op(SetAttrs { ino: a, set }),
        Err(FsError::FileTooLarge.into())
    );
}

#[test]
fn xattrs_are_set_listed_and_removed() {
    use lagan_types::op::XattrMode;
    let mut w = World::new();
    let a = w.file("a");
    let mut set = |name: &[u8], value: &[u8], mode| {
        w.op(SetXattr {
            ino: a,
            name: name.to_vec(),
            value: value.to_vec(),
            mode,
        })
    };
    assert_eq!(
        set(b"user.x", b"1", XattrMode::Replace),
        Err(FsError::NoAttribute.into())
    );
    assert_eq!(set(b"user.x", b"1", XattrMode::Create), Ok(()));
    assert_eq!(
        set(b"user.x", b"2", XattrMode::Create),
        Err(FsError::Exists.into())
    );
    assert_eq!(set(b"user.x", b"3", XattrMode::Any), Ok(()));
    assert_eq!(set(b"user.y", b"", XattrMode::Any), Ok(()));
    assert_eq!(set(b"", b"", XattrMode::Any), Err(FsError::Range.into()));
    let big = vec![0; 65_537];
    assert_eq!(
        set(b"user.z", &big, XattrMode::Any),
        Err(FsError::TooBig.into())
    );
    let name = b"user.x".to_vec();
    let got = w.query(GetXattr {
        ino: a,
        name: name.clone(),
    });
    assert_eq!(got, Ok(b"3".to_vec()));
    w.check();
    w.op(RemoveXattr {
        ino: a,
        name: name.clone(),
    })
    .unwrap();
    let again = w.op(RemoveXattr { ino: a, name });
    assert_eq!(again, Err(FsError::NoAttribute.into()));
    let names = w.query(ListXattr { ino: a });
    assert_eq!(names, Ok(vec![b"user.y".to_vec()]));
    w.unlink(Ino::ROOT, "a").unwrap();
    w.system(ReapOrphans { inos: vec![a] }).unwrap();
    w.check();
}

#[test]
fn truncating_a_file_of_many_extents_frees_each_chunk_once() {
    let mut w = World::new();
    let a = w.file("a");
    for i in 0..1000 {
        w.write(a, i * 10, 10);
    }
    truncate(&mut w, a, 15);
    assert_eq!(shape(&w, a), [(0, 10, 0), (10, 5, 0)]);
    let freed: Vec<_> = (1..=3).flat_map(|n| w.reaped(n)).collect();
    assert_eq!(freed.len(), 2 * 998);
    w.check();
}

#[test]
fn bytes_that_the_leader_refused_change_nothing_but_keep_an_earlier_answer() {
    let mut w = World::new();
    let a = w.file("a");
    let (before, version) = (w.extents(a), w.attr(a).version);
    let edits = vec![w.edit(0, 10)];
    let refused = Commit {
        inline: Inline::Refused,
        ..World::commit_of(a, edits.clone())
    };
    let session = w.session;
    let first = w.command(session, refused.clone());
    assert_eq!(w.apply(&first), Err(Refusal::NotInline));
    assert_eq!((w.extents(a), w.attr(a).version), (before, version));
    // Sent with its bytes and carried out, then sent again and refused.
    let mut done = w.command(session, World::commit_of(a, edits));
    let answer = w.apply(&done);
    assert!(answer.is_ok());
    done.op = FileOp::from(refused).into();
    assert_eq!(w.apply(&done), answer);
    w.check();
}
