//! The way to the servers: the metadata leader, and chunk services by address.

use crate::error::ConnectError;
use bytes::Bytes;
use lagan_host::servers::{LookUpError, look_up};
use lagan_net::{
    Answered, ConnectionOptions, Hello, LeaderClient, NetError, Pool, PoolOptions, Role, Service,
};
use lagan_types::cluster::ClusterMap;
use lagan_types::message::{Conversation, LeaderRefusal, Message};
use lagan_types::{FsError, Incarnation, Refusal};
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use tokio::time::Instant;

#[cfg(test)]
pub(super) mod fake;

/// Wait between looks for names that are not known.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Connections to a cluster.
#[derive(Debug)]
pub(crate) struct Link {
    pool: Pool,
    leader: LeaderClient,
    /// Answers in the servers' place.
    #[cfg(test)]
    fake: Option<std::sync::Arc<dyn fake::Servers>>,
}

/// How long is left until then.
pub(crate) fn left(until: Instant) -> Duration {
    until.saturating_duration_since(Instant::now())
}

impl Link {
    /// Prepares a way to the cluster of these servers; nothing is connected yet.
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
            #[cfg(test)]
            fake: None,
        }
    }

    /// Talks only to servers of that life of the cluster from now on.
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

    /// Looks the names up again, and tries what they mean beside the servers known.
    pub async fn look_again(&self, names: &[String]) {
        for (_, addrs) in look_up(names).await {
            self.leader.add_servers(addrs.unwrap_or_default());
        }
    }

    /// Does [`Link::look_again`] over and over; never ends.
    pub async fn keep_looking(&self, names: &[String]) -> Infallible {
        loop {
            tokio::time::sleep(LOOK_AGAIN).await;
            self.look_again(names).await;
        }
    }

    /// Asks the leader; asks again until then.
    pub async fn ask<A>(&self, ask: A, until: Instant) -> Result<A::Answer, NetError>
    where
        A: Message,
        A::Request: Conversation<Refusal = LeaderRefusal>,
    {
        self.ask_counted(ask, until).await.0
    }

    /// Asks the leader, as [`Link::ask`] does, and says whether the request may have reached
    /// a server more than once.
    pub async fn ask_counted<A>(
        &self,
        ask: A,
        until: Instant,
    ) -> (Result<A::Answer, NetError>, bool)
    where
        A: Message,
        A::Request: Conversation<Refusal = LeaderRefusal>,
    {
        #[cfg(test)]
        if let Some(fake) = &self.fake {
            return (fake::lead(&**fake, ask, left(until)).await, false);
        }
        self.leader.ask_counted(ask, left(until)).await
    }

    /// Asks the server that led last, once, for something that it may be long about.
    pub async fn ask_once<A>(&self, ask: A, until: Instant) -> Result<A::Answer, NetError>
    where
        A: Message,
        A::Request: Conversation<Refusal = LeaderRefusal>,
    {
        #[cfg(test)]
        if let Some(fake) = &self.fake {
            return fake::lead(&**fake, ask, left(until)).await;
        }
        self.leader.ask_once(ask, left(until)).await
    }

    /// Asks one server once.
    pub async fn ask_at<A: Message>(
        &self,
        addr: SocketAddr,
        ask: A,
        data: Bytes,
        deadline: Duration,
    ) -> Answered<A> {
        #[cfg(test)]
        if let Some(fake) = &self.fake {
            return fake::serve(&**fake, addr, ask, deadline).await;
        }
        self.pool.ask(addr, ask, data, deadline).await
    }

    /// Ends all connections.
    pub fn close(&self) {
        self.pool.close();
    }
}

