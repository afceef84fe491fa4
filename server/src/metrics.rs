//! `/metrics` in Prometheus' text format.

use crate::member::Member;
use crate::node::Node;
use lagan_leader::clock::wall_ms;
use lagan_types::query::GetCounters;
use std::fmt::Write;

/// Name, help and value of a metric.
type Shown = (&'static str, &'static str, u64);

/// Renders all metrics of this process. Those of a member come once it has its stores.
pub(crate) fn render(node: &Node) -> String {
    let mut out = String::with_capacity(4096);
    let mover = &lagan_mover::metrics::METRICS;
    counters(&mut out, lagan_replica::metrics::METRICS.all());
    counters(&mut out, mover.counters());
    counters(&mut out, lagan_leader::metrics::counters());
    requests(&mut out);
    gauges(&mut out, mover.gauges());
    if let Some(member) = node.member.get() {
        archive_queue(&mut out, member);
        chunk_store(&mut out, member);
        consensus(&mut out, member);
        gauges(&mut out, readiness(member));
    }
    out
}

fn requests(out: &mut String) {
    let services = lagan_net::metrics::requests();
    labelled(
        out,
        ("lagan_net_requests_total", "service"),
        "Requests that came, by service",
        services.map(|(service, count)| (service.name(), count)),
    );
    labelled(
        out,
        ("lagan_meta_requests_total", "ask"),
        "Reads and changes that were asked of this server, by what they ask",
        lagan_leader::metrics::requests(),
    );
}

/// Renders counters that share a name.
fn labelled(
    out: &mut String,
    (name, label): (&str, &str),
    help: &str,
    counts: impl Iterator<Item = (&'static str, u64)>,
) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} counter");
    for (value, count) in counts {
        let _ = writeln!(out, "{name}{{{label}=\"{value}\"}} {count}");
    }
}

fn chunk_store(out: &mut String, member: &Member) {
    let usage = member.store.usage();
    let full = u64::from(usage.full);
    let pins = member.store.pins() as u64;
    let damaged = member.store.damage().len() as u64;
    gauges(
        out,
        [
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
            ("lagan_chunk_full", "1 if no new chunks are taken", full),
            (
                "lagan_chunk_pinned_reads",
                "Reads that keep a chunk file from being reused",
                pins,
            ),
        ],
    );
    let found = ("lagan_chunk_damaged_total", "Damaged chunks found", damaged);
    let syncs = (
        "lagan_chunk_syncs_total",
        "Syncs of chunk files",
        member.store.syncs(),
    );
    counters(out, [found, syncs]);
}

fn consensus(out: &mut String, member: &Member) {
    let raft = member.raft.stats();
    let leads = u64::from(member.raft.is_leader());
    let slow = u64::from(raft.disk_slow);
    gauges(
        out,
        [
            ("lagan_raft_is_leader", "1 if this node leads", leads),
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
                slow,
            ),
            (
                "lagan_raft_pending_proposals",
                "Commands whose answer somebody waits for",
                raft.pending as u64,
            ),
        ],
    );
    counters(
        out,
        [
            ("lagan_raft_syncs_total", "Syncs of the log", raft.syncs),
            (
                "lagan_raft_entries_total",
                "Entries that this node proposed",
                raft.proposed_entries,
            ),
            (
                "lagan_raft_commands_total",
                "Commands in the entries that this node proposed",
                raft.proposed_commands,
            ),
        ],
    );
    metric(
        out,
        "lagan_raft_sync_seconds_total",
        "counter",
        "Time spent in syncs of the log",
        raft.sync_us_total as f64 / 1e6,
    );
}

fn readiness(member: &Member) -> [Shown; 3] {
    [
        (
            "lagan_net_in_flight_requests",
            "Requests without an answer yet",
            lagan_net::metrics::requests_in_flight() as u64,
        ),
        (
            "lagan_mover_s3_healthy",
            "1 if S3 answers",
            u64::from(member.mover.health().error.is_empty()),
        ),
        (
            "lagan_server_ready",
            "1 if /health answers 200",
            u64::from(member.is_ready()),
        ),
    ]
}

/// Renders the archive's queue, which is the whole cluster's: on the leader alone, so
/// that a sum over the servers is right.
fn archive_queue(out: &mut String, member: &Member) {
    if !member.raft.is_leader() {
        return;
    }
    let view = member.raft.local_view();
    let Ok(Ok(c)) = lagan_meta::read(&view, GetCounters) else {
        return;
    };
    let oldest_ms = match c.oldest_change_ms {
        0 => 0,
        changed => wall_ms().saturating_sub(changed),
    };
    gauges(
        out,
        [
            (
                "lagan_mover_waiting_files",
                "Files that wait for S3",
                c.due_files,
            ),
            (
                "lagan_mover_waiting_bytes",
                "Bytes of these files",
                c.due_bytes,
            ),
            (
                "lagan_mover_oldest_wait_seconds",
                "Since the last change of the file that waits longest",
                oldest_ms / 1000,
            ),
            (
                "lagan_mover_failed_files",
                "Files whose last upload failed",
                c.failed_files,
            ),
            (
                "lagan_mover_too_large_files",
                "Files that S3 cannot take",
                c.too_large_files,
            ),
            ("lagan_mover_attempts", "Uploads handed out", c.attempts),
            (
                "lagan_mover_waiting_deletes",
                "Objects that wait to be deleted",
                c.reap_objects,
            ),
        ],
    );
}

fn counters(out: &mut String, shown: impl IntoIterator<Item = Shown>) {
    for (name, help, value) in shown {
        metric(out, name, "counter", help, value as f64);
    }
}

fn gauges(out: &mut String, shown: impl IntoIterator<Item = Shown>) {
    for (name, help, value) in shown {
        metric(out, name, "gauge", help, value as f64);
    }
}

fn metric(out: &mut String, name: &str, kind: &str, help: &str, value: f64) {
    let _ = writeln!(
        out,
        "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}"
    );
}
