use super::world::{World, bytes, until};
use lagan_types::NodeId;
use lagan_types::attr::ArchiveState;
use lagan_types::op::{ArchiveStart, SetNodeState, StartArchive};
use std::sync::atomic::Ordering;
use std::time::Duration;

#[tokio::test]
async fn a_file_is_archived_when_its_time_has_come() {
    let world = World::new();
    let data = bytes(100_000, 1);
    let ino = world.file("1.eml", &data);
    let empty = world.create("empty");
    let running = world.start();
    until("ready", || running.mover.health().error.is_empty()).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(world.state(ino), ArchiveState::Local);
    world.skip_archive_time();
    let object = world.archived(ino).await;
    assert_eq!((object.size, object.crc), (100_000, crc32fast::hash(&data)));
    assert_eq!(world.s3.bytes(&object.key).unwrap(), data);
    assert!(object.key.starts_with("pre/") && object.key.contains(&format!("/{}-", ino.0)));
    let meta = world.s3.meta(&object.key).unwrap();
    assert_eq!(meta.content_type.as_deref(), Some("message/rfc822"));
    let object = world.archived(empty).await;
    assert_eq!(world.s3.bytes(&object.key).unwrap(), "");
    world.check();
}

#[tokio::test]
async fn hundreds_of_files_are_archived_once_each() {
    let world = World::new();
    let inos: Vec<_> = (0..300)
        .map(|i| world.file(&format!("{i}"), &bytes(500, i)))
        .collect();
    world.skip_archive_time();
    let running = world.start();
    for ino in inos {
        world.archived(ino).await;
    }
    assert_eq!(world.object_keys().len(), 300);
    assert_eq!(world.counters().attempts, 0);
    running.stop().await;
    world.check();
}

#[tokio::test]
async fn holes_and_overwritten_parts_are_archived_as_they_read() {
    let world = World::new();
    let ino = world.create("sparse");
    let mut expect = vec![0; 9 << 20];
    for (offset, len, seed) in [(10, 5000, 1), (6 << 20, 3 << 20, 2), (7 << 20, 4096, 3)] {
        let data = bytes(len, seed);
        world.write(ino, offset as u64, &data);
        expect[offset..offset + len].copy_from_slice(&data);
    }
    world.skip_archive_time();
    let _running = world.start();
    let object = world.archived(ino).await;
    assert!(world.s3.bytes(&object.key).unwrap() == expect);
}

#[tokio::test]
async fn an_overwritten_file_gets_a_new_object_and_the_old_one_goes() {
    let world = World::new();
    let ino = world.file("f", &bytes(1000, 1));
    world.skip_archive_time();
    let _running = world.start();
    let old = world.archived(ino).await;
    world.write(ino, 500, &bytes(1000, 2));
    assert_eq!(world.state(ino), ArchiveState::Dirty);
    world.skip_archive_time();
    let new = world.archived(ino).await;
    assert_ne!(old.key, new.key);
    assert_eq!(new.size, 1500);
    world.skip_ms(3_600_000);
    until("old object deleted", || {
        world.object_keys() == [new.key.clone()]
    })
    .await;
    until("row gone", || world.counters().reap_objects == 0).await;
    world.check();
}

#[tokio::test]
async fn a_partly_released_file_is_archived_again_with_all_its_bytes() {
    let world = World::new();
    let mut expect = bytes(200_000, 1);
    let ino = world.file("f", &expect);
    world.skip_archive_time();
    let running = world.start();
    world.archived(ino).await;
    world.release(ino);
    let change = bytes(1000, 9);
    world.write(ino, 50_000, &change);
    expect[50_000..51_000].copy_from_slice(&change);
    world.skip_archive_time();
    until("archived again", || {
        world
            .object(ino)
            .is_some_and(|o| o.version == world.version(ino))
    })
    .await;
    let object = world.object(ino).unwrap();
    assert!(world.s3.bytes(&object.key).unwrap() == expect);
    let (back, crc) = running
        .mover
        .recall(ino, object.version, 49_000, 3000)
        .await
        .unwrap();
    assert_eq!(back, &expect[49_000..52_000]);
    assert_eq!(crc, crc32fast::hash(&back));
    world.check();
}

#[tokio::test]
async fn a_file_that_changes_during_its_upload_is_not_archived_as_it_was() {
    let world = World::new();
    let ino = world.file("f", &bytes(1000, 1));
    world.skip_archive_time();
    let permits = world.reads.forget_permits(usize::MAX);
    let _running = world.start();
    until("upload begun", || {
        world.state(ino) == ArchiveState::Archiving
    })
    .await;
    tokio::time::sleep(Duration::from_millis(30)).await;
    let new = bytes(1200, 2);
    world.write(ino, 0, &new);
    world.reads.add_permits(permits);
    until("attempt ended", || world.counters().attempts == 0).await;
    assert_ne!(world.state(ino), ArchiveState::Archived);
    world.skip_archive_time();
    let object = world.archived(ino).await;
    assert_eq!(world.s3.bytes(&object.key).unwrap(), new);
    world.skip_ms(3_600_000);
    until("loser deleted", || {
        world.object_keys() == [object.key.clone()]
    })
    .await;
    world.check();
}

#[tokio::test]
async fn a_restart_in_the_middle_of_uploads_loses_none() {
    let world = World::new();
    let inos: Vec<_> = (0..20)
        .map(|i| world.file(&format!("{i}"), &bytes(5000, i)))
        .collect();
    world.skip_archive_time();
    let permits = world.reads.forget_permits(usize::MAX);
    let first = world.start();
    until("uploads begun", || world.counters().attempts > 0).await;
    first.stop().await;
    assert!(world.counters().attempts > 0);
    world.reads.add_permits(permits);
    let _second = world.start();
    for ino in inos {
        world.archived(ino).await;
    }
    until("no attempt left", || world.counters().attempts == 0).await;
    world.check();
}

#[tokio::test]
async fn jobs_whose_answer_was_lost_come_back() {
    let world = World::new();
    let ino = world.file("f", &bytes(1000, 1));
    world.skip_archive_time();
    world.lose_jobs.store(true, Ordering::Relaxed);
    let running = world.start();
    until("recorded", || world.state(ino) == ArchiveState::Archiving).await;
    running.stop().await;
    world.lose_jobs.store(false, Ordering::Relaxed);
    let active = crate::attempts::Active::default();
    let age = Duration::from_secs(120);
    assert_eq!(
        crate::attempts::fail_own(&*world, &active, age).await,
        Ok(0)
    );
    world.skip_ms(120_001);
    active.insert(u64::MAX);
    assert_eq!(
        crate::attempts::fail_own(&*world, &active, age).await,
        Ok(1)
    );
    let _running = world.start();
    world.archived(ino).await;
}

#[tokio::test]
async fn the_leader_takes_over_the_uploads_of_a_dead_node() {
    let world = World::new();
    let ino = world.file("f", &bytes(1000, 1));
    world.skip_archive_time();
    let version = world.version(ino);
    let files = vec![ArchiveStart {
        ino,
        version,
        node: NodeId(2),
    }];
    world.system(StartArchive { files }).unwrap();
    let mut options = world.options();
    options.down_node = Duration::from_millis(100);
    let _running = world.start_with(options);
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(
        world.state(ino),
        ArchiveState::Archiving,
        "node 2 is up and may be uploading"
    );
    let state = lagan_types::cluster::NodeState::Down;
    world
        .system(SetNodeState {
            node: NodeId(2),
            state,
        })
        .unwrap();
    world.archived(ino).await;
}
