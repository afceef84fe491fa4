//! The mover against an S3 server that fails in all the ways that they do.

use crate::shorthands::{attribute, expect_errno, metric, release, s};
use lagan_tests::cluster::Cluster;
use lagan_tests::random::Random;
use lagan_tests::run::{LONG, make_root, remove_root};
use lagan_tests::s3::Store;
use lagan_tests::wait::until;
use lagan_tests::{Manifest, Options, corpus, rot, sys, with_cluster};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Exit status of `lagan status` when no leader answers.
const NO_QUORUM: i32 = 4;

/// A store of the test's own, and a cluster that uses it through the faulty proxy.
fn with_store(
    change: impl FnOnce(Options) -> Options,
    body: impl FnOnce(&Cluster, &Store) + Send + 'static,
) {
    let root = StoreRoot(make_root());
    let store = Arc::new(Store::start(&root.0));
    let options = Options {
        args: store.args(),
        env: store.env(),
        archive_after: "1s".into(),
        ..Options::default()
    };
    let shared = store.clone();
    with_cluster(change(options), LONG, move |cluster| body(cluster, &shared));
    drop(store);
}

/// Removed after the store has ended, also when the test fails.
struct StoreRoot(PathBuf);

impl Drop for StoreRoot {
    fn drop(&mut self) {
        lagan_tests::leftover::remove(&self.0);
        remove_root(&self.0);
    }
}

fn wait_drained(cluster: &Cluster) {
    until("the backlog is drained", s(150), || {
        let (status, json) = cluster.status();
        let waiting = json["archive"]["waiting"].as_u64()?;
        let idle = waiting == 0 && json["archive"]["uploading"] == 0;
        // without a leader nothing is known
        (status != NO_QUORUM && idle).then_some(())
    });
}

/// Fills a directory with mail on the first mount.
fn mail(cluster: &Cluster, name: &str, count: usize) -> Manifest {
    let seed = name.bytes().map(u64::from).sum();
    corpus::make(&cluster.a().join(name), count, seed).expect("make mail")
}

fn released_comes_back(cluster: &Cluster, name: &str, manifest: &Manifest) {
    let top = cluster.a().join(name);
    let files: Vec<PathBuf> = manifest.0.keys().map(|path| top.join(path)).collect();
    release(cluster, &top, &files);
    manifest.check(&cluster.b().join(name));
}

#[test]
fn backlog_is_drained_after_each_kind_of_failure() {
    let why = "S3 fails";
    with_store(
        |options| options.with_faults(why),
        |cluster, store| {
            let faults = [
                "refuse",
                "status 503",
                "status 500",
                "slow-down",
                "lose every=2",
                "delay 300",
                "corrupt-upload 5000 method=PUT every=2",
                "cut 20",
            ];
            let mut all = Vec::new();
            for (n, fault) in faults.into_iter().enumerate() {
                store.fault(fault);
                let name = format!("mail-{n}");
                let manifest = mail(cluster, &name, 20);
                std::thread::sleep(s(4));
                // S3 stands in nobody's way
                manifest.check(&cluster.b().join(&name));
                cluster.status_when("a leader", |status, _| status != NO_QUORUM);
                all.push((name, manifest));
                store.fault("pass");
            }
            wait_drained(cluster);
            for (name, manifest) in &all {
                released_comes_back(cluster, name, manifest);
            }
            assert_idle(cluster);
            assert!(metric(cluster, "lagan_mover_upload_failures_total") > 0);
            assert!(metric(cluster, "lagan_mover_uploads_total") >= 160);
            cluster.wait_healthy();
            cluster.check();
        },
    );
}

