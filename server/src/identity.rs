//! Who this server is: the lock and the identity file of its data directory.
//!
//! `identity.toml` holds the store id (drawn when the directory is made), the
//! boot counter (raised and made durable before anything else starts) and, once the
//! server belongs to a cluster, the cluster and the server's number in it. The file is
//! replaced atomically, so a crash leaves the old or the new one. `lock` is held for the life of the process and contains its pid.

use anyhow::{Context, Result, bail};
use lagan_host::lock;
use lagan_host::process::LEAVING_PATIENCE;
use lagan_host::replace::{PRIVATE, make_dirs, replace_file, sync_dir};
use lagan_types::cluster::next_boot;
use lagan_types::{ClusterId, Incarnation, NodeId, StoreId};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Version of the data directory's layout. A higher one is refused.
pub(crate) const FORMAT: u32 = 1;
/// Half of an identity file, as a crash of this build leaves it.
const HALF: &str = "identity.toml.new";
/// The same, as a crash of an older build left it.
const OLD_HALF: &str = "identity.new";

/// The identity file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    /// Layout version.
    pub(crate) format: u32,
    /// The store's id.
    pub(crate) store: StoreId,
    /// Number of this start of the store: see [`next_boot`].
    pub(crate) boot: u64,
    /// Why the cluster refused this store for good: it is an older copy. Without this note
    /// it would be let in one day, since each start raises the boot counter.
    #[serde(default)]
    pub(crate) refused: Option<String>,
    /// The cluster that the store belongs to, once it was initialised or joined.
    pub(crate) membership: Option<Membership>,
}

/// A store's place in a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Membership {
    /// The cluster.
    pub(crate) cluster: ClusterId,
    /// This life of the cluster.
    pub(crate) incarnation: Incarnation,
    /// This server's number in it.
    pub(crate) node: NodeId,
}

/// A data directory that this process holds.
#[derive(Debug)]
pub(crate) struct DataDir {
    path: PathBuf,
    /// Held open: the lock goes with the process.
    _lock: File,
    identity: Identity,
}

impl DataDir {
    /// Locks the directory (made if missing), reads or makes its identity, and
    /// raises the boot counter durably.
    ///
    /// # Errors
    /// Another process holds it, it is of a newer format, or it cannot be written.
    pub(crate) fn open(path: &Path, draw_store: impl FnOnce() -> StoreId) -> Result<DataDir> {
        make_private(path)?;
        let lock = take_lock(path, LEAVING_PATIENCE)?;
        let mut identity = match load(path)? {
            Some(identity) => identity,
            None => first(path, draw_store())?,
        };
        if let Some(reason) = &identity.refused {
            bail!("data directory {}: {reason}", path.display());
        }
        identity.boot = next_boot(identity.boot, rand::random());
        let dir = DataDir {
            path: path.to_owned(),
            _lock: lock,
            identity,
        };
        dir.store()?;
        // Nobody reads it: it is removed only for tidiness.
        let _ = std::fs::remove_file(path.join(OLD_HALF));
        Ok(dir)
    }

    /// Returns the identity as it is on disk.
    pub(crate) fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Records durably where the store belongs.
    ///
    /// # Errors
    /// It belongs elsewhere already, or the disk failed.
    pub(crate) fn join(&mut self, membership: Membership) -> Result<()> {
        match self.identity.membership {
            Some(old) if old != membership => bail!(
                "data directory {} belongs to cluster {}, not {}",
                self.path.display(),
                old.cluster,
                membership.cluster
            ),
            Some(_) => Ok(()),
            None => {
                self.identity.membership = Some(membership);
                self.store()
            }
        }
    }

    /// Records durably that the cluster refused this store: it never starts again.
    ///
    /// # Errors
    /// The disk's.
    pub(crate) fn refuse(&mut self, reason: &str) -> Result<()> {
        self.identity.refused = Some(reason.to_owned());
        self.store()
    }

    fn store(&self) -> Result<()> {
        let text = toml::to_string(&self.identity).context("encode identity")?;
        replace_file(&self.path.join("identity.toml"), text.as_bytes(), PRIVATE)
            .context("store identity")
    }
}

/// Returns why the cluster refused the store in that directory for good; `None` if it did
/// not, or nothing can be read there. Takes no lock.
pub fn refusal(path: &Path) -> Option<String> {
    load(path).ok().flatten()?.refused
}

/// Makes the directory, and lets nobody but its owner in: it holds every user's
/// bytes.
fn make_private(path: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let made = match make_dirs(path) {
        // The directory above one that is there may be closed to this user.
        Err(e) if e.kind() == std::io::ErrorKind::PermissionDenied && path.is_dir() => Ok(()),
        made => made,
    };
    // Names that an earlier process made in it are durable before anything relies on them.
    made.and_then(|()| sync_dir(path))
        .with_context(|| format!("make data directory {}", path.display()))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700))
        .with_context(|| format!("close data directory {} to others", path.display()))
}

/// Locks the directory for the life of this process, waiting for a predecessor that
/// was killed and is not quite gone.
fn take_lock(path: &Path, patience: Duration) -> Result<File> {
    let lock = path.join("lock");
    match lock::take_within(&lock, patience) {
        Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {
            let holder = std::fs::read_to_string(&lock).unwrap_or_default();
            bail!(
                "data directory {} is in use by process {}: stop that server first",
                path.display(),
                holder.trim()
            );
        }
        taken => taken.with_context(|| format!("lock {}", lock.display())),
    }
}

