//! Files that exist by the leader's word only.

use crate::calls::{RW, close, get, new_dir, new_file, write};
use crate::cluster::{Cluster, ROOT};
use lagan_client::{Client, NewInode};
use lagan_types::op::{Create, EndSession};
use lagan_types::query::GetAttr;
use lagan_types::{FsError, Ino, Kind};
use std::sync::Arc;
use std::time::Duration;

/// Creates a file that stays open.
async fn hold(client: &Client, parent: Ino, name: &str) -> (Ino, u64) {
    let made = client.create(parent, name.as_bytes(), new_file(), true, RW);
    let (attr, opened) = made.await.unwrap();
    (attr.ino, opened.fh)
}

async fn promising() -> (Cluster, Arc<Client>) {
    let cluster = Cluster::start(1, 1);
    cluster.world().promises = true;
    let client = cluster.mount(1).await;
    (cluster, client)
}

/// Somebody else has the name before the file could be made.
fn take_name(cluster: &Cluster, name: &str) {
    cluster.world().of_another_mount(Create {
        parent: ROOT,
        name: name.into(),
        kind: Kind::File,
        mode: 0o644,
        umask: 0,
        uid: 0,
        gid: 0,
        rdev: 0,
        target: Vec::new(),
        exclusive: true,
    });
}

#[tokio::test]
async fn a_promised_file_is_made_with_the_mode_that_was_shown() {
    let (cluster, client) = promising().await;
    let new = NewInode {
        mode: 0o666,
        umask: 0o027,
        ..new_file()
    };
    let made = client.create(ROOT, b"f", new, true, RW);
    let (attr, opened) = made.await.unwrap();
    assert!(!cluster.world().has("f"));
    assert_eq!(attr.permissions(), 0o640);
    close(&client, opened.fh).await.unwrap();
    let stored = cluster.world().query(GetAttr { ino: attr.ino });
    assert_eq!(stored.permissions(), 0o640);
}

#[tokio::test]
async fn fsync_of_a_directory_makes_what_was_promised_in_it() {
    let (cluster, client) = promising().await;
    let dir = client.opendir(ROOT, RW).await.unwrap();
    let names: Vec<String> = (0..20).map(|n| format!("f{n}")).collect();
    let mut held = Vec::new();
    for name in &names {
        held.push(hold(&client, ROOT, name).await.1);
    }
    client.fsyncdir(dir).await.unwrap();
    for name in &names {
        assert!(cluster.world().has(name), "{name}");
    }
    let before = cluster.world().mutations;
    client.fsyncdir(dir).await.unwrap();
    assert_eq!(cluster.world().mutations, before, "nothing is left to do");
    for fh in held {
        close(&client, fh).await.unwrap();
    }
    client.releasedir(dir).await;
    assert_eq!(client.fsyncdir(dir).await, Err(FsError::Stale));
}

#[tokio::test]
async fn fsync_of_a_directory_says_once_that_a_name_in_it_was_lost() {
    let (cluster, client) = promising().await;
    let other = client.make(ROOT, b"other", new_dir()).await.unwrap().ino;
    let (dir, other) = (
        client.opendir(ROOT, RW).await.unwrap(),
        client.opendir(other, RW).await.unwrap(),
    );
    let (_, fh) = hold(&client, ROOT, "f").await;
    take_name(&cluster, "f");
    assert_eq!(client.fsyncdir(other).await, Ok(()));
    assert_eq!(client.fsyncdir(dir).await, Err(FsError::Io));
    assert_eq!(client.fsyncdir(dir).await, Ok(()));
    assert!(client.flush(fh, 0).await.is_err());
    client.release(fh, None).await;
}

#[tokio::test]
async fn fsync_of_a_directory_says_that_names_went_with_the_session() {
    let (cluster, client) = promising().await;
    let dir = client.opendir(ROOT, RW).await.unwrap();
    let (_, fh) = hold(&client, ROOT, "f").await;
    let old = client.session();
    cluster.world().system(EndSession { session: old });
    let told = client.fsyncdir(dir).await;
    let made = cluster.world().has("f");
    assert_eq!(told.is_ok(), made, "{told:?}");
    client.release(fh, None).await;
}

#[tokio::test]
async fn shutdown_makes_what_is_promised() {
    let (cluster, client) = promising().await;
    let (_, _empty) = hold(&client, ROOT, "empty").await;
    let (ino, full) = hold(&client, ROOT, "full").await;
    write(&client, full, 0, b"not closed").await;
    client.shutdown(Duration::from_secs(20)).await.unwrap();
    assert!(cluster.world().has("empty"));
    let next = cluster.mount(2).await;
    assert_eq!(get(&next, ino).await, b"not closed");
}
