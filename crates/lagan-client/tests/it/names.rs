//! Names, attributes, directories and locks, through the leader.

use crate::calls::{RW, USER, close, get, new_dir, new_file, put, write};
use crate::cluster::{Cluster, ROOT};
use lagan_client::{Client, NewInode, OpenOptions, Waiter};
use lagan_types::cluster::NodeState;
use lagan_types::limits::EXTENTS_PAGE_MAX;
use lagan_types::op::{EndSession, LockKind, LockRange, MarkLost, SetAttr, XattrMode};
use lagan_types::query::Extents;
use lagan_types::{Content, FsError, Ino, Kind, NodeId};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

#[tokio::test]
async fn names_are_made_moved_and_removed() {
    let cluster = Cluster::start(1, 1);
    let client = cluster.mount(1).await;
    let dir = client.make(ROOT, b"dir", new_dir()).await.unwrap();
    let file = put(&client, "a", b"x").await;
    let link = client.link(file, dir.ino, b"b").await.unwrap();
    assert_eq!(link.nlink, 2);
    client
        .rename(ROOT, b"a", dir.ino, b"c", false, false)
        .await
        .unwrap();
    assert_eq!(
        client.lookup(ROOT, b"a").await.err(),
        Some(FsError::NotFound)
    );
    assert_eq!(client.lookup(dir.ino, b"c").await.unwrap().ino, file);
    let again = client.rename(dir.ino, b"b", dir.ino, b"c", true, false);
    assert_eq!(again.await, Err(FsError::Exists));
    assert_eq!(client.rmdir(ROOT, b"dir").await, Err(FsError::NotEmpty));
    let symlink = NewInode {
        kind: Kind::Symlink,
        target: b"dir/c".to_vec(),
        ..new_file()
    };
    let made = client.make(ROOT, b"s", symlink).await.unwrap();
    assert_eq!(client.readlink(made.ino).await.unwrap(), b"dir/c");
    let long = [b'x'; 256];
    assert_eq!(
        client.lookup(ROOT, &long).await.err(),
        Some(FsError::NameTooLong)
    );
    client.unlink(dir.ino, b"b").await.unwrap();
    client.unlink(dir.ino, b"c").await.unwrap();
    client.rmdir(ROOT, b"dir").await.unwrap();
}

#[tokio::test]
async fn an_unlinked_file_stays_readable_and_writable_while_open() {
    let cluster = Cluster::start(1, 1);
    let client = cluster.mount(1).await;
    let ino = put(&client, "f", b"content").await;
    let fh = client.open(ino, RW).await.unwrap().fh;
    client.unlink(ROOT, b"f").await.unwrap();
    write(&client, fh, 0, b"CON").await;
    client.fsync(fh).await.unwrap();
    assert_eq!(&client.read(fh, 0, 100).await.unwrap()[..], b"CONtent");
    let again = client.open(ino, RW).await.unwrap().fh;
    close(&client, again).await.unwrap();
    close(&client, fh).await.unwrap();
    assert_eq!(client.open(ino, RW).await.err(), Some(FsError::Stale));
}

#[tokio::test]
async fn create_finds_or_refuses_what_is_there() {
    let cluster = Cluster::start(1, 1);
    let client = cluster.mount(1).await;
    let ino = put(&client, "f", b"content").await;
    let create = |exclusive, open| client.create(ROOT, b"f", new_file(), exclusive, open);
    assert_eq!(create(true, RW).await.err(), Some(FsError::Exists));
    let (attr, opened) = create(false, RW).await.unwrap();
    assert_eq!((attr.ino, attr.size), (ino, 7));
    close(&client, opened.fh).await.unwrap();
    let truncate = OpenOptions {
        truncate: true,
        ..RW
    };
    let (attr, opened) = create(false, truncate).await.unwrap();
    assert_eq!((attr.ino, attr.size), (ino, 0));
    close(&client, opened.fh).await.unwrap();
}

