//! Running a test's body against a cluster, and leaving nothing behind.

use crate::cluster::Cluster;
use crate::gauges;
use crate::leftover;
use crate::slots::{self, Slot};
use crate::wait::{Ended, attempt};
use crate::{Options, cluster, sys};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

/// A body's limit is for a machine that does nothing else; on a busy one it is this many
/// times as long. It is against hangs only.
const BUSY: u32 = 3;
/// Longest limit of a body on a busy machine.
const HANGS: Duration = Duration::from_secs(1800);
/// Lines of each log that a failed test shows.
const LOG_LINES: usize = 40;

/// A cluster that lives as long as this value.
#[derive(Debug)]
struct Owner {
    cluster: Cluster,
    /// Whether a test failed on it: then it is taken apart, not shut down.
    broken: Mutex<bool>,
    _slot: Slot,
}

/// Starts a cluster, runs the body against it, and stops it.
///
/// # Panics
/// When the cluster does not start, the body panics or is not done within
/// `limit`, something is left behind, or a log has an ERROR that the options do
/// not announce.
#[track_caller]
pub fn with_cluster(
    options: Options,
    limit: Duration,
    body: impl FnOnce(&Cluster) + Send + 'static,
) {
    let owner = Owner::start(options);
    let cluster = owner.cluster.clone();
    owner.run(limit, move || body(&cluster));
    owner.finish();
}

/// Runs a body like [`with_cluster`], on a cluster that tests share which run at the
/// same time; none of them may break it. The body gets a directory of its own, as the
/// first and as the second mount show it.
#[track_caller]
pub fn with_shared(limit: Duration, body: impl FnOnce(&Path, &Path) + Send + 'static) {
    let owner = shared();
    let name = std::thread::current()
        .name()
        .unwrap_or("test")
        .replace("::", "-");
    let (a, b) = (owner.cluster.a().join(&name), owner.cluster.b().join(&name));
    owner.run(limit, move || {
        std::fs::create_dir(&a).expect("make the test's directory");
        body(&a, &b);
        std::fs::remove_dir_all(&a).expect("remove the test's directory");
    });
    owner.release();
}

static SHARED: Mutex<Weak<Owner>> = Mutex::new(Weak::new());

fn shared() -> Arc<Owner> {
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(owner) = shared.upgrade().filter(|owner| !owner.is_broken()) {
        return owner;
    }
    let owner = Arc::new(Owner::start(Options::default()));
    *shared = Arc::downgrade(&owner);
    owner
}

impl Owner {
    fn start(options: Options) -> Owner {
        let slot = slots::take();
        let owner = Owner {
            cluster: Cluster::new(make_root(), options),
            broken: Mutex::new(true),
            _slot: slot,
        };
        // a panic in here drops the owner, which takes everything apart
        owner.cluster.up();
        owner.set_broken(false);
        owner
    }

    fn run(&self, limit: Duration, body: impl FnOnce() + Send + 'static) {
        let limit = limit.max((limit * BUSY).min(HANGS));
        let name = std::thread::current().name().unwrap_or("test").to_owned();
        let alone = || {
            sys::leave_shared_files();
            body();
        };
        match attempt(&name, limit, alone) {
            Ended::Well(()) => return,
            Ended::Panicked => eprintln!("{name}: the body failed"),
            Ended::Late => eprintln!("{name}: not done within {limit:?}"),
        }
        self.set_broken(true);
        show_logs(&self.cluster.dir().join("log"));
        leftover::remove(self.cluster.root());
        panic!("{name}: failed, see above");
    }

    /// Gives a shared cluster back; the last one to do so stops it.
    fn release(self: Arc<Self>) {
        let _shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(owner) = Arc::into_inner(self)
            && !owner.is_broken()
        {
            owner.finish();
        }
    }

