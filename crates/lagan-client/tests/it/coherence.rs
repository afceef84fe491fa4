//! Every later call of every mount sees what one mount has closed.

use crate::calls::{APPEND, RW, USER, WRITE, close, get, new_file, put, read_all, write};
use crate::cluster::{Cluster, ROOT};
use lagan_client::{Caller, Client, Invalidate};
use lagan_types::op::{SetAttr, SetAttrs, SetTime};
use lagan_types::query::GetAttr;
use lagan_types::{FsError, Ino, Time};
use std::sync::{Arc, Mutex};
use std::time::Duration;

#[tokio::test]
async fn a_handle_opened_before_sees_what_another_mount_closed() {
    let cluster = Cluster::start(3, 2);
    let (a, b) = (cluster.mount(1).await, cluster.mount(2).await);
    let ino = put(&a, "f", b"old content").await;
    let reader = b.open(ino, RW).await.unwrap().fh;
    assert_eq!(read_all(&b, reader).await.unwrap(), b"old content");
    let writer = a.open(ino, RW).await.unwrap().fh;
    write(&a, writer, 0, b"new").await;
    close(&a, writer).await.unwrap();
    // As the kernel does before it reads through its pages.
    b.getattr(ino).await.unwrap();
    assert_eq!(read_all(&b, reader).await.unwrap(), b"new content");
}