#[tokio::test]
async fn create_leaves_it_to_the_kernel_whether_anothers_file_may_be_opened() {
    let cluster = Cluster::start(1, 1);
    let (a, b) = (cluster.mount(1).await, cluster.mount(2).await);
    let made = |uid, mode| NewInode {
        uid,
        mode,
        ..new_file()
    };
    let only_read = OpenOptions { write: false, ..RW };
    let truncate = OpenOptions {
        truncate: true,
        ..only_read
    };
    for (n, mode, uid, open, clear) in [
        (0, 0o600, 1000, RW, true),
        (1, 0o600, 0, RW, true),
        (2, 0o600, 1001, RW, false),
        (3, 0o666, 1001, only_read, false),
        (4, 0o400, 1000, RW, false),
        (5, 0o400, 1000, only_read, true),
        (6, 0o400, 1000, truncate, false),
        (7, 0o000, 0, truncate, true),
    ] {
        let name = format!("f{n}");
        let file = made(1000, mode);
        let (attr, opened) = a
            .create(ROOT, name.as_bytes(), file, true, RW)
            .await
            .unwrap();
        write(&a, opened.fh, 0, b"content").await;
        close(&a, opened.fh).await.unwrap();
        // as if the kernel had found no such name before
        let found = b.create(ROOT, name.as_bytes(), made(uid, 0o644), false, open);
        match found.await {
            Ok((found, opened)) => {
                assert!(clear && found.ino == attr.ino, "{name}");
                close(&b, opened.fh).await.unwrap();
            }
            Err(error) => {
                assert!(!clear && error == FsError::Stale, "{name}: {error}");
                assert_eq!(b.getattr(attr.ino).await.unwrap().size, 7);
            }
        }
    }
    a.make(ROOT, b"dir", new_dir()).await.unwrap();
    let found = b.create(ROOT, b"dir", made(0, 0o644), false, RW).await;
    assert_eq!(found.err(), Some(FsError::IsDirectory));
    let symlink = NewInode {
        kind: Kind::Symlink,
        target: b"f0".to_vec(),
        ..new_file()
    };
    a.make(ROOT, b"symlink", symlink).await.unwrap();
    let found = b.create(ROOT, b"symlink", made(0, 0o644), false, RW);
    assert_eq!(found.await.err(), Some(FsError::Stale));
    let found = b.create(ROOT, b"f0", made(0, 0o644), true, RW).await;
    assert_eq!(found.err(), Some(FsError::Exists));
}

#[tokio::test]
async fn a_large_directory_is_read_page_by_page() {
    let cluster = Cluster::start(1, 1);
    let client = cluster.mount(1).await;
    for i in 0..1500 {
        let name = format!("f{i}");
        client
            .make(ROOT, name.as_bytes(), new_file())
            .await
            .unwrap();
    }
    cluster.world().take_counts();
    let fh = client.opendir(ROOT, RW).await.unwrap();
    let (mut cookie, mut names) = (0, Vec::new());
    loop {
        let page = client.readdir(fh, cookie, true).await.unwrap();
        assert_eq!(page.parent, ROOT);
        // The kernel takes part of what it is given.
        for entry in page.entries.iter().take(100) {
            assert_eq!(entry.attr.as_ref().unwrap().ino, entry.ino);
            cookie = entry.cookie;
            names.push(entry.name.clone());
        }
        if page.end && page.entries.len() <= 100 {
            break;
        }
    }
    client.releasedir(fh).await;
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 1500);
    let (_, queries, _, _) = cluster.world().take_counts();
    assert!(queries <= 4, "{queries} queries");
}

#[tokio::test]
async fn own_attributes_can_be_read_and_not_set() {
    let cluster = Cluster::start(2, 2);
    let client = cluster.mount(1).await;
    let ino = put(&client, "f", b"content").await;
    let get = |name: &'static str| client.getxattr(ino, name.as_bytes());
    assert_eq!(get("user.lagan.state").await.unwrap(), b"local");
    assert_eq!(get("user.lagan.copies").await.unwrap(), b"2/2");
    assert_eq!(get("user.lagan.object").await, Err(FsError::NoAttribute));
    assert_eq!(get("security.capability").await, Err(FsError::NoAttribute));
    let set = |name: &'static str| client.setxattr(ino, name.as_bytes(), b"v", XattrMode::Any);
    assert_eq!(set("user.lagan.state").await, Err(FsError::NotPermitted));
    set("user.mine").await.unwrap();
    assert_eq!(get("user.mine").await.unwrap(), b"v");
    assert_eq!(client.listxattr(ino).await.unwrap(), [b"user.mine"]);
    client.removexattr(ino, b"user.mine").await.unwrap();
    assert_eq!(get("user.mine").await, Err(FsError::NoAttribute));
}

