//! Servers that are silent, full, lying or forgetful.

use crate::calls::{APPEND, RW, USER, bytes, close, get, new_file, put, write};
use crate::cluster::{Cluster, ROOT};
use crate::model::archive;
use bytes::Bytes;
use lagan_client::{Client, ConnectError, Invalidate};
use lagan_types::cluster::NodeState;
use lagan_types::op::EndSession;
use lagan_types::{ChunkId, FsError, Ino, NodeId};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// How long the work waited, without the time in which this process had no CPU: a test
/// has one thread, and a pause of it is one tick.
async fn awake_for(work: impl Future<Output = ()>) -> Duration {
    const TICK: Duration = Duration::from_millis(10);
    let mut ticker = tokio::time::interval(TICK);
    ticker.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    tokio::pin!(work);
    let mut ticks = 0;
    loop {
        tokio::select! {
            biased;
            () = &mut work => return TICK * ticks,
            _ = ticker.tick() => ticks += 1,
        }
    }
}

#[tokio::test]
async fn a_silent_server_delays_writes_and_reads_but_fails_none() {
    let cluster = Cluster::start(3, 2);
    let client = cluster.mount(1).await;
    let data = bytes(200_000, 1);
    let before = put(&client, "before", &data).await;
    cluster.world().silent.insert(NodeId(2));
    let took = awake_for(async {
        for i in 0..6 {
            let ino = put(&client, &format!("f{i}"), &data).await;
            assert!(get(&client, ino).await == data);
        }
        assert!(get(&client, before).await == data);
    });
    let took = took.await;
    assert!(took < Duration::from_secs(8), "{took:?}");
}

#[tokio::test]
async fn a_damaged_replica_is_reported_and_another_one_is_read() {
    let cluster = Cluster::start(2, 2);
    let client = cluster.mount(1).await;
    let data = bytes(200_000, 2);
    let ino = put(&client, "f", &data).await;
    let damaged = {
        let mut world = cluster.world();
        let (key, stored) = world
            .chunks
            .iter_mut()
            .find(|((node, _), _)| *node == NodeId(1))
            .unwrap();
        let mut bytes = stored.data.to_vec();
        bytes[100_000] ^= 1;
        stored.data = Bytes::from(bytes);
        *key
    };
    // The order of replicas alternates: some of these meet the damaged one.
    for instance in 2..6 {
        let other = cluster.mount(instance).await;
        assert!(get(&other, ino).await == data);
        assert!(get(&*cluster.mount(instance + 10).await, ino).await == data);
        let fh = other.open(ino, RW).await.unwrap().fh;
        for _ in 0..4 {
            other.read(fh, 70_000, 10).await.unwrap();
        }
        close(&other, fh).await.unwrap();
    }
    assert!(get(&client, ino).await == data);
    assert_eq!(first_report(&cluster).await, Some(damaged));
}

