//! The figures of a node for status and metrics.

/// One look at the node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    /// Raft's term.
    pub term: u64,
    /// Index of the last entry in the log.
    pub last_log: u64,
    /// Index of the last entry in the state.
    pub applied: u64,
    /// Index of the last entry that is durable in the state: a crash needs no log for it.
    pub durable: u64,
    /// Index of the last entry that is no longer in the log.
    pub purged: u64,
    /// Index of the last entry in the last snapshot.
    pub snapshot: u64,
    /// Bytes of log files, spare ones included.
    pub log_bytes: u64,
    /// Syncs of the log since the start.
    pub syncs: u64,
    /// Time of all syncs together, microseconds.
    pub sync_us_total: u64,
    /// Time of the longest sync, microseconds.
    pub sync_us_max: u64,
    /// Microseconds since a sync began that has not ended; 0: none.
    pub sync_running_us: u64,
    /// A sync takes or took (in the last 10 s) longer than the limit: the node should not lead.
    pub disk_slow: bool,
    /// A write or sync failed: the node has stopped for good.
    pub poisoned: bool,
    /// Entries that this node has proposed since its start.
    pub proposed_entries: u64,
    /// The commands in them; those that come together share an entry, and its sync.
    pub proposed_commands: u64,
    /// Callers that wait for the answer to their command or barrier.
    pub pending: usize,
    /// Commands and barriers that wait for an entry.
    pub queued: usize,
    /// Milliseconds since a quorum was last known to follow this leader.
    pub quorum_ack_ms: Option<u64>,
}
