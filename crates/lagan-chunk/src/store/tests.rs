use super::*;
use lagan_types::chunk::block_crcs;
use lagan_types::{BlockId, VolumeId};
use tempfile::TempDir;

pub(crate) fn options(dir: &TempDir) -> Options {
    Options {
        segment_len: 256 * 1024,
        prewrite: false,
        reserve_bytes: 0,
        index_cache_bytes: 4 << 20,
        ..Options::new(dir.path())
    }
}

fn id(n: u64) -> ChunkId {
    ChunkId::new(
        VolumeId::ONLY,
        SetId(n as u32 % 3),
        BlockId(n / 1000),
        (n % 1000) as u16,
    )
}

/// Bytes that differ for each chunk and length.
fn content(n: u64, len: usize) -> Bytes {
    let mut x = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ len as u64;
    let bytes = (0..len).map(|_| {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x as u8
    });
    bytes.collect::<Vec<_>>().into()
}

fn put(store: &Store, n: u64, len: usize) {
    let data = content(n, len);
    let crcs = block_crcs(&data);
    store.write_blocking(id(n), data, &crcs).expect("written");
}

fn check_whole(store: &Store, n: u64, len: usize) {
    let got = store.read(id(n), 0, u32::MAX).expect("read");
    assert_eq!(got.data, content(n, len));
    assert_eq!(got.crcs, block_crcs(&got.data));
    assert_eq!((got.chunk_len, got.first_block), (len as u32, 0));
    store.verify(id(n)).expect("verified");
}

#[test]
fn written_chunk_is_read_back_before_and_after_reopening() {
    let dir = TempDir::new().unwrap();
    let lens = [1, 100, 65_535, 65_536, 65_537, 150_000];
    let store = Store::open(options(&dir)).unwrap();
    for (n, len) in lens.iter().enumerate() {
        put(&store, n as u64, *len);
        check_whole(&store, n as u64, *len);
    }
    drop(store);
    for clean in [false, true] {
        let store = Store::open(options(&dir)).unwrap();
        for (n, len) in lens.iter().enumerate() {
            check_whole(&store, n as u64, *len);
        }
        assert_eq!(store.usage().chunks, lens.len() as u64);
        assert_eq!(store.damage(), []);
        if clean {
            store.close().unwrap();
        }
    }
    let store = Store::open(options(&dir)).unwrap();
    check_whole(&store, 3, 65_536);
    assert_eq!(store.set_counts().values().sum::<u64>(), lens.len() as u64);
}

#[test]
fn read_returns_the_whole_blocks_that_cover_a_range() {
    let dir = TempDir::new().unwrap();
    let store = Store::open(options(&dir)).unwrap();
    put(&store, 1, 150_000);
    let data = content(1, 150_000);
    let got = store.read(id(1), 70_000, 10).unwrap();
    assert_eq!((got.first_block, got.crcs.len()), (1, 1));
    assert_eq!(got.data, data[65_536..131_072]);
    let got = store.read(id(1), 65_535, 2).unwrap();
    assert_eq!((got.first_block, got.crcs.len()), (0, 2));
    let got = store.read(id(1), 140_000, u32::MAX).unwrap();
    assert_eq!(got.data, data[131_072..]);
    assert!(store.read(id(1), 150_000, 1).unwrap().data.is_empty());
    assert!(matches!(
        store.read(id(2), 0, 1),
        Err(ChunkError::NotFound(_))
    ));
}

#[test]
fn same_chunk_again_is_accepted_and_another_one_refused() {
    let dir = TempDir::new().unwrap();
    let store = Store::open(options(&dir)).unwrap();
    put(&store, 1, 1000);
    put(&store, 1, 1000);
    let other = content(2, 1000);
    let result = store.write_blocking(id(1), other.clone(), &block_crcs(&other));
    assert!(matches!(result, Err(ChunkError::Conflict(_))));
    store.flush_index().unwrap();
    put(&store, 1, 1000);
    let result = store.write_blocking(id(1), other.clone(), &block_crcs(&other));
    assert!(matches!(result, Err(ChunkError::Conflict(_))));
    let result = store.write_blocking(id(3), other, &[7]);
    assert!(matches!(result, Err(ChunkError::WrongCrc(_))));
    assert_eq!(store.usage().chunks, 1);
}

