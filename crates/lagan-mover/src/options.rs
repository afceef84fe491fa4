//! Settings of one node's mover.

use lagan_object::{Backoff, BreakerConfig};
use std::path::PathBuf;
use std::time::Duration;

/// Settings; each has a default but `cache_dir`.
#[derive(Debug, Clone)]
pub struct Options {
    /// Uploads at a time.
    pub uploads: usize,
    /// Uploads of files over 64 MiB at a time: each may hold 32 MiB in memory.
    pub large_uploads: usize,
    /// Pause between questions for work while there is none.
    pub poll: Duration,
    /// Waits of a file after its failures.
    pub file_backoff: Backoff,
    /// Folder of recalled bytes; it is emptied at start.
    pub cache_dir: PathBuf,
    /// Bytes of recalled objects to keep; a single larger unit may exceed this.
    pub cache_bytes: u64,
    /// Fetches from S3 for recall at a time.
    pub fetches: usize,
    /// Time limit of a recall; the fetch goes on for the next one.
    pub recall_deadline: Duration,
    /// An attempt of this node that it knows nothing of is failed after this:
    /// longer than the answer that brings it can be under way.
    pub lost_attempt: Duration,
    /// The attempts of a node that is down for this long are failed.
    pub down_node: Duration,
    /// Unfinished multipart uploads that nothing wants are aborted after this.
    pub stale_upload: Duration,
    /// Pause between looks at the leader's duties.
    pub duty: Duration,
    /// Limits at which an endpoint counts as down, and the times of probes.
    pub breaker: BreakerConfig,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            uploads: 8,
            large_uploads: 2,
            poll: Duration::from_millis(500),
            file_backoff: Backoff::new(1_000, 60_000),
            cache_dir: PathBuf::new(),
            cache_bytes: 1024 * 1024 * 1024,
            fetches: 8,
            recall_deadline: Duration::from_secs(30),
            lost_attempt: Duration::from_secs(120),
            down_node: Duration::from_secs(600),
            stale_upload: Duration::from_secs(24 * 3600),
            duty: Duration::from_secs(1),
            breaker: BreakerConfig::default(),
        }
    }
}
