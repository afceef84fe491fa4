//! What a server does with its connections and their requests: a trait of its user.

use crate::handshake::Hello;
use crate::message::Request;
use crate::reply::Reply;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio_util::sync::CancellationToken;

/// What a server does with what it is asked.
pub trait Handler: Send + Sync + 'static {
    /// Judges a new connection: our own hello, or the reason of a refusal.
    ///
    /// # Errors
    /// The reason, which the peer is told.
    fn check_hello(&self, hello: &Hello, peer: SocketAddr) -> Result<Hello, String>;

    /// The handshake is done: requests follow.
    fn connected(&self, peer: &Arc<Peer>) {
        let _ = peer;
    }

    /// Carries out a request. Runs on the connection's reader and must not
    /// block: answer at once, or give `reply` to a task or thread.
    fn handle(&self, peer: &Arc<Peer>, request: Request, reply: Reply);

    /// The connection, accepted before, is over.
    fn disconnected(&self, peer: &Arc<Peer>) {
        let _ = peer;
    }
}

/// The other side of an accepted connection.
#[derive(Debug)]
pub struct Peer {
    /// Who it said it is.
    pub hello: Hello,
    /// Where it connected from.
    pub addr: SocketAddr,
    /// The protocol version that was agreed on.
    pub version: u16,
    pub(crate) cancel: CancellationToken,
    /// Somebody has ended it.
    pub(crate) closed: AtomicBool,
}

impl Peer {
    /// Ends its connection.
    pub fn close(&self) {
        self.close_first();
    }

    /// Ends its connection; true for the call that did.
    pub fn close_first(&self) -> bool {
        let first = !self.closed.swap(true, Ordering::SeqCst);
        self.cancel.cancel();
        first
    }

    /// True once its connection is ending.
    pub fn is_closed(&self) -> bool {
        self.cancel.is_cancelled()
    }
}