#[test]
fn deleted_chunk_stays_deleted_even_when_the_index_is_made_again() {
    let dir = TempDir::new().unwrap();
    let store = Store::open(options(&dir)).unwrap();
    for n in 0..40 {
        put(&store, n, 20_000);
    }
    let gone: Vec<_> = (0..40).filter(|n| n % 2 == 0).map(id).collect();
    assert_eq!(store.delete(&gone).unwrap(), 20);
    assert_eq!(store.delete(&gone).unwrap(), 0);
    drop(store);
    for wipe in [false, true] {
        if wipe {
            std::fs::remove_dir_all(dir.path().join("index")).unwrap();
        }
        let store = Store::open(options(&dir)).unwrap();
        for n in 0..40 {
            assert_eq!(store.contains(id(n)).unwrap(), n % 2 == 1, "{n}");
        }
        assert_eq!(store.usage().chunks, 20);
        check_whole(&store, 1, 20_000);
    }
}

fn replace(store: &Store, n: u64, len: usize) -> bool {
    let data = content(n, len);
    let crcs = block_crcs(&data);
    store.replace(id(n), data, &crcs).expect("replaced")
}

#[test]
fn replaced_chunk_is_whole_at_once_and_one_that_is_not_here_stays_away() {
    let dir = TempDir::new().unwrap();
    let store = Store::open(options(&dir)).unwrap();
    for n in 0..3 {
        put(&store, n, 20_000);
    }
    let used = store.usage().used_bytes;
    rot(&dir, &content(1, 20_000));
    assert!(matches!(store.verify(id(1)), Err(ChunkError::Corrupt(_))));
    assert!(replace(&store, 1, 20_000));
    check_whole(&store, 1, 20_000);
    let usage = store.usage();
    assert_eq!((usage.chunks, usage.used_bytes), (3, used));
    store.delete(&[id(2)]).unwrap();
    assert!(!replace(&store, 2, 20_000));
    assert!(!replace(&store, 7, 20_000));
    drop(store);
    for wipe in [false, true] {
        if wipe {
            std::fs::remove_dir_all(dir.path().join("index")).unwrap();
        }
        let store = Store::open(options(&dir)).unwrap();
        check_whole(&store, 1, 20_000);
        assert!(!store.contains(id(2)).unwrap() && !store.contains(id(7)).unwrap());
    }
}

#[test]
fn deleted_chunk_that_was_replaced_before_stays_deleted() {
    let dir = TempDir::new().unwrap();
    let store = Store::open_with(options(&dir), false).unwrap();
    for n in 0..13 {
        put(&store, n, 20_000);
    }
    rot(&dir, &content(1, 20_000));
    assert!(replace(&store, 1, 20_000));
    // The segments with the newer record and with its delete die, and the entry
    // with them; the one with the old record is well alive.
    for n in 20..40 {
        put(&store, n, 20_000);
    }
    let mut gone: Vec<_> = (20..40).map(id).collect();
    gone.push(id(1));
    store.delete(&gone).unwrap();
    for n in 40..60 {
        put(&store, n, 20_000);
    }
    store.delete(&(40..60).map(id).collect::<Vec<_>>()).unwrap();
    for n in 60..70 {
        put(&store, n, 20_000);
    }
    while store.compact_once().unwrap() {}
    drop(store);
    std::fs::remove_dir_all(dir.path().join("index")).unwrap();
    let store = Store::open_with(options(&dir), false).unwrap();
    assert!(!store.contains(id(1)).unwrap());
    check_whole(&store, 2, 20_000);
}

