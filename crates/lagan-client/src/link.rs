//! The way to the servers: the metadata leader, and chunk services by address.

use crate::error::ConnectError;
use bytes::Bytes;
use lagan_net::{
    ConnectionOptions, Hello, LeaderClient, NetError, Pool, PoolOptions, Role, Service,
};
use lagan_types::Incarnation;
use lagan_types::cluster::ClusterMap;
use lagan_types::message::{ChunkReply, ChunkRequest, MetaReply, MetaRequest};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use tokio::time::Instant;

/// Connections to a cluster.
#[derive(Debug)]
pub(crate) struct Link {
    pool: Pool,
    leader: LeaderClient,
}

/// What is left until then.
pub(crate) fn left(until: Instant) -> Duration {
    until.saturating_duration_since(Instant::now())
}

impl Link {
    /// A way to the cluster of these servers; nothing is connected yet.
    pub fn new(servers: Vec<SocketAddr>, bind_from: Option<IpAddr>) -> Self {
        let mut options = PoolOptions::new(Hello::client(Role::Mount, None, Service::Meta));
        options.connection = ConnectionOptions {
            bind_from,
            ..ConnectionOptions::default()
        };
        let pool = Pool::new(options);
        Link {
            leader: LeaderClient::new(pool.clone(), servers),
            pool,
        }
    }

    /// From now on only servers of that life of the cluster are talked to.
    pub fn set_incarnation(&self, incarnation: Incarnation) {
        self.pool
            .set_hello(Hello::client(Role::Mount, Some(incarnation), Service::Meta));
    }

    /// Learns where servers are.
    pub fn set_nodes(&self, map: &ClusterMap) {
        let nodes = map
            .nodes
            .iter()
            .filter_map(|n| Some((n.id, n.addr.parse().ok()?)));
        self.leader.set_nodes(nodes);
    }

    /// Has the leader answer, asking again until then.
    pub async fn meta(&self, request: &MetaRequest, until: Instant) -> Result<MetaReply, NetError> {
        self.leader.call(request, left(until)).await
    }

    /// Asks one chunk service once.
    pub async fn chunk(
        &self,
        addr: SocketAddr,
        request: &ChunkRequest,
        data: Bytes,
        deadline: Duration,
    ) -> Result<(ChunkReply, Bytes), NetError> {
        self.pool
            .call_typed(addr, Service::Chunk, request, data, deadline)
            .await
    }

    /// Ends all connections.
    pub fn close(&self) {
        self.pool.close();
    }
}

/// Turns `ip:port` and `name:port` into addresses.
pub(crate) async fn resolve(servers: &[String]) -> Result<Vec<SocketAddr>, ConnectError> {
    let mut found = Vec::new();
    for text in servers {
        let bad = |reason: String| ConnectError::Address {
            text: text.clone(),
            reason,
        };
        let addrs = tokio::net::lookup_host(text.as_str())
            .await
            .map_err(|e| bad(e.to_string()))?;
        let before = found.len();
        found.extend(addrs);
        if found.len() == before {
            return Err(bad("no address".to_owned()));
        }
    }
    if found.is_empty() {
        return Err(ConnectError::NoServers);
    }
    Ok(found)
}

/// Whether the address is one of this machine: a datagram socket can be bound
/// to it, and to no other.
pub(crate) fn is_local(addr: &str) -> bool {
    addr.parse::<SocketAddr>()
        .is_ok_and(|a| std::net::UdpSocket::bind((a.ip(), 0)).is_ok())
}
