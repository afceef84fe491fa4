//! Raft's way to its peers: opaque heads over the pool.

use bytes::Bytes;
use lagan_net::{NetError, Pool, Service};
use lagan_raft::{BoxFuture, Transport, TransportError};
use lagan_types::NodeId;
use std::net::SocketAddr;
use std::time::Duration;

/// See the module.
#[derive(Debug)]
pub struct NetTransport {
    pool: Pool,
}

impl NetTransport {
    /// Over connections of `pool`.
    pub fn new(pool: Pool) -> Self {
        NetTransport { pool }
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
        let addr: Result<SocketAddr, _> = addr.parse();
        Box::pin(async move {
            let addr = addr.map_err(|_| {
                TransportError::Unreachable(format!("node {to} has a malformed address"))
            })?;
            pool.call(addr, Service::Raft, head, data, deadline)
                .await
                .map(|response| (response.head, response.data))
                .map_err(|e| convert(&e))
        })
    }
}

fn convert(error: &NetError) -> TransportError {
    match error {
        NetError::Connect { .. } | NetError::Refused { .. } => {
            TransportError::Unreachable(error.to_string())
        }
        NetError::Closed { .. }
        | NetError::TimedOut { .. }
        | NetError::Protocol(_)
        | NetError::TooLarge { .. } => TransportError::NoAnswer(error.to_string()),
    }
}