#[test]
fn chunk_that_was_brought_back_outlives_a_carried_delete_of_its_old_record() {
    let dir = TempDir::new().unwrap();
    let store = Store::open_with(options(&dir), false).unwrap();
    // The old record's segment is full and stays; the next one, with the delete, is
    // compacted.
    for n in 0..12 {
        put(&store, n, 20_000);
    }
    put(&store, 12, 20_300);
    store.delete(&[id(1)]).unwrap();
    for n in 20..33 {
        put(&store, n, 20_000);
    }
    put(&store, 1, 20_000);
    for n in 40..66 {
        put(&store, n, 20_000);
    }
    let gone: Vec<_> = (20..33).map(id).collect();
    store.delete(&gone).unwrap();
    let carried = |store: &Store| {
        let state = store.inner.state.lock();
        let active = state.stats.last_key_value().unwrap();
        active.1.deletes.len()
    };
    assert_eq!(carried(&store), 1, "of the last delete");
    while store.compact_once().unwrap() {}
    assert_eq!(carried(&store), 1, "of the first");
    store.flush_index().unwrap();
    drop(store);
    for wipe in [false, true] {
        if wipe {
            std::fs::remove_dir_all(dir.path().join("index")).unwrap();
        }
        let store = Store::open_with(options(&dir), false).unwrap();
        check_whole(&store, 1, 20_000);
        assert!(!store.contains(id(20)).unwrap());
    }
}

/// Flips a bit of these bytes in the one segment that has them.
fn rot(dir: &TempDir, bytes: &[u8]) {
    use std::os::unix::fs::FileExt;
    let segments = std::fs::read_dir(dir.path().join("segments")).unwrap();
    let found = segments.filter_map(|entry| {
        let path = entry.unwrap().path();
        let content = std::fs::read(&path).unwrap();
        let at = content.windows(64).position(|w| *w == bytes[..64])?;
        Some((path, at))
    });
    let found: Vec<_> = found.collect();
    assert_eq!(found.len(), 1, "{found:?}");
    let file = std::fs::File::options()
        .write(true)
        .open(&found[0].0)
        .unwrap();
    file.write_all_at(&[bytes[0] ^ 4], found[0].1 as u64)
        .unwrap();
}

#[test]
fn list_is_in_order_and_by_set_over_memory_and_disk() {
    let dir = TempDir::new().unwrap();
    let store = Store::open(options(&dir)).unwrap();
    for n in 0..30 {
        put(&store, n, 10);
    }
    store.flush_index().unwrap();
    for n in 30..60 {
        put(&store, n, 10);
    }
    store.delete(&[id(0), id(31)]).unwrap();
    let mut all: Vec<_> = (0..60).filter(|n| ![0, 31].contains(n)).map(id).collect();
    all.sort();
    let ids = |set, after, limit| -> Vec<ChunkId> {
        let rows = store.list(set, after, limit).unwrap();
        rows.into_iter().map(|(id, _)| id).collect()
    };
    assert_eq!(ids(None, None, 100), all);
    assert_eq!(ids(None, Some(all[10]), 5), all[11..16]);
    let second: Vec<_> = all
        .iter()
        .copied()
        .filter(|i| i.set() == SetId(1))
        .collect();
    assert_eq!(ids(Some(SetId(1)), None, 100), second);
    assert_eq!(ids(Some(SetId(1)), Some(second[2]), 2), second[3..5]);
    assert_eq!(store.set_counts()[&SetId(1)], second.len() as u64);
}

#[test]
fn full_store_refuses_chunks_still_deletes_and_takes_chunks_again() {
    let dir = TempDir::new().unwrap();
    let options = Options {
        capacity_bytes: Some(2 << 20),
        ..options(&dir)
    };
    let store = Store::open(options).unwrap();
    let mut n = 0;
    let refused = loop {
        let data = content(n, 60_000);
        match store.write_blocking(id(n), data.clone(), &block_crcs(&data)) {
            Ok(()) => n += 1,
            Err(e) => break e,
        }
        assert!(n < 100);
    };
    assert!(matches!(refused, ChunkError::NoSpace), "{refused}");
    assert!(store.usage().full);
    assert!(!store.contains(id(n)).unwrap());
    check_whole(&store, 0, 60_000);
    let gone: Vec<_> = (0..n / 2).map(id).collect();
    assert_eq!(store.delete(&gone).unwrap(), gone.len());
    while store.compact_once().unwrap() {}
    assert!(!store.usage().full);
    put(&store, n + 1, 60_000);
    check_whole(&store, n - 1, 60_000);
    store.check().unwrap();
}

