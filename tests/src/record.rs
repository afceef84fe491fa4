//! `cluster.json`, as scripts read it.
//!
//! Written down a second time on purpose: these are the names that the program
//! promises, and a test fails when it stops keeping them.

use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// The whole file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// 1.
    pub schema: u32,
    /// The cluster's id.
    pub cluster_id: String,
    /// The volume's name.
    pub volume: String,
    /// Every daemon.
    pub processes: Vec<Process>,
    /// Every mount.
    pub mounts: Vec<Mount>,
    /// The archive.
    pub s3: Option<S3>,
}

/// One daemon.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Process {
    /// `server-1`, `mount-1`, `s3`.
    pub name: String,
    /// `server`, `mount` or `s3`.
    pub role: String,
    /// Its process.
    pub pid: u32,
    /// What starts it again.
    pub argv: Vec<String>,
    /// With these variables.
    pub env: BTreeMap<String, String>,
    /// There.
    pub cwd: PathBuf,
    /// Its log.
    pub log: PathBuf,
    /// Where clients connect.
    pub addr: Option<String>,
    /// Where servers connect.
    pub peer_addr: Option<String>,
    /// Where /health is.
    pub http: Option<String>,
    /// Its data.
    pub data: PathBuf,
    /// Its configuration.
    pub config: PathBuf,
}

/// One mount.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mount {
    /// As in `processes`.
    pub name: String,
    /// The mount point.
    pub path: PathBuf,
    /// As in `processes`.
    pub pid: u32,
}

/// The archive.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct S3 {
    /// The endpoint's URL.
    pub endpoint: String,
    /// The bucket.
    pub bucket: String,
    /// The region.
    pub region: String,
    /// Empty with a credential chain.
    pub access_key: String,
    /// Empty with a credential chain.
    pub secret_key: String,
}
