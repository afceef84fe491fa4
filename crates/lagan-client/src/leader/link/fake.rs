//! Servers that answer as a test says, without a network.

use super::Link;
use bytes::Bytes;
use lagan_net::{Answered, NetError};
use lagan_types::Part;
use lagan_types::codec::{self, Decode};
use lagan_types::message::{
    ArchiveRequest, ChunkRequest, Conversation, LeaderRefusal, LeaderReply, LeaderRequest, Message,
    MetaReply, MetaRequest, RefusalOf, Service,
};
use std::fmt::Debug;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// An answer, or none.
#[derive(Debug, Clone)]
pub(crate) enum Said<T> {
    /// An answer, at once.
    This(T),
    /// The connection ends.
    Closed,
    /// Nothing comes until the deadline.
    Nothing,
}

/// The servers of a test. Those that it does not speak of say nothing.
pub(crate) trait Servers: Debug + Send + Sync {
    /// The leader is asked about the state.
    fn meta(&self, request: &MetaRequest) -> Said<Result<MetaReply, LeaderRefusal>>;

    /// The leader is asked about itself.
    fn leader(&self, _: &LeaderRequest) -> Said<Result<LeaderReply, LeaderRefusal>> {
        Said::Nothing
    }

    /// The chunk store at that address is asked.
    fn chunk(&self, addr: SocketAddr, request: &ChunkRequest) -> Said<Served<ChunkRequest>>;

    /// The mover at that address is asked.
    fn archive(&self, _: SocketAddr, _: &ArchiveRequest) -> Said<Served<ArchiveRequest>> {
        Said::Nothing
    }
}

/// A server's answer to a request of `R`, and the data beside it.
pub(crate) type Served<R> = (
    Result<<R as Conversation>::Reply, <R as Conversation>::Refusal>,
    Bytes,
);

impl Link {
    /// A way to servers that are not there.
    pub fn fake(servers: Arc<dyn Servers>) -> Self {
        Link {
            fake: Some(servers),
            ..Link::new(Vec::new(), None)
        }
    }
}

/// Asks the leader.
pub(super) async fn lead<A>(
    servers: &dyn Servers,
    ask: A,
    deadline: Duration,
) -> Result<A::Answer, NetError>
where
    A: Message,
    A::Request: Conversation<Refusal = LeaderRefusal>,
{
    let head = codec::encode(&ask.into());
    let said = match A::Request::SERVICE {
        Service::Meta => servers.meta(&of(&head)).map(|reply| codec::encode(&reply)),
        Service::Leader => servers
            .leader(&of(&head))
            .map(|reply| codec::encode(&reply)),
        other => panic!("{other:?} is not the leader's"),
    };
    let reply: Result<A::Reply, LeaderRefusal> = of(&said.arrives(deadline).await?);
    let reply = reply.map_err(|refusal| NetError::Declined(refusal.to_string()))?;
    Ok(A::Answer::unwrap(reply).expect("an answer to that"))
}

/// Asks one server.
pub(super) async fn serve<A: Message>(
    servers: &dyn Servers,
    addr: SocketAddr,
    ask: A,
    deadline: Duration,
) -> Answered<A> {
    let head = codec::encode(&ask.into());
    let said = match A::Request::SERVICE {
        Service::Chunk => {
            let said = servers.chunk(addr, &of(&head));
            said.map(|(reply, data)| (codec::encode(&reply), data))
        }
        Service::Archive => {
            let said = servers.archive(addr, &of(&head));
            said.map(|(reply, data)| (codec::encode(&reply), data))
        }
        other => panic!("{other:?} is not asked of one server"),
    };
    let (reply, data) = said.arrives(deadline).await?;
    let reply: Result<A::Reply, RefusalOf<A>> = of(&reply);
    let answer = reply.map(|reply| A::Answer::unwrap(reply).expect("an answer to that"));
    Ok((answer, data))
}

fn of<T: Decode<()>>(bytes: &[u8]) -> T {
    codec::decode(bytes).expect("what was encoded here")
}

impl<T> Said<T> {
    fn map<U>(self, change: impl FnOnce(T) -> U) -> Said<U> {
        match self {
            Said::This(answer) => Said::This(change(answer)),
            Said::Closed => Said::Closed,
            Said::Nothing => Said::Nothing,
        }
    }

    /// Waits as a caller would: whoever else is ready goes first.
    async fn arrives(self, deadline: Duration) -> Result<T, NetError> {
        tokio::task::yield_now().await;
        match self {
            Said::This(answer) => Ok(answer),
            Said::Closed => Err(NetError::Closed { sent: true }),
            Said::Nothing => {
                tokio::time::sleep(deadline).await;
                Err(NetError::TimedOut { sent: true })
            }
        }
    }
}
