//! Access times, as relatime has them: the first read after a change counts.

use crate::shorthands::{names, s};
use lagan_tests::wait::until;
use lagan_tests::{Cluster, Options, with_cluster, with_shared};
use std::fs::{self, File, FileTimes};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

type Time = (i64, i64);

fn atime(path: &Path) -> Time {
    let m = fs::symlink_metadata(path).expect("stat");
    (m.atime(), m.atime_nsec())
}

/// Whether it was read since its last change.
fn is_read(path: &Path) -> bool {
    let m = fs::symlink_metadata(path).expect("stat");
    atime(path) > (m.mtime(), m.mtime_nsec()) && atime(path) > (m.ctime(), m.ctime_nsec())
}

/// Waits until another mount sees that access time.
#[track_caller]
fn seen(path: &Path, time: Time) {
    until("the other mount sees it", s(30), || {
        (atime(path) == time).then_some(())
    });
}

#[test]
fn first_read_after_a_change_counts() {
    with_shared(s(120), |a, b| {
        let (on_a, on_b) = (a.join("x"), b.join("x"));
        let mut last = (0, 0);
        for text in ["one", "two"] {
            fs::write(&on_a, text).unwrap();
            assert!(!is_read(&on_a) && !is_read(&on_b));
            assert_eq!(fs::read(&on_b).unwrap(), text.as_bytes());
            assert!(is_read(&on_b), "at once");
            let time = atime(&on_b);
            assert!(time > last);
            seen(&on_a, time);
            // Neither the next read here nor one elsewhere.
            fs::read(&on_b).unwrap();
            fs::read(&on_a).unwrap();
            assert_eq!((atime(&on_a), atime(&on_b)), (time, time));
            last = time;
        }
    });
}

#[test]
fn pages_that_the_kernel_has_do_not_hide_a_read() {
    with_shared(s(60), |a, b| {
        for (n, path) in [a, a, b].iter().enumerate() {
            let path = path.join("x");
            fs::write(&path, vec![n as u8; 10_000]).unwrap();
            assert!(!is_read(&path));
            assert_eq!(fs::read(&path).unwrap(), vec![n as u8; 10_000]);
            assert!(is_read(&path), "round {n}");
        }
    });
}

#[test]
fn reads_by_o_noatime_do_not_count() {
    with_shared(s(60), |a, b| {
        for path in [a.join("x"), b.join("x")] {
            fs::write(&path, b"text").unwrap();
            let before = atime(&path);
            let mut options = File::options();
            let quiet = options.read(true).custom_flags(libc::O_NOATIME);
            let mut text = String::new();
            let mut file = quiet.open(&path).unwrap();
            file.read_to_string(&mut text).unwrap();
            drop(file);
            assert_eq!((text.as_str(), atime(&path)), ("text", before));
            fs::read(&path).unwrap();
            assert!(is_read(&path));
        }
    });
}

#[test]
fn time_that_was_set_after_the_read_stays() {
    with_shared(s(90), |a, b| {
        for name in ["x", "later"] {
            fs::write(a.join(name), b"text").unwrap();
        }
        fs::read(b.join("x")).unwrap();
        let times = FileTimes::new().set_accessed(UNIX_EPOCH + Duration::new(1, 2));
        File::open(a.join("x")).unwrap().set_times(times).unwrap();
        assert_eq!(atime(&b.join("x")), (1, 2));
        // What is told later has been told: so has the other.
        fs::read(b.join("later")).unwrap();
        seen(&a.join("later"), atime(&b.join("later")));
        assert_eq!((atime(&a.join("x")), atime(&b.join("x"))), ((1, 2), (1, 2)));
        // And it is old enough for the next read to count.
        fs::read(b.join("x")).unwrap();
        assert!(is_read(&b.join("x")));
    });
}

#[test]
fn directories_and_links_have_access_times_too() {
    with_shared(s(90), |a, b| {
        fs::create_dir(a.join("d")).unwrap();
        std::os::unix::fs::symlink("d", a.join("l")).unwrap();
        for n in ["1", "2"] {
            fs::write(a.join("d").join(n), n).unwrap();
            assert!(!is_read(&b.join("d")));
            assert_eq!(names(&b.join("d")).last().map(String::as_str), Some(n));
            assert!(is_read(&b.join("d")));
            let time = atime(&b.join("d"));
            seen(&a.join("d"), time);
            names(&b.join("d"));
            names(&a.join("d"));
            assert_eq!((atime(&a.join("d")), atime(&b.join("d"))), (time, time));
        }
        assert!(!is_read(&b.join("l")));
        fs::read_link(b.join("l")).unwrap();
        assert!(is_read(&b.join("l")));
        seen(&a.join("l"), atime(&b.join("l")));
    });
}

/// Mounts the second mount again, with that line in its configuration.
fn remount_b(cluster: &Cluster, line: &str) {
    cluster.stop("mount-2");
    let config = cluster.process("mount-2").config;
    let text = fs::read_to_string(&config).expect("read the configuration");
    let rest = text
        .lines()
        .filter(|l| !l.contains("atime") && !l.starts_with("read_only"));
    let lines: Vec<&str> = [line].into_iter().chain(rest).collect();
    fs::write(&config, lines.join("\n")).expect("write the configuration");
    cluster.start("mount-2");
}

#[test]
fn options_of_the_mount_decide_and_nothing_is_lost_by_unmounting() {
    with_cluster(Options::default(), s(240), |cluster| {
        let (a, b) = (cluster.a(), cluster.b());
        fs::create_dir(a.join("d")).unwrap();
        let shown = || {
            let table = fs::read_to_string("/proc/mounts").expect("read the mount table");
            let point = b.to_str().expect("text").to_owned();
            let line = table.lines().find(|l| l.contains(&point));
            line.expect("it is mounted").to_owned()
        };
        for (line, word, files, directories) in [
            ("", "relatime", true, true),
            ("noatime = true", "noatime", false, false),
            ("nodiratime = true", "nodiratime", true, false),
            ("read_only = true", " ro,", false, false),
        ] {
            remount_b(cluster, line);
            assert!(shown().contains(word), "{}", shown());
            fs::write(a.join("d/x"), word).unwrap();
            names(&b.join("d"));
            fs::read(b.join("d/x")).unwrap();
            let moved = |mount: &Path| (is_read(&mount.join("d/x")), is_read(&mount.join("d")));
            assert_eq!(moved(&b), (files, directories), "{line}");
            // What it has noted it tells before it ends.
            cluster.stop("mount-2");
            assert_eq!(moved(&a), (files, directories), "{line}");
            cluster.start("mount-2");
            assert_eq!(moved(&b), (files, directories), "{line}");
            // For the next round the directory has changed.
            fs::remove_file(a.join("d/x")).unwrap();
        }
    });
}
