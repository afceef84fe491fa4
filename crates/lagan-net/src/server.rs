//! The listening side: accepts, shakes hands, hands requests to a [`Handler`].
//!
//! Whatever a peer sends, it costs its own connection at most: bad bytes get
//! one log line and a closed connection. Memory per connection is bounded: no
//! more is read while what it asked for and has not taken yet is over a limit.

use crate::frame::FrameLimits;
use crate::handshake::Hello;
use crate::message::Request;
use crate::serve::serve;
use crate::socket;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use crate::serve::Reply;

#[cfg(test)]
mod tests;

/// After an accept that failed (out of descriptors), wait this long.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

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

/// What connections may cost.
#[derive(Debug, Clone)]
pub struct ServerLimits {
    /// Connections, at most; further ones are closed at once.
    pub connections_max: usize,
    /// Of these, in their handshake: a flood of silent ones keeps nobody out for long.
    pub handshakes_max: usize,
    /// From accept to the end of the handshake.
    pub handshake_deadline: Duration,
    /// Per connection: bytes asked, being answered, or not yet taken by the
    /// peer. Nothing is read while there are more.
    pub in_flight_len_max: usize,
    /// The same of all connections together. Each may still have a small
    /// share of its own, so that none starves while others are slow.
    pub total_in_flight_len_max: usize,
    /// Per connection: requests without an answer.
    pub in_flight_max: usize,
    /// A frame that began must be complete within this (twice this at most).
    pub frame_deadline: Duration,
    /// When stopping: how long requests may take to be answered still.
    pub drain_deadline: Duration,
    /// Bytes that a frame may have.
    pub frame: FrameLimits,
}

impl Default for ServerLimits {
    fn default() -> Self {
        ServerLimits {
            connections_max: 4096,
            handshakes_max: 256,
            handshake_deadline: Duration::from_secs(3),
            in_flight_len_max: 32 * 1024 * 1024,
            total_in_flight_len_max: 128 * 1024 * 1024,
            in_flight_max: 2048,
            frame_deadline: Duration::from_secs(20),
            drain_deadline: Duration::from_secs(1),
            frame: FrameLimits::default(),
        }
    }
}

/// A listening socket and the tasks behind it.
#[derive(Debug)]
pub struct Server {
    addr: SocketAddr,
    task: JoinHandle<()>,
}

pub(crate) struct Shared {
    pub(crate) handler: Arc<dyn Handler>,
    pub(crate) limits: ServerLimits,
    pub(crate) cancel: CancellationToken,
    /// Bytes that all connections have in flight.
    pub(crate) in_flight_len: Arc<AtomicUsize>,
    connections: Arc<Semaphore>,
    handshakes: Arc<Semaphore>,
}

impl Server {
    /// Listens on exactly `addr` (port 0: any free one) and serves until
    /// `cancel`. Must be called in a runtime.
    ///
    /// # Errors
    /// As bind(2) and listen(2).
    pub fn bind(
        addr: SocketAddr,
        handler: Arc<dyn Handler>,
        limits: ServerLimits,
        cancel: CancellationToken,
    ) -> io::Result<Server> {
        let listener = socket::listen(addr)?;
        let addr = listener.local_addr()?;
        let shared = Arc::new(Shared {
            connections: Arc::new(Semaphore::new(limits.connections_max)),
            handshakes: Arc::new(Semaphore::new(limits.handshakes_max)),
            handler,
            limits,
            cancel,
            in_flight_len: Arc::default(),
        });
        let task = tokio::spawn(accept(listener, shared));
        Ok(Server { addr, task })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.addr
    }

    /// Waits for the end of all connections, after `cancel`.
    pub async fn join(self) {
        // The task has no panics of its own; an aborted runtime ends it too.
        let _ = self.task.await;
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let tracker = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = shared.cancel.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, addr)) => match shared.admit() {
                Some(permits) => {
                    tracker.spawn(connection(stream, addr, permits, shared.clone()));
                }
                None => tracing::warn!(peer = %addr, "too many connections, closed"),
            },
            Err(error) => {
                tracing::warn!(%error, "accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    tracker.close();
    tracker.wait().await;
}

async fn connection(stream: TcpStream, addr: SocketAddr, permits: Permits, shared: Arc<Shared>) {
    match socket::accepted(stream) {
        Ok(stream) => serve(stream, addr, permits, shared).await,
        Err(error) => tracing::debug!(peer = %addr, %error, "tune a connection"),
    }
}

/// A connection's place among those allowed.
pub(crate) struct Permits {
    _connection: OwnedSemaphorePermit,
    /// Given back when the handshake is done.
    pub(crate) handshake: Option<OwnedSemaphorePermit>,
}

impl Shared {
    fn admit(&self) -> Option<Permits> {
        Some(Permits {
            _connection: self.connections.clone().try_acquire_owned().ok()?,
            handshake: Some(self.handshakes.clone().try_acquire_owned().ok()?),
        })
    }
}
