//! The admin command's side of the cluster: requests to the leader, to one
//! server, and to the chunk service of one node.

use crate::exit::{Failure, Outcome};
use bytes::Bytes;
use lagan_host::servers::{self, LookUpError};
use lagan_net::{Hello, LeaderClient, NetError, Pool, PoolOptions, Role, Service};
use lagan_types::cluster::{ClusterMap, Config, NodeInfo};
use lagan_types::message::{ChunkReply, ChunkRequest, MetaReply, MetaRequest, Status};
use lagan_types::op::SetConfig;
use lagan_types::{Answer, Command, FsError, Query, QueryAnswer, SessionId, SystemOp, VolumeId};
use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

/// A leader is found within three seconds when there is one (docs/DESIGN.md "Faults"); twice
/// that, and then some, before we say that there is none.
const LEADER_DEADLINE: Duration = Duration::from_secs(10);
/// Time for `lagan status`, which shows the present state, also that nobody leads.
const STATUS_DEADLINE: Duration = Duration::from_millis(2500);
/// Time for the question whether one server is there.
const PING_DEADLINE: Duration = Duration::from_secs(1);

/// A cluster, seen by one of its clients.
pub struct Cluster {
    leader: LeaderClient,
}

/// Runs a future to its end on this thread.
///
/// # Errors
/// Those of the future; status 1 if no runtime can be made.
pub fn run<T>(future: impl Future<Output = Outcome<T>>) -> Outcome<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::error(format!("start the runtime: {e}")))?;
    let result = runtime.block_on(future);
    runtime.shutdown_background();
    result
}

/// The first address of one server, given as `ip:port` or `name:port`.
///
/// # Errors
/// Status 2 for a text that is no address, status 1 for a name that is not known.
pub fn resolve_one(text: &str) -> Outcome<SocketAddr> {
    let text = text.trim();
    let found = run(async { servers::look_up_one(text).await.map_err(unresolved) })?;
    let none = || Failure::error(format!("{text}: has no address"));
    found.first().copied().ok_or_else(none)
}

/// All addresses of a list. A name that is not known just now is passed over while
/// there is another.
async fn resolve_all(servers: &[String]) -> Outcome<Vec<SocketAddr>> {
    let servers: Vec<String> = servers.iter().map(|s| s.trim().to_owned()).collect();
    let mut addrs = Vec::new();
    let mut unknown = None;
    for (_, found) in servers::look_up(&servers).await {
        match found {
            Ok(found) => addrs.extend(found),
            Err(e @ LookUpError::NotAnAddress(_)) => return Err(unresolved(e)),
            Err(e) => unknown = Some(unresolved(e)),
        }
    }
    match unknown {
        Some(failure) if addrs.is_empty() => Err(failure),
        _ if addrs.is_empty() => Err(Failure::usage("no server address")),
        _ => Ok(addrs),
    }
}

fn unresolved(error: LookUpError) -> Failure {
    match error {
        LookUpError::NotAnAddress(wrong) => Failure::usage(wrong.to_string()),
        LookUpError::Unknown { .. } => Failure::error(error.to_string()),
    }
}

impl Cluster {
    /// A client of the cluster that these servers belong to (`ip:port` or `name:port`);
    /// connects on demand.
    ///
    /// # Errors
    /// Status 2 for a text that is no address, or an empty list; status 1 when no name is known.
    pub async fn new(servers: &[String]) -> Outcome<Self> {
        let addrs = resolve_all(servers).await?;
        let hello = Hello::client(Role::Admin, None, Service::Meta);
        let pool = Pool::new(PoolOptions::new(hello));
        Ok(Cluster {
            leader: LeaderClient::new(pool, addrs),
        })
    }

    /// The servers' addresses.
    pub fn servers(&self) -> Vec<SocketAddr> {
        self.leader.servers()
    }

    /// Asks the leader, whoever it is.
    ///
    /// # Errors
    /// Status 4 when no leader answers, status 1 when it refuses.
    pub async fn ask(&self, request: &MetaRequest) -> Outcome<MetaReply> {
        self.ask_within(request, LEADER_DEADLINE).await
    }