/// The kernel asks before the first write and before it executes a file.
#[tokio::test]
async fn capabilities_of_files_without_any_cost_no_question() {
    let cluster = Cluster::start(2, 2);
    let (a, b) = (cluster.mount(1).await, cluster.mount(2).await);
    let name = b"security.capability";
    let ino = put(&a, "f", b"content").await;
    b.lookup(ROOT, b"f").await.unwrap();
    cluster.world().take_counts();
    for client in [&a, &b] {
        assert_eq!(client.getxattr(ino, name).await, Err(FsError::NoAttribute));
    }
    let (_, queries, _, _) = cluster.world().take_counts();
    assert_eq!(queries, 0);
    // What one mount sets, the other sees with the attributes it gets next.
    a.setxattr(ino, name, b"v", XattrMode::Any).await.unwrap();
    assert_eq!(a.getxattr(ino, name).await.unwrap(), b"v");
    b.lookup(ROOT, b"f").await.unwrap();
    assert_eq!(b.getxattr(ino, name).await.unwrap(), b"v");
    // Both find it and are about to write: it is removed once, and neither write fails.
    b.removexattr(ino, name).await.unwrap();
    a.removexattr(ino, name).await.unwrap();
    a.getattr(ino).await.unwrap();
    assert_eq!(a.removexattr(ino, name).await, Err(FsError::NoAttribute));
}

#[tokio::test]
async fn an_unprivileged_write_clears_setuid() {
    let cluster = Cluster::start(1, 1);
    let client = cluster.mount(1).await;
    let ino = put(&client, "f", b"content").await;
    let set = SetAttr {
        mode: Some(0o4755),
        ..SetAttr::default()
    };
    client.setattr(USER, ino, set).await.unwrap();
    let fh = client.open(ino, RW).await.unwrap().fh;
    write(&client, fh, 0, b"C").await;
    close(&client, fh).await.unwrap();
    assert_eq!(client.getattr(ino).await.unwrap().mode, 0o755);
}

/// The last page of a long map counts as the first does.
#[tokio::test]
async fn copies_are_those_of_all_extents() {
    let cluster = Cluster::start(2, 2);
    let client = cluster.mount(1).await;
    let (attr, opened) = client
        .create(ROOT, b"long", new_file(), true, RW)
        .await
        .unwrap();
    let count = EXTENTS_PAGE_MAX as u64 + 10;
    for n in 0..count {
        write(&client, opened.fh, n * 65_536, b"x").await;
    }
    close(&client, opened.fh).await.unwrap();
    let copies = || client.getxattr(attr.ino, b"user.lagan.copies");
    assert_eq!(copies().await.unwrap(), b"2/2");
    let query = Extents {
        ino: attr.ino,
        offset: (count - 1) * 65_536,
        limit: 2,
    };
    let extents = cluster.world().query(query).extents;
    let [last] = &extents[..] else {
        panic!("{extents:?}");
    };
    let Content::Chunk { id: chunk, .. } = last.content else {
        panic!("{last:?}");
    };
    cluster.world().system(MarkLost {
        ino: attr.ino,
        offset: last.offset,
        chunk,
    });
    assert_eq!(copies().await.unwrap(), b"0/2");
}

#[tokio::test]
async fn statfs_divides_capacity_by_copies() {
    let cluster = Cluster::start(2, 2);
    let client = cluster.mount(1).await;
    put(&client, "f", b"content").await;
    let stat = client.statfs().await.unwrap();
    assert_eq!((stat.total_bytes, stat.free_bytes), (4000, 3000));
    assert_eq!(stat.files - stat.free_files, 2);
}

#[tokio::test]
async fn statfs_waits_until_the_leader_knows_all_servers_that_are_up() {
    let cluster = Cluster::start(2, 1);
    let client = cluster.mount(1).await;
    let silent = NodeId(2);
    cluster.world().unheard.insert(silent);
    let early = tokio::time::timeout(Duration::from_millis(300), client.statfs());
    assert!(early.await.is_err(), "half of the space is no answer");
    cluster.world().node_state(silent, NodeState::Down);
    let stat = client.statfs().await.unwrap();
    assert_eq!((stat.total_bytes, stat.free_bytes), (4000, 3000));
    cluster.world().node_state(silent, NodeState::Up);
    cluster.world().unheard.clear();
    let stat = client.statfs().await.unwrap();
    assert_eq!((stat.total_bytes, stat.free_bytes), (8000, 6000));
}

fn lock(owner: u64, kind: LockKind) -> LockRange {
    LockRange {
        owner,
        start: 0,
        end: u64::MAX,
        kind,
        pid: 42,
    }
}

