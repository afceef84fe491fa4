use super::*;
use lagan_types::attr::ArchiveState;
use lagan_types::query::Opened;
use lagan_types::{Attr, BlockId, Ino, Kind, SetId, Time, VolumeId};
use parking_lot::Mutex;
use std::collections::HashMap;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

fn id(n: u16) -> ChunkId {
    ChunkId::new(VolumeId::ONLY, SetId(1), BlockId(1), n)
}

fn opened(chunks: &[(u16, u32)]) -> Opened {
    let time = Time::default();
    let extents = chunks.iter().enumerate().map(|(n, (chunk, len))| Extent {
        offset: n as u64 * 4096,
        len: 4096,
        content: Content::Chunk {
            id: id(*chunk),
            skip: 0,
            chunk_len: *len,
            chunk_crc: 0,
        },
    });
    Opened {
        attr: Attr {
            ino: Ino(2),
            kind: Kind::File,
            mode: 0o644,
            uid: 0,
            gid: 0,
            nlink: 1,
            size: 4096,
            allocated: 4096,
            rdev: 0,
            atime: time,
            mtime: time,
            ctime: time,
            btime: time,
            version: 1,
            archive: ArchiveState::Local,
        },
        extents: extents.collect(),
        more: false,
    }
}

fn one(chunks: &[(u16, u32)]) -> Result<QueryAnswer, Refusal> {
    Ok(QueryAnswer::Opened(opened(chunks)))
}

/// Some chunks in memory, and a disk that has these, and then gives nothing more.
struct Node {
    memory: HashMap<ChunkId, Bytes>,
    disk: Vec<ChunkId>,
    /// Keeps the disk from ending.
    busy: Mutex<Vec<UnboundedSender<(ChunkId, Bytes)>>>,
}

impl ChunksHere for Node {
    fn has(&self, id: ChunkId) -> bool {
        id.set() == SetId(1)
    }

    fn read_now(&self, id: ChunkId, _: u32) -> Option<Bytes> {
        self.memory.get(&id).cloned()
    }

    fn read(&self, wanted: Vec<(ChunkId, u32)>, _: Instant) -> UnboundedReceiver<(ChunkId, Bytes)> {
        let (send, receive) = unbounded_channel();
        for (id, len) in wanted {
            if self.disk.contains(&id) {
                let _ = send.send((id, Bytes::from(vec![0; len as usize])));
            }
        }
        self.busy.lock().push(send);
        receive
    }
}

fn of(answer: &Result<QueryAnswer, Refusal>, limit: u32) -> Vec<(ChunkId, u32)> {
    wanted(answer, limit, |id| id.set() == SetId(1))
}

#[test]
fn small_files_are_wanted_whole_and_each_chunk_once() {
    let limit = ALONG_LEN_MAX;
    assert_eq!(
        of(&one(&[(1, 10), (1, 10), (2, 5)]), limit),
        [(id(1), 10), (id(2), 5)]
    );
    assert_eq!(of(&one(&[(1, 60_000), (2, 6_000)]), limit), []);
    assert_eq!(of(&one(&[(1, 10)]), 0), []);
    let many: Vec<(u16, u32)> = (0..=CHUNKS_MAX as u16).map(|n| (n, 10)).collect();
    assert_eq!(of(&one(&many), limit), []);
    let elsewhere = |_: ChunkId| false;
    assert_eq!(wanted(&one(&[(1, 10)]), limit, elsewhere), []);
    let mut more = opened(&[(1, 10)]);
    more.more = true;
    assert_eq!(of(&Ok(QueryAnswer::Opened(more)), limit), []);
}

#[test]
fn all_files_together_have_a_limit() {
    let file = |n| Some(opened(&[(n, 60_000)]));
    let all: Vec<Option<Opened>> = (0..50).map(|n| file(n).filter(|_| n != 3)).collect();
    let all = Ok(QueryAnswer::AllOpened(all));
    let some = of(&all, u32::MAX);
    assert_eq!(some.len() as u32, ALONG_ALL_LEN_MAX / 60_000);
    assert!(some.iter().all(|(chunk, _)| *chunk != id(3)));
    assert_eq!(of(&all, 130_000).len(), 2);
}

#[tokio::test]
async fn a_disk_that_does_not_answer_is_not_waited_for() {
    let node = Node {
        memory: HashMap::from([(id(1), Bytes::from_static(b"here"))]),
        disk: vec![id(2)],
        busy: Mutex::default(),
    };
    let mut read = StateRead::from(one(&[(1, 4), (2, 7), (3, 9)]));
    let missing = bring(&node, &mut read, ALONG_LEN_MAX);
    assert_eq!(missing, [(id(2), 7), (id(3), 9)]);
    wait(&node, &mut read, missing).await;
    let came: Vec<ChunkId> = read.chunks.iter().map(|(id, _)| *id).collect();
    assert_eq!(came, [id(1), id(2)]);
    assert_eq!(read.chunks[0].1, Data(Bytes::from_static(b"here")));
}
