//! The listening side: accepts, shakes hands, hands requests to a [`Handler`].
//!
//! A peer can harm its own connection at most: bad bytes get one log line and a closed
//! connection. Memory per connection is bounded: nothing more is read while its requests
//! and the answers that it has not taken are over a limit.

use crate::handler::Handler;
use crate::limits::ServerLimits;
use crate::serve::{Permits, Shared, serve};
use crate::socket;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

#[cfg(test)]
mod tests;

/// Pause after an accept that failed (out of descriptors).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A listening socket and the tasks behind it.
#[derive(Debug)]
pub struct Server {
    addr: SocketAddr,
    task: JoinHandle<()>,
}

impl Server {
    /// Listens on exactly `addr` (port 0: any free one) and serves until `cancel`. Must
    /// be called in a runtime.
    ///
    /// # Errors
    /// Those of bind(2) and listen(2).
    pub fn bind(
        addr: SocketAddr,
        handler: Arc<dyn Handler>,
        limits: ServerLimits,
        cancel: CancellationToken,
    ) -> io::Result<Server> {
        let listener = socket::listen(addr)?;
        let addr = listener.local_addr()?;
        let shared = Arc::new(Shared::new(handler, limits, cancel));
        let task = tokio::spawn(accept(listener, shared));
        Ok(Server { addr, task })
    }

    /// The address that it listens on.
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
