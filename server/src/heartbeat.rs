//! What a node does several times a second: says that it is alive, and
//! fetches the cluster map when there is a newer one.

use crate::member::Member;
use lagan_leader::clock::{is_right, own_skew, wall_ms};
use lagan_types::message::{MetaReply, MetaRequest, NodeHeartbeat};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Between heartbeats: a fraction of the silence that makes a node count as down.
const INTERVAL: Duration = Duration::from_millis(250);

/// Runs until `cancel`.
pub async fn run(member: Arc<Member>, cancel: CancellationToken) {
    loop {
        beat(&member).await;
        tokio::select! {
            () = cancel.cancelled() => return,
            () = member.map.wanted() => fetch_map(&member).await,
            () = tokio::time::sleep(INTERVAL) => {}
        }
    }
}

async fn beat(member: &Member) {
    if member.raft.is_leader() && member.raft.stats().disk_slow {
        member.raft.step_down().await;
    }
    let sent_at = wall_ms();
    let request = MetaRequest::NodeHeartbeat(heartbeat(member));
    match member.edge.call(&request).await {
        Ok(MetaReply::NodeHeartbeat {
            map_version,
            known,
            time_ms,
        }) => {
            check_clock(member, sent_at, time_ms);
            if !known {
                member.not_known().await;
            }
            if map_version > member.map.get().version {
                fetch_map(member).await;
            }
        }
        Ok(other) => tracing::warn!(answer = ?other, "heartbeat"),
        Err(e) => tracing::debug!(error = %e, "heartbeat"),
    }
}

fn heartbeat(member: &Member) -> NodeHeartbeat {
    let usage = member.store.usage();
    let health = member.mover.health();
    NodeHeartbeat {
        node: member.node,
        boot: member.boot,
        time_ms: wall_ms(),
        used_bytes: usage.used_bytes,
        free_bytes: usage.free_bytes,
        full: usage.full || member.store.check().is_err(),
        set_chunks: member.store.set_counts().into_iter().collect(),
        s3_error: health.error,
        s3_permanent: health.permanent,
        s3_ready: health.ready,
        damaged_chunks: member.store.damage().len() as u64,
    }
}

/// `cluster_ms` is the time that most nodes have, as the leader says.
fn check_clock(member: &Member, sent_at: u64, cluster_ms: u64) {
    let skew = own_skew(sent_at, wall_ms(), cluster_ms);
    member.edge.set_skew(skew);
    let right = is_right(skew);
    if member.raft.set_may_lead(right) && !right {
        tracing::error!(
            skew_ms = skew,
            "this machine's clock differs from that of most nodes: it does not lead until the clock is right"
        );
    }
}

/// Fetches and distributes a newer map.
pub async fn fetch_map(member: &Member) {
    let known = member.map.get().version;
    match member.edge.call(&MetaRequest::Map { known }).await {
        Ok(MetaReply::Map(Some(map))) => {
            let nodes = map.nodes.iter().filter_map(|n| {
                let addr: SocketAddr = n.peer_addr.parse().ok()?;
                Some((n.id, addr))
            });
            member.leader_client.set_nodes(nodes);
            member.map.put(map);
        }
        Ok(_) => {}
        Err(e) => tracing::debug!(error = %e, "fetch cluster map"),
    }
}
