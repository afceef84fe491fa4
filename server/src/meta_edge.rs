//! This node's own calls to the metadata leader, wherever it is.

use async_trait::async_trait;
use lagan_leader::clock::wall_ms;
use lagan_net::{LeaderClient, NetError};
use lagan_replica::Meta;
use lagan_types::message::{ArchiveJob, MetaReply, MetaRequest};
use lagan_types::query::{Query, QueryAnswer};
use lagan_types::{Answer, Command, FsError, NodeId, Op, SessionId, Time, VolumeId};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

/// Own work is repeated by its owner: short calls suffice.
const DEADLINE: Duration = Duration::from_secs(10);

/// See the module.
#[derive(Debug)]
pub struct MetaEdge {
    client: Arc<LeaderClient>,
    /// Leader's clock less ours, milliseconds.
    skew_ms: AtomicI64,
}

impl MetaEdge {
    /// Calls through `client`.
    pub fn new(client: Arc<LeaderClient>) -> Arc<Self> {
        Arc::new(MetaEdge {
            client,
            skew_ms: AtomicI64::new(0),
        })
    }

    /// Any call.
    ///
    /// # Errors
    /// As [`LeaderClient::call`].
    pub async fn call(&self, request: &MetaRequest) -> Result<MetaReply, NetError> {
        self.client.call(request, DEADLINE).await
    }

    /// Notes the leader's clock, from an answer to a heartbeat.
    pub fn set_skew(&self, skew_ms: i64) {
        self.skew_ms.store(skew_ms, Ordering::Relaxed);
    }

    /// Asks for uploads.
    ///
    /// # Errors
    /// In words.
    pub async fn jobs(&self, node: NodeId, slots: u32) -> Result<Vec<ArchiveJob>, String> {
        match self.call(&MetaRequest::ArchiveJobs { node, slots }).await {
            Ok(MetaReply::ArchiveJobs(jobs)) => Ok(jobs),
            Ok(other) => Err(format!("unexpected answer {other:?}")),
            Err(e) => Err(e.to_string()),
        }
    }
}

#[async_trait]
impl Meta for MetaEdge {
    async fn mutate(&self, op: Op) -> Result<Answer, FsError> {
        let command = Command {
            volume: VolumeId(1),
            session: SessionId::SYSTEM,
            seq: 0,
            unanswered: 0,
            time: Time::default(),
            op,
        };
        match self.call(&MetaRequest::Mutate(command)).await {
            Ok(MetaReply::Answer(answer)) => answer,
            Ok(_) => Err(FsError::Malformed),
            Err(_) => Err(FsError::TimedOut),
        }
    }

    async fn query(&self, query: Query) -> Result<QueryAnswer, FsError> {
        let request = MetaRequest::Query {
            volume: VolumeId(1),
            session: SessionId::SYSTEM,
            query,
        };
        match self.call(&request).await {
            Ok(MetaReply::Query(answer)) => answer,
            Ok(_) => Err(FsError::Malformed),
            Err(_) => Err(FsError::TimedOut),
        }
    }

    fn now_ms(&self) -> u64 {
        wall_ms().saturating_add_signed(self.skew_ms.load(Ordering::Relaxed))
    }
}