#[test]
fn archived_file_whose_replicas_all_rotted_is_read_from_its_object() {
    let why = "bytes are damaged on all disks";
    with_store(
        |options| options.with_faults(why),
        |cluster, _| {
            let bytes = Random::new(21).bytes(3 << 20);
            let file = |mount: PathBuf| mount.join("x");
            fs::write(file(cluster.a()), &bytes).expect("write");
            until("it is archived", s(60), || {
                (attribute(&file(cluster.a()), "state") == "archived").then_some(())
            });
            cluster.try_down().expect(0);
            let damaged: usize = (1..=3)
                .map(|n| {
                    let store = cluster.dir().join(format!("server-{n}"));
                    rot::flip(&store, &bytes[500_000..500_032])
                })
                .sum();
            // a third may have bytes of a first attempt that nothing names
            assert!(damaged >= 2, "each of two copies, found {damaged}");
            cluster.try_up(&[]).expect(0);
            assert!(fs::read(file(cluster.b())).expect("read") == bytes);
            // The servers heal what they can; here they turn to the archive. What the
            // reader told may be lost: a check tells it again.
            until("the metadata names the object", s(120), || {
                cluster.lagan(&["check"]);
                (attribute(&file(cluster.a()), "state") == "released").then_some(())
            });
            assert!(fs::read(file(cluster.a())).expect("read") == bytes);
            cluster.check();
        },
    );
}

#[test]
fn archived_file_whose_only_server_is_dead_is_read_from_its_object() {
    let why = "the server that has the bytes is killed";
    with_store(
        |options| Options {
            copies: 1,
            ..options.with_faults(why)
        },
        |cluster, _| {
            until("three vote", s(60), || {
                let (_, json) = cluster.status();
                let servers = json["servers"].as_array()?.iter();
                (servers.filter(|x| x["voter"] == true).count() == 3).then_some(())
            });
            let bytes = Random::new(22).bytes(9 << 20);
            let file = |mount: PathBuf| mount.join("x");
            fs::write(file(cluster.a()), &bytes).expect("write");
            until("it is archived", s(60), || {
                (attribute(&file(cluster.a()), "state") == "archived").then_some(())
            });
            let holder = (1..=3).map(|n| format!("server-{n}")).find(|name| {
                let store = cluster.dir().join(name);
                rot::holds(&store, &bytes[5_000_000..5_000_032])
            });
            let holder = holder.expect("one has the middle of the file");
            cluster.kill(&holder);
            // The other mount has none of the bytes in its memory.
            assert!(fs::read(file(cluster.b())).expect("read") == bytes);
            // Nothing has changed: the server may come back.
            assert_eq!(attribute(&file(cluster.b()), "state"), "archived");
            cluster.start(&holder);
            cluster.wait_healthy();
            cluster.check();
        },
    );
}

#[test]
fn silent_endpoint_blocks_nothing_but_the_archive() {
    let why = "S3 hangs";
    with_store(
        |options| options.with_faults(why),
        |cluster, store| {
            store.fault("hang");
            let manifest = mail(cluster, "mail", 50);
            until("uploads are under way", s(60), || {
                (cluster.status().1["archive"]["uploading"].as_u64()? > 0).then_some(())
            });
            std::thread::sleep(s(10));
            let more = mail(cluster, "more", 50);
            manifest.check(&cluster.b().join("mail"));
            cluster.status_when("files wait", |_, json| {
                let archive = &json["archive"];
                archive["waiting"].as_u64() > Some(0) && archive["oldest_s"].as_u64() > Some(0)
            });
            store.fault("pass");
            wait_drained(cluster);
            released_comes_back(cluster, "mail", &manifest);
            released_comes_back(cluster, "more", &more);
            assert_idle(cluster);
        },
    );
}

#[test]
fn store_that_was_dead_for_a_while_gets_everything() {
    let why = "the S3 server is killed";
    with_store(
        |options| options.with_faults(why),
        |cluster, store| {
            let first = mail(cluster, "first", 30);
            wait_drained(cluster);
            store.kill_server();
            let second = mail(cluster, "second", 30);
            first.check(&cluster.b().join("first"));
            until("the status says so", s(60), || {
                let (_, json) = cluster.status();
                (json["s3"]["state"] == "error" && json["s3"]["error"].is_string()).then_some(())
            });
            store.start_server();
            wait_drained(cluster);
            released_comes_back(cluster, "first", &first);
            released_comes_back(cluster, "second", &second);
            cluster.check();
        },
    );
}