    async fn ask_within(&self, request: &MetaRequest, deadline: Duration) -> Outcome<MetaReply> {
        match self.leader.call(request, deadline).await {
            Ok(MetaReply::Refused(reason)) => Err(Failure::error(reason)),
            Ok(reply) => Ok(reply),
            Err(e @ (NetError::Refused { .. } | NetError::TooLarge { .. })) => {
                Err(Failure::error(e.to_string()))
            }
            Err(e) => Err(Failure::no_quorum(format!(
                "no metadata leader answers at {}: {e}",
                list(&self.servers())
            ))),
        }
    }

    /// The connections.
    pub fn pool(&self) -> &Pool {
        self.leader.pool()
    }

    /// Asks one server, whether it leads or not.
    ///
    /// # Errors
    /// Those of the network.
    pub async fn ask_at(
        &self,
        addr: SocketAddr,
        request: &MetaRequest,
        deadline: Duration,
    ) -> Result<MetaReply, NetError> {
        self.pool()
            .call_typed(addr, Service::Meta, request, Bytes::new(), deadline)
            .await
            .map(|(reply, _)| reply)
    }

    /// Asks for the whole state that `lagan status` shows.
    ///
    /// # Errors
    /// Those of [`Cluster::ask`].
    pub async fn status(&self) -> Outcome<Status> {
        self.status_within(LEADER_DEADLINE).await
    }

    /// Asks for the whole state without waiting long for a leader.
    ///
    /// # Errors
    /// Those of [`Cluster::ask`].
    pub async fn status_now(&self) -> Outcome<Status> {
        self.status_within(STATUS_DEADLINE).await
    }

    async fn status_within(&self, deadline: Duration) -> Outcome<Status> {
        match self.ask_within(&MetaRequest::Status, deadline).await? {
            MetaReply::Status(status) => Ok(*status),
            other => Err(unexpected(&other)),
        }
    }

    /// Asks for the cluster map.
    ///
    /// # Errors
    /// Those of [`Cluster::ask`].
    pub async fn map(&self) -> Outcome<ClusterMap> {
        match self.ask(&MetaRequest::Map { known: 0 }).await? {
            MetaReply::Map(Some(map)) => Ok(map),
            other => Err(unexpected(&other)),
        }
    }

    /// A linearizable read. The inner error is the file system's.
    ///
    /// # Errors
    /// Those of [`Cluster::ask`].
    pub async fn query(&self, query: Query) -> Outcome<Result<QueryAnswer, FsError>> {
        let request = MetaRequest::Query {
            volume: VolumeId::ONLY,
            session: SessionId::SYSTEM,
            query,
        };
        match self.ask(&request).await? {
            MetaReply::Query(answer) => Ok(answer),
            other => Err(unexpected(&other)),
        }
    }

    /// A mutation in the cluster's own name: one that may be repeated.
    ///
    /// # Errors
    /// Those of [`Cluster::ask`].
    pub async fn mutate(&self, op: impl Into<SystemOp>) -> Outcome<Result<Answer, FsError>> {
        let request = MetaRequest::Mutate(Command::system(op));
        match self.ask(&request).await? {
            MetaReply::Answer(answer) => Ok(answer),
            other => Err(unexpected(&other)),
        }
    }

    /// Replaces the shared configuration.
    ///
    /// # Errors
    /// Those of [`Cluster::ask`]; status 1 when the configuration is refused.
    pub async fn set_config(&self, config: Config) -> Outcome<()> {
        self.mutate(SetConfig { config })
            .await?
            .map(|_| ())
            .map_err(|e| Failure::error(format!("the cluster refuses that configuration: {e}")))
    }

