//! Attributes that are set on a new file before it is closed, as tar and cp do: they come with its
//! bytes where its mount uses the directory alone, and are the same for everybody in any case.

use crate::alone::warm;
use crate::shorthands::{metric, s};
use lagan_tests::options::Options;
use lagan_tests::with_cluster;
use std::fs::{self, File, FileTimes, Metadata, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
use std::path::Path;
use std::time::{Duration, SystemTime};

/// What is done to a new file between its create and its close. It is given what the other mount
/// sees of it.
type Steps = fn(&mut File, &Path);

/// The time that is set.
const SET: Duration = Duration::new(1_000_000_000, 7);

fn write(file: &mut File, bytes: &[u8]) {
    file.write_all(bytes).expect("a call on a mount");
}

fn set_times(file: &File) {
    let time = SystemTime::UNIX_EPOCH + SET;
    let times = FileTimes::new().set_accessed(time).set_modified(time);
    file.set_times(times).expect("a call on a mount");
    let meta = file.metadata().expect("a call on a mount");
    assert!(is_set(&meta), "{meta:?}");
}

fn set_mode(file: &File, mode: u32) {
    let mode = Permissions::from_mode(mode);
    file.set_permissions(mode).expect("a call on a mount");
}

fn look(path: &Path) -> Metadata {
    fs::metadata(path).expect("a call on a mount")
}

fn is_set(meta: &Metadata) -> bool {
    (meta.mtime(), meta.mtime_nsec()) == (SET.as_secs() as i64, i64::from(SET.subsec_nanos()))
}

/// As tar does.
fn unpack(file: &mut File, _: &Path) {
    write(file, b"bytes");
    set_mode(file, 0o600);
    set_times(file);
}

/// Steps, the bytes and the mode that the file has then, and whether the time is the one set.
const ALL: [(Steps, &[u8], u32, bool); 9] = [
    (unpack, b"bytes", 0o600, true),
    (
        |file, _| {
            set_times(file);
            write(file, b"bytes");
        },
        b"bytes",
        0o644,
        false,
    ),
    (
        |file, _| {
            write(file, b"bytes");
            set_times(file);
            write(file, b" more");
        },
        b"bytes more",
        0o644,
        false,
    ),
    (
        |file, there| {
            write(file, b"bytes");
            set_mode(file, 0o640);
            set_times(file);
            let seen = look(there);
            assert!(is_set(&seen) && seen.mode() & 0o7777 == 0o640, "{seen:?}");
        },
        b"bytes",
        0o640,
        true,
    ),
    (
        |file, there| {
            write(file, b"bytes");
            assert!(!is_set(&look(there)));
            set_mode(file, 0o640);
            set_times(file);
            assert!(is_set(&look(there)));
        },
        b"bytes",
        0o640,
        true,
    ),
    (
        |file, _| {
            write(file, b"bytes");
            fchown(&*file, Some(5), Some(7)).expect("a call on a mount");
            set_mode(file, 0o4755);
            set_times(file);
        },
        b"bytes",
        0o4755,
        true,
    ),
    (|file, _| set_times(file), b"", 0o644, true),
    (
        |file, there| {
            write(file, b"bytes");
            set_times(file);
            file.sync_all().expect("a call on a mount");
            assert!(is_set(&look(there)));
            file.set_len(2).expect("a call on a mount");
        },
        b"by",
        0o644,
        false,
    ),
    (
        |file, _| {
            write(file, b"bytes");
            set_mode(file, 0o600);
            set_mode(file, 0o644);
            fchown(&*file, Some(5), None).expect("a call on a mount");
            fchown(&*file, Some(0), Some(0)).expect("a call on a mount");
        },
        b"bytes",
        0o644,
        false,
    ),
];

fn create(path: &Path) -> File {
    let mut options = OpenOptions::new();
    let file = options.write(true).create_new(true).open(path);
    let file = file.expect("a call on a mount");
    set_mode(&file, 0o644);
    file
}

#[test]
fn attributes_set_before_the_close_are_the_same_everywhere() {
    with_cluster(Options::default(), s(240), |cluster| {
        let (a, b) = (cluster.a().join("d"), cluster.b().join("d"));
        fs::create_dir(&a).expect("a call on a mount");
        for round in 0..3 {
            for (n, (steps, bytes, mode, set)) in ALL.iter().enumerate() {
                // The other mount's looks have taken the directory away.
                warm(cluster, &a);
                let name = format!("r{round}-{n}");
                let mut file = create(&a.join(&name));
                steps(&mut file, &b.join(&name));
                let mine = file.metadata().expect("a call on a mount");
                assert_eq!(mine.len(), bytes.len() as u64, "{name}");
                drop(file);
                let seen = look(&b.join(&name));
                assert_eq!(fs::read(b.join(&name)).expect("a call"), *bytes, "{name}");
                assert_eq!(seen.mode() & 0o7777, *mode, "{name}");
                assert_eq!((is_set(&seen), is_set(&mine)), (*set, *set), "{name}");
                assert_eq!(look(&a.join(&name)).ctime(), seen.ctime(), "{name}");
                assert!(seen.ctime() >= mine.ctime(), "{name}");
                let owner = if *mode == 0o4755 { (5, 7) } else { (0, 0) };
                assert_eq!((seen.uid(), seen.gid()), owner, "{name}");
            }
        }
    });
}

#[test]
fn file_that_is_unpacked_is_one_request() {
    with_cluster(Options::default(), s(180), |cluster| {
        let dir = cluster.a().join("d");
        fs::create_dir(&dir).expect("a call on a mount");
        let sets = || metric(cluster, "lagan_meta_requests_total{ask=\"SetAttrs\"}");
        // A machine that stalls lets the lease run out.
        let alone = (0..20).any(|round| {
            warm(cluster, &dir);
            let before = sets();
            for n in 0..10 {
                let path = dir.join(format!("f{round}-{n}"));
                unpack(&mut create(&path), &path);
            }
            sets() == before
        });
        assert!(alone, "attributes are always set by the leader");
        for entry in fs::read_dir(cluster.b().join("d")).expect("a call on a mount") {
            let entry = entry.expect("an entry");
            if entry.file_name().as_encoded_bytes().starts_with(b"f") {
                assert!(is_set(&entry.metadata().expect("a call on a mount")));
            }
        }
    });
}
