//! Several times a second a node tells the leader that it is alive, and fetches the
//! cluster map when there is a newer one.

use crate::meta_edge::MetaEdge;
use crate::mover_edge::MoverSlot;
use crate::parts::Parts;
use crate::registration::Registration;
use lagan_chunk::Store;
use lagan_leader::clock::{is_right, own_skew, wall_ms};
use lagan_net::{MapCell, NetError};
use lagan_raft::Raft;
use lagan_types::NodeId;
use lagan_types::message::NodeHeartbeat;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Time between heartbeats: a fraction of the silence that makes a node count as down.
const INTERVAL: Duration = Duration::from_millis(250);

/// The parts of a node that its heartbeat tells of, or that hear the answer.
pub(crate) struct Heart {
    pub(crate) node: NodeId,
    pub(crate) map: Arc<MapCell>,
    pub(crate) store: Arc<Store>,
    pub(crate) raft: Arc<Raft>,
    pub(crate) edge: Arc<MetaEdge>,
    pub(crate) mover: Arc<MoverSlot>,
    pub(crate) registration: Arc<Registration>,
    pub(crate) parts: Parts,
}

/// Beats until `cancel`.
pub(crate) async fn run(heart: Heart, cancel: CancellationToken) {
    loop {
        beat(&heart).await;
        tokio::select! {
            () = cancel.cancelled() => return,
            () = heart.map.wanted() => heart.edge.fetch_map(&heart.map).await,
            () = tokio::time::sleep(INTERVAL) => {}
        }
    }
}

async fn beat(heart: &Heart) {
    if heart.raft.is_leader() && heart.raft.stats().disk_slow {
        heart.raft.step_down().await;
    }
    let sent_at = wall_ms();
    match heart.edge.ask(heartbeat(heart)).await {
        Ok(heard) => {
            check_clock(heart, sent_at, heard.time_ms);
            if !heard.known
                && let Err(e) = heart.registration.not_known().await
            {
                heart.parts.fail(format!("{e:#}"));
            }
            if heard.map_version > heart.map.get().version {
                heart.edge.fetch_map(&heart.map).await;
            }
        }
        Err(e @ (NetError::Declined(_) | NetError::Protocol(_))) => {
            tracing::warn!(error = %e, "heartbeat");
        }
        Err(e) => tracing::debug!(error = %e, "heartbeat"),
    }
}

fn heartbeat(heart: &Heart) -> NodeHeartbeat {
    let usage = heart.store.usage();
    let health = heart.mover.health();
    NodeHeartbeat {
        node: heart.node,
        boot: heart.parts.boot,
        time_ms: wall_ms(),
        used_bytes: usage.used_bytes,
        free_bytes: usage.free_bytes,
        full: usage.full || heart.store.check().is_err(),
        set_chunks: heart.store.set_counts().into_iter().collect(),
        s3_error: health.error,
        s3_permanent: health.permanent,
        s3_ready: health.ready,
        damaged_chunks: heart.store.damage().len() as u64,
        staged_bytes: heart.store.staged_bytes() as u64,
    }
}

/// Compares this machine's clock with `cluster_ms`, the time that most nodes have as the
/// leader says; a node whose clock is wrong does not lead.
fn check_clock(heart: &Heart, sent_at: u64, cluster_ms: u64) {
    let skew = own_skew(sent_at, wall_ms(), cluster_ms);
    heart.edge.set_skew(skew);
    let right = is_right(skew);
    if heart.raft.set_may_lead(right) && !right {
        tracing::error!(
            skew_ms = skew,
            "this machine's clock differs from that of most nodes: it does not lead until the clock is right"
        );
    }
}
