//! Calls to the other nodes, at the addresses that the cluster map gives them.

use crate::metrics::METRICS;
use bytes::Bytes;
use lagan_net::{MapCell, NetError, Pool};
use lagan_types::NodeId;
use lagan_types::cluster::ClusterMap;
use lagan_types::message::{ChunkRefusal, Conversation, Message};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// Time for an answer, beside the transfer: a peer that takes longer counts as
/// silent, since a write must find another set well within two seconds.
const CALL_BASE: Duration = Duration::from_millis(900);
/// Slowest transfer that a call allows for, bytes a millisecond.
const RATE_MIN_BYTES_MS: u64 = 8 * 1024;

/// Calls to the chunk services of other nodes.
#[derive(Debug)]
pub struct Peers {
    pool: Arc<Pool>,
    map: Arc<MapCell>,
}

/// Why a peer gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    /// The map does not know the node.
    #[error("node {0} is not in the cluster map")]
    Unknown(NodeId),
    /// The map has no address of it that can be parsed.
    #[error("node {0} has the malformed address {1:?}")]
    Address(NodeId, String),
    /// The call failed.
    #[error("node {node}: {source}")]
    Net {
        /// The node.
        node: NodeId,
        /// The error.
        source: NetError,
    },
}

impl Peers {
    /// Makes calls through `pool`, to the addresses that `map` names.
    pub fn new(pool: Arc<Pool>, map: Arc<MapCell>) -> Self {
        Peers { pool, map }
    }

    /// Returns the map.
    pub fn map(&self) -> Arc<ClusterMap> {
        self.map.get()
    }

    /// Returns the map's cell.
    pub fn map_cell(&self) -> &Arc<MapCell> {
        &self.map
    }

    /// Asks `node`'s chunk service. `answer_len` is how many bytes the answer may have.
    ///
    /// # Errors
    /// The node is unknown, gone or silent.
    pub(crate) async fn ask<A>(
        &self,
        node: NodeId,
        ask: A,
        data: Bytes,
        answer_len: u64,
    ) -> Result<(Result<A::Answer, ChunkRefusal>, Bytes), PeerError>
    where
        A: Message,
        A::Request: Conversation<Refusal = ChunkRefusal>,
    {
        let map = self.map.get();
        let info = map.node(node).ok_or(PeerError::Unknown(node))?;
        let addr: SocketAddr = info
            .peer_addr
            .parse()
            .map_err(|_| PeerError::Address(node, info.peer_addr.clone()))?;
        let bytes = data.len() as u64 + answer_len;
        let deadline = CALL_BASE + Duration::from_millis(bytes / RATE_MIN_BYTES_MS);
        self.pool
            .ask(addr, ask, data, deadline)
            .await
            .map_err(|source| {
                METRICS.peer_errors.inc();
                PeerError::Net { node, source }
            })
    }
}
