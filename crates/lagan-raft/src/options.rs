//! Settings of one voter.

use lagan_types::NodeId;
use std::path::PathBuf;
use std::time::Duration;

/// Settings of one voter; [`Options::new`] has the defaults.
#[derive(Debug, Clone)]
pub struct Options {
    /// Holds `log/` and `state/`; made if missing.
    pub dir: PathBuf,
    /// This node.
    pub node: NodeId,
    /// redb's page cache.
    pub cache_bytes: usize,
    /// Interval of the leader's heartbeats.
    pub heartbeat_ms: u64,
    /// A follower that hears nothing for the maximum waits a random time in
    /// this range more before it asks for votes.
    pub election_ms: (u64, u64),
    /// Time for which one proof of leadership serves reads, from its start. At most half
    /// of `election_ms.1` counts: every follower that confirmed it refuses its vote to
    /// others for that long.
    pub read_proof_ms: u64,
    /// Bytes of one log segment, all of them written ahead.
    pub segment_bytes: u64,
    /// Bytes of log entries kept in memory.
    pub log_cache_bytes: usize,
    /// Entries between two snapshots.
    pub snapshot_every: u64,
    /// Entries that stay in the log behind a snapshot, for followers that were away.
    pub keep_entries: u64,
    /// Bytes of entries after which a snapshot is made before its time.
    pub snapshot_bytes: u64,
    /// Bytes of entries that stay in the log behind a snapshot; fewer entries stay if these are
    /// more.
    pub keep_bytes: u64,
    /// Time at most from a change to the commit that makes it durable without the log's
    /// help.
    pub durable_every_ms: u64,
    /// Log entries in flight; more commands wait and share the next entry.
    pub entries_in_flight: usize,
    /// Commands and barriers that wait for an entry before `propose` itself waits.
    pub queue_len_max: usize,
    /// A log sync longer than this sets [`crate::Stats::disk_slow`].
    pub slow_sync_ms: u64,
}

impl Options {
    /// The defaults. 100 ms and 400-700 ms give a fail-over of 1.1-1.6 s.
    pub fn new(dir: PathBuf, node: NodeId) -> Self {
        Options {
            dir,
            node,
            cache_bytes: 64 << 20,
            heartbeat_ms: 100,
            election_ms: (400, 700),
            read_proof_ms: 250,
            segment_bytes: 64 << 20,
            log_cache_bytes: 16 << 20,
            snapshot_every: 50_000,
            keep_entries: 20_000,
            snapshot_bytes: 256 << 20,
            keep_bytes: 1 << 30,
            durable_every_ms: 1_000,
            entries_in_flight: 2,
            queue_len_max: 4096,
            slow_sync_ms: 1_000,
        }
    }

    /// Time for which followers may not learn of a commit, or not apply it; with the next
    /// heartbeat it is no more than one and a half intervals.
    pub(crate) fn quiet_max(&self) -> Duration {
        Duration::from_millis(self.heartbeat_ms / 2)
    }

    pub(crate) fn read_proof(&self) -> Duration {
        // Followers refuse others for `election_ms.1` from their answer, which
        // is later than our start: half of it leaves room for clocks that run
        // at different rates.
        Duration::from_millis(self.read_proof_ms.min(self.election_ms.1 / 2))
    }
}
