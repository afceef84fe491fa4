//! The answer to `lagan status`.

use crate::clock::wall_ms;
use crate::leader::{Leader, State};
use crate::no_answer::NoAnswer;
use lagan_types::NodeId;
use lagan_types::cluster::{ClusterMap, ReplicaSet};
use lagan_types::message::{NodeStatus, Status};
use lagan_types::query::{GetCounters, Sessions};

impl Leader {
    /// Tells the state of the whole cluster.
    pub(crate) async fn status(&self) -> Result<Box<Status>, NoAnswer> {
        let view = self.raft.read().await?;
        let map = lagan_meta::cluster_map(&view)?.ok_or_else(NoAnswer::not_initialised)?;
        let counters = lagan_meta::read(&view, GetCounters)?.unwrap_or_default();
        let sessions = lagan_meta::read(&view, Sessions)?.unwrap_or_default();
        drop(view);
        let now = self.uptime.ms();
        let state = self.state.lock();
        let nodes = map.nodes.iter().map(|n| node_status(&state, n.id, now));
        let status = Status {
            leader: self.raft.leader().map(|(node, _)| node),
            term: self.raft.term(),
            nodes: nodes.collect(),
            degraded_chunks: degraded_chunks(&map, &state),
            counters,
            sessions,
            time_ms: wall_ms(),
            leases: self.leases.status(),
            map,
        };
        Ok(Box::new(status))
    }
}

fn node_status(state: &State, node: NodeId, now_ms: u64) -> NodeStatus {
    let beat = state.heartbeats.get(&node);
    let silent_ms = beat.and_then(|_| state.nodes.silent_ms(node, now_ms));
    NodeStatus {
        node,
        silent_ms: silent_ms.unwrap_or(NodeStatus::NOT_HEARD),
        used_bytes: beat.map_or(0, |b| b.used_bytes),
        free_bytes: beat.map_or(0, |b| b.free_bytes),
        chunks: beat.map_or(0, |b| b.set_chunks.iter().map(|(_, n)| n).sum()),
        s3_error: beat.map_or_else(String::new, |b| b.s3_error.clone()),
        s3_permanent: beat.is_some_and(|b| b.s3_permanent),
        s3_ready: beat.is_some_and(|b| b.s3_ready),
        damaged_chunks: beat.map_or(0, |b| b.damaged_chunks),
        clock_skew_ms: state.skew_ms.get(&node).copied().unwrap_or(0),
    }
}

/// Counts the chunks in sets that have fewer live members than `copies`, by what the
/// members say.
fn degraded_chunks(map: &ClusterMap, state: &State) -> u64 {
    map.sets
        .iter()
        .filter(|set| live_members(map, set) < map.config.copies as usize)
        .map(|set| chunks_of(state, set))
        .sum()
}

fn live_members(map: &ClusterMap, set: &ReplicaSet) -> usize {
    set.nodes.iter().filter(|&&n| map.is_up(n)).count()
}

fn chunks_of(state: &State, set: &ReplicaSet) -> u64 {
    set.nodes
        .iter()
        .filter_map(|n| state.heartbeats.get(n))
        .filter_map(|b| b.set_chunks.iter().find(|(id, _)| *id == set.id))
        .map(|&(_, count)| count)
        .max()
        .unwrap_or(0)
}
