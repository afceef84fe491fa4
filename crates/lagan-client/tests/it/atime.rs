//! Access times: which reads move them, who sees it, and when.

use crate::calls::{RW, USER, WRITE, close, get, new_dir, put, read_all, write};
use crate::cluster::{Cluster, ROOT};
use lagan_client::{AccessTimes, Client, NewInode, OpenOptions};
use lagan_types::op::{EndSession, SetAttr, SetTime};
use lagan_types::query::GetAttr;
use lagan_types::{Attr, Ino, Kind, Time};
use std::sync::Arc;
use std::time::Duration;

const READ: OpenOptions = OpenOptions { write: false, ..RW };

async fn mount(cluster: &Cluster, instance: u128, whose: AccessTimes) -> Arc<Client> {
    let mut options = cluster.options(instance);
    options.access_times = whose;
    Client::connect(options).await.unwrap()
}

/// Ends a mount in order: all that it has noted is told.
async fn end(client: &Client) {
    client.shutdown(Duration::from_secs(20)).await.unwrap();
}

fn stored(cluster: &Cluster, ino: Ino) -> Attr {
    cluster.world().query(GetAttr { ino })
}

fn is_read(attr: &Attr) -> bool {
    attr.atime > attr.mtime && attr.atime > attr.ctime
}

/// The inode of each read that was told.
fn told(cluster: &Cluster) -> Vec<Ino> {
    let told = std::mem::take(&mut cluster.world().told);
    told.iter().map(|read| read.ino).collect()
}

