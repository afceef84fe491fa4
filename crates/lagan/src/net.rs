//! The admin command's side of the cluster: requests to the leader, to one
//! server, and to the chunk service of one node.

use crate::exit::{Failure, Outcome, USAGE};
use crate::probe;
use bytes::Bytes;
use lagan_net::{Hello, LeaderClient, NetError, Pool, PoolOptions, Role, Service};
use lagan_types::cluster::{ClusterMap, Config, NodeInfo};
use lagan_types::message::{ChunkReply, ChunkRequest, MetaReply, MetaRequest, Status};
use lagan_types::{Answer, Command, FsError, Op, Query, QueryAnswer, SessionId, Time, VolumeId};
use std::future::Future;
use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;

/// A leader is found within three seconds when there is one (docs/DESIGN.md "Faults"); twice
/// that, and then some, before we say that there is none.
const LEADER_DEADLINE: Duration = Duration::from_secs(10);
/// `lagan status` says how things are now: that nobody leads, too.
const STATUS_DEADLINE: Duration = Duration::from_millis(2500);
/// For a name of a server: as long as resolvers commonly try two name servers.
const RESOLVE_DEADLINE: Duration = Duration::from_secs(10);
/// One server, asked whether it is there.
const PING_DEADLINE: Duration = Duration::from_secs(1);

/// A cluster, as a client of it.
pub struct Cluster {
    leader: LeaderClient,
}

/// Runs a future to its end on this thread.
///
/// # Errors
/// The future's own; status 1 if no runtime can be made.
pub fn run<T>(future: impl Future<Output = Outcome<T>>) -> Outcome<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::error(format!("start the runtime: {e}")))?;
    let result = runtime.block_on(future);
    runtime.shutdown_background();
    result
}

/// Whether the text is an `ip:port` or a `name:port`, as a mount takes it too.
pub fn is_address(text: &str) -> bool {
    let text = text.trim();
    if text.parse::<SocketAddr>().is_ok() {
        return true;
    }
    // A host's name has letters, digits, `-` and `.` (RFC 1123), and `_` in practice.
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    text.rsplit_once(':').is_some_and(|(host, port)| {
        let host_fits = !host.is_empty() && host.chars().all(plain);
        host_fits && port.parse::<u16>().is_ok_and(|p| p != 0)
    })
}

/// The addresses that an `ip:port` or a `name:port` means, at least one.
///
/// # Errors
/// Status 2 for what is neither, status 1 for a name that is not known.
pub fn resolve(text: &str) -> Outcome<Vec<SocketAddr>> {
    let text = text.trim();
    if let Ok(addr) = text.parse() {
        return Ok(vec![addr]);
    }
    if !is_address(text) {
        let why = format!("`{text}` is no address, write ip:port or name:port");
        return Err(Failure::usage(why));
    }
    let asked = text.to_owned();
    let found = probe::within(RESOLVE_DEADLINE, move || {
        asked.to_socket_addrs().map(Vec::from_iter)
    });
    match found {
        Some(Ok(addrs)) if !addrs.is_empty() => Ok(addrs),
        Some(Ok(_)) => Err(Failure::error(format!("{text}: has no address"))),
        Some(Err(e)) => Err(Failure::error(format!("look up {text}: {e}"))),
        None => Err(Failure::error(format!("look up {text}: no answer"))),
    }
}

/// The first address that the text means.
///
/// # Errors
/// As [`resolve`].
pub fn resolve_one(text: &str) -> Outcome<SocketAddr> {
    let found = resolve(text)?;
    let none = || Failure::error(format!("{text}: has no address"));
    found.first().copied().ok_or_else(none)
}

/// All addresses of a list. A name that is not known just now is passed over while
/// there is another. All are asked for at the same time: a name may have no answer.
fn resolve_all(servers: &[String]) -> Outcome<Vec<SocketAddr>> {
    let mut addrs = Vec::new();
    let mut unknown = None;
    let failed = |_| Err(Failure::error("look up a server: the thread ended"));
    let found: Vec<Outcome<Vec<SocketAddr>>> = std::thread::scope(|scope| {
        let looks: Vec<_> = servers
            .iter()
            .map(|server| scope.spawn(move || resolve(server)))
            .collect();
        let looks = looks.into_iter().map(|look| look.join());
        looks.map(|found| found.unwrap_or_else(failed)).collect()
    });
    for found in found {
        match found {
            Ok(found) => addrs.extend(found),
            Err(failure) if failure.status == USAGE => return Err(failure),
            Err(failure) => unknown = Some(failure),
        }
    }
    match unknown {
        Some(failure) if addrs.is_empty() => Err(failure),
        _ if addrs.is_empty() => Err(Failure::usage("no server address")),
        _ => Ok(addrs),
    }
}

