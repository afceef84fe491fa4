//! Reads give what was written.

use crate::calls::{APPEND, RW, USER, bytes, close, get, new_file, put, read_all, write};
use crate::cluster::{Cluster, ROOT};
use bytes::Bytes;
use lagan_client::{OpenOptions, Seek};
use lagan_types::op::SetAttr;
use lagan_types::query::File;
use lagan_types::{Content, FsError, NodeId};

fn extents(cluster: &Cluster, ino: lagan_types::Ino) -> Vec<lagan_types::Extent> {
    cluster.world().query(File { ino }).extents
}

#[tokio::test]
async fn a_small_file_is_one_create_one_chunk_and_one_commit() {
    let cluster = Cluster::start(3, 2);
    let client = cluster.mount(1).await;
    put(&client, "first", b"warm").await;
    cluster.world().take_counts();
    let data = bytes(16 * 1024, 1);
    let ino = put(&client, "mail", &data).await;
    assert_eq!(cluster.world().take_counts(), (2, 0, 1, 0));
    assert_eq!(get(&client, ino).await, data);
    let (mutations, queries, _, reads) = cluster.world().take_counts();
    assert_eq!((mutations, queries, reads), (0, 1, 1));
}

#[tokio::test]
async fn a_large_file_is_whole_chunks_and_comes_back() {
    let cluster = Cluster::start(3, 2);
    let client = cluster.mount(1).await;
    let data = bytes(21 * 1024 * 1024 + 12_345, 2);
    let ino = put(&client, "large", &data).await;
    let lens: Vec<_> = extents(&cluster, ino).iter().map(|e| e.len >> 20).collect();
    assert_eq!(lens, [4, 4, 4, 4, 4, 1]);
    let other = cluster.mount(2).await;
    assert!(get(&other, ino).await == data);
    let fh = other.open(ino, RW).await.unwrap().fh;
    for at in [0usize, 1, 65_535, (4 << 20) - 7, 13_000_001, data.len() - 5] {
        let want = &data[at..data.len().min(at + 100_000)];
        let got = other.read(fh, at as u64, 100_000).await.unwrap();
        assert!(got == want, "at {at}");
    }
}

#[tokio::test]
async fn more_than_the_write_buffer_streams_through_it() {
    let cluster = Cluster::start(3, 1);
    let mut options = cluster.options(1);
    options.write_buffer_bytes = 16 << 20;
    let client = lagan_client::Client::connect(options).await.unwrap();
    let data = bytes(33 << 20, 3);
    let ino = put(&client, "stream", &data).await;
    assert!(get(&client, ino).await == data);
}

#[tokio::test]
async fn own_unflushed_bytes_and_size_are_seen() {
    let cluster = Cluster::start(3, 2);
    let client = cluster.mount(1).await;
    let data = bytes(300_000, 4);
    let ino = put(&client, "f", &data).await;
    let fh = client.open(ino, RW).await.unwrap().fh;
    write(&client, fh, 100_000, b"new").await;
    write(&client, fh, 400_000, b"end").await;
    assert_eq!(client.getattr(ino).await.unwrap().size, 400_003);
    let mut want = data;
    want[100_000..100_003].copy_from_slice(b"new");
    want.resize(400_000, 0);
    want.extend_from_slice(b"end");
    assert!(read_all(&client, fh).await.unwrap() == want);
    close(&client, fh).await.unwrap();
    assert!(get(&client, ino).await == want);
    assert!(get(&*cluster.mount(2).await, ino).await == want);
}

#[tokio::test]
async fn times_that_are_set_survive_the_flush_of_earlier_writes() {
    let cluster = Cluster::start(1, 1);
    let client = cluster.mount(1).await;
    let created = client.create(ROOT, b"f", new_file(), true, RW).await;
    let (attr, opened) = created.unwrap();
    write(&client, opened.fh, 0, b"content").await;
    let old = lagan_types::Time {
        secs: 1_000_000,
        nanos: 7,
    };
    let set = SetAttr {
        mtime: Some(lagan_types::op::SetTime::At(old)),
        ..SetAttr::default()
    };
    client.setattr(USER, attr.ino, set).await.unwrap();
    close(&client, opened.fh).await.unwrap();
    let attr = client.getattr(attr.ino).await.unwrap();
    assert_eq!((attr.mtime, attr.size), (old, 7));
}

