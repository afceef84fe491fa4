//! Servers that answer as a test says, without a network.

use super::Link;
use bytes::Bytes;
use lagan_net::NetError;
use lagan_types::message::{ChunkReply, ChunkRequest, MetaReply, MetaRequest};
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

/// The servers of a test.
pub(crate) trait Servers: Debug + Send + Sync {
    /// The metadata leader is asked.
    fn meta(&self, request: &MetaRequest) -> Said<MetaReply>;

    /// The chunk service at that address is asked.
    fn chunk(&self, addr: SocketAddr, request: &ChunkRequest) -> Said<(ChunkReply, Bytes)>;
}

impl Link {
    /// A way to servers that are not there.
    pub fn fake(servers: Arc<dyn Servers>) -> Self {
        Link {
            fake: Some(servers),
            ..Link::new(Vec::new(), None)
        }
    }
}

/// Waits as a caller would: whoever else is ready goes first.
pub(super) async fn answer<T>(said: Said<T>, deadline: Duration) -> Result<T, NetError> {
    tokio::task::yield_now().await;
    match said {
        Said::This(answer) => Ok(answer),
        Said::Closed => Err(NetError::Closed { sent: true }),
        Said::Nothing => {
            tokio::time::sleep(deadline).await;
            Err(NetError::TimedOut { sent: true })
        }
    }
}
