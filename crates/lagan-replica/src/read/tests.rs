use super::*;
use crate::tests::{chunk_of, cluster, set_of};
use lagan_chunk::Store;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

/// Bytes of the chunks that the nodes put.
const LEN: u32 = 3000;

/// Reads until peers that had no time for an answer have one.
async fn eventually(work: &Work, id: ChunkId, offset: u32, len: u32) -> Bytes {
    let end = tokio::time::Instant::now() + Duration::from_secs(60);
    loop {
        match read(work, id, offset, len).await {
            Ok(bytes) => return bytes,
            Err(e) => assert!(tokio::time::Instant::now() < end, "{e}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Flips a byte of each record of 3,000 bytes `byte` in the store's files.
fn damage(dir: &Path, byte: u8) {
    let mut flipped = 0;
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
                continue;
            }
            let content = std::fs::read(&path).unwrap();
            let run = vec![byte; LEN as usize];
            if let Some(at) = content.windows(run.len()).position(|w| w == run) {
                let file = std::fs::File::options().write(true).open(&path).unwrap();
                file.write_all_at(&[!byte], at as u64 + 100).unwrap();
                flipped += 1;
            }
        }
    }
    assert!(flipped > 0, "the bytes are in no file");
}

fn verify_fails(store: &Store, id: ChunkId) -> bool {
    store.verify(id).is_err()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn range_is_read_here_and_else_from_another_member() {
    let (state, nodes) = cluster(2);
    nodes.iter().for_each(|node| node.map.put(state.map()));
    let set = set_of(&state.map(), [1, 2]);
    let (here, there, nowhere) = (chunk_of(set, 1), chunk_of(set, 2), chunk_of(set, 3));
    nodes[0].put(here);
    nodes[1].put(there);
    let work = nodes[0].parts(&state);
    assert_eq!(read(&work, here, 7, 20).await, Ok(vec![1; 20].into()));
    assert_eq!(eventually(&work, there, 7, 20).await, vec![2; 20]);
    let short = ReadError::Short {
        got: LEN as usize,
        expected: LEN as usize + 1,
    };
    assert_eq!(read(&work, there, 1, LEN).await, Err(short));
    let gone = read(&work, nowhere, 0, 1).await;
    assert_eq!(gone, Err(ReadError::Gone(nowhere)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damaged_copy_here_is_not_served() {
    let (state, nodes) = cluster(2);
    nodes.iter().for_each(|node| node.map.put(state.map()));
    let id = chunk_of(set_of(&state.map(), [1, 2]), 9);
    nodes.iter().for_each(|node| node.put(id));
    damage(nodes[0].dir(), 9);
    assert!(verify_fails(&nodes[0].store, id));
    let work = nodes[0].parts(&state);
    assert_eq!(eventually(&work, id, 90, 20).await, vec![9; 20]);
    // The other member alone is asked now, and has it damaged, too.
    damage(nodes[1].dir(), 9);
    let refused = loop {
        match fetch_from(&work.peers, &[NodeId(2)], id, None).await {
            Err(NoCopy::NoAnswer { .. }) => tokio::time::sleep(Duration::from_millis(20)).await,
            other => break other,
        }
    };
    let Err(NoCopy::Damaged { node, .. }) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!(node, NodeId(2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copy_with_other_content_is_none() {
    let (state, nodes) = cluster(2);
    nodes.iter().for_each(|node| node.map.put(state.map()));
    let id = chunk_of(set_of(&state.map(), [1, 2]), 4);
    nodes[1].put(id);
    let right = (LEN, crc32fast::hash(&vec![4; LEN as usize]));
    let peers = &nodes[0].parts(&state).peers;
    let ask = async |content| loop {
        match fetch_from(peers, &[NodeId(2)], id, Some(content)).await {
            Err(NoCopy::NoAnswer { .. }) => tokio::time::sleep(Duration::from_millis(20)).await,
            other => break other,
        }
    };
    let data = ask(right).await.expect("a copy").data;
    assert_eq!((data.len() as u32, crc32fast::hash(&data)), right);
    let other = ask((LEN, right.1 ^ 1)).await;
    assert!(matches!(other, Err(NoCopy::Damaged { .. })), "{other:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_asked_who_is_down_and_silence_outweighs_the_rest() {
    let (state, nodes) = cluster(2);
    let set = set_of(&state.map(), [1, 2]);
    let id = chunk_of(set, 1);
    nodes[1].put(id);
    let down = lagan_types::op::SetNodeState {
        node: NodeId(2),
        state: lagan_types::cluster::NodeState::Down,
    };
    state
        .apply(lagan_types::SessionId::SYSTEM, 0, down)
        .unwrap();
    nodes[0].map.put(state.map());
    let work = nodes[0].parts(&state);
    let nowhere = read(&work, id, 0, 1).await;
    assert_eq!(nowhere, Err(ReadError::Nowhere(id)));

    let reason = |weight| match weight {
        0 => NoCopy::Absent,
        1 => NoCopy::Damaged {
            node: NodeId(1),
            why: "bad".into(),
        },
        _ => NoCopy::NoAnswer {
            node: NodeId(2),
            why: "silent".into(),
        },
    };
    for (first, second, kept) in [(0, 1, 1), (1, 0, 1), (2, 1, 2), (1, 2, 2), (2, 0, 2)] {
        let mut problem = reason(first);
        problem.worsen(reason(second));
        assert_eq!(problem, reason(kept));
    }
}
