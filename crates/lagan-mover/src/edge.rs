//! The rest of the server, as the mover needs it.

use crate::MoverError;
use async_trait::async_trait;
use bytes::Bytes;
use lagan_types::cluster::ClusterMap;
use lagan_types::message::ArchiveJob;
use lagan_types::{Answer, Ask, ChunkId, NodeId, Query, QueryAnswer, SystemOp, answer_to};
use std::sync::Arc;

/// The metadata, as the cluster's own session sees it.
#[async_trait]
pub trait Meta: Send + Sync + 'static {
    /// A mutation, repeated inside until its own deadline.
    ///
    /// # Errors
    /// The metadata's; the mutation may have happened all the same.
    async fn mutate(&self, op: SystemOp) -> Result<Answer, MoverError>;

    /// A linearizable read.
    ///
    /// # Errors
    /// The metadata's.
    async fn query(&self, query: Query) -> Result<QueryAnswer, MoverError>;

    /// Asks the leader for up to `slots` files to archive; their attempts are recorded.
    ///
    /// # Errors
    /// The leader could not be asked; attempts may have been recorded.
    async fn jobs(&self, slots: u32) -> Result<Vec<ArchiveJob>, MoverError>;

    /// True if this node leads the metadata now, as far as it knows.
    fn is_leader(&self) -> bool;

    /// The cluster map, which may be a little old.
    fn map(&self) -> Arc<ClusterMap>;

    /// This node.
    fn node(&self) -> NodeId;

    /// The wall clock, milliseconds since 1970.
    fn now_ms(&self) -> u64;
}

impl dyn Meta + '_ {
    /// Reads, as [`Meta::query`] does.
    pub(crate) async fn read<A>(&self, ask: A) -> Result<A::Answer, MoverError>
    where
        A: Ask<Request = Query, Reply = QueryAnswer>,
    {
        let reply = self.query(ask.into()).await?;
        Ok(answer_to::<A>(Ok(reply))?)
    }
}

/// The chunks of all nodes.
#[async_trait]
pub trait Chunks: Send + Sync + 'static {
    /// The bytes `offset..offset + len` of a chunk, verified, from this node
    /// or else another.
    ///
    /// # Errors
    /// No replica could be read.
    async fn read(&self, id: ChunkId, offset: u32, len: u32) -> Result<Bytes, MoverError>;
}