/// Turns `ip:port` and `name:port` into addresses. Also gives the names that are not known
/// just now, if others are.
///
/// # Errors
/// [`ConnectError::Address`] for text that is no address, [`ConnectError::NoServers`]
/// for none at all, [`ConnectError::UnknownNames`] if no name is known.
pub(crate) async fn resolve(
    servers: &[String],
) -> Result<(Vec<SocketAddr>, Vec<String>), ConnectError> {
    let (mut found, mut unknown, mut why) = (Vec::new(), Vec::new(), String::new());
    for (_, addrs) in look_up(servers).await {
        match addrs {
            Ok(addrs) => found.extend(addrs),
            Err(LookUpError::NotAnAddress(wrong)) => return Err(ConnectError::Address(wrong)),
            Err(LookUpError::Unknown { server, reason }) => {
                why = reason.to_string();
                unknown.push(server);
            }
        }
    }
    match (found.is_empty(), unknown.is_empty()) {
        (true, true) => Err(ConnectError::NoServers),
        (true, false) => Err(ConnectError::UnknownNames {
            names: unknown.join(", "),
            reason: why,
        }),
        (false, true) => Ok((found, unknown)),
        (false, false) => {
            let names = unknown.join(", ");
            tracing::warn!(
                names,
                reason = why,
                "servers are not known by name, go on without"
            );
            Ok((found, unknown))
        }
    }
}

/// The error of a call that the leader did not answer.
pub(crate) fn unanswered(error: NetError) -> FsError {
    match error {
        NetError::Declined(reason) => {
            tracing::warn!(reason, "metadata leader refused");
            FsError::Io
        }
        // The leader's own, but to another kind of request.
        NetError::Protocol(reason) => {
            tracing::warn!(reason, "metadata leader");
            FsError::Io
        }
        error => {
            tracing::debug!(%error, "no answer from the metadata leader");
            FsError::TimedOut
        }
    }
}

/// The error that a program sees when the leader refuses: what the protocol alone knows is
/// EIO.
pub(crate) fn fs_error(refusal: Refusal) -> FsError {
    match refusal {
        Refusal::Fs(error) => error,
        Refusal::SessionEnded
        | Refusal::StaleEpoch
        | Refusal::VersionChanged
        | Refusal::OutsideWindow
        | Refusal::Malformed
        | Refusal::NotInline => {
            tracing::warn!(%refusal, "metadata leader refused");
            FsError::Io
        }
    }
}

/// Turns an error of metadata into that of a call about data: the deadline is EIO there.
pub(crate) fn data_error(error: FsError) -> FsError {
    match error {
        FsError::TimedOut => FsError::Io,
        other => other,
    }
}

/// Whether the address is one of this machine: a datagram socket can be bound
/// to it, and to no other.
pub(crate) fn is_local(addr: &str) -> bool {
    addr.parse::<SocketAddr>()
        .is_ok_and(|a| std::net::UdpSocket::bind((a.ip(), 0)).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(texts: &[&str]) -> Vec<String> {
        texts.iter().map(ToString::to_string).collect()
    }

    #[tokio::test]
    async fn names_that_are_not_known_are_passed_over_while_there_are_others() {
        let unknown = "no-such-host.invalid:7700";
        let (found, left) = resolve(&texts(&[unknown, "10.0.0.1:7700"])).await.unwrap();
        assert_eq!(found, ["10.0.0.1:7700".parse().unwrap()]);
        assert_eq!(left, [unknown]);
        let none = resolve(&texts(&[unknown, unknown])).await.unwrap_err();
        let said = none.to_string();
        assert!(
            said.contains(unknown) && said.lines().count() == 1,
            "{said}"
        );
        assert_eq!(resolve(&[]).await, Err(ConnectError::NoServers));
        let wrong = resolve(&texts(&["10.0.0.1:7700", "nonsense"])).await;
        assert!(matches!(wrong, Err(ConnectError::Address { .. })));
    }

    #[tokio::test]
    async fn names_that_become_known_are_tried() {
        let first: SocketAddr = "10.0.0.1:7700".parse().unwrap();
        let link = Link::new(vec![first], None);
        let names = texts(&[
            "no-such-host.invalid:7700",
            "10.0.0.2:7700",
            "10.0.0.1:7700",
        ]);
        link.look_again(&names).await;
        let second = "10.0.0.2:7700".parse().unwrap();
        assert_eq!(link.leader.servers(), [first, second]);
    }
}
