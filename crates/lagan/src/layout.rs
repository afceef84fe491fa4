//! Places in the directory of `lagan up`.
//!
//! | path | holds |
//! | --- | --- |
//! | `bin/` | links named after the daemons |
//! | `etc/` | one configuration file a process, mode 0600 |
//! | `log/` | one log a process |
//! | `server-N/` | data of a server; may be a mount point |
//! | `s3/` | objects of the embedded S3 server |
//! | `run/NAME/` | lock and session files of mounts and S3 |
//! | `mnt/` | the default mount point |
//! | `up.json` | the plan of the first start |
//! | `cluster.json` | the running processes, see [`crate::record`] |
//!
//! `mnt/` is for every user, so the mode of the directory itself stays as it is; a new one
//! has mode 0755. Everything that holds bytes, keys, logs or locks has mode 0700 or 0600.

use crate::exit::{Doing, Outcome};
use lagan_host::replace::{PRIVATE, replace_file};
use std::fs::Permissions;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// The role of a process.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// A storage server.
    Server,
    /// A mount.
    Mount,
    /// The embedded S3 server.
    S3,
}

impl Role {
    /// The name of its program.
    pub fn program(self) -> &'static str {
        match self {
            Role::Server => "lagan-server",
            Role::Mount => "lagan-mount",
            Role::S3 => "lagan-s3",
        }
    }
}

/// The paths of one cluster's directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// Absolute path of the directory.
    pub root: PathBuf,
}

impl Layout {
    /// The layout of the directory `dir`, which need not exist yet.
    ///
    /// # Errors
    /// When the working directory is gone.
    pub fn new(dir: &Path) -> Outcome<Self> {
        let root = match dir.canonicalize() {
            Ok(root) => root,
            Err(_) => std::path::absolute(dir).doing(|| format!("find {}", dir.display()))?,
        };
        Ok(Layout { root })
    }

    /// Makes the folders that are missing. Only root may look into those that hold anything but
    /// programs.
    ///
    /// # Errors
    /// When one cannot be made or written to.
    pub fn create(&self) -> Outcome<()> {
        make_dir(&self.root)?;
        make_dir(&self.root.join("bin"))?;
        for dir in ["etc", "log", "run"] {
            make_private_dir(&self.root.join(dir))?;
        }
        let probe = self.root.join("run/.writable");
        std::fs::write(&probe, b"")
            .and_then(|()| std::fs::remove_file(&probe))
            .doing(|| format!("write to {}", self.root.display()))
    }

    /// The program of a role.
    pub fn program(&self, role: Role) -> PathBuf {
        self.root.join("bin").join(role.program())
    }

    /// The configuration of a process.
    pub fn config(&self, name: &str) -> PathBuf {
        self.root.join("etc").join(format!("{name}.toml"))
    }

    /// The log of a process.
    pub fn log(&self, name: &str) -> PathBuf {
        self.root.join("log").join(format!("{name}.log"))
    }

    /// The directory of a process's own files: data of servers and S3, run-time files of mounts.
    pub fn data(&self, role: Role, name: &str) -> PathBuf {
        match role {
            Role::Server | Role::S3 => self.root.join(name),
            Role::Mount => self.run(name),
        }
    }

    /// Run-time files of a process.
    pub fn run(&self, name: &str) -> PathBuf {
        self.root.join("run").join(name)
    }

    /// The lock file that a process holds while it lives.
    pub fn lock(&self, role: Role, name: &str) -> PathBuf {
        match role {
            Role::Server => self.root.join(name).join("lock"),
            Role::Mount | Role::S3 => self.run(name).join("lock"),
        }
    }

    /// The default mount point.
    pub fn default_mount(&self) -> PathBuf {
        self.root.join("mnt")
    }

    /// The file with the plan.
    pub fn up_json(&self) -> PathBuf {
        self.root.join("up.json")
    }

