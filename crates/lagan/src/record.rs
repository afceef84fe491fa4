//! `cluster.json`: the processes that `lagan up` runs, for scripts (schema 1).
//!
//! The file has mode 0600, since it holds the keys of the embedded S3 server, and is
//! replaced atomically. A daemon that is started by hand from the `argv` of its entry puts
//! its own pid there. Writers hold an flock on `cluster.json.lock` beside it. Nothing uses
//! this file to find a process to signal: see [`lagan_host::lock`].

use crate::exit::{Doing, Failure, Outcome};
use crate::layout::{Role, replace_private};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

#[cfg(test)]
mod tests;

/// The version of this layout.
pub const SCHEMA: u32 = 1;
/// Longest wait for a writer, which holds the lock while it syncs the file: milliseconds, or
/// seconds on a busy disk.
const LOCK_PATIENCE: Duration = Duration::from_secs(60);

/// The whole file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The cluster's id in hexadecimal.
    pub cluster_id: String,
    /// The volume's name.
    pub volume: String,
    /// Every daemon.
    pub processes: Vec<Process>,
    /// Every mount; its process is in `processes` too.
    pub mounts: Vec<MountEntry>,
    /// The archive; absent without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub s3: Option<S3Entry>,
}

/// One daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// `server-1`, `mount-1`, `s3`.
    pub name: String,
    /// Its role.
    pub role: Role,
    /// Its pid, since its last start.
    pub pid: u32,
    /// The command that starts it in the foreground.
    pub argv: Vec<String>,
    /// Variables that it needs beside the ordinary environment.
    pub env: BTreeMap<String, String>,
    /// Its working directory.
    pub cwd: PathBuf,
    /// The file that its output is appended to.
    pub log: PathBuf,
    /// Address for clients (servers, S3).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub addr: Option<String>,
    /// Address for the other servers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer_addr: Option<String>,
    /// Address of /health.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<String>,
    /// Its data directory (a mount: its run-time files).
    pub data: PathBuf,
    /// Its configuration file.
    pub config: PathBuf,
}

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountEntry {
    /// The same as in `processes`.
    pub name: String,
    /// The mount point.
    pub path: PathBuf,
    /// The same as in `processes`.
    pub pid: u32,
}

/// The archive's endpoint and keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct S3Entry {
    /// `http://host:port`.
    pub endpoint: String,
    /// The bucket.
    pub bucket: String,
    /// The region.
    pub region: String,
    /// Empty when the keys come from the credential chain.
    pub access_key: String,
    /// Empty when the keys come from the credential chain.
    pub secret_key: String,
}

impl Record {
    /// Reads the file.
    ///
    /// # Errors
    /// When it is missing, damaged, or of another schema.
    pub fn load(path: &Path) -> Outcome<Self> {
        let text = std::fs::read(path).doing(|| format!("read {}", path.display()))?;
        let record: Record =
            serde_json::from_slice(&text).doing(|| format!("parse {}", path.display()))?;
        if record.schema != SCHEMA {
            return Err(Failure::error(format!(
                "{} has schema {}, this program knows {SCHEMA}",
                path.display(),
                record.schema
            )));
        }
        Ok(record)
    }

    /// Replaces the file, under its lock.
    ///
    /// # Errors
    /// When the file cannot be written, or another writer keeps the lock.
    pub fn store(&self, path: &Path) -> Outcome<()> {
        let _lock = lock_of(path)?;
        self.replace(path)
    }

    fn replace(&self, path: &Path) -> Outcome<()> {
        let mut text = serde_json::to_vec_pretty(self).doing(|| "encode cluster.json".into())?;
        text.push(b'\n');
        replace_private(path, &text)
    }

    /// The addresses of the servers, for clients.
    pub fn servers(&self) -> Vec<String> {
        self.processes
            .iter()
            .filter(|p| p.role == Role::Server)
            .filter_map(|p| p.addr.clone())
            .collect()
    }

    /// Puts `pid` into the entry `name` of the file at `path`, and returns that entry; `None`
    /// if there is no such entry.
    ///
    /// # Errors
    /// Those of [`Record::load`] and [`Record::store`].
    pub fn set_pid(path: &Path, name: &str, pid: u32) -> Outcome<Option<Process>> {
        let _lock = lock_of(path)?;
        let mut record = Record::load(path)?;
        let Some(process) = record.processes.iter_mut().find(|p| p.name == name) else {
            return Ok(None);
        };
        process.pid = pid;
        let process = process.clone();
        for mount in record.mounts.iter_mut().filter(|m| m.name == name) {
            mount.pid = pid;
        }
        record.replace(path)?;
        Ok(Some(process))
    }
}

fn lock_of(path: &Path) -> Outcome<File> {
    let lock = path.with_extension("json.lock");
    lagan_host::lock::take_within(&lock, LOCK_PATIENCE).doing(|| format!("lock {}", lock.display()))
}
