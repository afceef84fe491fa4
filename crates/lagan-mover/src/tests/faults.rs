use super::world::{CLUSTER, World, bytes, until};
use crate::S3Health;
use lagan_object::{Body, ErrorKind, ObjectStore, Owner, claim_owner, owner_key};
use lagan_testing::memory::{Fault, MemoryStore};
use lagan_types::Incarnation;
use lagan_types::attr::ArchiveState;
use std::sync::atomic::Ordering;
use std::time::Duration;

#[tokio::test]
async fn an_outage_delays_and_loses_nothing() {
    let world = World::new();
    world
        .s3
        .fault_always(Some(Fault::Fail(ErrorKind::Transient)));
    let first: Vec<_> = (0..30)
        .map(|i| world.file(&format!("a{i}"), &bytes(900, i)))
        .collect();
    world.skip_archive_time();
    let running = world.start();
    until("trouble is shown", || {
        !running.mover.health().error.is_empty()
    })
    .await;
    assert!(!running.mover.health().permanent);
    world.s3.fault_always(None);
    for ino in first {
        world.archived(ino).await;
    }
    world
        .s3
        .fault_always(Some(Fault::Fail(ErrorKind::Transient)));
    let second: Vec<_> = (0..30)
        .map(|i| world.file(&format!("b{i}"), &bytes(900, i)))
        .collect();
    world.skip_archive_time();
    until("trouble is shown", || {
        !running.mover.health().error.is_empty()
    })
    .await;
    let calls = world.s3.calls();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(world.s3.calls() - calls < 200, "probes are spaced");
    world.s3.fault_always(None);
    for ino in second {
        world.archived(ino).await;
    }
    until("health", || running.mover.health().error.is_empty()).await;
    world.skip_ms(3_600_000);
    until("remains deleted", || world.object_keys().len() == 60).await;
    world.check();
}

#[tokio::test]
async fn refused_credentials_are_shown_and_probed_until_they_work() {
    let world = World::new();
    let ino = world.file("f", &bytes(1000, 1));
    world.skip_archive_time();
    world
        .s3
        .fault_always(Some(Fault::Fail(ErrorKind::Permanent)));
    let running = world.start();
    until("permanent", || running.mover.health().permanent).await;
    assert_eq!(
        world.state(ino),
        ArchiveState::Local,
        "no attempt is recorded in vain"
    );
    world.s3.fault_always(None);
    world.archived(ino).await;
    until("health", || running.mover.health().error.is_empty()).await;
}

#[tokio::test]
async fn lost_answers_and_single_failures_end_in_one_right_object() {
    let world = World::new();
    let data = bytes(1000, 1);
    let running = world.start();
    until("ready", || world.s3.keys().contains(&owner_key("pre"))).await;
    let ino = world.file("f", &data);
    for fault in [
        Fault::LoseAnswer,
        Fault::Fail(ErrorKind::Transient),
        Fault::Corrupt,
    ] {
        world.s3.fault_next(fault);
    }
    world.skip_archive_time();
    let object = world.archived(ino).await;
    assert_eq!(world.s3.bytes(&object.key).unwrap(), data);
    world.skip_ms(3_600_000);
    until("others deleted", || {
        world.object_keys() == [object.key.clone()]
    })
    .await;
    running.stop().await;
    world.check();
}

#[tokio::test]
async fn a_corrupted_object_of_a_careless_endpoint_is_found() {
    let world = World::new();
    world.s3.accept_wrong_checksums(true);
    let running = world.start();
    let warm = world.file("warm", b"up");
    world.skip_archive_time();
    world.archived(warm).await;
    world.skip_ms(3_600_000);
    until("quiet", || world.counters().reap_objects == 0).await;
    let ino = world.file("f", &bytes(1000, 1));
    world.s3.fault_next(Fault::Corrupt);
    world.skip_archive_time();
    let object = world.archived(ino).await;
    assert_eq!(world.s3.bytes(&object.key).unwrap(), bytes(1000, 1));
    assert!(
        world.object_keys().len() >= 3,
        "the wrong one waits for its deletion"
    );
    running.stop().await;
}

#[tokio::test]
async fn a_prefix_of_another_cluster_is_left_alone() {
    let world = World::new();
    let other = Owner::new(Incarnation(5), CLUSTER);
    claim_owner(&*world.s3, "pre", other).await.unwrap();
    let ino = world.file("f", &bytes(1000, 1));
    world.skip_archive_time();
    let running = world.start();
    until("shown", || running.mover.health().permanent).await;
    assert!(running.mover.health().error.contains("another cluster"));
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(world.state(ino), ArchiveState::Local);
    assert!(world.object_keys().is_empty());
}

