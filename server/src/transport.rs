//! Raft's way to its peers: opaque heads over the pool.

use bytes::Bytes;
use lagan_net::{Hello, MapCell, NetError, Pool, Service};
use lagan_raft::{BoxFuture, Transport, TransportError};
use lagan_types::NodeId;
use lagan_types::cluster::{ClusterMap, boot_follows};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// Carries Raft's messages over the pool.
#[derive(Debug)]
pub(crate) struct NetTransport {
    pool: Pool,
    map: Arc<MapCell>,
}

impl NetTransport {
    /// Sends over connections of `pool`, to nodes that are who `map` says.
    pub(crate) fn new(pool: Pool, map: Arc<MapCell>) -> Self {
        NetTransport { pool, map }
    }
}

impl Transport for NetTransport {
    fn call(
        &self,
        to: NodeId,
        addr: &str,
        head: Vec<u8>,
        data: Bytes,
        deadline: Duration,
    ) -> BoxFuture<'_, Result<(Bytes, Bytes), TransportError>> {
        let pool = self.pool.clone();
        let map = self.map.get();
        let addr: Result<SocketAddr, _> = addr.parse();
        Box::pin(async move {
            let addr = addr.map_err(|_| {
                TransportError::Unreachable(format!("node {to} has a malformed address"))
            })?;
            let connection = pool
                .connection(addr, Service::Raft, deadline)
                .await
                .map_err(|e| convert(&e))?;
            if let Err(e) = check_identity(&map, to, connection.server()) {
                // It may be the right one after its next start.
                pool.forget(addr);
                return Err(e);
            }
            connection
                .call(head, data, deadline)
                .await
                .map(|response| (response.head, response.data))
                .map_err(|e| convert(&e))
        })
    }
}

/// Refuses to send to an older copy of a node's store, or to another store under its name
/// (INV-5): a log that lost its end breaks the rules that Raft counts on.
fn check_identity(map: &ClusterMap, to: NodeId, server: &Hello) -> Result<(), TransportError> {
    let Some(info) = map.node(to) else {
        return Ok(());
    };
    let same = server.node == Some(to) && server.store == Some(info.store);
    if same && boot_follows(server.boot, info.boot) {
        return Ok(());
    }
    Err(TransportError::Unreachable(format!(
        "node {} answers with another or an older store",
        to.0
    )))
}

fn convert(error: &NetError) -> TransportError {
    match error {
        NetError::Connect { .. } | NetError::Refused { .. } => {
            TransportError::Unreachable(error.to_string())
        }
        NetError::Closed { .. }
        | NetError::TimedOut { .. }
        | NetError::Protocol(_)
        | NetError::Declined(_)
        | NetError::TooLarge { .. } => TransportError::NoAnswer(error.to_string()),
    }
}
