//! A create is answered before it is replicated: nobody may notice.

use crate::shorthands::{expect_errno, names, s};
use lagan_tests::random::Random;
use lagan_tests::run::LONG;
use lagan_tests::wait::until;
use lagan_tests::{Options, leftover, sized, sys, with_cluster, with_shared};
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::Barrier;
use std::time::Duration;

/// Files that are created in a row and stay open.
const FILES: usize = 40;

fn create(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().write(true).create_new(true).open(path)
}

fn must_create(path: &Path) -> File {
    create(path).unwrap_or_else(|e| panic!("create {}: {e}", path.display()))
}

/// Writes through the handle, closes it, and expects the bytes on the other mount.
fn finish(mut file: File, text: &str, elsewhere: &Path) {
    file.write_all(text.as_bytes()).expect("write");
    sys::close(std::os::fd::IntoRawFd::into_raw_fd(file)).expect("close");
    assert_eq!(fs::read_to_string(elsewhere).expect("read"), text);
}

#[test]
fn open_file_is_seen_on_the_other_mount_before_it_is_closed() {
    with_shared(s(120), |a, b| {
        for n in 0..FILES {
            let name = format!("{n}");
            let (on_a, on_b) = (a.join(&name), b.join(&name));
            let file = must_create(&on_a);
            match n % 4 {
                0 => assert!(fs::metadata(&on_b).expect("stat").is_file()),
                1 => expect_errno(create(&on_b), libc::EEXIST),
                2 => assert!(names(b).contains(&name)),
                _ => assert!(names(a).contains(&name)),
            }
            assert_eq!(
                file.metadata().expect("fstat").ino(),
                fs::metadata(&on_b).expect("stat").ino()
            );
            finish(file, &format!("content {n}"), &on_b);
        }
    });
}

#[test]
fn what_others_do_to_an_open_file_holds() {
    with_shared(s(120), |a, b| {
        fs::create_dir(a.join("d")).expect("mkdir");
        let held = must_create(&a.join("d/x"));
        expect_errno(fs::remove_dir(b.join("d")), libc::ENOTEMPTY);
        fs::rename(b.join("d/x"), b.join("y")).expect("rename");
        fs::remove_dir(b.join("d")).expect("rmdir");
        finish(held, "moved", &b.join("y"));

        let held = must_create(&a.join("x"));
        fs::set_permissions(b.join("x"), fs::Permissions::from_mode(0o600)).expect("chmod");
        assert_eq!(held.metadata().expect("fstat").mode() & 0o777, 0o600);
        finish(held, "kept", &b.join("x"));
        assert_eq!(
            fs::metadata(a.join("x")).expect("stat").mode() & 0o777,
            0o600
        );

        let mut held = must_create(&a.join("z"));
        fs::remove_file(b.join("z")).expect("unlink");
        held.write_all(b"nobody").expect("write");
        held.sync_all().expect("fsync");
        assert_eq!(held.metadata().expect("fstat").nlink(), 0);
        expect_errno(fs::metadata(a.join("z")), libc::ENOENT);
        drop(held);
        assert_eq!(names(b), ["x", "y"]);
    });
}

#[test]
fn directory_shows_at_once_that_something_was_created_in_it() {
    with_shared(s(60), |a, b| {
        let before = fs::metadata(b).expect("stat").modified().expect("mtime");
        std::thread::sleep(std::time::Duration::from_millis(20));
        let held = must_create(&a.join("x"));
        for side in [a, b] {
            let now = fs::metadata(side).expect("stat").modified().expect("mtime");
            assert!(now > before);
        }
        drop(held);
        assert_eq!(fs::metadata(b.join("x")).expect("stat").len(), 0);
    });
}

#[test]
fn exclusive_creates_hold_when_the_leader_dies_after_them() {
    let why = "the leader is killed";
    with_cluster(Options::default().with_faults(why), LONG, |cluster| {
        let (a, b) = (cluster.a(), cluster.b());
        for round in 0..3 {
            let name = |n: usize| format!("{round}-{n}");
            // the first numbers are granted with the first create
            drop(must_create(&a.join(format!("warm-{round}"))));
            let leader = cluster.leader();
            let held: Vec<File> = (0..FILES).map(|n| must_create(&a.join(name(n)))).collect();
            cluster.kill(&leader);
            for n in (0..FILES).rev() {
                expect_errno(create(&b.join(name(n))), libc::EEXIST);
            }
            for (n, file) in held.into_iter().enumerate() {
                finish(file, &name(n), &b.join(name(n)));
            }
            cluster.start(&leader);
            cluster.wait_healthy();
        }
        assert_eq!(names(&b).len(), 3 * (FILES + 1));
        cluster.check();
    });
}

#[test]
fn file_that_stays_open_without_a_write_outlives_the_leader() {
    let why = "all servers are killed";
    with_cluster(Options::default().with_faults(why), LONG, |cluster| {
        let held = must_create(&cluster.a().join("x"));
        // longer than a promise stays one
        std::thread::sleep(s(2));
        for server in cluster.servers() {
            cluster.kill(&server);
        }
        for server in cluster.servers() {
            cluster.launch(&server);
        }
        for server in cluster.servers() {
            cluster.wait_ready(&server);
        }
        cluster.wait_healthy();
        expect_errno(create(&cluster.b().join("x")), libc::EEXIST);
        finish(held, "late", &cluster.b().join("x"));
    });
}