#[test]
fn full_store_gathers_what_is_dead_in_segments_that_mostly_live() {
    let dir = TempDir::new().unwrap();
    let options = Options {
        capacity_bytes: Some(4 << 20),
        ..options(&dir)
    };
    let store = Store::open(options).unwrap();
    let mut n = 0;
    loop {
        let data = content(n, 60_000);
        match store.write_blocking(id(n), data.clone(), &block_crcs(&data)) {
            Ok(()) => n += 1,
            Err(_) => break,
        }
        assert!(n < 200);
    }
    // Nothing to gain yet, and nobody asks again.
    assert!(!store.compact_once().unwrap());
    let gone: Vec<_> = (0..n).filter(|i| i % 3 == 0).map(id).collect();
    assert_eq!(store.delete(&gone).unwrap(), gone.len());
    while store.compact_once().unwrap() {}
    assert!(!store.usage().full, "{:?}", store.usage());
    put(&store, n + 1, 60_000);
    check_whole(&store, 1, 60_000);
}

#[test]
fn compaction_frees_segments_and_loses_nothing() {
    let dir = TempDir::new().unwrap();
    let store = Store::open_with(options(&dir), false).unwrap();
    for n in 0..100 {
        put(&store, n, 20_000);
    }
    let before = store.usage();
    let gone: Vec<_> = (0..100).filter(|n| n % 4 != 0).map(id).collect();
    store.delete(&gone).unwrap();
    while store.compact_once().unwrap() {}
    let after = store.usage();
    assert!(
        after.segments <= before.segments / 2,
        "{before:?} {after:?}"
    );
    drop(store);
    for wipe in [false, true] {
        if wipe {
            std::fs::remove_dir_all(dir.path().join("index")).unwrap();
        }
        let store = Store::open_with(options(&dir), false).unwrap();
        for n in 0..100 {
            assert_eq!(store.contains(id(n)).unwrap(), n % 4 == 0, "{n}");
        }
        for n in (0..100).step_by(4) {
            check_whole(&store, n, 20_000);
        }
        assert_eq!(store.usage().chunks, 25);
        assert_eq!(
            store.usage().used_bytes,
            25 * record::chunk_record_len(20_000)
        );
    }
}

#[test]
fn newer_format_is_refused() {
    let dir = TempDir::new().unwrap();
    drop(Store::open(options(&dir)).unwrap());
    std::fs::write(dir.path().join("FORMAT"), "lagan-chunk 2\n").unwrap();
    let error = Store::open(options(&dir)).err().expect("refused");
    assert!(error.to_string().contains("format 2"), "{error}");
}

#[test]
fn closed_store_refuses_writes_and_still_reads() {
    let dir = TempDir::new().unwrap();
    let store = Store::open(options(&dir)).unwrap();
    put(&store, 1, 10);
    store.close().unwrap();
    let data = content(2, 10);
    let result = store.write_blocking(id(2), data.clone(), &block_crcs(&data));
    assert!(matches!(result, Err(ChunkError::Closed)));
    check_whole(&store, 1, 10);
}

#[test]
fn prewritten_segments_are_used_and_reused() {
    let dir = TempDir::new().unwrap();
    let options = Options {
        prewrite: true,
        ..options(&dir)
    };
    let store = Store::open(options.clone()).unwrap();
    for round in 0..5 {
        for n in 0..20 {
            put(&store, round * 20 + n, 30_000);
        }
        let gone: Vec<_> = (0..20).map(|n| id(round * 20 + n)).collect();
        store.delete(&gone[..19]).unwrap();
        while store.compact_once().unwrap() {}
    }
    drop(store);
    let store = Store::open(options).unwrap();
    assert_eq!(store.usage().chunks, 5);
    for round in 0..5 {
        check_whole(&store, round * 20 + 19, 30_000);
    }
}