#[tokio::test]
async fn truncation_cuts_and_grows_with_zeros() {
    let cluster = Cluster::start(3, 2);
    let client = cluster.mount(1).await;
    let data = bytes(100_000, 5);
    let ino = put(&client, "f", &data).await;
    for size in [50_000, 70_000] {
        let set = SetAttr {
            size: Some(size),
            ..SetAttr::default()
        };
        assert_eq!(client.setattr(USER, ino, set).await.unwrap().size, size);
    }
    let mut want = data[..50_000].to_vec();
    want.resize(70_000, 0);
    assert!(get(&client, ino).await == want);
    let truncate = OpenOptions {
        truncate: true,
        ..RW
    };
    let fh = client.open(ino, truncate).await.unwrap().fh;
    assert!(read_all(&client, fh).await.unwrap().is_empty());
    close(&client, fh).await.unwrap();
}

#[tokio::test]
async fn appends_of_two_mounts_lose_nothing() {
    let cluster = Cluster::start(3, 2);
    let (a, b) = (cluster.mount(1).await, cluster.mount(2).await);
    let ino = put(&a, "log", b"").await;
    let (fa, fb) = (
        a.open(ino, APPEND).await.unwrap().fh,
        b.open(ino, APPEND).await.unwrap().fh,
    );
    let mut lines = Vec::new();
    for i in 0..30 {
        for (client, fh, name) in [(&a, fa, "a"), (&b, fb, "b")] {
            let line = format!("{name} {i:04} {}\n", "x".repeat(i * 7));
            let data = Bytes::from(line.clone());
            client.write(USER, fh, 0, data).await.unwrap();
            lines.push(line);
            if i % 3 == 0 {
                client.fsync(fh).await.unwrap();
            }
        }
    }
    close(&a, fa).await.unwrap();
    close(&b, fb).await.unwrap();
    let all = String::from_utf8(get(&a, ino).await).unwrap();
    let mut got: Vec<_> = all.split_inclusive('\n').map(str::to_owned).collect();
    for name in ["a", "b"] {
        let of = |l: &[String]| -> Vec<String> {
            l.iter().filter(|l| l.starts_with(name)).cloned().collect()
        };
        assert_eq!(of(&got), of(&lines));
    }
    got.sort();
    lines.sort();
    assert_eq!(got, lines);
}

#[tokio::test]
async fn a_log_that_is_opened_for_each_line_keeps_few_extents() {
    let cluster = Cluster::start(3, 2);
    let client = cluster.mount(1).await;
    let ino = put(&client, "log", b"").await;
    let mut want = Vec::new();
    for i in 0..100u32 {
        let fh = client.open(ino, APPEND).await.unwrap().fh;
        let line = bytes(100, i);
        write(&client, fh, 0, &line).await;
        want.extend_from_slice(&line);
        close(&client, fh).await.unwrap();
    }
    assert!(get(&client, ino).await == want);
    let count = extents(&cluster, ino).len();
    assert!(count <= 3, "{count} extents");
}

#[tokio::test]
async fn an_append_rewrites_several_short_extents_at_once() {
    let cluster = Cluster::start(3, 2);
    let client = cluster.mount(1).await;
    let ino = put(&client, "log", b"").await;
    let mut want = Vec::new();
    let mut lens = Vec::new();
    for (i, len) in [40_000, 20_000, 10_000, 5_000, 5_000]
        .into_iter()
        .enumerate()
    {
        // The last one by a mount that has none of the bytes.
        let client = if i == 4 {
            cluster.mount(2).await
        } else {
            client.clone()
        };
        let fh = client.open(ino, APPEND).await.unwrap().fh;
        let part = bytes(len, i as u32);
        write(&client, fh, 0, &part).await;
        want.extend_from_slice(&part);
        close(&client, fh).await.unwrap();
        lens.push(extents(&cluster, ino).len());
    }
    assert_eq!(lens, [1, 2, 3, 4, 1]);
    assert!(get(&client, ino).await == want);
}

