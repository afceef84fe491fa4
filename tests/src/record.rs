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
    /// Process id.
    pub pid: u32,
    /// Command line that starts it again.
    pub argv: Vec<String>,
    /// Variables that it is started with.
    pub env: BTreeMap<String, String>,
    /// Directory that it is started in.
    pub cwd: PathBuf,
    /// Log file.
    pub log: PathBuf,
    /// Address that clients connect to.
    pub addr: Option<String>,
    /// Address that servers connect to.
    pub peer_addr: Option<String>,
    /// Address of /health and /metrics.
    pub http: Option<String>,
    /// Data directory.
    pub data: PathBuf,
    /// Configuration file.
    pub config: PathBuf,
}

/// One mount.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mount {
    /// Name of the process, as in `processes`.
    pub name: String,
    /// The mount point.
    pub path: PathBuf,
    /// Process id, as in `processes`.
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