#[test]
fn refused_credentials_are_shown_and_tried_again() {
    let why = "S3 refuses";
    with_store(
        |options| options.with_faults(why),
        |cluster, store| {
            store.fault("status 403");
            let manifest = mail(cluster, "mail", 10);
            until("the status says refused", s(90), || {
                let (status, json) = cluster.status();
                (status == 3 && json["s3"]["state"] == "refused").then_some(())
            });
            manifest.check(&cluster.b().join("mail"));
            store.fault("pass");
            wait_drained(cluster);
            cluster.wait_healthy();
            released_comes_back(cluster, "mail", &manifest);
        },
    );
}

#[test]
fn damaged_answers_are_never_served() {
    let why = "S3 answers with damaged bytes";
    with_store(
        |options| options.with_faults(why),
        |cluster, store| {
            let manifest = mail(cluster, "mail", 40);
            wait_drained(cluster);
            let top = cluster.a().join("mail");
            let files: Vec<PathBuf> = manifest.0.keys().map(|path| top.join(path)).collect();
            release(cluster, &top, &files);
            for fault in [
                "corrupt 700 method=GET every=2",
                "cut 900 method=GET every=2",
            ] {
                store.fault(fault);
                let mut errors = 0;
                for (path, want) in &manifest.0 {
                    match fs::read(cluster.b().join("mail").join(path)) {
                        Ok(bytes) => assert!(
                            lagan_tests::manifest::Entry::of(&bytes) == *want,
                            "{} was served wrong under {fault}",
                            path.display()
                        ),
                        Err(_) => errors += 1,
                    }
                }
                assert!(
                    errors <= manifest.0.len() / 4,
                    "{errors} errors under {fault}"
                );
            }
            store.fault("pass");
            manifest.check(&cluster.b().join("mail"));
            assert_idle(cluster);
        },
    );
}

#[test]
fn changed_file_is_archived_again_and_never_mixed() {
    with_store(
        |options| options,
        |cluster, _| {
            let (on_a, on_b) = (cluster.a().join("x"), cluster.b().join("x"));
            let first = Random::new(1).bytes(300_000);
            fs::write(&on_a, &first).expect("write");
            wait_drained(cluster);
            let object = attribute(&on_b, "object");
            release(cluster, &on_a, std::slice::from_ref(&on_b));
            // one range changes; the rest is only in S3
            use std::os::unix::fs::FileExt;
            let file = fs::File::options().write(true).open(&on_b).expect("open");
            file.write_all_at(&[0xaa; 1000], 150_000).expect("write");
            drop(file);
            let mut want = first;
            want[150_000..151_000].fill(0xaa);
            assert!(fs::read(&on_a).expect("read") == want);
            until("it is archived again", s(60), || {
                (attribute(&on_a, "object") != object).then_some(())
            });
            wait_drained(cluster);
            release(cluster, &on_a, std::slice::from_ref(&on_b));
            assert!(fs::read(&on_b).expect("read") == want);
            // and cut short
            fs::File::options()
                .write(true)
                .open(&on_a)
                .expect("open")
                .set_len(100_000)
                .expect("cut");
            assert!(fs::read(&on_b).expect("read") == want[..100_000]);
            cluster.check();
        },
    );
}

#[test]
fn object_of_an_unlinked_file_is_deleted() {
    with_store(
        |options| options,
        |cluster, store| {
            fs::write(cluster.a().join("x"), Random::new(2).bytes(50_000)).expect("write");
            wait_drained(cluster);
            let object = attribute(&cluster.b().join("x"), "object");
            let key = object.split_once('/').expect("bucket/key").1.to_owned();
            assert!(stored_key(&store.data(), &key), "{key} is in the store");
            fs::remove_file(cluster.b().join("x")).expect("unlink");
            until("the object is deleted", s(150), || {
                (!stored_key(&store.data(), &key)).then_some(())
            });
        },
    );
}