    /// Has a server that belongs to no cluster make or join one; gives the
    /// cluster's id in hexadecimal.
    ///
    /// # Errors
    /// Status 1 with the server's reason, or the network's.
    pub async fn admit(
        &self,
        server: SocketAddr,
        request: &MetaRequest,
        deadline: Duration,
    ) -> Outcome<String> {
        match self.ask_at(server, request, deadline).await {
            Ok(MetaReply::Joined { cluster, .. }) => Ok(cluster_text(&cluster)),
            Ok(MetaReply::Refused(reason)) => Err(Failure::error(format!("{server}: {reason}"))),
            Ok(other) => Err(unexpected(&other)),
            Err(e) => Err(Failure::error(format!("{server}: {e}"))),
        }
    }

    /// Asks all servers at once who leads: term and leader in the opinion of each; `None` for
    /// no answer within a second.
    pub async fn opinions(&self) -> Vec<(SocketAddr, Option<(u64, Option<u64>)>)> {
        let asked: Vec<_> = self
            .servers()
            .into_iter()
            .map(|addr| (addr, tokio::spawn(opinion(self.pool().clone(), addr))))
            .collect();
        let mut out = Vec::with_capacity(asked.len());
        for (addr, answer) in asked {
            out.push((addr, answer.await.ok().flatten()));
        }
        out
    }
}

async fn opinion(pool: Pool, addr: SocketAddr) -> Option<(u64, Option<u64>)> {
    let ping = MetaRequest::Ping;
    let asked = pool.call_typed(addr, Service::Meta, &ping, Bytes::new(), PING_DEADLINE);
    match asked.await {
        Ok((MetaReply::Pong { leader, term }, _)) => Some((term, leader.map(|n| n.0))),
        _ => None,
    }
}

/// Asks the chunk service of a node.
///
/// # Errors
/// Those of the network.
pub async fn ask_chunks(
    pool: &Pool,
    addr: SocketAddr,
    request: &ChunkRequest,
    deadline: Duration,
) -> Result<ChunkReply, NetError> {
    pool.call_typed(addr, Service::Chunk, request, Bytes::new(), deadline)
        .await
        .map(|(reply, _)| reply)
}

/// A cluster's id as people and files have it.
pub fn cluster_text(cluster: &lagan_types::ClusterId) -> String {
    cluster.to_string()
}

/// The address of a node for clients.
///
/// # Errors
/// Status 1 when the map holds no address.
pub fn node_addr(node: &NodeInfo) -> Outcome<SocketAddr> {
    node.addr
        .parse()
        .map_err(|_| Failure::error(format!("{} has the address `{}`", node.name, node.addr)))
}

/// The addresses, joined by commas.
pub fn list(addrs: &[SocketAddr]) -> String {
    let texts: Vec<String> = addrs.iter().map(SocketAddr::to_string).collect();
    texts.join(",")
}

/// The failure of an answer that does not belong to its question.
pub fn unexpected(reply: &impl std::fmt::Debug) -> Failure {
    let mut text = format!("{reply:?}");
    text.truncate(text.char_indices().nth(80).map_or(text.len(), |(i, _)| i));
    Failure::error(format!("unexpected answer: {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::USAGE;

    #[test]
    fn texts_that_are_no_address_are_wrong_usage() {
        for bad in ["", "10.0.0.1", "store1", "store1:0", "a b:1", "a/b:1"] {
            assert_eq!(resolve_one(bad).unwrap_err().status, USAGE, "{bad}");
        }
        let found = resolve_one(" 10.0.0.1:7700 ").unwrap();
        assert_eq!(found, "10.0.0.1:7700".parse().unwrap());
    }

    #[tokio::test]
    async fn names_are_looked_up_and_unknown_ones_passed_over() {
        let found = resolve_all(&["localhost:7700".into()]).await.unwrap();
        assert!(
            found
                .iter()
                .all(|a| a.ip().is_loopback() && a.port() == 7700)
        );
        let unknown = "no-such-host.invalid:7700".to_owned();
        let both = [unknown.clone(), " 10.0.0.1:7700".into()];
        let both = resolve_all(&both).await.unwrap();
        assert_eq!(both, ["10.0.0.1:7700".parse().unwrap()]);
        assert_eq!(resolve_all(&[unknown]).await.unwrap_err().status, 1);
        assert_eq!(resolve_all(&[]).await.unwrap_err().status, USAGE);
    }
}