    /// Stops the cluster as a user does, and looks at what that leaves.
    fn finish(self) {
        let errors = self.unexpected_errors();
        // from here on a panic takes everything apart
        self.set_broken(true);
        let stuck = self.stuck_gauges();
        let done = self.cluster.try_down();
        if done.status != Some(0) {
            show_logs(&self.cluster.dir().join("log"));
        }
        done.expect(0);
        self.cluster.remove_disks();
        let left = leftover::remove(self.cluster.root());
        assert!(left.is_empty(), "left behind: {left:#?}");
        assert!(
            errors.is_empty(),
            "unexpected errors in the logs: {errors:#?}"
        );
        assert!(stuck.is_empty(), "not back at rest: {stuck:#?}");
        remove_root(self.cluster.root());
        self.set_broken(false);
    }

    fn stuck_gauges(&self) -> Vec<String> {
        if !self.cluster.dir().join("cluster.json").exists() {
            return Vec::new();
        }
        let processes = self.cluster.record().processes;
        let servers = processes
            .iter()
            .filter(|p| p.role == "server" && leftover::is_alive(p.pid));
        servers.flat_map(gauges::stuck).collect()
    }

    fn unexpected_errors(&self) -> Vec<String> {
        if self.cluster.options().errors_because.is_some() {
            return Vec::new();
        }
        let is_error = |line: &&str| line.contains(" ERROR ") || line.contains("panicked at");
        let mut found = Vec::new();
        for (name, text) in logs(&self.cluster.dir().join("log")) {
            let lines = text.lines().filter(is_error).take(10);
            found.extend(lines.map(|line| format!("{name}: {line}")));
        }
        found
    }

    fn is_broken(&self) -> bool {
        *self.broken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_broken(&self, broken: bool) {
        *self.broken.lock().unwrap_or_else(PoisonError::into_inner) = broken;
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        if !self.is_broken() && !self.cluster.root().exists() {
            return;
        }
        leftover::remove(self.cluster.root());
        self.cluster.remove_disks();
        if std::env::var_os("LAGAN_TEST_KEEP").is_some() {
            eprintln!("kept: {}", self.cluster.root().display());
        } else {
            remove_root(self.cluster.root());
        }
    }
}

/// A new directory for a test.
///
/// # Panics
/// When none can be made.
pub fn make_root() -> PathBuf {
    let dir = tempfile::Builder::new().prefix("lagan-test-").tempdir();
    dir.expect("make a directory for the test").keep()
}

/// Removes a test's directory, unless something is still mounted in it.
pub fn remove_root(root: &Path) {
    let mounted = leftover::mounts(root);
    if !mounted.is_empty() {
        eprintln!("kept for what is mounted in it: {mounted:?}");
        return;
    }
    if let Err(error) = std::fs::remove_dir_all(root) {
        eprintln!("remove {}: {error}", root.display());
    }
}

/// Name and content of each log.
fn logs(dir: &Path) -> Vec<(String, String)> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut logs: Vec<(String, String)> = entries
        .map(|entry| {
            let text = std::fs::read(entry.path()).unwrap_or_default();
            let name = entry.file_name().to_string_lossy().into_owned();
            (name, String::from_utf8_lossy(&text).into_owned())
        })
        .collect();
    logs.sort();
    logs
}

/// Prints the end of each log.
pub fn show_logs(dir: &Path) {
    for (name, text) in logs(dir) {
        let lines: Vec<&str> = text.lines().collect();
        let from = lines.len().saturating_sub(LOG_LINES);
        eprintln!(
            "--- {name}, last {} of {} lines",
            lines.len() - from,
            lines.len()
        );
        for line in &lines[from..] {
            eprintln!("{line}");
        }
    }
}

/// A deadline for tests that do a lot.
pub const LONG: Duration = Duration::from_secs(if cfg!(debug_assertions) { 900 } else { 600 });
/// A deadline for tests that do little.
pub const SHORT: Duration = cluster::PATIENCE;