/// Whether the object is in the store: its key is in the record behind its bytes.
fn stored_key(data: &Path, key: &str) -> bool {
    let all = lagan_tests::manifest::files(data).expect("list the store");
    let holds = |bytes: &[u8]| bytes.windows(key.len()).any(|part| part == key.as_bytes());
    // a file may go while this looks
    all.iter()
        .any(|path| fs::read(path).is_ok_and(|bytes| holds(&bytes)))
}

#[test]
fn open_file_is_released_only_when_it_is_closed() {
    with_store(
        |options| options,
        |cluster, _| {
            let path = cluster.a().join("x");
            fs::write(&path, Random::new(6).bytes(300_000)).expect("write");
            fs::create_dir_all(cluster.a().join("sub/dir")).expect("make directories");
            let other = cluster.a().join("sub/dir/y");
            fs::write(&other, b"closed").expect("write");
            std::os::unix::fs::symlink("x", cluster.a().join("link")).expect("link");
            wait_drained(cluster);
            let held = fs::File::open(cluster.b().join("x")).expect("open");
            until("the closed file is released", s(60), || {
                let top = cluster.a();
                let done = cluster.lagan(&["release", "--json", top.to_str().expect("text")]);
                let said = done.expect(0).json();
                assert_eq!(said["files"], 2, "{said}");
                let all_known = said["unknown"] == 0 && said["open"] == 1;
                (all_known && attribute(&other, "state") == "released").then_some(())
            });
            assert_eq!(attribute(&path, "state"), "archived", "it is open");
            drop(held);
            release(cluster, &path, std::slice::from_ref(&path));
            assert_eq!(fs::read(&other).expect("read"), b"closed");
        },
    );
}

#[test]
fn file_that_s3_cannot_take_is_named_and_never_tried() {
    with_store(
        |options| options,
        |cluster, _| {
            let sparse = cluster.a().join("disk.img");
            let file = fs::File::create(&sparse).expect("create");
            file.set_len(6 << 40).expect("make it long");
            drop(file);
            fs::write(cluster.a().join("y"), b"small").expect("write");
            wait_drained(cluster);
            let json = cluster.status_when("it is named", |_, json| {
                json["archive"]["too_large_files"][0].is_object()
            });
            let archive = &json["archive"];
            assert_eq!(archive["too_large"], 1, "{json}");
            let named = &archive["too_large_files"][0];
            assert_eq!(named["path"], "/disk.img", "{json}");
            assert_eq!(named["reason"], "over 5 TiB", "{json}");
            assert_eq!(archive["failed"], 0, "{json}");
            assert_eq!(attribute(&sparse, "state"), "local");
            let path = sparse.to_str().expect("text");
            let done = cluster.lagan(&["archive", "now", "--json", path]).expect(3);
            assert_eq!(done.json()["too_large"], 1);
            fs::File::options()
                .write(true)
                .open(&sparse)
                .and_then(|file| file.set_len(1 << 20))
                .expect("cut");
            wait_drained(cluster);
            assert_eq!(attribute(&sparse, "state"), "archived");
        },
    );
}

#[test]
fn shorter_archive_after_reaches_files_that_wait() {
    with_store(
        |mut options| {
            options.archive_after = "1d".into();
            options
        },
        |cluster, _| {
            let path = cluster.a().join("x");
            fs::write(&path, b"waits").expect("write");
            cluster.lagan(&["set", "archive_after=1s"]).expect(0);
            until("it is archived", s(60), || {
                (attribute(&path, "state") == "archived").then_some(())
            });
        },
    );
}

#[test]
fn careless_endpoint_is_read_back_before_a_file_counts_as_archived() {
    let why = "S3 stores damaged bytes";
    let root = StoreRoot(make_root());
    let store = Arc::new(Store::start_careless(&root.0));
    let options = Options {
        args: store.args(),
        env: store.env(),
        archive_after: "1s".into(),
        ..Options::default()
    };
    let shared = store.clone();
    with_cluster(options.with_faults(why), LONG, move |cluster| {
        let first = mail(cluster, "first", 10);
        wait_drained(cluster);
        assert!(metric(cluster, "lagan_mover_read_backs_total") >= 10);
        shared.fault("corrupt-upload 700 method=PUT every=2");
        let second = mail(cluster, "second", 20);
        until("damage is found", s(150), || {
            (metric(cluster, "lagan_mover_upload_failures_total") > 0).then_some(())
        });
        shared.fault("pass");
        wait_drained(cluster);
        released_comes_back(cluster, "first", &first);
        released_comes_back(cluster, "second", &second);
        assert_idle(cluster);
    });
    drop(store);
}