#[tokio::test]
async fn nothing_is_deleted_once_the_owner_is_another() {
    let world = World::new();
    let ino = world.file("f", &bytes(1000, 1));
    world.skip_archive_time();
    let running = world.start();
    let old = world.archived(ino).await;
    world.write(ino, 0, &bytes(1000, 2));
    world.skip_archive_time();
    until("archived again", || {
        world.object(ino).is_some_and(|o| o.key != old.key)
    })
    .await;
    let theirs = MemoryStore::new();
    claim_owner(&theirs, "pre", Owner::new(Incarnation(5), CLUSTER))
        .await
        .unwrap();
    let body = Body::from(theirs.bytes(&owner_key("pre")).unwrap());
    world
        .s3
        .put(&owner_key("pre"), body, &Default::default(), None)
        .await
        .unwrap();
    world.skip_ms(3_600_000);
    until("shown", || running.mover.health().permanent).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(world.s3.bytes(&old.key).is_some());
    assert_eq!(world.counters().reap_objects, 1);
}

#[tokio::test]
async fn uploads_wait_for_the_metadata_and_are_reported_then() {
    let world = World::new();
    let inos: Vec<_> = (0..10)
        .map(|i| world.file(&format!("{i}"), &bytes(900, i)))
        .collect();
    world.skip_archive_time();
    let permits = world.reads.forget_permits(usize::MAX);
    let _running = world.start();
    until("begun", || world.counters().attempts > 0).await;
    tokio::time::sleep(Duration::from_millis(30)).await;
    world.away.store(true, Ordering::Relaxed);
    world.reads.add_permits(permits);
    until("uploaded", || !world.object_keys().is_empty()).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    world.away.store(false, Ordering::Relaxed);
    for ino in inos {
        world.archived(ino).await;
    }
    world.check();
}

#[tokio::test]
async fn a_node_that_does_not_lead_waits_for_the_claim() {
    let world = World::new();
    world.leads.store(false, Ordering::Relaxed);
    let ino = world.file("f", &bytes(1000, 1));
    world.skip_archive_time();
    let running = world.start();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(world.s3.keys().is_empty());
    assert_eq!(running.mover.health().error, "");
    let ours = Owner::new(super::world::INCARNATION, CLUSTER);
    claim_owner(&*world.s3, "pre", ours).await.unwrap();
    world.archived(ino).await;
}

#[tokio::test]
async fn first_failure_is_shown_before_the_breaker_opens() {
    let world = World::new();
    let mut options = world.options();
    options.breaker.failures_max = 1000;
    let running = world.start_with(options);
    let ino = world.file("f", &bytes(1000, 1));
    world.skip_archive_time();
    world.archived(ino).await;
    let well = S3Health {
        ready: true,
        ..S3Health::default()
    };
    assert_eq!(running.mover.health(), well);
    world.release(ino);
    world.s3.fault_next(Fault::Fail(ErrorKind::Transient));
    let failed = running.mover.recall(ino, world.version(ino), 0, 1000).await;
    assert!(failed.is_err());
    let health = running.mover.health();
    assert!(!health.error.is_empty() && !health.permanent, "{health:?}");
    running.stop().await;
}

#[tokio::test]
async fn upload_that_panics_fails_its_file_and_no_other() {
    let world = World::new();
    let inos: Vec<_> = (0..20)
        .map(|i| world.file(&format!("{i}"), &bytes(900, i)))
        .collect();
    world.skip_archive_time();
    let mut options = world.options();
    // so that no duty takes the panics that are for uploads
    options.duty = Duration::from_secs(3600);
    world.panics.store(3, Ordering::Relaxed);
    let running = world.start_with(options);
    for ino in inos {
        world.archived(ino).await;
    }
    assert_eq!(world.panics.load(Ordering::Relaxed), 0);
    assert_eq!(running.mover.defect(), None);
    running.stop().await;
    assert_eq!(world.counters().attempts, 0);
    world.check();
}

#[tokio::test]
async fn panic_of_a_task_ends_the_mover_and_the_next_one_goes_on() {
    let world = World::new();
    let ino = world.file("f", &bytes(1000, 1));
    world.reads.forget_permits(100_000); // the upload waits
    let running = world.start();
    world.skip_archive_time();
    until("the upload waits", || world.counters().attempts == 1).await;
    world.panics.store(1, Ordering::Relaxed);
    until("the mover has ended", || running.mover.defect().is_some()).await;
    assert_eq!(running.mover.defect(), Some("duties"));
    running.stop().await;
    world.reads.add_permits(100_000);
    let next = world.start();
    world.archived(ino).await;
    assert_eq!(next.mover.defect(), None);
    next.stop().await;
    world.check();
}
