//! `/metrics` in Prometheus' text format.

use crate::handler::Node;
use std::fmt::Write;

/// All metrics of this process.
pub fn render(node: &Node) -> String {
    let mut out = String::with_capacity(4096);
    for (name, help, value) in lagan_replica::metrics::METRICS.all() {
        metric(&mut out, name, "counter", help, value as f64);
    }
    let Some(member) = node.member.get() else {
        return out;
    };
    let usage = member.store.usage();
    let raft = member.raft.stats();
    let health = member.mover.health();
    for (name, help, value) in [
        (
            "lagan_chunk_used_bytes",
            "Bytes that chunks take on disk",
            usage.used_bytes,
        ),
        (
            "lagan_chunk_free_bytes",
            "Bytes free for chunks",
            usage.free_bytes,
        ),
        ("lagan_chunk_chunks", "Chunks held", usage.chunks),
        (
            "lagan_chunk_full",
            "1 if no new chunks are taken",
            u64::from(usage.full),
        ),
        (
            "lagan_raft_is_leader",
            "1 if this node leads",
            u64::from(member.raft.is_leader()),
        ),
        ("lagan_raft_term", "Raft's term", raft.term),
        (
            "lagan_raft_applied_index",
            "Last entry in the state",
            raft.applied,
        ),
        ("lagan_raft_log_bytes", "Bytes of log files", raft.log_bytes),
        (
            "lagan_raft_disk_slow",
            "1 if the log's disk is too slow to lead",
            u64::from(raft.disk_slow),
        ),
        (
            "lagan_raft_pending_proposals",
            "Commands whose answer somebody waits for",
            raft.pending as u64,
        ),
        (
            "lagan_net_in_flight_requests",
            "Requests without an answer yet",
            lagan_net::metrics::requests_in_flight() as u64,
        ),
        (
            "lagan_chunk_pinned_reads",
            "Reads that keep a chunk file from being reused",
            member.store.pins() as u64,
        ),
        (
            "lagan_mover_s3_healthy",
            "1 if S3 answers",
            u64::from(health.error.is_empty()),
        ),
        (
            "lagan_server_ready",
            "1 if /health answers 200",
            u64::from(member.is_ready()),
        ),
    ] {
        metric(&mut out, name, "gauge", help, value as f64);
    }
    for (name, help, value) in [
        (
            "lagan_chunk_damaged_total",
            "Damaged chunks found",
            member.store.damage().len() as u64,
        ),
        ("lagan_raft_syncs_total", "Syncs of the log", raft.syncs),
    ] {
        metric(&mut out, name, "counter", help, value as f64);
    }
    let seconds = raft.sync_us_total as f64 / 1e6;
    metric(
        &mut out,
        "lagan_raft_sync_seconds_total",
        "counter",
        "Time spent in syncs of the log",
        seconds,
    );
    out
}

fn metric(out: &mut String, name: &str, kind: &str, help: &str, value: f64) {
    let _ = writeln!(
        out,
        "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}"
    );
}