/// Waits for what the mounts do in the background.
async fn until(what: &str, mut is: impl FnMut() -> bool) {
    for _ in 0..2000 {
        if is() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{what}: not within 20 s");
}

#[tokio::test]
async fn first_read_after_a_change_is_seen_here_at_once_and_soon_elsewhere() {
    let cluster = Cluster::start(1, 1);
    let (a, b) = (cluster.mount(1).await, cluster.mount(2).await);
    let ino = put(&a, "f", b"one").await;
    let before = b.lookup(ROOT, b"f").await.unwrap();
    assert!(!is_read(&before));
    get(&b, ino).await;
    let here = b.getattr(ino).await.unwrap();
    assert!(is_read(&here));
    let atime = here.atime;
    assert_eq!(Attr { atime, ..before }, here);
    until("the leader knows", || is_read(&stored(&cluster, ino))).await;
    assert_eq!(a.getattr(ino).await.unwrap(), here);
    assert_eq!(told(&cluster), [ino]);
    // Neither a second read nor one elsewhere is worth telling.
    get(&b, ino).await;
    get(&a, ino).await;
    end(&a).await;
    end(&b).await;
    assert_eq!(told(&cluster), []);
    assert_eq!(stored(&cluster, ino), here);
}

#[tokio::test]
async fn mount_that_ends_tells_what_it_has_noted() {
    let cluster = Cluster::start(1, 1);
    let (a, b) = (cluster.mount(1).await, cluster.mount(2).await);
    let ino = put(&a, "f", b"one").await;
    get(&b, ino).await;
    end(&b).await;
    assert!(is_read(&stored(&cluster, ino)));
}

#[tokio::test]
async fn change_after_the_read_wins() {
    let cluster = Cluster::start(1, 1);
    let (a, b) = (cluster.mount(1).await, cluster.mount(2).await);
    let ino = put(&a, "f", b"one").await;
    let fh = b.open(ino, READ).await.unwrap().fh;
    read_all(&b, fh).await.unwrap();
    let time = Time { secs: 5, nanos: 6 };
    let set = SetAttr {
        atime: Some(SetTime::At(time)),
        ..SetAttr::default()
    };
    let attr = a.setattr(USER, ino, set).await.unwrap();
    assert_eq!(attr.atime, time);
    assert_eq!(b.getattr(ino).await.unwrap().atime, time);
    end(&b).await;
    assert_eq!(stored(&cluster, ino).atime, time);
}

#[tokio::test]
async fn open_file_is_noted_again_after_a_change_that_this_mount_has_seen() {
    let cluster = Cluster::start(1, 1);
    let (a, b) = (cluster.mount(1).await, cluster.mount(2).await);
    let ino = put(&a, "f", b"one").await;
    let fh = b.open(ino, READ).await.unwrap().fh;
    for text in [b"two", b"six"] {
        read_all(&b, fh).await.unwrap();
        until("the first is told", || is_read(&stored(&cluster, ino))).await;
        let writer = a.open(ino, WRITE).await.unwrap().fh;
        write(&a, writer, 0, text).await;
        close(&a, writer).await.unwrap();
        // As the kernel does before it reads through its pages.
        assert!(!is_read(&b.getattr(ino).await.unwrap()));
    }
    read_all(&b, fh).await.unwrap();
    read_all(&b, fh).await.unwrap();
    end(&b).await;
    assert!(is_read(&stored(&cluster, ino)));
    assert_eq!(told(&cluster), [ino; 3]);
}

#[tokio::test]
async fn kernel_keeps_pages_once_the_read_was_noted() {
    let cluster = Cluster::start(1, 1);
    let a = cluster.mount(1).await;
    let ino = put(&a, "f", b"one").await;
    let keep = async |open: OpenOptions, read: bool| {
        let opened = a.open(ino, open).await.unwrap();
        if read {
            read_all(&a, opened.fh).await.unwrap();
        }
        close(&a, opened.fh).await.unwrap();
        opened.keep_cache
    };
    let quiet = OpenOptions {
        no_atime: true,
        ..READ
    };
    assert!(keep(WRITE, false).await, "nothing is read");
    assert!(keep(quiet, false).await, "a read does not count");
    assert!(!keep(READ, false).await, "the first read is to be heard");
    assert!(!keep(READ, true).await, "nobody has read yet");
    assert!(keep(READ, true).await, "noted");
    until("the leader knows", || is_read(&stored(&cluster, ino))).await;
    assert!(keep(READ, true).await, "told");
    end(&a).await;
    assert_eq!(told(&cluster), [ino]);
}

#[tokio::test]
async fn reads_that_do_not_count_are_not_told() {
    let cluster = Cluster::start(1, 1);
    let a = cluster.mount(1).await;
    let quiet = mount(&cluster, 2, AccessTimes::None).await;
    let ino = put(&a, "f", b"one").await;
    let fh = a.open(ino, READ).await.unwrap().fh;
    assert_eq!(&a.read_unnoted(fh, 0, 10).await.unwrap()[..], b"one");
    close(&a, fh).await.unwrap();
    get(&quiet, ino).await;
    let opened = quiet.open(ino, READ).await.unwrap();
    assert!(opened.keep_cache, "without access times they always stay");
    list(&quiet, ROOT).await;
    end(&a).await;
    end(&quiet).await;
    assert_eq!(told(&cluster), []);
}

async fn list(client: &Client, ino: Ino) {
    client.getattr(ino).await.unwrap();
    let fh = client.opendir(ino, READ).await.unwrap();
    client.readdir(fh, 0, false).await.unwrap();
    client.releasedir(fh).await;
}

#[tokio::test]
async fn directories_and_links_have_access_times_too() {
    let cluster = Cluster::start(1, 1);
    let a = cluster.mount(1).await;
    let dir = a.make(ROOT, b"d", new_dir()).await.unwrap();
    let link = NewInode {
        kind: Kind::Symlink,
        target: b"f".to_vec(),
        ..new_dir()
    };
    let link = a.make(ROOT, b"l", link).await.unwrap();
    let no_dirs = mount(&cluster, 2, AccessTimes::NoDirectories).await;
    list(&no_dirs, dir.ino).await;
    end(&no_dirs).await;
    assert_eq!(told(&cluster), []);
    list(&a, dir.ino).await;
    a.readlink(link.ino).await.unwrap();
    for attr in [&dir, &link] {
        let now = a.getattr(attr.ino).await.unwrap();
        assert!(is_read(&now));
        let atime = now.atime;
        let moved = Attr {
            atime,
            ..attr.clone()
        };
        assert_eq!(moved, now);
    }
    list(&a, dir.ino).await;
    let quiet = OpenOptions {
        no_atime: true,
        ..READ
    };
    a.getattr(ROOT).await.unwrap();
    let fh = a.opendir(ROOT, quiet).await.unwrap();
    a.readdir(fh, 0, false).await.unwrap();
    end(&a).await;
    assert_eq!(told(&cluster), [dir.ino, link.ino]);
    assert!(is_read(&stored(&cluster, dir.ino)));
}

#[tokio::test]
async fn what_cannot_be_told_is_lost_and_the_next_read_is_noted() {
    let cluster = Cluster::start(1, 1);
    let a = cluster.mount(1).await;
    let ino = put(&a, "f", b"one").await;
    cluster.world().refuse_reads = true;
    get(&a, ino).await;
    until("it was refused", || !cluster.world().told.is_empty()).await;
    // Not tried again, and not shown for long.
    for _ in 0..2000 {
        if !is_read(&a.getattr(ino).await.unwrap()) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(!is_read(&a.getattr(ino).await.unwrap()));
    assert_eq!(told(&cluster), [ino]);
    cluster.world().refuse_reads = false;
    get(&a, ino).await;
    until("the leader knows", || is_read(&stored(&cluster, ino))).await;
}

#[tokio::test]
async fn session_that_has_ended_takes_its_reads_along() {
    let cluster = Cluster::start(1, 1);
    let a = cluster.mount(1).await;
    let ino = put(&a, "f", b"one").await;
    let session = a.session();
    get(&a, ino).await;
    cluster.world().system(EndSession { session });
    until("a new session", || a.session() != session).await;
    get(&a, ino).await;
    end(&a).await;
    assert!(is_read(&stored(&cluster, ino)));
}