fn stage(store: &Store, n: u64, len: usize) -> mpsc::Receiver<Result<(), ChunkError>> {
    let data = content(n, len);
    let crc = crc32fast::hash(&data);
    let (sender, receiver) = mpsc::channel();
    store.stage(id(n), data, crc, Box::new(move |r| sender.send(r).unwrap()));
    receiver
}

#[test]
fn staged_chunk_is_there_for_every_call_before_it_is_on_disk() {
    let dir = TempDir::new().unwrap();
    let store = Store::open(options(&dir)).unwrap();
    put(&store, 1, 300);
    let done = stage(&store, 4, 1000);
    assert!(done.try_recv().is_err(), "it gathers with others");
    check_whole(&store, 4, 1000);
    assert!(store.read_now(id(4), 0, 10).is_some());
    let beyond = store.read(id(4), 1000, 1).unwrap();
    assert!(beyond.crcs.is_empty() && beyond.data.is_empty());
    assert!(store.contains(id(4)).unwrap());
    assert_eq!(store.chunk_len(id(4)).unwrap().map(|c| c.0), Some(1000));
    let all = store.list(None, None, 10).unwrap();
    assert_eq!(all, [(id(1), 300), (id(4), 1000)]);
    assert_eq!(store.list(None, None, 1).unwrap(), [(id(1), 300)]);
    assert_eq!(store.list(None, Some(id(1)), 9).unwrap(), [(id(4), 1000)]);
    // The same bytes by another way, and away with them.
    put(&store, 4, 1000);
    done.recv().unwrap().unwrap();
    let done = stage(&store, 7, 500);
    assert_eq!(store.delete(&[id(7), id(4)]).unwrap(), 2);
    done.recv().unwrap().unwrap();
    assert!(matches!(
        store.read(id(7), 0, 1),
        Err(ChunkError::NotFound(_))
    ));
    assert_eq!(store.staged_bytes(), 0);
}

#[test]
fn staged_chunks_are_on_disk_after_a_settle_or_a_close_and_may_be_lost_before() {
    let dir = TempDir::new().unwrap();
    let store = Store::open(options(&dir)).unwrap();
    let first = stage(&store, 1, 1000);
    let (sender, settled) = mpsc::channel();
    store.settle(Box::new(move |r| sender.send(r).unwrap()));
    settled.recv().unwrap().unwrap();
    assert!(
        first.try_recv().unwrap().is_ok(),
        "before the settle is answered"
    );
    stage(&store, 2, 1000);
    store.close().unwrap();
    let store = Store::open(options(&dir)).unwrap();
    check_whole(&store, 1, 1000);
    check_whole(&store, 2, 1000);
    store
        .replace(id(2), content(2, 1000), &block_crcs(&content(2, 1000)))
        .unwrap();
}

#[test]
fn held_chunk_is_read_and_nothing_else() {
    let dir = TempDir::new().unwrap();
    let store = Store::open(options(&dir)).unwrap();
    let data = content(1, 700);
    store.hold(id(1), data.clone(), crc32fast::hash(&data));
    check_whole(&store, 1, 700);
    assert!(!store.contains(id(1)).unwrap());
    assert_eq!(store.delete(&[id(1)]).unwrap(), 0);
    store.let_go(id(1));
    assert!(matches!(
        store.read(id(1), 0, 1),
        Err(ChunkError::NotFound(_))
    ));
    let long = content(2, 70_000);
    let done = {
        let (sender, receiver) = mpsc::channel();
        let done = Box::new(move |r| sender.send(r).unwrap());
        store.stage(id(2), long, 5, done);
        receiver
    };
    assert!(done.recv().unwrap().is_err(), "longer than a block");
    store.unstage(id(2));
    assert_eq!(store.staged_bytes(), 0);
}
