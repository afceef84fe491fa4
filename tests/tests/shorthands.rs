//! What several areas need.

use lagan_tests::cluster::Cluster;
use lagan_tests::sized;
use lagan_tests::wait::until;
use std::fs::{self, Permissions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Fails unless the call failed with this errno.
#[track_caller]
pub fn expect_errno<T: std::fmt::Debug>(result: io::Result<T>, errno: i32) {
    match result {
        Ok(value) => panic!("no error but {value:?}, expected errno {errno}"),
        Err(error) => assert_eq!(error.raw_os_error(), Some(errno), "{error}"),
    }
}

/// Names in a directory, sorted.
#[track_caller]
pub fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).expect("open a directory");
    let mut names: Vec<String> = entries
        .map(|entry| {
            entry
                .expect("read a directory")
                .file_name()
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    names.sort();
    names
}

/// Seconds.
pub const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Seeds in CI, and more of them by hand; `LAGAN_TEST_SEEDS=7..8` is for one that failed.
pub fn seeds(short: usize, long: usize) -> Range<u64> {
    if let Ok(range) = std::env::var("LAGAN_TEST_SEEDS") {
        let ends = range
            .split_once("..")
            .expect("LAGAN_TEST_SEEDS is FROM..TO");
        return ends.0.parse().expect("a number")..ends.1.parse().expect("a number");
    }
    0..sized(short, long) as u64
}

/// The virtual attribute `user.lagan.NAME` as text.
#[track_caller]
pub fn attribute(path: &Path, name: &str) -> String {
    let value = lagan_tests::sys::get_xattr(path, &format!("user.lagan.{name}"));
    let value = value.unwrap_or_else(|e| panic!("{}: user.lagan.{name}: {e}", path.display()));
    String::from_utf8(value).expect("attributes of the archive are text")
}

/// Releases a file, or all in a directory, until these files are: one that is just
/// being closed is left out at first.
#[track_caller]
pub fn release(cluster: &Cluster, path: &Path, files: &[PathBuf]) {
    until("all is released", s(60), || {
        cluster.lagan_on(&["release"], path);
        let mut states = files.iter().map(|file| attribute(file, "state"));
        states.all(|state| state == "released").then_some(())
    });
}

/// A metric of all servers together, once all of them answer.
#[track_caller]
pub fn metric(cluster: &Cluster, name: &str) -> u64 {
    let processes = cluster.record().processes.into_iter();
    let servers = processes.filter(|p| p.role == "server");
    let addrs: Vec<String> = servers.filter_map(|p| p.http).collect();
    let value = |addr: &String| {
        let (_, text) = lagan_tests::http::get(addr, "/metrics").ok()?;
        let mut lines = text.lines();
        let line = lines.find_map(|l| l.strip_prefix(name)?.strip_prefix(' '));
        Some(line.map_or(0, |value| value.parse().expect("a whole number")))
    };
    until("metrics", s(60), || {
        addrs.iter().map(value).sum::<Option<u64>>()
    })
}

/// A path as an argument.
#[track_caller]
pub fn text(path: &Path) -> &str {
    path.to_str().expect("paths of tests are text")
}

/// Lets other users than root through the directories above a test's own.
#[track_caller]
pub fn open_for_all(mount: &Path) {
    let root = mount.parent().and_then(Path::parent);
    let root = root.expect("a test has a root");
    for (path, mode) in [(mount, 0o755), (root, 0o711)] {
        fs::set_permissions(path, Permissions::from_mode(mode)).expect("chmod");
    }
}