/// Nothing of the archive's work is left over.
fn assert_idle(cluster: &Cluster) {
    for name in [
        "lagan_mover_uploading",
        "lagan_mover_recalling",
        "lagan_mover_waiting_files",
        "lagan_mover_waiting_bytes",
        "lagan_mover_oldest_wait_seconds",
        "lagan_mover_failed_files",
        "lagan_mover_attempts",
    ] {
        until(name, s(60), || (metric(cluster, name) == 0).then_some(()));
    }
}

#[test]
fn large_file_goes_in_parts_and_comes_back_in_ranges() {
    with_store(
        |options| options,
        |cluster, _| {
            let bytes = Random::new(3).bytes(150 << 20);
            let path = cluster.a().join("large");
            fs::write(&path, &bytes).expect("write");
            wait_drained(cluster);
            release(cluster, &path, std::slice::from_ref(&path));
            use std::os::unix::fs::FileExt;
            let file = fs::File::open(cluster.b().join("large")).expect("open");
            for at in [0, 77_777_777, (150 << 20) - 10] {
                let mut part = [0; 10];
                file.read_exact_at(&mut part, at as u64)
                    .expect("read a range");
                assert_eq!(part, bytes[at..at + 10]);
            }
            assert!(fs::read(&path).expect("read all") == bytes);
        },
    );
}

#[test]
fn prefix_of_another_cluster_is_refused() {
    let why = "the second cluster is refused";
    with_store(
        |options| options.with_faults(why),
        |cluster, store| {
            fs::write(cluster.a().join("x"), b"mine").expect("write");
            wait_drained(cluster);
            let other = Options {
                mounts: 1,
                args: store.args(),
                env: store.env(),
                ..Options::default()
            };
            let root = cluster.root().join("other");
            fs::create_dir(&root).expect("make a directory");
            let other = Cluster::new(root, other);
            let done = other.try_up(&[]);
            let said = format!("{}{}", done.out, done.err);
            assert_eq!(done.status, Some(1), "{done}");
            assert!(said.contains("belongs to"), "says whose it is: {done}");
            assert!(lagan_tests::leftover::mounts(other.root()).is_empty());
            assert!(
                lagan_tests::leftover::processes(other.root()).is_empty(),
                "half-started"
            );
        },
    );
}

#[test]
fn archive_attributes_follow_a_file() {
    with_store(
        |options| options,
        |cluster, _| {
            let (on_a, on_b) = (cluster.a().join("x"), cluster.b().join("x"));
            fs::write(&on_a, b"one").expect("write");
            expect_errno(sys::get_xattr(&on_a, "user.lagan.object"), libc::ENODATA);
            wait_drained(cluster);
            assert_eq!(attribute(&on_b, "state"), "archived");
            let done = cluster
                .lagan(&["file", "--json", on_b.to_str().expect("text")])
                .expect(0);
            let json = done.json();
            let file = &json["files"][0];
            assert_eq!(file["state"], "archived", "{json}");
            assert_eq!(
                file["object"],
                attribute(&on_a, "object").as_str(),
                "{json}"
            );
            // long until due, so that it stays dirty
            cluster.lagan(&["set", "archive_after=1h"]).expect(0);
            fs::write(&on_a, b"two").expect("write");
            assert_eq!(attribute(&on_b, "state"), "dirty");
            cluster.lagan_on(&["archive", "now"], &on_a);
            assert_eq!(attribute(&on_b, "state"), "archived");
            // chmod and rename do not count
            fs::rename(&on_a, cluster.a().join("y")).expect("rename");
            assert_eq!(attribute(&cluster.b().join("y"), "state"), "archived");
        },
    );
}
