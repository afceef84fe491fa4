//! This node's own calls to the metadata leader, wherever it is, and its own copy of the
//! metadata.

use async_trait::async_trait;
use lagan_leader::clock::wall_ms;
use lagan_net::{LeaderClient, MapCell, NetError};
use lagan_raft::Raft;
use lagan_replica::{Meta, OwnState};
use lagan_types::message::{Conversation, GetMap, LeaderRefusal, Message, Mutate, ReadState};
use lagan_types::query::{Query, QueryAnswer};
use lagan_types::{
    Answer, ChunkId, Command, FsError, NodeId, Refusal, SessionId, SystemOp, VolumeId,
};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

/// Time for one call: the owner of the work repeats it.
const DEADLINE: Duration = Duration::from_secs(10);

/// Calls the leader in the cluster's own name.
#[derive(Debug)]
pub(crate) struct MetaEdge {
    client: Arc<LeaderClient>,
    /// The leader's clock less ours, milliseconds.
    skew_ms: AtomicI64,
}

impl MetaEdge {
    /// Calls through `client`.
    pub(crate) fn new(client: Arc<LeaderClient>) -> Arc<Self> {
        Arc::new(MetaEdge {
            client,
            skew_ms: AtomicI64::new(0),
        })
    }

    /// Asks the leader.
    ///
    /// # Errors
    /// As [`LeaderClient::ask`].
    pub(crate) async fn ask<A>(&self, ask: A) -> Result<A::Answer, NetError>
    where
        A: Message,
        A::Request: Conversation<Refusal = LeaderRefusal>,
    {
        self.client.ask(ask, DEADLINE).await
    }

    /// Notes how far the cluster's time is ahead of our clock, milliseconds: the answer to a
    /// heartbeat says it.
    pub(crate) fn set_skew(&self, skew_ms: i64) {
        self.skew_ms.store(skew_ms, Ordering::Relaxed);
    }

    /// Fetches a newer map into `map`, if there is one, and follows its addresses.
    pub(crate) async fn fetch_map(&self, map: &MapCell) {
        let known = map.get().version;
        match self.ask(GetMap { known }).await {
            Ok(Some(newer)) => {
                let nodes = newer.nodes.iter().filter_map(|n| {
                    let addr: SocketAddr = n.peer_addr.parse().ok()?;
                    Some((n.id, addr))
                });
                self.client.set_nodes(nodes);
                map.put(newer);
            }
            Ok(None) => {}
            Err(e) => tracing::debug!(error = %e, "fetch cluster map"),
        }
    }
}

#[async_trait]
impl Meta for MetaEdge {
    async fn mutate(&self, op: SystemOp) -> Result<Answer, Refusal> {
        let command = Command::system(op);
        let answer = self.ask(Mutate::new(command)).await;
        answer.map_err(|e| unanswered(&e))?.answer
    }

    async fn query(&self, query: Query) -> Result<QueryAnswer, Refusal> {
        let answer = self.ask(ReadState::new(SessionId::SYSTEM, query)).await;
        answer.map_err(|e| unanswered(&e))?.answer
    }

    fn now_ms(&self) -> u64 {
        wall_ms().saturating_add_signed(self.skew_ms.load(Ordering::Relaxed))
    }
}

/// This node's own copy of the metadata.
pub(crate) struct OwnMeta {
    node: NodeId,
    raft: Arc<Raft>,
}

impl OwnMeta {
    /// The copy of `node`.
    pub(crate) fn new(node: NodeId, raft: Arc<Raft>) -> Self {
        OwnMeta { node, raft }
    }
}

#[async_trait]
impl OwnState for OwnMeta {
    fn map_version(&self) -> Option<u64> {
        let follows = self.raft.members().contains_key(&self.node);
        let version = || lagan_meta::map_version(&self.raft.local_view());
        // A state that cannot be read stops the node elsewhere.
        follows.then(|| version().unwrap_or(0))
    }

    fn query(&self, query: Query) -> Result<QueryAnswer, Refusal> {
        let view = self.raft.local_view();
        let answer = lagan_meta::query(&view, VolumeId::ONLY, SessionId::SYSTEM, &query);
        answer.unwrap_or_else(|error| {
            tracing::error!(%error, "state store");
            Err(FsError::Io.into())
        })
    }

    fn freed(&self, ids: &[ChunkId], nodes: &[NodeId]) -> BTreeSet<ChunkId> {
        let view = self.raft.local_view();
        let all = || ids.iter().copied().collect();
        let freed = nodes.iter().map(|n| lagan_meta::freed(&view, *n, ids));
        // A state that cannot be read stops the node elsewhere.
        freed
            .flat_map(|freed| freed.unwrap_or_else(|_| all()))
            .collect()
    }

    async fn settle(&self) -> Result<(), String> {
        self.raft.settle().await.map_err(|e| e.to_string())
    }
}

/// The refusal that stands for no answer: what the leader declines is not asked again.
fn unanswered(error: &NetError) -> Refusal {
    match error {
        NetError::Declined(_) | NetError::Protocol(_) => Refusal::Malformed,
        NetError::Connect { .. }
        | NetError::Refused { .. }
        | NetError::Closed { .. }
        | NetError::TimedOut { .. }
        | NetError::TooLarge { .. } => FsError::TimedOut.into(),
    }
}