#[tokio::test]
async fn the_tail_of_a_file_with_many_extents_is_merged_too() {
    let cluster = Cluster::start(1, 1);
    let client = cluster.mount(1).await;
    let ino = put(&client, "log", b"").await;
    let fh = client.open(ino, RW).await.unwrap().fh;
    let mut want = vec![0; 700 * 20];
    for i in 0..700usize {
        write(&client, fh, i as u64 * 20, &[7; 10]).await;
        want[i * 20..i * 20 + 10].fill(7);
    }
    want.truncate(699 * 20 + 10);
    close(&client, fh).await.unwrap();
    for _ in 0..5 {
        let fh = client.open(ino, APPEND).await.unwrap().fh;
        write(&client, fh, 0, b"line\n").await;
        want.extend_from_slice(b"line\n");
        close(&client, fh).await.unwrap();
    }
    assert!(get(&client, ino).await == want);
    let all = File { ino };
    assert_eq!(cluster.world().query(all).extent_count, 700);
}

#[tokio::test]
async fn an_append_is_seen_by_reads_and_getattr_of_its_mount() {
    let cluster = Cluster::start(1, 1);
    let client = cluster.mount(1).await;
    let ino = put(&client, "log", b"one ").await;
    let opened = client.open(ino, APPEND).await.unwrap();
    assert!(opened.direct_io);
    write(&client, opened.fh, 0, b"two").await;
    assert_eq!(client.getattr(ino).await.unwrap().size, 7);
    write(&client, opened.fh, 0, b" three").await;
    assert_eq!(
        read_all(&client, opened.fh).await.unwrap(),
        b"one two three"
    );
}

#[tokio::test]
async fn many_small_writes_become_several_commits() {
    let cluster = Cluster::start(1, 1);
    let client = cluster.mount(1).await;
    let ino = put(&client, "f", &[0; 70_000]).await;
    let fh = client.open(ino, RW).await.unwrap().fh;
    let mut want = vec![0; 70_000];
    for i in 0..300usize {
        write(&client, fh, i as u64 * 200, &[(i % 255) as u8 + 1; 10]).await;
        want[i * 200..i * 200 + 10].fill((i % 255) as u8 + 1);
    }
    close(&client, fh).await.unwrap();
    assert!(get(&*cluster.mount(2).await, ino).await == want);
}

#[tokio::test]
async fn holes_are_punched_found_and_read_as_zeros() {
    let cluster = Cluster::start(1, 1);
    let client = cluster.mount(1).await;
    let ino = put(&client, "f", &[7; 100_000]).await;
    let fh = client.open(ino, RW).await.unwrap().fh;
    client
        .fallocate(USER, fh, 10_000, 20_000, 0x3)
        .await
        .unwrap();
    client
        .fallocate(USER, fh, 90_000, 50_000, 0x3)
        .await
        .unwrap();
    assert_eq!(client.getattr(ino).await.unwrap().size, 100_000);
    client.fallocate(USER, fh, 150_000, 10, 0).await.unwrap();
    client.fallocate(USER, fh, 500_000, 10, 1).await.unwrap();
    let mut want = vec![7; 100_000];
    want[10_000..30_000].fill(0);
    want[90_000..].fill(0);
    want.resize(150_010, 0);
    assert!(read_all(&client, fh).await.unwrap() == want);
    let seek = |at, whence| client.lseek(fh, at, whence);
    assert_eq!(seek(0, Seek::Data).await, Ok(0));
    assert_eq!(seek(0, Seek::Hole).await, Ok(10_000));
    assert_eq!(seek(15_000, Seek::Data).await, Ok(30_000));
    assert_eq!(seek(95_000, Seek::Data).await, Err(FsError::NoSuchOffset));
    assert_eq!(seek(95_000, Seek::Hole).await, Ok(95_000));
    assert_eq!(seek(150_010, Seek::Hole).await, Err(FsError::NoSuchOffset));
    close(&client, fh).await.unwrap();
}