#[tokio::test]
async fn what_stays_open_is_committed_after_a_while() {
    let cluster = Cluster::start(1, 1);
    let (a, b) = (cluster.mount(1).await, cluster.mount(2).await);
    let (attr, opened) = a.create(ROOT, b"f", new_file(), true, RW).await.unwrap();
    write(&a, opened.fh, 0, b"not closed").await;
    let seen = async {
        while get(&b, attr.ino).await != b"not closed" {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let seen = tokio::time::timeout(Duration::from_secs(60), seen).await;
    seen.expect("nobody commits what is written");
    close(&a, opened.fh).await.unwrap();
}

#[tokio::test]
async fn direct_reads_ask_by_themselves() {
    let cluster = Cluster::start(1, 1);
    let (a, b) = (cluster.mount(1).await, cluster.mount(2).await);
    let ino = put(&a, "f", b"one").await;
    let reader = b.open(ino, APPEND).await.unwrap().fh;
    assert_eq!(read_all(&b, reader).await.unwrap(), b"one");
    let writer = a.open(ino, APPEND).await.unwrap().fh;
    write(&a, writer, 0, b" two").await;
    close(&a, writer).await.unwrap();
    assert_eq!(read_all(&b, reader).await.unwrap(), b"one two");
}

#[tokio::test]
async fn kernel_pages_are_kept_only_if_nobody_else_wrote() {
    let cluster = Cluster::start(1, 1);
    let (a, b) = (cluster.mount(1).await, cluster.mount(2).await);
    let ino = put(&a, "f", b"one").await;
    let keep = async |client: &lagan_client::Client| {
        // Whether a read is due does not matter then.
        let opened = client.open(ino, WRITE).await.unwrap();
        close(client, opened.fh).await.unwrap();
        opened.keep_cache
    };
    assert!(keep(&a).await, "own close");
    assert!(!keep(&b).await, "first open");
    assert!(keep(&b).await, "unchanged");
    let writer = a.open(ino, RW).await.unwrap().fh;
    write(&a, writer, 0, b"two").await;
    close(&a, writer).await.unwrap();
    assert!(!keep(&b).await, "changed by another mount");
    assert!(keep(&a).await, "changed by itself");
}

/// Writes other bytes of the same length, and puts the mtime back.
async fn change_unseen(mount: &Client, ino: Ino, mtime: Time) {
    let writer = mount.open(ino, RW).await.unwrap().fh;
    write(mount, writer, 0, b"two").await;
    close(mount, writer).await.unwrap();
    let set = SetAttr {
        mtime: Some(SetTime::At(mtime)),
        ..SetAttr::default()
    };
    mount.setattr(USER, ino, set).await.unwrap();
}

#[tokio::test]
async fn a_change_that_size_and_mtime_hide_invalidates_the_kernels_pages() {
    let cluster = Cluster::start(1, 1);
    let (a, b) = (cluster.mount(1).await, cluster.mount(2).await);
    let told: Arc<Mutex<Vec<Ino>>> = Arc::default();
    let tell = told.clone();
    b.on_invalidate(Box::new(move |Invalidate::Data(ino)| {
        tell.lock().unwrap().push(ino);
        true
    }));
    let ino = put(&a, "f", b"one").await;
    let reader = b.open(ino, RW).await.unwrap().fh;
    let before = b.getattr(ino).await.unwrap();
    told.lock().unwrap().clear();
    b.getattr(ino).await.unwrap();
    assert!(told.lock().unwrap().is_empty());
    change_unseen(&a, ino, before.mtime).await;
    b.getattr(ino).await.unwrap();
    assert_eq!(*told.lock().unwrap(), [ino]);
    assert_eq!(read_all(&b, reader).await.unwrap(), b"two");
}

#[tokio::test]
async fn nobody_gets_new_attributes_while_the_kernel_has_old_pages() {
    let cluster = Cluster::start(1, 1);
    let (a, b) = (cluster.mount(1).await, cluster.mount(2).await);
    let ino = put(&a, "f", b"one").await;
    let reader = b.open(ino, RW).await.unwrap().fh;
    let before = b.getattr(ino).await.unwrap();
    change_unseen(&a, ino, before.mtime).await;
    let (drop_them, dropped) = std::sync::mpsc::channel();
    let dropped = Mutex::new(dropped);
    b.on_invalidate(Box::new(move |_| dropped.lock().unwrap().recv().is_ok()));
    let looks = [b.clone(), b.clone()].map(|b| tokio::spawn(async move { b.getattr(ino).await }));
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(looks.iter().all(|look| !look.is_finished()));
    for _ in &looks {
        drop_them.send(()).unwrap();
    }
    for look in looks {
        look.await.unwrap().unwrap();
    }
    // Now they are gone: nobody waits.
    assert_eq!(b.getattr(ino).await.unwrap().mtime, before.mtime);
    close(&b, reader).await.unwrap();
}

#[tokio::test]
async fn names_made_and_removed_elsewhere_are_seen_at_once() {
    let cluster = Cluster::start(1, 1);
    let (a, b) = (cluster.mount(1).await, cluster.mount(2).await);
    for i in 0..20 {
        let name = format!("f{i}");
        assert_eq!(
            b.lookup(ROOT, name.as_bytes()).await.err(),
            Some(FsError::NotFound)
        );
        let ino = put(&a, &name, name.as_bytes()).await;
        assert_eq!(b.lookup(ROOT, name.as_bytes()).await.unwrap().ino, ino);
        assert_eq!(get(&b, ino).await, name.as_bytes());
        b.unlink(ROOT, name.as_bytes()).await.unwrap();
        assert_eq!(
            a.lookup(ROOT, name.as_bytes()).await.err(),
            Some(FsError::NotFound)
        );
    }
}

#[tokio::test]
async fn an_orphan_check_names_what_is_open_here() {
    let cluster = Cluster::start(1, 1);
    let client = cluster.mount(1).await;
    let open = put(&client, "open", b"x").await;
    let closed = put(&client, "closed", b"x").await;
    let fh = client.open(open, RW).await.unwrap().fh;
    cluster.world().check = (7, vec![open, closed]);
    let answered = async || loop {
        let checked = cluster.world().checked.first().cloned();
        if let Some(checked) = checked {
            break checked;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    };
    assert_eq!(answered().await, (7, vec![open]));
    close(&client, fh).await.unwrap();
}

#[tokio::test]
async fn shutdown_commits_what_is_open_and_ends_the_session() {
    let cluster = Cluster::start(3, 2);
    let a = cluster.mount(1).await;
    let (attr, opened) = a.create(ROOT, b"f", new_file(), true, RW).await.unwrap();
    let root = Caller::default();
    let data = bytes::Bytes::from_static(b"not closed");
    a.write(root, opened.fh, 0, data).await.unwrap();
    let session = a.session();
    a.shutdown(std::time::Duration::from_secs(20))
        .await
        .unwrap();
    let b = cluster.mount(2).await;
    assert_eq!(get(&b, attr.ino).await, b"not closed");
    let gone = !lagan_meta::session_exists(&cluster.world().store, session).unwrap();
    assert!(gone);
}

#[tokio::test]
async fn attributes_that_changed_visibly_after_an_open_are_answered_without_notice() {
    let cluster = Cluster::start(1, 1);
    let (a, b) = (cluster.mount(1).await, cluster.mount(2).await);
    let told: Arc<Mutex<Vec<Ino>>> = Arc::default();
    let tell = told.clone();
    b.on_invalidate(Box::new(move |Invalidate::Data(ino)| {
        tell.lock().unwrap().push(ino);
        true
    }));
    let ino = put(&a, "f", b"one").await;
    // As the kernel opens: it has the attributes from the lookup.
    b.lookup(ROOT, b"f").await.unwrap();
    let reader = b.open(ino, RW).await.unwrap().fh;
    let writer = a.open(ino, RW).await.unwrap().fh;
    write(&a, writer, 0, b"longer").await;
    close(&a, writer).await.unwrap();
    // A notice would make it ignore this size, and cut its read at the old one.
    assert_eq!(b.getattr(ino).await.unwrap().size, 6);
    assert_eq!(*told.lock().unwrap(), []);
    close(&b, reader).await.unwrap();
}

#[tokio::test]
async fn own_bytes_do_not_hide_a_later_change_while_their_commit_has_no_answer() {
    let cluster = Cluster::start(1, 1);
    let client = cluster.mount(1).await;
    let ino = put(&client, "f", b"old").await;
    let fh = client.open(ino, RW).await.unwrap().fh;
    let version = || cluster.world().query(GetAttr { ino }).version;
    let before = version();
    write(&client, fh, 0, b"new").await;
    cluster.world().lost_answers = 8;
    let flusher = client.clone();
    let flush = tokio::spawn(async move { flusher.fsync(fh).await });
    while version() == before {
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    // Another mount truncates.
    let set = SetAttr {
        size: Some(0),
        ..SetAttr::default()
    };
    cluster.world().of_another_mount(SetAttrs { ino, set });
    assert!(!flush.is_finished());
    assert_eq!(client.getattr(ino).await.unwrap().size, 0);
    assert_eq!(read_all(&client, fh).await.unwrap(), b"");
    flush.await.unwrap().unwrap();
    close(&client, fh).await.unwrap();
}
