use super::world::{World, bytes};
use bytes::Bytes;
use lagan_object::{Body, ErrorKind, ObjectMeta, ObjectStore};
use lagan_testing::memory::Fault;
use lagan_types::message::ObjectHealth;
use lagan_types::query::Object;
use std::sync::Arc;

async fn put(world: &World, key: &str, data: &[u8]) {
    let body = Body::from(Bytes::copy_from_slice(data));
    let (meta, crc) = (ObjectMeta::default(), crc32fast::hash(data));
    world.s3.put(key, body, &meta, Some(crc)).await.unwrap();
}

/// Three archived files.
async fn archived(world: &Arc<World>) -> Vec<Object> {
    let mut objects = Vec::new();
    for (i, name) in ["a", "b", "c"].into_iter().enumerate() {
        let ino = world.file(name, &bytes(1000 + i, i as u32));
        world.skip_archive_time();
        objects.push(world.archived(ino).await);
    }
    objects
}

#[tokio::test]
async fn objects_are_compared_with_what_the_metadata_says() {
    let world = World::new();
    let running = world.start();
    let mut objects = archived(&world).await;
    let healthy = vec![ObjectHealth::Healthy; 3];
    assert_eq!(running.mover.check_objects(objects.clone()).await, healthy);

    world.s3.delete(&[objects[0].key.clone()]).await.unwrap();
    put(&world, &objects[1].key, b"short").await;
    // as long as it was, with other bytes
    put(&world, &objects[2].key, &bytes(1002, 77)).await;
    objects.swap(0, 2);
    let found = running.mover.check_objects(objects.clone()).await;
    let [
        ObjectHealth::Differs { size: 1002, crc },
        ObjectHealth::Differs { size: 5, .. },
        ObjectHealth::Missing,
    ] = &found[..]
    else {
        panic!("{found:?}");
    };
    assert_eq!(*crc, Some(crc32fast::hash(&bytes(1002, 77))));
    // nobody thinks now that the endpoint is in trouble
    assert_eq!(running.mover.health().error, "");
}

#[tokio::test]
async fn object_that_cannot_be_asked_for_is_not_called_missing() {
    let world = World::new();
    let running = world.start();
    let objects = archived(&world).await;
    world
        .s3
        .fault_always(Some(Fault::Fail(ErrorKind::Transient)));
    for health in running.mover.check_objects(objects).await {
        assert!(matches!(health, ObjectHealth::Unknown(_)), "{health:?}");
    }
    assert!(running.mover.list_objects(None, 10).await.is_err());
    world.s3.fault_always(None);
}

#[tokio::test]
async fn only_objects_of_this_life_of_the_cluster_are_listed() {
    let world = World::new();
    let running = world.start();
    let mut keys: Vec<_> = archived(&world).await.into_iter().map(|o| o.key).collect();
    keys.sort();
    for foreign in ["pre/0123/1/5-1-1", "other/x", "x"] {
        put(&world, foreign, b"x").await;
    }
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let (page, last) = running.mover.list_objects(after, 2).await.unwrap();
        after = page.last().map(|(key, _)| key.clone());
        found.extend(page);
        if last {
            break;
        }
    }
    assert_eq!(found.iter().map(|(_, len)| len).sum::<u64>(), 3003);
    assert_eq!(
        found.into_iter().map(|(key, _)| key).collect::<Vec<_>>(),
        keys
    );
}
