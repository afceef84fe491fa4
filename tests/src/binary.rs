//! The program under test.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// The `lagan` program of this build.
///
/// # Panics
/// When it is not there: the tests cannot build it themselves.
pub fn lagan() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| {
        let path = match std::env::var_os("LAGAN_BIN") {
            Some(path) => PathBuf::from(path),
            None => beside_test_program(),
        };
        assert!(
            path.is_file(),
            "{} is not there: build it in the same profile (tests/run does) or name it in LAGAN_BIN",
            path.display()
        );
        path
    })
}

/// `target/release/lagan` for `target/release/deps/clusters-0123`.
fn beside_test_program() -> PathBuf {
    let program = std::env::current_exe().expect("a running program has a path");
    let profile = program.parent().and_then(Path::parent);
    profile.unwrap_or(Path::new("/")).join("lagan")
}

/// The proxy that breaks requests to S3, of this build whatever `LAGAN_BIN` names.
///
/// # Panics
/// When it is not there.
pub fn s3_proxy() -> PathBuf {
    let path = beside_test_program().with_file_name("s3-proxy");
    assert!(path.is_file(), "{} is not there: build it", path.display());
    path
}

/// The disk that forgets what was not synced, of this build.
///
/// # Panics
/// When it is not there.
pub fn forgetful_disk() -> PathBuf {
    let path = beside_test_program().with_file_name("forgetful-disk");
    assert!(path.is_file(), "{} is not there: build it", path.display());
    path
}

/// A link to the program under one of its other names, in `dir`.
///
/// # Panics
/// When it cannot be made.
pub fn link(dir: &Path, name: &str) -> PathBuf {
    let path = dir.join(name);
    if !path.is_symlink() {
        std::os::unix::fs::symlink(lagan(), &path).expect("link the program");
    }
    path
}

/// A tool that `tests/run` installed, or that is in the search path.
pub fn tool(name: &str) -> PathBuf {
    let dirs = std::env::var_os("LAGAN_TEST_TOOLS")
        .into_iter()
        .map(PathBuf::from);
    let beside = beside_test_program().with_file_name("../tools/bin");
    dirs.chain([beside])
        .map(|dir| dir.join(name))
        .find(|path| path.is_file())
        .unwrap_or_else(|| PathBuf::from(name))
}
