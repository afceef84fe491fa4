//! `/metrics` in Prometheus' text format.

use crate::handler::Node;
use crate::member::Member;
use lagan_leader::clock::wall_ms;
use lagan_types::query::{Query, QueryAnswer};
use lagan_types::{SessionId, VolumeId};
use std::fmt::Write;

/// All metrics of this process.
pub fn render(node: &Node) -> String {
    let mut out = String::with_capacity(4096);
    let mover = &lagan_mover::metrics::METRICS;
    let counters = lagan_replica::metrics::METRICS.all().into_iter();
    for (name, help, value) in counters
        .chain(mover.counters())
        .chain(lagan_leader::metrics::counters())
    {
        metric(&mut out, name, "counter", help, value as f64);
    }
    for (name, help, value) in mover.gauges() {
        metric(&mut out, name, "gauge", help, value as f64);
    }
    let Some(member) = node.member.get() else {
        return out;
    };
    archive_queue(&mut out, member);
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

/// The archive's queue, which is the whole cluster's: said by the leader alone, so
/// that a sum over the servers is right.
fn archive_queue(out: &mut String, member: &Member) {
    if !member.raft.is_leader() {
        return;
    }
    let view = member.raft.local_view();
    let counters = lagan_meta::query(&view, VolumeId(1), SessionId::SYSTEM, &Query::Counters);
    let Ok(Ok(QueryAnswer::Counters(c))) = counters else {
        return;
    };
    let oldest_ms = match c.oldest_change_ms {
        0 => 0,
        changed => wall_ms().saturating_sub(changed),
    };
    for (name, help, value) in [
        ("waiting_files", "Files that wait for S3", c.due_files),
        ("waiting_bytes", "Bytes of these files", c.due_bytes),
        (
            "oldest_wait_seconds",
            "Since the last change of the file that waits longest",
            oldest_ms / 1000,
        ),
        (
            "failed_files",
            "Files whose last upload failed",
            c.failed_files,
        ),
        (
            "too_large_files",
            "Files that S3 cannot take",
            c.too_large_files,
        ),
        ("attempts", "Uploads handed out", c.attempts),
        (
            "waiting_deletes",
            "Objects that wait to be deleted",
            c.reap_objects,
        ),
    ] {
        let name = format!("lagan_mover_{name}");
        metric(out, &name, "gauge", help, value as f64);
    }
}

fn metric(out: &mut String, name: &str, kind: &str, help: &str, value: f64) {
    let _ = writeln!(
        out,
        "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}"
    );
}
