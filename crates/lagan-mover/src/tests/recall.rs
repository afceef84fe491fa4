use super::world::{Running, World, bytes};
use crate::RecallFailure;
use crate::crcs::META_NAME;
use bytes::Bytes;
use lagan_object::{Body, ErrorKind, ObjectStore};
use lagan_testing::memory::Fault;
use lagan_types::Ino;
use std::sync::Arc;

/// A released file of that length and its version.
async fn released(world: &Arc<World>, running: &Running, data: &[u8]) -> (Ino, u64) {
    let ino = world.file("f", data);
    world.skip_archive_time();
    let object = world.archived(ino).await;
    world.release(ino);
    running.mover.drop_cache();
    (ino, object.version)
}

#[tokio::test]
async fn a_released_file_comes_back_with_the_same_bytes() {
    let world = World::new();
    let running = world.start();
    let data = bytes(300_000, 1);
    let (ino, version) = released(&world, &running, &data).await;
    for (offset, len) in [(0, 300_000), (65_535, 2), (299_999, 1), (100_000, 70_000)] {
        let (back, crc) = running
            .mover
            .recall(ino, version, offset, len)
            .await
            .unwrap();
        let expect = &data[offset as usize..offset as usize + len as usize];
        assert_eq!((&back[..], crc), (expect, crc32fast::hash(expect)));
    }
    let outside = running
        .mover
        .recall(ino, version, 299_999, 2)
        .await
        .unwrap_err();
    assert_eq!(outside.failure, RecallFailure::Gone);
    let other = running
        .mover
        .recall(ino, version + 1, 0, 1)
        .await
        .unwrap_err();
    assert_eq!(other.failure, RecallFailure::Gone);
    let absent = running.mover.recall(Ino(999), 1, 0, 1).await.unwrap_err();
    assert_eq!(absent.failure, RecallFailure::Gone);
    assert!(running.mover.recall(ino, version, 0, 0).await.is_err());
}

#[tokio::test]
async fn ranges_of_a_large_file_are_verified_by_units() {
    let world = World::new();
    let running = world.start();
    let data = bytes(20 << 20, 1);
    let (ino, version) = released(&world, &running, &data).await;
    let key = world.object(ino).unwrap().key;
    assert!(world.s3.meta(&key).unwrap().user.contains_key(META_NAME));
    for offset in [(8usize << 20) - 1000, 17 << 20, 0] {
        let (back, _) = running
            .mover
            .recall(ino, version, offset as u64, 2000)
            .await
            .unwrap();
        assert_eq!(back, &data[offset..offset + 2000]);
    }
}

#[tokio::test]
async fn a_large_file_without_its_list_is_verified_whole() {
    let world = World::new();
    let running = world.start();
    let data = bytes(10 << 20, 1);
    let (ino, version) = released(&world, &running, &data).await;
    let key = world.object(ino).unwrap().key;
    let body = Body::from(Bytes::from(data.clone()));
    world
        .s3
        .put(&key, body, &Default::default(), None)
        .await
        .unwrap();
    let (back, _) = running
        .mover
        .recall(ino, version, 9 << 20, 1000)
        .await
        .unwrap();
    assert_eq!(back, &data[9 << 20..(9 << 20) + 1000]);
    let mut wrong = data;
    wrong[5] ^= 1;
    let body = Body::from(Bytes::from(wrong));
    world
        .s3
        .put(&key, body, &Default::default(), None)
        .await
        .unwrap();
    running.mover.drop_cache();
    let error = running
        .mover
        .recall(ino, version, 9 << 20, 1000)
        .await
        .unwrap_err();
    assert_eq!(error.failure, RecallFailure::Transient, "{error}");
}

#[tokio::test]
async fn wrong_bytes_are_never_served() {
    let world = World::new();
    let running = world.start();
    let data = bytes(5000, 1);
    let (ino, version) = released(&world, &running, &data).await;
    running.stop().await;
    // nothing else runs now, so that the faults hit the recall
    let running = world.start_without_duties().await;
    world.s3.fault_always(Some(Fault::Corrupt));
    let error = running
        .mover
        .recall(ino, version, 1000, 1000)
        .await
        .unwrap_err();
    assert_eq!(error.failure, RecallFailure::Transient, "{error}");
    world.s3.fault_always(None);
    world.s3.fault_next(Fault::Corrupt);
    let (back, _) = running
        .mover
        .recall(ino, version, 1000, 1000)
        .await
        .unwrap();
    assert_eq!(back, &data[1000..2000]);
}

#[tokio::test]
async fn many_readers_cause_one_fetch() {
    let world = World::new();
    let running = world.start();
    let data = bytes(100_000, 1);
    let (ino, version) = released(&world, &running, &data).await;
    running.stop().await;
    let running = world.start_without_duties().await;
    let before = world.s3.calls();
    let mut readers = tokio::task::JoinSet::new();
    for i in 0..50 {
        let mover = running.mover.clone();
        readers.spawn(async move { (i, mover.recall(ino, version, i * 1000, 1000).await) });
    }
    while let Some(read) = readers.join_next().await {
        let (i, result) = read.unwrap();
        let at = i as usize * 1000;
        assert_eq!(result.unwrap().0, &data[at..at + 1000]);
    }
    assert_eq!(world.s3.calls() - before, 1);
    running.mover.drop_cache();
    running.mover.recall(ino, version, 0, 10).await.unwrap();
    assert_eq!(world.s3.calls() - before, 2);
}

#[tokio::test]
async fn a_recall_while_s3_is_away_fails_and_works_later() {
    let world = World::new();
    let running = world.start();
    let data = bytes(5000, 1);
    let (ino, version) = released(&world, &running, &data).await;
    world
        .s3
        .fault_always(Some(Fault::Fail(ErrorKind::Transient)));
    for _ in 0..10 {
        let error = running
            .mover
            .recall(ino, version, 0, 5000)
            .await
            .unwrap_err();
        assert_eq!(error.failure, RecallFailure::Transient, "{error}");
    }
    world.s3.fault_always(None);
    for _ in 0..1000 {
        if let Ok((back, _)) = running.mover.recall(ino, version, 0, 5000).await {
            assert_eq!(back, data);
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    panic!("recall never worked again");
}

#[tokio::test]
async fn an_object_that_is_gone_is_an_error_that_does_not_pass() {
    let world = World::new();
    let running = world.start();
    let (ino, version) = released(&world, &running, &bytes(5000, 1)).await;
    world
        .s3
        .delete(&[world.object(ino).unwrap().key])
        .await
        .unwrap();
    let error = running
        .mover
        .recall(ino, version, 0, 5000)
        .await
        .unwrap_err();
    assert_eq!(error.failure, RecallFailure::Permanent, "{error}");
}
