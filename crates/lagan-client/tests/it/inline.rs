//! Bytes that come with commits.

use crate::calls::{APPEND, bytes, close, get, put, write};
use crate::cluster::Cluster;
use lagan_client::Client;
use lagan_types::query::Extents;
use lagan_types::{Content, Extent, Ino, NodeId};
use std::time::Duration;

fn voting(nodes: u64, copies: u8) -> Cluster {
    let cluster = Cluster::start(nodes, copies);
    cluster.world().votes = true;
    cluster
}

/// Chunks written and mutations asked for since the last look.
fn counted(cluster: &Cluster) -> (u32, u32) {
    let (mutations, _, chunks, _) = cluster.world().take_counts();
    (chunks, mutations)
}

/// Whether each member has the chunks that the file names.
fn is_everywhere(cluster: &Cluster, ino: Ino) -> bool {
    let world = cluster.world();
    let query = Extents {
        ino,
        offset: 0,
        limit: 100,
    };
    let extents = world.query(query).extents;
    let whole = |content: &Content| match content {
        Content::Chunk { id, .. } => world.chunks.contains_key(&(NodeId(1), *id)),
        _ => false,
    };
    !extents.is_empty() && extents.iter().all(|e| whole(&e.content))
}

#[tokio::test]
async fn short_bytes_come_with_the_commit_and_long_ones_do_not() {
    let cluster = voting(2, 2);
    let client = cluster.mount(1).await;
    let (short, long) = (bytes(65_536, 1), bytes(65_537, 2));
    put(&client, "before", &short).await;
    counted(&cluster);
    let ino = put(&client, "short", &short).await;
    let (chunks, short_mutations) = counted(&cluster);
    assert_eq!(chunks, 0);
    assert!(is_everywhere(&cluster, ino) && get(&client, ino).await == short);
    let ino = put(&client, "long", &long).await;
    assert_eq!(counted(&cluster), (1, short_mutations));
    assert!(get(&client, ino).await == long);
    let other = cluster.mount(2).await;
    assert!(get(&other, ino).await == long);
}

#[tokio::test]
async fn bytes_do_not_come_where_a_member_has_no_vote() {
    let cluster = Cluster::start(2, 2);
    let client = cluster.mount(1).await;
    let data = bytes(100, 1);
    let ino = put(&client, "f", &data).await;
    assert_eq!(counted(&cluster).0, 1);
    assert!(get(&client, ino).await == data);
}

#[tokio::test]
async fn refused_bytes_are_stored_first_and_for_a_while_no_others_are_offered() {
    let cluster = voting(2, 2);
    let client = cluster.mount(1).await;
    let data = bytes(5_000, 1);
    put(&client, "before", &data).await;
    cluster.world().refused_bytes = 1;
    counted(&cluster);
    let ino = put(&client, "f", &data).await;
    assert_eq!(counted(&cluster).0, 1);
    assert!(is_everywhere(&cluster, ino) && get(&client, ino).await == data);
    put(&client, "g", &data).await;
    assert_eq!(counted(&cluster).0, 1, "not offered");
}

#[tokio::test]
async fn bytes_that_a_member_lacks_get_another_place() {
    let cluster = voting(2, 2);
    let client = cluster.mount(1).await;
    let data = bytes(5_000, 1);
    cluster.world().unheld = 1;
    let ino = put(&client, "f", &data).await;
    let (chunks, _) = counted(&cluster);
    assert_eq!(chunks, 1);
    let query = Extents {
        ino,
        offset: 0,
        limit: 100,
    };
    let page = cluster.world().query(query);
    assert_eq!((page.extents.len(), page.version), (1, 2), "one commit");
    // What came with the commit is named by nothing any more.
    cluster.world().chunks.retain(|(_, id), _| {
        matches!(page.extents[0].content, Content::Chunk { id: named, .. } if named == *id)
    });
    assert!(get(&client, ino).await == data);
    let other = cluster.mount(2).await;
    assert!(get(&other, ino).await == data);
}

#[tokio::test]
async fn lost_answer_to_a_commit_with_bytes_is_asked_for_again() {
    let cluster = voting(2, 2);
    let client = cluster.mount(1).await;
    let data = bytes(5_000, 1);
    put(&client, "before", &data).await;
    cluster.world().lost_answers = 1;
    let ino = put(&client, "f", &data).await;
    assert!(is_everywhere(&cluster, ino) && get(&client, ino).await == data);
    assert_eq!(counted(&cluster).0, 0);
}

async fn append(client: &Client, ino: Ino, line: &[u8]) {
    let fh = client.open(ino, APPEND).await.unwrap().fh;
    write(client, fh, 0, line).await;
    close(client, fh).await.unwrap();
}

/// The extents of a file, in order of offset.
fn extents(cluster: &Cluster, ino: Ino) -> Vec<Extent> {
    let (offset, limit) = (0, 1_000);
    cluster
        .world()
        .query(Extents { ino, offset, limit })
        .extents
}

#[tokio::test]
async fn appended_lines_come_with_their_commits_and_few_extents_remain() {
    let cluster = voting(2, 2);
    let client = cluster.mount(1).await;
    let ino = put(&client, "log", b"").await;
    let mut log = Vec::new();
    counted(&cluster);
    for n in 0..64 {
        let line = bytes(5_000, n);
        append(&client, ino, &line).await;
        log.extend(line);
    }
    assert_eq!(counted(&cluster).0, 0);
    let line = bytes(5_000, 64);
    append(&client, ino, &line).await;
    log.extend(line);
    // They are rewritten in the background.
    let became_one = async {
        while extents(&cluster, ino).len() > 1 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let became_one = tokio::time::timeout(Duration::from_secs(60), became_one);
    became_one.await.expect("rewritten in time");
    assert_eq!(counted(&cluster).0, 1);
    assert!(is_everywhere(&cluster, ino) && get(&client, ino).await == log);
    let other = cluster.mount(2).await;
    assert!(get(&other, ino).await == log);
}

#[tokio::test]
async fn lines_that_two_mounts_append_in_turn_are_all_there() {
    let cluster = voting(2, 2);
    let (a, b) = (cluster.mount(1).await, cluster.mount(2).await);
    let ino = put(&a, "log", b"head").await;
    let mut log = b"head".to_vec();
    counted(&cluster);
    for n in 0..20 {
        let line = bytes(5_000, n);
        // What it knows of the end is old each time.
        let by = if n % 2 == 0 { &a } else { &b };
        append(by, ino, &line).await;
        log.extend(line);
    }
    assert_eq!(counted(&cluster).0, 0);
    assert!(get(&a, ino).await == log && get(&b, ino).await == log);
}

#[tokio::test]
async fn appended_bytes_that_a_member_lacks_get_another_place() {
    let cluster = voting(2, 2);
    let client = cluster.mount(1).await;
    let (head, line) = (bytes(60_000, 1), bytes(5_000, 2));
    let ino = put(&client, "log", &head).await;
    counted(&cluster);
    cluster.world().unheld = 1;
    append(&client, ino, &line).await;
    assert_eq!(counted(&cluster).0, 1);
    let extents = extents(&cluster, ino);
    assert_eq!(extents.len(), 2);
    // What came with the commit is named by nothing any more.
    cluster.world().chunks.retain(|(_, id), _| {
        let named = |e: &Extent| matches!(e.content, Content::Chunk { id: n, .. } if n == *id);
        extents.iter().any(named)
    });
    let other = cluster.mount(2).await;
    assert!(get(&other, ino).await == [head, line].concat());
}
