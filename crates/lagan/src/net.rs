//! The admin command's side of the cluster: requests to the leader, and to one server.

use crate::exit::{Failure, Outcome};
use bytes::Bytes;
use lagan_host::servers::{self, LookUpError};
use lagan_net::{Hello, LeaderClient, NetError, Pool, PoolOptions, Role, Service};
use lagan_types::cluster::{ClusterMap, Config, NodeInfo};
use lagan_types::message::{
    Conversation, GetMap, GetStatus, Joined, LeaderRefusal, Message, Mutate, NodeRequest, Ping,
    Pong, ReadState, RefusalOf, Status,
};
use lagan_types::op::SetConfig;
use lagan_types::{
    Answer, Ask, Command, Query, QueryAnswer, Refusal, SessionId, SystemOp, answer_to,
};
use std::fmt::{Debug, Display};
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
    pub async fn ask<A>(&self, ask: A) -> Outcome<A::Answer>
    where
        A: Message<Request: Conversation<Refusal = LeaderRefusal>>,
    {
        self.ask_within(ask, LEADER_DEADLINE).await
    }

    async fn ask_within<A>(&self, ask: A, deadline: Duration) -> Outcome<A::Answer>
    where
        A: Message<Request: Conversation<Refusal = LeaderRefusal>>,
    {
        self.leader.ask(ask, deadline).await.map_err(|e| match e {
            NetError::Declined(_) | NetError::Refused { .. } | NetError::TooLarge { .. } => {
                Failure::error(e.to_string())
            }
            NetError::Connect { .. }
            | NetError::Closed { .. }
            | NetError::TimedOut { .. }
            | NetError::Protocol(_) => Failure::no_quorum(format!(
                "no metadata leader answers at {}: {e}",
                list(&self.servers())
            )),
        })
    }

    /// The connections.
    pub fn pool(&self) -> &Pool {
        self.leader.pool()
    }

    /// Asks for the whole state that `lagan status` shows.
    ///
    /// # Errors
    /// Those of [`Cluster::ask`].
    pub async fn status(&self) -> Outcome<Status> {
        Ok(*self.ask(GetStatus).await?)
    }

    /// Asks for the whole state without waiting long for a leader.
    ///
    /// # Errors
    /// Those of [`Cluster::ask`].
    pub async fn status_now(&self) -> Outcome<Status> {
        Ok(*self.ask_within(GetStatus, STATUS_DEADLINE).await?)
    }

    /// Asks for the cluster map.
    ///
    /// # Errors
    /// Those of [`Cluster::ask`].
    pub async fn map(&self) -> Outcome<ClusterMap> {
        let map = self.ask(GetMap { known: 0 }).await?;
        map.ok_or_else(|| Failure::error("the cluster has no map yet"))
    }

    /// A linearizable read. The inner error is the leader's.
    ///
    /// # Errors
    /// Those of [`Cluster::ask`].
    pub async fn query<A>(&self, ask: A) -> Outcome<Result<A::Answer, Refusal>>
    where
        A: Ask<Request = Query, Reply = QueryAnswer>,
    {
        let read = ReadState::new(SessionId::SYSTEM, ask);
        Ok(answer_to::<A>(self.ask(read).await?.answer))
    }

    /// A mutation in the cluster's own name: one that may be repeated. The inner error is the
    /// leader's.
    ///
    /// # Errors
    /// Those of [`Cluster::ask`].
    pub async fn mutate<A>(&self, op: A) -> Outcome<Result<A::Answer, Refusal>>
    where
        A: Ask<Request = SystemOp, Reply = Answer>,
    {
        let command = Command::system(op);
        Ok(answer_to::<A>(self.ask(Mutate::new(command)).await?.answer))
    }

    /// Replaces the shared configuration.
    ///
    /// # Errors
    /// Those of [`Cluster::ask`]; status 1 when the configuration is refused.
    pub async fn set_config(&self, config: Config) -> Outcome<()> {
        self.mutate(SetConfig { config })
            .await?
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
        ask: impl Message<Request = NodeRequest, Answer = Joined>,
        deadline: Duration,
    ) -> Outcome<String> {
        match ask_at(self.pool(), server, ask, deadline).await {
            Ok(joined) => Ok(cluster_text(&joined.cluster)),
            Err(why) => Err(Failure::error(format!("{server}: {why}"))),
        }
    }

    /// Asks all servers at once who leads, in the opinion of each; `None` for no answer within
    /// a second.
    pub async fn opinions(&self) -> Vec<(SocketAddr, Option<Pong>)> {
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

async fn opinion(pool: Pool, addr: SocketAddr) -> Option<Pong> {
    ask_at(&pool, addr, Ping, PING_DEADLINE).await.ok()
}

/// Asks one server, whether it leads or not.
///
/// # Errors
/// Its refusal or the network's error, in words.
pub async fn ask_at<A>(
    pool: &Pool,
    addr: SocketAddr,
    ask: A,
    deadline: Duration,
) -> Result<A::Answer, String>
where
    A: Message,
    RefusalOf<A>: Display,
{
    match pool.ask(addr, ask, Bytes::new(), deadline).await {
        Ok((answer, _)) => answer.map_err(|refusal| refusal.to_string()),
        Err(e) => Err(e.to_string()),
    }
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

/// Checks that an answer has one item for each thing that was asked about.
///
/// # Errors
/// In words what the answer is instead.
pub fn one_for_each<T: Debug>(answer: Vec<T>, asked: usize) -> Result<Vec<T>, String> {
    if answer.len() == asked {
        return Ok(answer);
    }
    let mut text = format!("{answer:?}");
    text.truncate(text.char_indices().nth(80).map_or(text.len(), |(i, _)| i));
    Err(format!("unexpected answer: {text}"))
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