#[test]
fn create_never_opens_what_another_user_has_just_made_elsewhere() {
    with_shared(s(120), |a, b| {
        fs::set_permissions(a, fs::Permissions::from_mode(0o777)).expect("chmod");
        let rounds = sized(300, 3000);
        let start = Barrier::new(2);
        // either may be the first, whichever is faster here
        let pause = |seed| {
            let mut random = Random::new(seed);
            move || std::thread::sleep(Duration::from_micros(random.below(1500)))
        };
        let mut root_pauses = pause(5);
        let (mut roots, mut users, mut wrong) = (0, 0, Vec::new());
        std::thread::scope(|scope| {
            let (start, told) = (&start, std::sync::mpsc::channel());
            let (tell, told) = told;
            scope.spawn(move || {
                // the way to the mount is root's alone
                let held = File::open(b).expect("open the directory");
                let dir = Path::new("/proc/thread-self/fd").join(held.as_raw_fd().to_string());
                sys::become_user(1000);
                let mut user_pauses = pause(6);
                for n in 0..rounds {
                    start.wait();
                    user_pauses();
                    let mut open = OpenOptions::new();
                    let open = open.read(true).write(true).create(true).truncate(true);
                    // the kernel looks for it first
                    let opened = open.open(dir.join(n.to_string()));
                    tell.send(opened.map(drop)).expect("somebody listens");
                }
            });
            for n in 0..rounds {
                let path = a.join(n.to_string());
                let mut open = OpenOptions::new();
                open.write(true).create_new(true).mode(0o600);
                start.wait();
                root_pauses();
                let made = open.open(&path).and_then(|mut f| f.write_all(b"secret"));
                let opened = told.recv().expect("the other thread goes on");
                let errno = |e: std::io::Error| e.raw_os_error();
                match (made.map_err(errno), opened.map_err(errno)) {
                    (Ok(()), Err(Some(libc::EACCES))) => roots += 1,
                    (Err(Some(libc::EEXIST)), Ok(())) => users += 1,
                    other => wrong.push((n, other)),
                }
            }
        });
        eprintln!("{roots} made by root, {users} by the user");
        assert!(
            wrong.is_empty(),
            "root's create, the user's open: {wrong:?}"
        );
        for n in 0..rounds {
            let file = fs::metadata(a.join(n.to_string())).expect("stat");
            let len = if file.uid() == 0 { 6 } else { 0 };
            assert_eq!(file.len(), len, "{n}");
        }
        assert!(roots > 0 && users > 0, "no race: {roots}, {users}");
    });
}

#[test]
fn names_outlive_mount_and_servers_once_their_directory_is_fsynced() {
    let why = "a mount and all servers are killed";
    with_cluster(Options::default().with_faults(why), LONG, |cluster| {
        let (a, b) = (cluster.a().join("d"), cluster.b().join("d"));
        fs::create_dir(&a).expect("mkdir");
        // the first numbers are granted with the first create
        drop(must_create(&a.join("warm")));
        let mount = cluster.pid("mount-1");
        let servers = cluster.servers();
        let pids: Vec<u32> = servers.iter().map(|name| cluster.pid(name)).collect();
        let dir = File::open(&a).expect("open the directory");
        let held: Vec<File> = (0..FILES)
            .map(|n| must_create(&a.join(n.to_string())))
            .collect();
        dir.sync_all().expect("fsync the directory");
        // who holds a promise could still keep it: the mount, or the leader
        for pid in [vec![mount], pids].concat() {
            sys::kill(pid, libc::SIGKILL).expect("kill");
        }
        drop((held, dir));
        for server in &servers {
            cluster.launch(server);
        }
        for server in &servers {
            cluster.wait_ready(server);
        }
        cluster.start("mount-1");
        cluster.wait_healthy();
        for n in 0..FILES {
            fs::metadata(b.join(n.to_string())).unwrap_or_else(|e| panic!("{n}: {e}"));
        }
        cluster.check();
    });
}

#[test]
fn mount_that_is_told_to_end_stores_what_is_open() {
    with_cluster(Options::default(), LONG, |cluster| {
        let (a, b) = (cluster.a(), cluster.b());
        let pid = cluster.pid("mount-1");
        let mut full = must_create(&a.join("full"));
        full.write_all(b"neither closed nor fsynced")
            .expect("write");
        let empty = must_create(&a.join("empty"));
        sys::kill(pid, libc::SIGTERM).expect("end the mount");
        until("the mount's process has left", s(60), || {
            (!leftover::is_alive(pid)).then_some(())
        });
        assert_eq!(
            fs::read_to_string(b.join("full")).expect("read"),
            "neither closed nor fsynced"
        );
        assert_eq!(fs::metadata(b.join("empty")).expect("stat").len(), 0);
        // its session went with it, and so did what it had open
        fs::remove_file(b.join("full")).expect("unlink");
        drop((full, empty));
        cluster.start("mount-1");
        assert_eq!(names(&a), ["empty"]);
        cluster.check();
    });
}
