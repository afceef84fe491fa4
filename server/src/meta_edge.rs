//! This node's own calls to the metadata leader, wherever it is.

use async_trait::async_trait;
use lagan_leader::clock::wall_ms;
use lagan_net::{LeaderClient, MapCell, NetError};
use lagan_replica::Meta;
use lagan_types::message::{Conversation, GetMap, LeaderRefusal, Message, Mutate, ReadState};
use lagan_types::query::{Query, QueryAnswer};
use lagan_types::{Answer, Command, FsError, Refusal, SessionId, SystemOp};
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
