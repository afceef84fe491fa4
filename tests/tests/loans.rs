//! The kernel believes attributes for a moment, and never old ones.
//!
//! `leases` shows what a mount's process remembers. Here the kernel is hot: programs look at
//! the same files all the time, so that most looks are answered by the kernel alone, while
//! the files change on this mount and on the other one.

use crate::shorthands::s;
use lagan_tests::options::Options;
use lagan_tests::with_cluster;
use std::fs::{self, File, FileTimes, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

/// What the kernel was lent is over by then, however late it was processed.
const OUT: Duration = Duration::from_millis(600);
/// A mount that is stopped for less is not missed: its lease runs on.
const NAP: Duration = Duration::from_millis(120);

fn set_times(path: &Path, time: SystemTime) {
    let times = FileTimes::new().set_accessed(time).set_modified(time);
    let file = OpenOptions::new()
        .append(true)
        .open(path)
        .expect("a call on a mount");
    file.set_times(times).expect("a call on a mount");
}

/// Looks at a file by its name and by its descriptor until the kernel has been lent it.
fn heat(path: &Path, file: &File) {
    for _ in 0..50 {
        file.metadata().expect("a call on a mount");
        fs::metadata(path).expect("a call on a mount");
    }
    file.metadata().expect("a call on a mount");
}

#[test]
fn kernel_answers_by_itself_what_is_hot_and_not_for_long() {
    with_cluster(Options::default(), s(180), |cluster| {
        let path = cluster.b().join("file");
        fs::write(cluster.a().join("file"), vec![7; 10_000]).expect("a call on a mount");
        let file = File::open(&path).expect("a call on a mount");
        let mut byte = [0];
        file.read_exact_at(&mut byte, 0).expect("a call on a mount");
        // Each look may come too late on a busy machine: once is enough.
        let believed = (0..20).any(|_| {
            // The lease and the heat are a matter of time.
            std::thread::sleep(s(1));
            heat(&path, &file);
            let frozen = cluster.freeze("mount-2");
            let seen = std::thread::scope(|scope| {
                let look = scope.spawn(|| {
                    let began = Instant::now();
                    for at in 0..1_000 {
                        file.read_exact_at(&mut [0; 4], at * 4)
                            .expect("a call on a mount");
                        assert_eq!(file.metadata().expect("a call on a mount").len(), 10_000);
                    }
                    began.elapsed()
                });
                std::thread::sleep(NAP);
                drop(frozen);
                look.join().expect("a look")
            });
            seen < NAP
        });
        assert!(believed, "the kernel asked each time");

        // The mount is stopped, and the file changes: no look that begins afterwards is
        // answered from what the kernel had.
        for round in 1..=3 {
            heat(&path, &file);
            let frozen = cluster.freeze("mount-2");
            let len = 10_000 + round;
            let other = OpenOptions::new()
                .append(true)
                .open(cluster.a().join("file"));
            other.expect("a call on a mount").write_all(b"x").unwrap();
            std::thread::scope(|scope| {
                let look = scope.spawn(|| file.metadata().expect("a call on a mount").len());
                std::thread::sleep(OUT);
                drop(frozen);
                assert_eq!(look.join().expect("a look"), len);
            });
        }
    });
}

/// One step of a test: what it does to the file, and what must be seen of it at once.
type Step = (&'static str, fn(&Path, u64));

fn append(path: &Path, n: u64) {
    let mut file = OpenOptions::new()
        .append(true)
        .open(path)
        .expect("a call on a mount");
    file.write_all(&n.to_le_bytes()).expect("a call on a mount");
}

fn chmod(path: &Path, n: u64) {
    let mode = if n.is_multiple_of(2) { 0o640 } else { 0o604 };
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("a call on a mount");
}

fn utimes(path: &Path, n: u64) {
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 + n);
    set_times(path, time);
}

fn chown(path: &Path, n: u64) {
    std::os::unix::fs::chown(path, Some(n as u32), Some(n as u32)).expect("a call on a mount");
}

fn link(path: &Path, n: u64) {
    fs::hard_link(path, path.with_file_name(format!("link-{n}"))).expect("a call on a mount");
}

fn unlink(path: &Path, n: u64) {
    fs::remove_file(path.with_file_name(format!("link-{}", n - 1))).expect("a call on a mount");
}

fn truncate(path: &Path, n: u64) {
    let file = OpenOptions::new()
        .write(true)
        .open(path)
        .expect("a call on a mount");
    file.set_len(100 + n).expect("a call on a mount");
}

const STEPS: [Step; 7] = [
    ("append", append),
    ("chmod", chmod),
    ("utimes", utimes),
    ("chown", chown),
    ("link", link),
    ("unlink", unlink),
    ("truncate", truncate),
];

/// What stat shows of a file, but for its access time, which is best effort.
fn seen(meta: fs::Metadata) -> [i64; 9] {
    [
        meta.size() as i64,
        meta.mode().into(),
        meta.uid().into(),
        meta.gid().into(),
        meta.nlink() as i64,
        meta.mtime(),
        meta.mtime_nsec(),
        meta.ctime(),
        meta.ctime_nsec(),
    ]
}

/// Tells threads to stop, also when the test fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Keeps a file hot on a mount, by name and by descriptor, until it is told to stop.
fn look_all_the_time(path: &Path, stop: &AtomicBool, looks: &AtomicU64) {
    let file = File::open(path).expect("a call on a mount");
    while !stop.load(Ordering::Relaxed) {
        file.metadata().expect("a call on a mount");
        fs::metadata(path).expect("a call on a mount");
        file.read_at(&mut [0; 16], 0).expect("a call on a mount");
        looks.fetch_add(1, Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A file that both mounts look at all the time changes on one of them: each sees each change
/// at once. Each change has a file of its own: one that others change is not lent for a while.
#[test]
fn hot_files_are_never_shown_as_they_were() {
    with_cluster(Options::default(), s(240), |cluster| {
        let roots = [cluster.a(), cluster.b()];
        for n in 1..=lagan_tests::sized(42, 700) as u64 {
            let (name, step) = STEPS[n as usize % STEPS.len()];
            let (by, other) = ((n / 2 % 2) as usize, (1 - n / 2 % 2) as usize);
            let paths: Vec<PathBuf> = roots.iter().map(|r| r.join(format!("f{n}"))).collect();
            fs::write(&paths[by], b"0123456789abcdef").expect("a call on a mount");
            fs::write(paths[by].with_file_name(format!("link-{}", n - 1)), b"")
                .expect("a call on a mount");
            if name == "unlink" {
                let link = paths[by].with_file_name(format!("link-{}", n - 1));
                fs::remove_file(&link).expect("a call on a mount");
                fs::hard_link(&paths[by], &link).expect("a call on a mount");
            }
            let (stop, looks) = (AtomicBool::new(false), AtomicU64::new(0));
            std::thread::scope(|scope| {
                let _stop = Stop(&stop);
                for path in &paths {
                    scope.spawn(|| look_all_the_time(path, &stop, &looks));
                }
                let open: Vec<File> = paths
                    .iter()
                    .map(|p| File::open(p).expect("a call on a mount"))
                    .collect();
                // Nothing is lent sooner than a moment after it was made.
                std::thread::sleep(Duration::from_millis(300 + n % 7 * 40));
                step(&paths[by], n);
                for at in [other, by, other] {
                    let by_name = seen(fs::metadata(&paths[at]).expect("a call on a mount"));
                    let by_fd = seen(open[at].metadata().expect("a call on a mount"));
                    assert_eq!(by_name, by_fd, "{name} {n} by mount {by}, on mount {at}");
                    let truth = seen(fs::metadata(&paths[by]).expect("a call on a mount"));
                    assert_eq!(by_name, truth, "{name} {n} by mount {by}, on mount {at}");
                }
            });
            assert!(looks.load(Ordering::Relaxed) > 10);
        }
    });
}

/// The other mount writes as many bytes anew and sets the time back, so that nothing but the
/// content tells: programs that read all the time see it at once.
#[test]
fn hot_pages_are_never_old_though_size_and_time_are_the_same() {
    with_cluster(Options::default(), s(240), |cluster| {
        // The first changes find it lent; later ones have programs ask all the time.
        let (a, b) = (cluster.a().join("file"), cluster.b().join("file"));
        let time = SystemTime::UNIX_EPOCH + s(1_000_000);
        fs::write(&a, [0; 8]).expect("a call on a mount");
        set_times(&a, time);
        let (stop, looks) = (AtomicBool::new(false), AtomicU64::new(0));
        std::thread::scope(|scope| {
            scope.spawn(|| look_all_the_time(&b, &stop, &looks));
            let _stop = Stop(&stop);
            let file = File::open(&b).expect("a call on a mount");
            for n in 1..=lagan_tests::sized(40, 400) as u64 {
                let pause = if n % 2 == 0 { 3 } else { 300 };
                std::thread::sleep(Duration::from_millis(pause));
                let other = OpenOptions::new()
                    .write(true)
                    .open(&a)
                    .expect("a call on a mount");
                other
                    .write_all_at(&n.to_le_bytes(), 0)
                    .expect("a call on a mount");
                other.sync_all().expect("a call on a mount");
                let mut bytes = [0; 8];
                file.read_exact_at(&mut bytes, 0)
                    .expect("a call on a mount");
                assert_eq!(u64::from_le_bytes(bytes), n, "before the time is set back");
                set_times(&a, time);
                file.read_exact_at(&mut bytes, 0)
                    .expect("a call on a mount");
                assert_eq!(u64::from_le_bytes(bytes), n, "after the time was set back");
                let mtime = file
                    .metadata()
                    .expect("a call on a mount")
                    .modified()
                    .unwrap();
                assert_eq!(mtime, time);
            }
        });
    });
}

/// relatime: the first read after a change moves the access time, and who looks at the same
/// mount sees that at once.
#[test]
fn own_read_moves_the_access_time_of_a_hot_file_at_once() {
    with_cluster(Options::default(), s(120), |cluster| {
        let path = cluster.a().join("file");
        fs::write(&path, b"text").expect("a call on a mount");
        let old = SystemTime::UNIX_EPOCH + s(1_000_000);
        for _ in 0..5 {
            set_times(&path, old);
            std::thread::sleep(Duration::from_millis(500));
            let file = File::open(&path).expect("a call on a mount");
            heat(&path, &file);
            assert_eq!(
                file.metadata()
                    .expect("a call on a mount")
                    .accessed()
                    .unwrap(),
                old
            );
            file.read_exact_at(&mut [0; 4], 0)
                .expect("a call on a mount");
            assert!(
                file.metadata()
                    .expect("a call on a mount")
                    .accessed()
                    .unwrap()
                    > old
            );
            assert!(
                fs::metadata(&path)
                    .expect("a call on a mount")
                    .accessed()
                    .unwrap()
                    > old
            );
        }
    });
}

/// The kernel may answer a look at the root although the process has died: who mounts anew must
/// not take that for an answer of the mount.
#[test]
fn mount_that_died_is_mounted_again_at_once_though_its_root_is_hot() {
    let why = "a mount is killed";
    with_cluster(Options::default().with_faults(why), s(180), |cluster| {
        let root = cluster.a();
        for _ in 0..5 {
            let ended = AtomicBool::new(false);
            std::thread::scope(|scope| {
                let look = scope.spawn(|| {
                    while !ended.load(Ordering::SeqCst) {
                        // Once the mount has died it fails.
                        let _ = fs::metadata(&root);
                    }
                });
                std::thread::sleep(s(1));
                cluster.kill("mount-1");
                ended.store(true, Ordering::SeqCst);
                look.join().expect("looks");
            });
            cluster.start("mount-1");
        }
    });
}