fn load(path: &Path) -> Result<Option<Identity>> {
    let file = path.join("identity.toml");
    let text = match std::fs::read_to_string(&file) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e).with_context(|| format!("read {}", file.display())),
    };
    let identity: Identity =
        toml::from_str(&text).with_context(|| format!("{} is damaged", file.display()))?;
    if identity.format > FORMAT {
        bail!(
            "data directory {} has format {}, this build knows up to {FORMAT}: use a newer build",
            path.display(),
            identity.format
        );
    }
    Ok(Some(identity))
}

/// A directory without an identity must be empty: anything else is not ours,
/// or has lost its past.
fn first(path: &Path, store: StoreId) -> Result<Identity> {
    let foreign = std::fs::read_dir(path)?
        .filter_map(|e| e.ok())
        .map(|e| e.file_name())
        .find(|n| n != "lock" && n != "lost+found" && n != HALF && n != OLD_HALF);
    if let Some(name) = foreign {
        bail!(
            "data directory {} has no identity.toml but contains {}: give an empty directory",
            path.display(),
            name.to_string_lossy()
        );
    }
    Ok(Identity {
        format: FORMAT,
        store,
        boot: 0,
        membership: None,
        refused: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use lagan_types::cluster::boot_follows;

    fn open(path: &Path) -> Result<DataDir> {
        DataDir::open(path, || StoreId(7))
    }

    #[test]
    fn golden_text_of_an_identity() {
        let golden = "format = 1\n\
            store = \"00000000000000000000000000000007\"\n\
            boot = 1048577\n\
            refused = \"an older copy\"\n\n\
            [membership]\n\
            cluster = \"00000000000000000000000000000001\"\n\
            incarnation = \"000000000000000000000000000000ff\"\n\
            node = 3\n";
        let mut identity = Identity {
            format: FORMAT,
            store: StoreId(7),
            boot: (1 << 20) + 1,
            refused: Some("an older copy".into()),
            membership: Some(Membership {
                cluster: ClusterId(1),
                incarnation: Incarnation(255),
                node: NodeId(3),
            }),
        };
        assert_eq!(toml::to_string(&identity).expect("encode"), golden);
        assert_eq!(toml::from_str::<Identity>(golden).expect("read"), identity);
        // of a server that belongs nowhere yet
        (identity.refused, identity.membership) = (None, None);
        let start = golden.split("refused").next().expect("a start");
        assert_eq!(toml::to_string(&identity).expect("encode"), start);
        assert_eq!(toml::from_str::<Identity>(start).expect("read"), identity);
    }

    #[test]
    fn boot_counter_rises_with_each_start() {
        let dir = tempfile::tempdir().expect("temp dir");
        let first = open(dir.path()).expect("first").identity().boot;
        let second = open(dir.path()).expect("second").identity().boot;
        assert!(boot_follows(second, first) && !boot_follows(first, second));
    }

    #[test]
    fn second_process_is_refused() {
        let dir = tempfile::tempdir().expect("temp dir");
        let held = open(dir.path()).expect("first");
        let text = take_lock(dir.path(), Duration::ZERO).expect_err("held");
        assert!(text.to_string().contains("in use by process"), "{text}");
        let leaving = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(100));
            drop(held);
        });
        take_lock(dir.path(), Duration::from_secs(60)).expect("it has left");
        leaving.join().expect("left");
    }

    #[test]
    fn newer_format_and_foreign_directory_are_refused() {
        let dir = tempfile::tempdir().expect("temp dir");
        std::fs::write(dir.path().join("something"), "x").expect("write");
        let text = open(dir.path()).expect_err("foreign").to_string();
        assert!(text.contains("something"), "{text}");
        let dir = tempfile::tempdir().expect("temp dir");
        drop(open(dir.path()).expect("first"));
        let file = dir.path().join("identity.toml");
        let text = std::fs::read_to_string(&file).expect("identity");
        std::fs::write(&file, text.replace("format = 1", "format = 9")).expect("write");
        assert!(
            open(dir.path())
                .expect_err("newer")
                .to_string()
                .contains("format 9")
        );
    }

    #[test]
    fn crash_in_the_first_start_of_any_build_is_no_obstacle() {
        for half in [HALF, OLD_HALF] {
            let dir = tempfile::tempdir().expect("temp dir");
            std::fs::write(dir.path().join("lock"), "1").expect("write");
            std::fs::write(dir.path().join(half), "format = ").expect("write");
            open(dir.path()).expect(half);
            assert!(!dir.path().join(half).exists(), "{half}");
        }
        // beside a whole one
        let dir = tempfile::tempdir().expect("temp dir");
        let boot = open(dir.path()).expect("first").identity().boot;
        std::fs::write(dir.path().join(OLD_HALF), "format = ").expect("write");
        let next = open(dir.path()).expect("second").identity().boot;
        assert!(boot_follows(next, boot));
        assert!(!dir.path().join(OLD_HALF).exists());
    }

    #[test]
    fn refused_store_never_starts_again() {
        let dir = tempfile::tempdir().expect("temp dir");
        open(dir.path())
            .expect("open")
            .refuse("an older copy")
            .expect("note it");
        let text = open(dir.path()).expect_err("refused").to_string();
        assert!(text.contains("an older copy"), "{text}");
        let text = open(dir.path()).expect_err("still refused").to_string();
        assert!(text.contains("an older copy"), "{text}");
    }

    #[test]
    fn store_cannot_change_its_cluster() {
        let dir = tempfile::tempdir().expect("temp dir");
        let mut data = open(dir.path()).expect("open");
        let membership = |n| Membership {
            cluster: ClusterId(n),
            incarnation: Incarnation(n),
            node: NodeId(1),
        };
        data.join(membership(1)).expect("first cluster");
        data.join(membership(1)).expect("the same again");
        data.join(membership(2)).expect_err("another");
        drop(data);
        assert_eq!(
            open(dir.path()).expect("reopen").identity().membership,
            Some(membership(1))
        );
    }
}
