//! The leader and the members, as this node knows them.

use crate::types::alias::OpenRaft;
use lagan_types::NodeId;
use openraft::ServerState;
use openraft::metrics::RaftServerMetrics;
use std::collections::{BTreeMap, BTreeSet};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Leader and members, as this node knows them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LeaderInfo {
    /// Raft's term.
    pub term: u64,
    /// The leader and its address, if known; may be this node.
    pub leader: Option<(NodeId, String)>,
    /// Whether this node leads.
    pub is_leader: bool,
    /// The members that vote.
    pub voters: BTreeSet<NodeId>,
    /// All members, learners too, with their addresses.
    pub members: BTreeMap<NodeId, String>,
    /// Whether the consensus has ended, by shutdown or by an error.
    pub stopped: bool,
}

impl LeaderInfo {
    /// The term in which this node leads; `None`: it does not.
    pub fn leading(&self) -> Option<u64> {
        self.is_leader.then_some(self.term)
    }

    fn of(metrics: &RaftServerMetrics<u64, openraft::BasicNode>, me: NodeId) -> Self {
        let membership = metrics.membership_config.membership();
        let members: BTreeMap<_, _> = membership
            .nodes()
            .map(|(&id, node)| (NodeId(id), node.addr.clone()))
            .collect();
        let is_leader = metrics.state == ServerState::Leader;
        let leader = metrics.current_leader.map(NodeId);
        let leader = if is_leader { Some(me) } else { leader };
        LeaderInfo {
            term: metrics.vote.leader_id().term,
            leader: leader.and_then(|id| Some((id, members.get(&id)?.clone()))),
            is_leader,
            voters: membership.voter_ids().map(NodeId).collect(),
            members,
            stopped: false,
        }
    }
}

/// Keeps a [`LeaderInfo`] up to date until the consensus ends.
pub(crate) fn follow(
    core: &OpenRaft,
    me: NodeId,
    cancel: CancellationToken,
) -> (JoinHandle<()>, watch::Receiver<LeaderInfo>) {
    let mut metrics = core.server_metrics();
    let first = LeaderInfo::of(&metrics.borrow_and_update(), me);
    let (publish, leader) = watch::channel(first);
    let task = tokio::spawn(async move {
        loop {
            let changed = tokio::select! {
                biased;
                () = cancel.cancelled() => break,
                changed = metrics.changed() => changed,
            };
            if changed.is_err() {
                break;
            }
            let next = LeaderInfo::of(&metrics.borrow_and_update(), me);
            publish.send_if_modified(|now| {
                let differs = *now != next;
                if differs {
                    tracing::info!(term = next.term, leader = ?next.leader, "leader");
                    *now = next;
                }
                differs
            });
        }
        publish.send_modify(|now| {
            now.is_leader = false;
            now.leader = None;
            now.stopped = true;
        });
    });
    (task, leader)
}