    /// The file with the running processes.
    pub fn cluster_json(&self) -> PathBuf {
        self.root.join("cluster.json")
    }

    /// The lock that `lagan up` holds while it starts, and while it waits in the foreground.
    pub fn up_lock(&self) -> PathBuf {
        self.root.join("run/up/lock")
    }

    /// The file that `lagan down` writes when it begins: processes that end then are meant to.
    pub fn stopping_mark(&self) -> PathBuf {
        self.root.join("run/stopping")
    }

    /// The file that `lagan down` writes at its end: a waiting `lagan up` ends then.
    pub fn stopped_mark(&self) -> PathBuf {
        self.root.join("run/stopped")
    }

    /// Role and name of every process that has, or had, files here, in order of start (S3,
    /// servers, mounts).
    pub fn processes(&self) -> Vec<(Role, String)> {
        let mut found: Vec<(Role, u32, String)> = Vec::new();
        let names = |dir: PathBuf| {
            std::fs::read_dir(dir)
                .into_iter()
                .flatten()
                .flatten()
                .filter_map(|e| e.file_name().into_string().ok())
        };
        for name in names(self.root.clone()).chain(names(self.root.join("run"))) {
            let numbered = |prefix: &str| name.strip_prefix(prefix)?.parse::<u32>().ok();
            if name == "s3" {
                found.push((Role::S3, 0, name));
            } else if let Some(n) = numbered("server-") {
                found.push((Role::Server, n, name));
            } else if let Some(n) = numbered("mount-") {
                found.push((Role::Mount, n, name));
            }
        }
        let order = |role: Role| match role {
            Role::S3 => 0,
            Role::Server => 1,
            Role::Mount => 2,
        };
        found.sort_by_key(|(role, n, _)| (order(*role), *n));
        found.dedup();
        found.into_iter().map(|(r, _, name)| (r, name)).collect()
    }
}

/// Makes a folder, and those above it, with mode 0755. Folders that exist stay as they are.
///
/// # Errors
/// When it cannot be made, or something else has its name.
pub fn make_dir(dir: &Path) -> Outcome<()> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(dir)
        .doing(|| format!("make {}", dir.display()))
}

/// Makes a folder, and those above it, and gives it mode 0700, also if it exists.
///
/// # Errors
/// When it cannot be made or closed, or something else has its name.
pub fn make_private_dir(dir: &Path) -> Outcome<()> {
    make_dir(dir)?;
    std::fs::set_permissions(dir, Permissions::from_mode(0o700))
        .doing(|| format!("close {} to others", dir.display()))
}

/// Replaces a file that only its owner may read; it is on disk before this returns.
///
/// # Errors
/// When it cannot be written.
pub fn replace_private(path: &Path, content: &[u8]) -> Outcome<()> {
    replace_file(path, content, PRIVATE).doing(|| format!("write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_programs_and_the_way_to_the_mount_point_are_for_everybody() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(&dir.path().join("x")).unwrap();
        // as an earlier program left it
        make_dir(&layout.root.join("log")).unwrap();
        layout.create().unwrap();
        let mode = |name: &str| {
            let meta = std::fs::metadata(layout.root.join(name)).unwrap();
            meta.permissions().mode() & 0o777
        };
        assert_eq!((mode(""), mode("bin")), (0o755, 0o755));
        assert_eq!(["etc", "log", "run"].map(mode), [0o700; 3]);
    }

    #[test]
    fn processes_are_found_by_their_folders() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path()).unwrap();
        layout.create().unwrap();
        for name in [
            "server-2",
            "server-10",
            "run/mount-1",
            "run/s3",
            "s3",
            "mnt",
            "server-x",
        ] {
            make_dir(&dir.path().join(name)).unwrap();
        }
        let names: Vec<String> = layout.processes().into_iter().map(|(_, n)| n).collect();
        assert_eq!(names, ["s3", "server-2", "server-10", "mount-1"]);
    }
}
