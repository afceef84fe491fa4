//! Everything that the background work of one node shares: the metadata, the
//! chunks, the other nodes.

use crate::doubt::Doubt;
use crate::peers::Peers;
use async_trait::async_trait;
use lagan_chunk::{ChunkError, Store};
use lagan_types::op::SystemOp;
use lagan_types::query::{Query, QueryAnswer};
use lagan_types::{Answer, Ask, ChunkId, NodeId, Refusal, answer_to};
use std::collections::BTreeSet;
use std::sync::Arc;
use tokio::sync::Mutex;

/// The metadata as this crate needs it; `server/` implements it.
#[async_trait]
pub trait Meta: Send + Sync + 'static {
    /// Replicates a command of the cluster's own.
    ///
    /// # Errors
    /// [`FsError::TimedOut`](lagan_types::FsError::TimedOut) if nobody answers: it may have
    /// happened all the same.
    async fn mutate(&self, op: SystemOp) -> Result<Answer, Refusal>;
    /// Answers a query by a linearizable read.
    ///
    /// # Errors
    /// [`FsError::TimedOut`](lagan_types::FsError::TimedOut) if nobody answers.
    async fn query(&self, query: Query) -> Result<QueryAnswer, Refusal>;
    /// Returns the cluster's time, milliseconds since 1970.
    fn now_ms(&self) -> u64;
}

/// This node's own copy of the replicated state.
#[async_trait]
pub trait OwnState: Send + Sync + 'static {
    /// The version of the cluster map in it; `None`: this node does not get the log.
    fn map_version(&self) -> Option<u64>;
    /// Reads it.
    fn query(&self, query: Query) -> Result<QueryAnswer, Refusal>;
    /// Those of the chunks that stand in a row of the reap queue of one of these nodes. Reads all
    /// of these rows.
    fn freed(&self, ids: &[ChunkId], nodes: &[NodeId]) -> BTreeSet<ChunkId>;
    /// Returns when it is durable, with the chunks that came with what was carried out: a crash
    /// never has this node store them again.
    ///
    /// # Errors
    /// The disk, in words, or it takes too long.
    async fn settle(&self) -> Result<(), String>;
}

impl dyn Meta + '_ {
    /// Replicates a command, as [`Meta::mutate`] does.
    pub(crate) async fn tell<A>(&self, op: A) -> Result<A::Answer, Refusal>
    where
        A: Ask<Request = SystemOp, Reply = Answer>,
    {
        answer_to::<A>(self.mutate(op.into()).await)
    }

    /// Reads, as [`Meta::query`] does.
    pub(crate) async fn read<A>(&self, ask: A) -> Result<A::Answer, Refusal>
    where
        A: Ask<Request = Query, Reply = QueryAnswer>,
    {
        answer_to::<A>(self.query(ask.into()).await)
    }
}

/// One node's store and its ways to the metadata and to the other nodes. Clones share
/// all of it.
#[derive(Clone)]
pub struct Work {
    /// The metadata.
    pub meta: Arc<dyn Meta>,
    /// This node's own copy of it.
    pub own: Arc<dyn OwnState>,
    /// Whether chunks may be missing here.
    pub doubt: Arc<Doubt>,
    /// This node's chunks.
    pub store: Arc<Store>,
    /// The other nodes, and the map.
    pub peers: Arc<Peers>,
    /// This node.
    pub node: NodeId,
    /// Held while rows of the reap queue are worked off, and while a missing chunk is
    /// brought back: from the question whether it is named to the end of the write.
    pub reaping: Arc<Mutex<()>>,
}

impl Work {
    /// Joins the parts of `node`.
    pub fn new(
        meta: Arc<dyn Meta>,
        own: Arc<dyn OwnState>,
        (store, doubt): (Arc<Store>, Arc<Doubt>),
        peers: Arc<Peers>,
        node: NodeId,
    ) -> Self {
        Work {
            meta,
            own,
            doubt,
            store,
            peers,
            node,
            reaping: Arc::default(),
        }
    }
}

impl std::fmt::Debug for Work {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Work")
            .field("node", &self.node)
            .finish_non_exhaustive()
    }
}

/// Runs disk work off the async workers. Work that ends by a defect is logged here, and its
/// caller goes on as without a store.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ChunkError> + Send + 'static,
) -> Result<T, ChunkError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(ended) => {
            // Else the runtime shuts down.
            if ended.is_panic() {
                tracing::error!(defect = %ended, "work on the chunk store ended by a defect");
            }
            Err(ChunkError::Closed)
        }
    }
}
