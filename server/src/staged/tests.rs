use super::*;
use bytes::Bytes;
use lagan_chunk::Options;
use lagan_types::{BlockId, ChunkId, SetId, VolumeId};
use tempfile::TempDir;

fn chunk(index: u16, len: usize) -> InlineChunk {
    let data = Bytes::from(vec![index as u8; len]);
    InlineChunk {
        id: ChunkId::new(VolumeId::ONLY, SetId(1), BlockId(1), index),
        crc: lagan_types::chunk::block_crcs(&data)[0],
        data,
    }
}

struct Bench {
    staged: Staged,
    store: Arc<Store>,
    doubt: Arc<Doubt>,
    _dir: TempDir,
}

fn bench(capacity_bytes: Option<u64>) -> Bench {
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        segment_len: 1 << 20,
        prewrite: false,
        reserve_bytes: 2 << 20,
        capacity_bytes,
        ..Options::new(dir.path().join("chunks"))
    };
    let store = Store::open(options).unwrap();
    let doubt = Arc::new(Doubt::open(dir.path().join("doubt")));
    Bench {
        staged: Staged::new(NodeId(1), store.clone(), doubt.clone()),
        store,
        doubt,
        _dir: dir,
    }
}

impl Bench {
    fn readable(&self, chunk: &InlineChunk) -> bool {
        let range = self.store.read(chunk.id, 0, u32::MAX);
        range.is_ok_and(|range| range.data == chunk.data && range.crcs == [chunk.crc])
    }
}

#[tokio::test]
async fn chunk_is_readable_from_the_log_to_the_disk() {
    let bench = bench(None);
    let chunk = chunk(1, 5000);
    bench.staged.hold(7, vec![chunk.clone()]);
    assert!(bench.readable(&chunk) && !bench.store.contains(chunk.id).unwrap());
    bench.staged.stage(7, vec![chunk.clone()]);
    assert!(bench.readable(&chunk) && bench.store.contains(chunk.id).unwrap());
    assert_eq!(bench.staged.unsettled(), Some(7));
    bench.staged.settle().await;
    assert_eq!(bench.staged.unsettled(), None);
    assert_eq!(bench.store.staged_bytes(), 0);
    assert!(bench.readable(&chunk));
    // Once more, as a repeated command or a replay brings it.
    bench.staged.stage(9, vec![chunk.clone()]);
    bench.staged.settle().await;
    assert_eq!(
        (bench.staged.unsettled(), bench.store.staged_bytes()),
        (None, 0)
    );
}

#[tokio::test]
async fn void_and_refused_entries_leave_nothing() {
    let bench = bench(None);
    let chunks: Vec<InlineChunk> = (1..=4).map(|n| chunk(n, 100)).collect();
    for (index, chunk) in (1..).zip(&chunks) {
        bench.staged.hold(index, vec![chunk.clone()]);
    }
    bench.staged.cut(3);
    bench.staged.stage(1, Vec::new());
    let left: Vec<bool> = chunks.iter().map(|c| bench.readable(c)).collect();
    assert_eq!(left, [false, true, false, false]);
    // Another entry comes in the place of one that was cut off, twice.
    bench.staged.hold(3, vec![chunks[2].clone()]);
    bench.staged.hold(3, vec![chunks[3].clone()]);
    assert!(!bench.readable(&chunks[2]) && bench.readable(&chunks[3]));
    let foreign = chunks[1].id;
    bench.staged.stage_held(3, &|c| c.id != foreign);
    assert_eq!(bench.staged.unsettled(), Some(3));
    bench.staged.settle().await;
    assert!(!bench.store.contains(foreign).unwrap());
    assert!(bench.store.contains(chunks[3].id).unwrap());
    assert_eq!(bench.store.staged_bytes(), 0);
}

#[tokio::test]
async fn two_entries_with_one_chunk_are_both_settled() {
    let bench = bench(None);
    let chunk = chunk(1, 100);
    bench.staged.hold(1, vec![chunk.clone()]);
    bench.staged.hold(2, vec![chunk.clone()]);
    bench.staged.stage(1, vec![chunk.clone()]);
    bench.staged.stage(2, vec![chunk.clone()]);
    assert_eq!(bench.staged.unsettled(), Some(1));
    bench.staged.settle().await;
    assert_eq!(
        (bench.staged.unsettled(), bench.store.staged_bytes()),
        (None, 0)
    );
    assert!(bench.readable(&chunk));
}

#[tokio::test]
async fn what_a_full_store_does_not_take_stays_readable_and_is_stored_later() {
    let bench = bench(Some(6 << 20));
    let mut chunks = Vec::new();
    for index in 1.. {
        let chunk = chunk(index, 60_000);
        bench.staged.stage(u64::from(index), vec![chunk.clone()]);
        chunks.push(chunk);
        bench.staged.settle().await;
        if bench.staged.unsettled().is_some() {
            break;
        }
    }
    let last = chunks.pop().unwrap();
    assert!(chunks.len() > 32, "the half of the reserve too");
    for _ in 0..3 {
        tokio::time::sleep(TRY_EVERY).await;
        bench.staged.settle().await;
        assert!(bench.staged.unsettled().is_some() && bench.readable(&last));
    }
    let ids: Vec<ChunkId> = chunks.iter().map(|c| c.id).collect();
    assert_eq!(
        bench.store.delete(&ids).unwrap(),
        ids.len(),
        "the other half"
    );
    let settled = async {
        while bench.staged.unsettled().is_some() {
            tokio::time::sleep(TRY_EVERY / 4).await;
            bench.staged.settle().await;
        }
    };
    let settled = tokio::time::timeout(Duration::from_secs(30), settled).await;
    settled.expect("there is room again");
    assert!(bench.readable(&last) && bench.doubt.raised().is_none());
}

#[tokio::test]
async fn chunk_that_can_never_be_stored_is_given_up_with_a_mark() {
    let bench = bench(None);
    let good = chunk(1, 100);
    bench.staged.stage(1, vec![good.clone()]);
    bench.staged.settle().await;
    let mut other = chunk(2, 100);
    other.id = good.id;
    bench.staged.stage(2, vec![other]);
    bench.staged.settle().await;
    assert_eq!(bench.staged.unsettled(), None);
    assert!(bench.doubt.raised().is_some() && bench.readable(&good));
}

#[tokio::test]
async fn what_is_given_up_is_settled_and_may_come_to_disk_all_the_same() {
    let bench = bench(None);
    let (old, new) = (chunk(1, 100), chunk(2, 100));
    bench.staged.stage(1, vec![old.clone()]);
    bench.staged.stage(2, vec![new.clone()]);
    bench.staged.give_up(2);
    assert_eq!(bench.staged.unsettled(), Some(2));
    bench.staged.settle().await;
    assert_eq!(bench.staged.unsettled(), None);
    assert!(bench.readable(&old) && bench.readable(&new));
    assert_eq!(bench.store.staged_bytes(), 0);
}