#[tokio::test]
async fn a_released_file_is_read_through_recall() {
    let cluster = Cluster::start(2, 2);
    let client = cluster.mount(1).await;
    let data = bytes(300_000, 9);
    let ino = put(&client, "f", &data).await;
    crate::model::archive_and_release(&cluster, ino, &data);
    assert!(matches!(
        extents(&cluster, ino)[0].content,
        Content::Object { .. }
    ));
    assert!(get(&client, ino).await == data);
    let state = client.getxattr(ino, b"user.lagan.state").await.unwrap();
    assert_eq!(state, b"released");
    let object = client.getxattr(ino, b"user.lagan.object").await.unwrap();
    assert!(object.starts_with(b"bucket/"));
    let fh = client.open(ino, RW).await.unwrap().fh;
    write(&client, fh, 1000, b"dirty").await;
    close(&client, fh).await.unwrap();
    let mut want = data;
    want[1000..1005].copy_from_slice(b"dirty");
    assert!(get(&client, ino).await == want);
}

#[tokio::test]
async fn appends_and_writes_of_users_clear_setuid() {
    let cluster = Cluster::start(1, 1);
    let client = cluster.mount(1).await;
    let ino = put(&client, "f", b"program").await;
    for open in [RW, APPEND] {
        let set = SetAttr {
            mode: Some(0o4755),
            ..SetAttr::default()
        };
        client.setattr(USER, ino, set).await.unwrap();
        let fh = client.open(ino, open).await.unwrap().fh;
        write(&client, fh, 0, b"changed").await;
        close(&client, fh).await.unwrap();
        assert_eq!(client.getattr(ino).await.unwrap().mode, 0o755, "{open:?}");
    }
}

#[tokio::test]
async fn scattered_writes_wait_for_commits_instead_of_piling_up() {
    let cluster = Cluster::start(1, 1);
    let client = cluster.mount_with(1, std::time::Duration::from_millis(700));
    let client = client.await;
    let created = client.create(ROOT, b"f", new_file(), true, RW).await;
    let fh = created.unwrap().1.fh;
    cluster.world().silent.insert(NodeId(1));
    let mut taken = 0;
    for i in 0..5000u64 {
        let data = Bytes::from_static(b"x");
        let wrote = client.write(USER, fh, i * 100, data);
        match tokio::time::timeout(std::time::Duration::from_millis(200), wrote).await {
            Ok(Ok(_)) => taken += 1,
            _ => break,
        }
    }
    assert!((500..2000).contains(&taken), "{taken}");
    cluster.world().silent.clear();
}

#[tokio::test]
async fn random_small_overwrites_that_are_fsynced_keep_few_extents() {
    const SIZE: usize = 64 << 20;
    let cluster = Cluster::start(1, 1);
    let client = cluster.mount(1).await;
    let mut data = bytes(SIZE, 21);
    let ino = put(&client, "database", &data).await;
    let fh = client.open(ino, RW).await.unwrap().fh;
    let mut draw = 1u64;
    for n in 0..10_000u32 {
        draw = draw
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(99);
        let page = (draw >> 33) as usize % (SIZE / 4096) * 4096;
        data[page..page + 4096].fill(n as u8);
        write(&client, fh, page as u64, &data[page..page + 4096]).await;
        client.fsync(fh).await.unwrap();
    }
    let count = || cluster.world().query(File { ino }).extent_count;
    // 64 in each MiB; the last rewrites may still be under way.
    for _ in 0..200 {
        if count() <= 64 * 64 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert!(count() <= 64 * 64, "{} extents", count());
    assert!(read_all(&client, fh).await.unwrap() == data);
    close(&client, fh).await.unwrap();
    assert!(get(&*cluster.mount(2).await, ino).await == data);
    let wrong = lagan_meta::invariants::check(&cluster.world().store);
    assert!(wrong.is_empty(), "{wrong:#?}");
}