async fn take(client: &Arc<Client>, ino: Ino, owner: u64, wait: bool) -> Result<(), FsError> {
    client
        .setlk(ino, lock(owner, LockKind::Write), wait, Waiter::default)
        .await
}

#[tokio::test]
async fn a_lock_that_a_new_session_grants_ends_with_close() {
    let cluster = Cluster::start(1, 1);
    let (a, b) = (cluster.mount(1).await, cluster.mount(2).await);
    let ino = put(&a, "f", b"content").await;
    for of_the_handle in [false, true] {
        let fh = a.open(ino, RW).await.unwrap().fh;
        let session = a.session();
        cluster.world().system(EndSession { session });
        let (write, ask) = (lock(5, LockKind::Write), Waiter::default);
        a.setlk_through(fh, ino, write, false, ask).await.unwrap();
        assert_ne!(a.session(), session);
        assert_eq!(take(&b, ino, 5, false).await, Err(FsError::WouldBlock));
        if !of_the_handle {
            for _ in 0..2 {
                assert_eq!(a.flush(fh, 5).await, Err(FsError::Io), "it stays refused");
            }
            take(&b, ino, 5, false).await.unwrap();
        }
        a.release(fh, None).await;
        take(&b, ino, 5, false).await.unwrap();
        let unlock = lock(5, LockKind::Unlock);
        b.setlk(ino, unlock, false, ask).await.unwrap();
    }
}

#[tokio::test]
async fn locks_hold_across_mounts_and_end_with_close() {
    let cluster = Cluster::start(1, 1);
    let (a, b) = (cluster.mount(1).await, cluster.mount(2).await);
    let ino = put(&a, "f", b"content").await;
    let fh = a.open(ino, RW).await.unwrap().fh;
    take(&a, ino, 5, false).await.unwrap();
    assert_eq!(take(&b, ino, 5, false).await, Err(FsError::WouldBlock));
    let found = b.getlk(ino, lock(5, LockKind::Read)).await.unwrap();
    assert_eq!(found.map(|l| (l.kind, l.pid)), Some((LockKind::Write, 0)));
    let waiter = {
        let b = b.clone();
        tokio::spawn(async move { take(&b, ino, 5, true).await })
    };
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!waiter.is_finished());
    a.flush(fh, 5).await.unwrap();
    waiter.await.unwrap().unwrap();
    cluster.world().take_counts();
    a.flush(fh, 5).await.unwrap();
    assert_eq!(cluster.world().take_counts().0, 0);
    a.release(fh, None).await;
}

#[tokio::test]
async fn a_waiter_outlasts_the_timeout_and_can_be_interrupted() {
    let cluster = Cluster::start(1, 1);
    let a = cluster.mount(1).await;
    let b = cluster.mount_with(2, Duration::from_secs(3)).await;
    let ino = put(&a, "f", b"content").await;
    take(&a, ino, 1, false).await.unwrap();
    let asked = AtomicUsize::new(0);
    let ask = || Waiter {
        interrupted: asked.fetch_add(1, Ordering::SeqCst) == 2,
        process_lock: true,
    };
    let waited = b.setlk(ino, lock(1, LockKind::Read), true, ask);
    assert_eq!(waited.await, Err(FsError::Interrupted));
    let waiter = tokio::spawn(async move { take(&b, ino, 1, true).await });
    tokio::time::sleep(Duration::from_millis(3500)).await;
    let unlock = lock(1, LockKind::Unlock);
    a.setlk(ino, unlock, false, Waiter::default).await.unwrap();
    assert_eq!(waiter.await.unwrap(), Ok(()));
}

#[tokio::test]
async fn what_was_written_under_a_lock_is_seen_under_the_next() {
    let cluster = Cluster::start(1, 1);
    let (a, b) = (cluster.mount(1).await, cluster.mount(2).await);
    let ino = put(&a, "f", b"old").await;
    let fh = a.open(ino, RW).await.unwrap().fh;
    take(&a, ino, 1, false).await.unwrap();
    write(&a, fh, 0, b"new").await;
    let unlock = lock(1, LockKind::Unlock);
    a.setlk(ino, unlock, false, Waiter::default).await.unwrap();
    take(&b, ino, 1, false).await.unwrap();
    assert_eq!(get(&b, ino).await, b"new");
    close(&a, fh).await.unwrap();
}
