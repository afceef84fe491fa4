//! Commits whose bytes are not those of their chunks, over a connection of a mount.

use super::mount::Mount;
use super::*;
use lagan_types::chunk::{block_crcs, combine_crcs};
use lagan_types::cluster::ReplicaSet;
use lagan_types::extent::{ChunkRef, Edit};
use lagan_types::limits::INLINE_LEN_MAX;
use lagan_types::op::{Commit, FileOp, Inline};
use lagan_types::{Answer, ChunkId, Data, VolumeId};

/// A commit of one chunk to that set, which says that the chunk has these bytes, and brings
/// those.
fn commit(mount: &Mount, set: &ReplicaSet, says: &[u8], brings: &[u8]) -> FileOp {
    let len = says.len() as u32;
    let chunk = ChunkRef {
        id: ChunkId::new(VolumeId::ONLY, set.id, mount.block, 1),
        set_epoch: set.epoch,
        skip: 0,
        chunk_len: len,
        chunk_crc: combine_crcs(&block_crcs(says), len).expect("a CRC"),
    };
    let edit = Edit {
        offset: 0,
        len: len.into(),
        content: Some(chunk),
    };
    let commit = Commit {
        ino: mount.file,
        edits: vec![edit],
        append: false,
        size_min: 0,
        expect_version: None,
        kill_suid: false,
        mtime: None,
        inline: Inline::Data(Data(brings.to_vec().into())),
    };
    commit.into()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commit_with_bytes_that_do_not_fit_is_refused_before_the_log() {
    let dir = tempfile::tempdir().expect("temp dir");
    let config = Arc::new(config(&dir.path().join("data")));
    let node = node(&config);
    let doors = open_doors(&node, LONG).await.expect("doors");
    init(&node, wanted()).await.expect("init");
    let member = node.member.get().expect("a member").clone();
    let open_set = || {
        let map = member.map.get();
        map.sets.iter().find(|set| !set.sealed).cloned()
    };
    eventually("a set takes chunks", || open_set().is_some()).await;
    let set = open_set().expect("a set");
    let mount = Mount::open(config.listen, 1).await;
    let long = vec![5; INLINE_LEN_MAX + 1];
    let wrong: [(&str, &[u8], &[u8]); 5] = [
        ("another CRC", b"abc", b"abd"),
        ("too few", b"abc", b"ab"),
        ("too many", b"abc", b"abcd"),
        ("none", b"abc", b""),
        ("over the limit", &long, &long),
    ];
    for (what, says, brings) in wrong {
        let answer = mount.mutate(3, commit(&mount, &set, says, brings)).await;
        assert_eq!(answer, Err(Refusal::Malformed), "{what}");
    }
    // A refusal that came by the log would be the answer to this number for ever.
    let right = &long[1..];
    let answer = mount.mutate(3, commit(&mount, &set, right, right)).await;
    let Ok(Answer::Committed(committed)) = answer else {
        panic!("{answer:?}");
    };
    assert_eq!(committed.attr.size, right.len() as u64);
    assert_eq!(committed.attr.version, committed.before + 1, "the first");
    mount.pool.close();
    stop(node, doors).await;
}
