//! Counters of this crate, as /metrics shows them.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number that only rises.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    const fn new() -> Self {
        Counter(AtomicU64::new(0))
    }

    /// Adds one.
    pub fn inc(&self) {
        self.add(1);
    }

    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// Returns the number.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// All counters.
#[derive(Debug)]
pub struct Metrics {
    /// Chunks written for clients, on all members.
    pub writes: Counter,
    /// Bytes of these chunks.
    pub write_bytes: Counter,
    /// Writes that a member failed.
    pub write_member_failures: Counter,
    /// Reads answered.
    pub reads: Counter,
    /// Bytes of these reads.
    pub read_bytes: Counter,
    /// Calls to peers that got no answer.
    pub peer_errors: Counter,
    /// Chunks healed from another replica.
    pub healed: Counter,
    /// Damaged chunks that could not be healed yet.
    pub heal_failures: Counter,
    /// Chunks copied to fill a set.
    pub filled: Counter,
    /// Chunks deleted on command of the metadata.
    pub reaped: Counter,
}

/// The counters of this process.
pub static METRICS: Metrics = Metrics {
    writes: Counter::new(),
    write_bytes: Counter::new(),
    write_member_failures: Counter::new(),
    reads: Counter::new(),
    read_bytes: Counter::new(),
    peer_errors: Counter::new(),
    healed: Counter::new(),
    heal_failures: Counter::new(),
    filled: Counter::new(),
    reaped: Counter::new(),
};

impl Metrics {
    /// Returns name, help and value of each.
    pub fn all(&self) -> [(&'static str, &'static str, u64); 10] {
        [
            (
                "lagan_replica_writes_total",
                "Chunks written to all members of their set",
                self.writes.get(),
            ),
            (
                "lagan_replica_write_bytes_total",
                "Bytes of these chunks",
                self.write_bytes.get(),
            ),
            (
                "lagan_replica_write_member_failures_total",
                "Members that failed or were silent during a write",
                self.write_member_failures.get(),
            ),
            (
                "lagan_replica_reads_total",
                "Chunk reads answered",
                self.reads.get(),
            ),
            (
                "lagan_replica_read_bytes_total",
                "Bytes of these reads",
                self.read_bytes.get(),
            ),
            (
                "lagan_replica_peer_errors_total",
                "Calls to peers without an answer",
                self.peer_errors.get(),
            ),
            (
                "lagan_replica_healed_total",
                "Chunks healed from another replica",
                self.healed.get(),
            ),
            (
                "lagan_replica_heal_failures_total",
                "Damaged chunks that could not be healed",
                self.heal_failures.get(),
            ),
            (
                "lagan_replica_filled_total",
                "Chunks copied to fill a set",
                self.filled.get(),
            ),
            (
                "lagan_replica_reaped_total",
                "Chunks deleted on command of the metadata",
                self.reaped.get(),
            ),
        ]
    }
}
