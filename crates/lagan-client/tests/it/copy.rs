//! Copies inside the servers.

use crate::calls::{RW, USER, bytes, close, get, new_file, put, write};
use crate::cluster::{Cluster, ROOT};
use lagan_client::{Client, CopySpan};
use lagan_types::query::File;
use lagan_types::{Content, FsError, Ino};

async fn new(client: &Client, name: &str) -> (Ino, u64) {
    let made = client.create(ROOT, name.as_bytes(), new_file(), true, RW);
    let (attr, opened) = made.await.unwrap();
    (attr.ino, opened.fh)
}

fn whole(from: u64, to: u64) -> CopySpan {
    CopySpan {
        from,
        from_offset: 0,
        to,
        to_offset: 0,
        len: 1 << 31,
    }
}

fn extents(cluster: &Cluster, ino: Ino) -> Vec<lagan_types::Extent> {
    cluster.world().query(File { ino }).extents
}

#[tokio::test]
async fn a_copy_is_one_mutation_and_moves_no_bytes() {
    let cluster = Cluster::start(3, 2);
    let client = cluster.mount(1).await;
    let data = bytes(33 << 20, 1);
    let a = put(&client, "a", &data).await;
    let from = client.open(a, RW).await.unwrap().fh;
    let (b, to) = new(&client, "b").await;
    cluster.world().take_counts();
    let len = data.len() as u64;
    let span = CopySpan {
        len,
        ..whole(from, to)
    };
    assert_eq!(client.copy_file_range(USER, span).await, Ok(len));
    assert_eq!(cluster.world().take_counts(), (1, 0, 0, 0));
    assert_eq!(extents(&cluster, a), extents(&cluster, b));
    let other = cluster.mount(2).await;
    assert!(get(&other, b).await == data);
    assert_eq!(
        client
            .copy_file_range(USER, span_at(from, to, data.len()))
            .await,
        Ok(0)
    );
}

fn span_at(from: u64, to: u64, at: usize) -> CopySpan {
    CopySpan {
        from_offset: at as u64,
        ..whole(from, to)
    }
}

#[tokio::test]
async fn bytes_that_wait_in_this_mount_are_copied_and_overwritten_in_order() {
    let cluster = Cluster::start(3, 2);
    let client = cluster.mount(1).await;
    let (_, from) = new(&client, "a").await;
    let (b, to) = new(&client, "b").await;
    let data = bytes(200_000, 2);
    write(&client, from, 0, &data).await;
    write(&client, to, 100_000, &[7; 200_000]).await;
    let copied = client.copy_file_range(USER, whole(from, to)).await;
    assert_eq!(copied, Ok(200_000));
    let got = client.read(to, 0, 1 << 20).await.unwrap();
    assert!(got[..200_000] == data && got[200_000..] == [7; 100_000]);
    write(&client, to, 5, b"later").await;
    close(&client, to).await.unwrap();
    let got = get(&*cluster.mount(2).await, b).await;
    assert!(&got[5..10] == b"later" && got[10..200_000] == data[10..]);
}

#[tokio::test]
async fn bytes_in_the_archive_alone_are_copied_through() {
    let cluster = Cluster::start(2, 2);
    let client = cluster.mount(1).await;
    let mut data = bytes(6 << 20, 3);
    let a = put(&client, "a", &data).await;
    crate::model::archive_and_release(&cluster, a, &data);
    let from = client.open(a, RW).await.unwrap().fh;
    write(&client, from, 1 << 20, b"local again").await;
    data[1 << 20..(1 << 20) + 11].copy_from_slice(b"local again");
    let (b, to) = new(&client, "b").await;
    let mut done = 0;
    loop {
        let span = CopySpan {
            to_offset: done as u64,
            ..span_at(from, to, done)
        };
        match client.copy_file_range(USER, span).await.unwrap() {
            0 => break,
            copied => done += copied as usize,
        }
    }
    close(&client, to).await.unwrap();
    assert!(get(&*cluster.mount(2).await, b).await == data);
    let local = |e: &lagan_types::Extent| matches!(e.content, Content::Chunk { .. });
    assert!(extents(&cluster, b).iter().all(local));
}

#[tokio::test]
async fn ranges_that_overlap_are_refused() {
    let cluster = Cluster::start(1, 1);
    let client = cluster.mount(1).await;
    let a = put(&client, "a", &bytes(1000, 4)).await;
    let fh = client.open(a, RW).await.unwrap().fh;
    let copy = |span| client.copy_file_range(USER, span);
    assert_eq!(copy(span_at(fh, fh, 999)).await, Ok(1));
    assert_eq!(copy(span_at(fh, fh, 400)).await, Err(FsError::Invalid));
    assert_eq!(copy(whole(77, fh)).await, Err(FsError::Stale));
}
