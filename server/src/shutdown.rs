//! Stopping, in this order:
//!
//! 1. a signal (or a refusal by the cluster) cancels the token: listeners take
//!    no new connections, loops end after their round;
//! 2. tasks are joined, for a bounded time;
//! 3. connections are closed;
//! 4. Raft stops and makes its state durable, the chunk store flushes its index.
//!
//! All of it takes 14 s at most, less than `lagan down` waits before it kills.
//! A kill at any point loses nothing: the stores recover from their logs.

use crate::node::Node;
use anyhow::{Context, Result};
use lagan_net::Server;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Time for the tasks to end; those that do not are left to the runtime's end.
const JOIN_DEADLINE: Duration = Duration::from_secs(4);
/// Time for the connections to end; those that do not are cut.
const DOORS_DEADLINE: Duration = Duration::from_secs(2);
/// Time for the stores to close; on a disk that hangs they are left as a crash would leave
/// them.
const CLOSE_DEADLINE: Duration = Duration::from_secs(8);

/// Cancels the token at SIGTERM or SIGINT; the future ends when it is cancelled.
///
/// # Errors
/// Signal handlers cannot be installed.
pub(crate) fn on_signals(cancel: CancellationToken) -> Result<impl Future<Output = ()>> {
    let mut term = signal(SignalKind::terminate()).context("handle SIGTERM")?;
    let mut int = signal(SignalKind::interrupt()).context("handle SIGINT")?;
    Ok(async move {
        tokio::select! {
            _ = term.recv() => tracing::info!("SIGTERM, stopping"),
            _ = int.recv() => tracing::info!("SIGINT, stopping"),
            () = cancel.cancelled() => {}
        }
        cancel.cancel();
    })
}

/// Stops everything.
pub(crate) async fn stop(node: &Arc<Node>, doors: Vec<Server>) {
    node.parts.cancel.cancel();
    let tasks = &node.parts.tasks;
    tasks.close();
    if tokio::time::timeout(JOIN_DEADLINE, tasks.wait())
        .await
        .is_err()
    {
        tracing::warn!(left = tasks.len(), "tasks did not end in time");
    }
    let doors = async {
        for door in doors {
            door.join().await;
        }
    };
    let _ = tokio::time::timeout(DOORS_DEADLINE, doors).await;
    node.parts.pool.close();
    if let Some(member) = node.member.get() {
        let closed = tokio::time::timeout(CLOSE_DEADLINE, member.close()).await;
        if closed.is_err() {
            tracing::warn!("stores do not close in time, left as they are");
        }
    }
    tracing::info!("server stopped");
}