/// The first replica that was reported, within some time.
async fn first_report(cluster: &Cluster) -> Option<(NodeId, ChunkId)> {
    let reported = async || loop {
        if let Some(found) = cluster.world().reported_bad.first().copied() {
            break found;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    let reported = tokio::time::timeout(Duration::from_secs(10), reported()).await;
    reported.ok()
}

#[tokio::test]
async fn a_replica_that_one_server_lacks_is_reported_to_it() {
    let cluster = Cluster::start(2, 2);
    let client = cluster.mount(1).await;
    let data = bytes(100_000, 7);
    let ino = put(&client, "f", &data).await;
    let missing = {
        let mut world = cluster.world();
        let key = *world.chunks.keys().find(|k| k.0 == NodeId(1)).unwrap();
        world.chunks.remove(&key);
        key
    };
    for instance in 2..10 {
        let other = cluster.mount(instance).await;
        assert!(get(&other, ino).await == data);
    }
    assert_eq!(first_report(&cluster).await, Some(missing));
}

#[tokio::test]
async fn what_no_replica_has_is_read_from_the_object_of_that_version_only() {
    let cluster = Cluster::start(2, 2);
    let client = cluster.mount(1).await;
    let data = bytes(700_000, 8);
    let ino = put(&client, "f", &data).await;
    archive(&cluster, ino, &data).unwrap();
    cluster.world().chunks.clear();
    let reader = cluster.mount(2).await;
    assert!(get(&reader, ino).await == data);
    let fh = reader.open(ino, RW).await.unwrap().fh;
    assert_eq!(
        reader.read(fh, 300_000, 10).await.unwrap(),
        data[300_000..300_010]
    );
    close(&reader, fh).await.unwrap();
    assert!(first_report(&cluster).await.is_some());

    // What is damaged everywhere is read from there as well.
    let ino = put(&client, "g", &data).await;
    archive(&cluster, ino, &data).unwrap();
    for stored in cluster.world().chunks.values_mut() {
        stored.data = Bytes::from(vec![0; stored.data.len()]);
    }
    assert!(get(&*cluster.mount(3).await, ino).await == data);

    // An object of an older version is none of the new one.
    let fh = client.open(ino, RW).await.unwrap().fh;
    write(&client, fh, 0, b"new").await;
    close(&client, fh).await.unwrap();
    for stored in cluster.world().chunks.values_mut() {
        stored.data = Bytes::from(vec![0; stored.data.len()]);
    }
    let other = cluster.mount(4).await;
    let fh = other.open(ino, RW).await.unwrap().fh;
    assert_eq!(other.read(fh, 0, 1000).await.err(), Some(FsError::Corrupt));
}

/// Has the leader take those for down that are silent, and the mount know it.
async fn down(cluster: &Cluster, client: &Client, ino: Ino) {
    let holders: Vec<NodeId> = cluster.world().chunks.keys().map(|k| k.0).collect();
    for node in holders {
        cluster.world().node_state(node, NodeState::Down);
        cluster.world().silent.insert(node);
    }
    // Any change of the map reaches a mount with its next heartbeat.
    let fh = client.open(ino, RW).await.unwrap().fh;
    tokio::time::sleep(Duration::from_millis(2500)).await;
    close(client, fh).await.unwrap();
}

#[tokio::test]
async fn what_is_on_no_living_server_is_read_from_the_object_of_that_version() {
    let cluster = Cluster::start(3, 1);
    let client = cluster.mount(1).await;
    let data = bytes(2_500_000, 12);
    let ino = put(&client, "f", &data).await;
    archive(&cluster, ino, &data).unwrap();
    let reader = cluster.mount(2).await;
    down(&cluster, &reader, ino).await;
    assert!(get(&reader, ino).await == data);
    assert!(
        first_report_now(&cluster).is_none(),
        "nobody says that replicas are bad"
    );
}

fn first_report_now(cluster: &Cluster) -> Option<(NodeId, ChunkId)> {
    cluster.world().reported_bad.first().copied()
}

#[tokio::test]
async fn an_object_of_an_older_version_is_not_read_while_servers_are_down() {
    let cluster = Cluster::start(3, 1);
    let client = cluster.mount(1).await;
    let ino = put(&client, "f", &bytes(1000, 13)).await;
    archive(&cluster, ino, &bytes(1000, 13)).unwrap();
    let fh = client.open(ino, RW).await.unwrap().fh;
    write(&client, fh, 0, b"new").await;
    close(&client, fh).await.unwrap();
    let reader = cluster.mount_with(2, Duration::from_secs(4)).await;
    down(&cluster, &reader, ino).await;
    let fh = reader.open(ino, RW).await.unwrap().fh;
    assert_eq!(reader.read(fh, 0, 1000).await.err(), Some(FsError::Io));
    // They come back, and with them the bytes.
    cluster.world().silent.clear();
    let mut new = bytes(1000, 13);
    new[..3].copy_from_slice(b"new");
    assert_eq!(reader.read(fh, 0, 1000).await.unwrap(), new);
}

#[tokio::test]
async fn bytes_that_are_wrong_everywhere_are_an_error_and_never_read() {
    let cluster = Cluster::start(2, 2);
    let client = cluster.mount(1).await;
    let ino = put(&client, "f", &bytes(1000, 3)).await;
    for stored in cluster.world().chunks.values_mut() {
        stored.data = Bytes::from(vec![0; stored.data.len()]);
    }
    let fh = client.open(ino, RW).await.unwrap().fh;
    assert_eq!(client.read(fh, 0, 1000).await.err(), Some(FsError::Corrupt));
    cluster.world().chunks.clear();
    assert_eq!(client.read(fh, 0, 1000).await.err(), Some(FsError::Corrupt));
}

#[tokio::test]
async fn lost_answers_do_nothing_twice() {
    let cluster = Cluster::start(3, 2);
    let client = cluster.mount(1).await;
    let ino = put(&client, "log", b"").await;
    let fh = client.open(ino, APPEND).await.unwrap().fh;
    let mut want = Vec::new();
    for i in 0..5u8 {
        cluster.world().lost_answers = 2;
        write(&client, fh, 0, &[i; 100]).await;
        want.extend_from_slice(&[i; 100]);
        client.fsync(fh).await.unwrap();
        cluster.world().lost_answers = 1;
        let name = format!("f{i}");
        let made = client.make(ROOT, name.as_bytes(), new_file()).await;
        assert!(made.is_ok(), "{made:?}");
    }
    assert_eq!(get(&client, ino).await, want);
}

#[tokio::test]
async fn a_set_that_changes_between_write_and_commit_costs_a_rewrite_only() {
    let cluster = Cluster::start(3, 2);
    let client = cluster.mount(1).await;
    let data = bytes(5_000_000, 4);
    cluster.world().stale_commits = 2;
    let ino = put(&client, "f", &data).await;
    assert_eq!(cluster.world().stale_commits, 0);
    assert!(get(&client, ino).await == data);
    // For real: chunks are written, then their sets are sealed.
    let (attr, opened) = client
        .create(ROOT, b"g", new_file(), true, RW)
        .await
        .unwrap();
    write(&client, opened.fh, 0, &data).await;
    cluster.world().node_state(NodeId(3), NodeState::Down);
    cluster.world().silent.insert(NodeId(3));
    close(&client, opened.fh).await.unwrap();
    assert!(get(&client, attr.ino).await == data);
}

#[tokio::test]
async fn no_space_comes_from_close_once_and_leaves_the_file_as_it_was() {
    let cluster = Cluster::start(2, 2);
    let mut options = cluster.options(1);
    options.write_buffer_bytes = 16 << 20;
    let client = Client::connect(options).await.unwrap();
    let ino = put(&client, "f", b"content").await;
    cluster.world().full.insert(NodeId(1));
    let fh = client.open(ino, RW).await.unwrap().fh;
    write(&client, fh, 0, b"CONTENT").await;
    assert_eq!(client.flush(fh, 0).await, Err(FsError::NoSpace));
    assert_eq!(client.flush(fh, 0).await, Ok(()));
    client.release(fh, None).await;
    cluster.world().full.clear();
    assert_eq!(get(&client, ino).await, b"content");
    // Room was given back: the buffer can be filled again and again.
    put(&client, "large", &bytes(20 << 20, 5)).await;
}

#[tokio::test]
async fn write_says_no_space_at_once_when_the_map_does() {
    let cluster = Cluster::start(2, 2);
    let client = cluster.mount(1).await;
    let ino = put(&client, "f", b"content").await;
    cluster.world().full.insert(NodeId(1));
    cluster.world().node_state(NodeId(1), NodeState::Full);
    put_refused(&client, ino).await;
    assert_eq!(get(&client, ino).await, b"content");
    // Space again: the next write asks, whatever map the mount has.
    cluster.world().full.clear();
    cluster.world().node_state(NodeId(1), NodeState::Up);
    let fh = client.open(ino, RW).await.unwrap().fh;
    write(&client, fh, 0, b"CONTENT").await;
    close(&client, fh).await.unwrap();
    assert_eq!(get(&client, ino).await, b"CONTENT");
}

/// The first write may go into the buffer, by the old map; close has its error then.
async fn put_refused(client: &Arc<Client>, ino: Ino) {
    let fh = client.open(ino, RW).await.unwrap().fh;
    let data = Bytes::from_static(b"CONTENT");
    if client.write(USER, fh, 0, data.clone()).await.is_ok() {
        assert_eq!(client.flush(fh, 0).await, Err(FsError::NoSpace));
    }
    let again = client.write(USER, fh, 0, data).await;
    assert_eq!(again, Err(FsError::NoSpace));
    close(client, fh).await.unwrap();
}

#[tokio::test]
async fn too_few_servers_make_writes_wait_until_the_time_is_up() {
    let cluster = Cluster::start(2, 2);
    let client = cluster.mount_with(1, Duration::from_millis(1500)).await;
    let (_, opened) = client
        .create(ROOT, b"f", new_file(), true, RW)
        .await
        .unwrap();
    cluster.world().silent.extend([NodeId(1), NodeId(2)]);
    write(&client, opened.fh, 0, b"x").await;
    let start = Instant::now();
    assert_eq!(client.fsync(opened.fh).await, Err(FsError::Io));
    assert!(start.elapsed() >= Duration::from_millis(1400));
    cluster.world().silent.clear();
    write(&client, opened.fh, 0, b"y").await;
    client.fsync(opened.fh).await.unwrap();
}

#[tokio::test]
async fn a_session_that_was_ended_is_replaced_and_only_its_dirty_handles_fail() {
    let cluster = Cluster::start(2, 2);
    let client = cluster.mount(1).await;
    let clean = put(&client, "clean", b"clean").await;
    let dirty = put(&client, "dirty", b"dirty").await;
    let (fc, fd) = (
        client.open(clean, RW).await.unwrap().fh,
        client.open(dirty, RW).await.unwrap().fh,
    );
    write(&client, fd, 0, b"DIRTY").await;
    let old = client.session();
    cluster.world().system(EndSession { session: old });
    // Found by a heartbeat.
    while client.session() == old {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    put(&client, "next", b"next").await;
    assert_eq!(&client.read(fc, 0, 10).await.unwrap()[..], b"clean");
    write(&client, fc, 0, b"CLEAN").await;
    close(&client, fc).await.unwrap();
    assert_eq!(client.read(fd, 0, 10).await.err(), Some(FsError::Io));
    assert_eq!(client.flush(fd, 0).await, Err(FsError::Io));
    client.release(fd, None).await;
    assert_eq!(get(&client, dirty).await, b"dirty");
    assert_eq!(get(&client, clean).await, b"CLEAN");
}

#[tokio::test]
async fn connecting_says_what_is_wrong() {
    let cluster = Cluster::start(1, 1);
    let mut options = cluster.options(1);
    options.volume = "other".into();
    let refused = Client::connect(options.clone()).await.err();
    assert!(matches!(refused, Some(ConnectError::NoSuchVolume { .. })));
    options.servers = vec!["nonsense".into()];
    let refused = Client::connect(options.clone()).await.err();
    assert!(matches!(refused, Some(ConnectError::Address { .. })));
    let unused = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = unused.local_addr().unwrap();
    drop(unused);
    options.servers = vec![addr.to_string()];
    options.timeout = Duration::from_millis(300);
    let refused = Client::connect(options).await.err();
    assert!(matches!(refused, Some(ConnectError::NoAnswer { .. })));
}

#[tokio::test]
async fn a_chunk_that_moved_is_found_while_its_old_place_is_silent() {
    let cluster = Cluster::start(2, 2);
    let client = cluster.mount(1).await;
    let ino = put(&client, "f", &bytes(1000, 6)).await;
    let reader = client.open(ino, RW).await.unwrap().fh;
    // Another mount replaces the content; what was there is deleted.
    let old: Vec<_> = cluster.world().chunks.keys().copied().collect();
    let new = bytes(1000, 7);
    let other = cluster.mount(2).await;
    let writer = other.open(ino, RW).await.unwrap().fh;
    write(&other, writer, 0, &new).await;
    close(&other, writer).await.unwrap();
    for key in old {
        if key.0 == NodeId(1) {
            cluster.world().chunks.remove(&key);
        }
    }
    cluster.world().silent.insert(NodeId(2));
    let took = awake_for(async {
        assert!(client.read(reader, 0, 1000).await.unwrap() == new);
    });
    let took = took.await;
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[tokio::test]
async fn a_close_that_could_not_wait_for_its_commit_says_so() {
    let cluster = Cluster::start(2, 2);
    let client = cluster.mount_with(1, Duration::from_millis(800)).await;
    let created = client.create(ROOT, b"f", new_file(), true, RW).await;
    let fh = created.unwrap().1.fh;
    cluster.world().silent.extend([NodeId(1), NodeId(2)]);
    write(&client, fh, 0, b"x").await;
    let calls: Vec<_> = (0..3)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { client.fsync(fh).await })
        })
        .collect();
    let mut failed = 0;
    for call in calls {
        failed += u32::from(call.await.unwrap().is_err());
    }
    assert!(failed >= 1);
    cluster.world().silent.clear();
}

#[tokio::test]
async fn the_kernel_forgets_what_could_not_be_stored() {
    let cluster = Cluster::start(1, 1);
    let client = cluster.mount(1).await;
    let told: Arc<Mutex<Vec<Ino>>> = Arc::default();
    let tell = told.clone();
    client.on_invalidate(Box::new(move |Invalidate::Data(ino)| {
        tell.lock().unwrap().push(ino);
        true
    }));
    let ino = put(&client, "f", b"content").await;
    let fh = client.open(ino, RW).await.unwrap().fh;
    client.getattr(ino).await.unwrap();
    cluster.world().full.insert(NodeId(1));
    write(&client, fh, 0, b"CONTENT").await;
    assert_eq!(client.flush(fh, 0).await, Err(FsError::NoSpace));
    assert_eq!(*told.lock().unwrap(), []);
    client.getattr(ino).await.unwrap();
    assert_eq!(*told.lock().unwrap(), [ino]);
    write(&client, fh, 0, b"CONTENT").await;
    assert_eq!(client.flush(fh, 0).await, Err(FsError::NoSpace));
    assert!(!client.open(ino, RW).await.unwrap().keep_cache);
}
