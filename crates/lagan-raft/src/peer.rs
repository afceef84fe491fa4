//! One peer, reached over a [`Transport`] that the server provides.

use crate::error::TransportError;
use crate::future::BoxFuture;
use crate::rpc::Reply;
use bytes::Bytes;
use lagan_types::NodeId;
use std::sync::Arc;
use std::time::Duration;

/// Carries consensus messages: opaque head and data there, head and data back. The
/// server implements it over its connections; on the peer's side the message goes to
/// [`crate::Raft::handle`].
pub trait Transport: Send + Sync + 'static {
    /// Asks the node at that address; answers or fails within the deadline.
    fn call(
        &self,
        to: NodeId,
        addr: &str,
        head: Vec<u8>,
        data: Bytes,
        deadline: Duration,
    ) -> BoxFuture<'_, Result<(Bytes, Bytes), TransportError>>;
}

/// One peer.
pub(crate) struct Peer {
    pub transport: Arc<dyn Transport>,
    pub to: NodeId,
    pub addr: String,
}

impl Peer {
    /// Asks once.
    pub async fn call(
        &self,
        head: Vec<u8>,
        data: Bytes,
        deadline: Duration,
    ) -> Result<Reply, TransportError> {
        let (head, _) = self
            .transport
            .call(self.to, &self.addr, head, data, deadline)
            .await?;
        match Reply::decode(&head) {
            Ok(Reply::Failed(why)) | Err(why) => Err(TransportError::NoAnswer(why)),
            Ok(reply) => Ok(reply),
        }
    }
}