impl Cluster {
    /// A client of the cluster that these servers belong to (`ip:port` or `name:port`);
    /// connects on demand.
    ///
    /// # Errors
    /// Status 2 for what is no address, or no address at all; status 1 when no name is known.
    pub fn new(servers: &[String]) -> Outcome<Self> {
        let addrs = resolve_all(servers)?;
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
    /// Status 4 when none answers, status 1 when it refuses.
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
    /// The network's.
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

    /// The whole state, as `lagan status` shows it.
    ///
    /// # Errors
    /// As [`Cluster::ask`].
    pub async fn status(&self) -> Outcome<Status> {
        self.status_within(LEADER_DEADLINE).await
    }

    /// The same without waiting long for a leader.
    ///
    /// # Errors
    /// As [`Cluster::ask`].
    pub async fn status_now(&self) -> Outcome<Status> {
        self.status_within(STATUS_DEADLINE).await
    }

    async fn status_within(&self, deadline: Duration) -> Outcome<Status> {
        match self.ask_within(&MetaRequest::Status, deadline).await? {
            MetaReply::Status(status) => Ok(*status),
            other => Err(unexpected(&other)),
        }
    }

    /// The cluster map.
    ///
    /// # Errors
    /// As [`Cluster::ask`].
    pub async fn map(&self) -> Outcome<ClusterMap> {
        match self.ask(&MetaRequest::Map { known: 0 }).await? {
            MetaReply::Map(Some(map)) => Ok(map),
            other => Err(unexpected(&other)),
        }
    }

    /// A linearizable read. The inner error is the file system's.
    ///
    /// # Errors
    /// As [`Cluster::ask`].
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
    /// As [`Cluster::ask`].
    pub async fn mutate(&self, op: Op) -> Outcome<Result<Answer, FsError>> {
        let request = MetaRequest::Mutate(Command {
            volume: VolumeId::ONLY,
            session: SessionId::SYSTEM,
            seq: 0,
            unanswered: 0,
            time: Time::default(),
            op,
        });
        match self.ask(&request).await? {
            MetaReply::Answer(answer) => Ok(answer),
            other => Err(unexpected(&other)),
        }
    }

    /// Replaces the shared configuration.
    ///
    /// # Errors
    /// As [`Cluster::ask`]; status 1 when it is refused.
    pub async fn set_config(&self, config: Config) -> Outcome<()> {
        self.mutate(Op::SetConfig { config })
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

    /// Who leads in the opinion of each server, all asked at once: term and leader;
    /// `None`: no answer within a second.
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
/// The network's.
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

/// A cluster's id, as people and files see it.
pub fn cluster_text(cluster: &lagan_types::ClusterId) -> String {
    cluster.to_string()
}

/// Where a node's clients connect.
///
/// # Errors
/// Status 1 when the map holds no address.
pub fn node_addr(node: &NodeInfo) -> Outcome<SocketAddr> {
    node.addr
        .parse()
        .map_err(|_| Failure::error(format!("{} has the address `{}`", node.name, node.addr)))
}

/// The addresses, with commas.
pub fn list(addrs: &[SocketAddr]) -> String {
    let texts: Vec<String> = addrs.iter().map(SocketAddr::to_string).collect();
    texts.join(",")
}

/// An answer that does not belong to its question.
pub fn unexpected(reply: &impl std::fmt::Debug) -> Failure {
    let mut text = format!("{reply:?}");
    text.truncate(text.char_indices().nth(80).map_or(text.len(), |(i, _)| i));
    Failure::error(format!("unexpected answer: {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_have_addresses_or_names() {
        for good in [
            "10.0.0.1:7700",
            "[::1]:7700",
            "store1:7700",
            " a.b-c.example:1 ",
        ] {
            assert!(is_address(good), "{good}");
        }
        for bad in [
            "", "10.0.0.1", "store1", ":7700", "store1:0", "a b:1", "a/b:1", "a:70000",
        ] {
            assert!(!is_address(bad), "{bad}");
            assert_eq!(resolve(bad).unwrap_err().status, USAGE, "{bad}");
        }
    }

    #[test]
    fn names_are_looked_up_and_unknown_ones_passed_over() {
        let found = resolve("localhost:7700").unwrap();
        assert!(
            found
                .iter()
                .all(|a| a.ip().is_loopback() && a.port() == 7700)
        );
        let unknown = "no-such-host.invalid:7700".to_owned();
        let both = resolve_all(&[unknown.clone(), "10.0.0.1:7700".into()]).unwrap();
        assert_eq!(both, ["10.0.0.1:7700".parse().unwrap()]);
        assert_eq!(resolve_all(&[unknown]).unwrap_err().status, 1);
        assert_eq!(resolve_all(&[]).unwrap_err().status, USAGE);
    }
}
