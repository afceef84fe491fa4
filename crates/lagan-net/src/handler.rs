//! The trait by which the user of a server judges connections and answers requests.

use crate::handshake::Hello;
use crate::message::Request;
use crate::reply::Reply;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio_util::sync::CancellationToken;

/// Judges connections and answers requests.
pub trait Handler: Send + Sync + 'static {
    /// Judges a new connection; returns our own hello.
    ///
    /// # Errors
    /// The reason of a refusal, which the peer is told.
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
    /// Its hello.
    pub hello: Hello,
    /// The address that it connected from.
    pub addr: SocketAddr,
    /// The agreed protocol version.
    pub version: u16,
    pub(crate) cancel: CancellationToken,
    /// A call of `close_first` has ended it.
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
