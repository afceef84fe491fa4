//! From configuration to serving.
//!
//! Order: data directory (lock, identity, boot counter), listeners, then, if the
//! store belongs to a cluster, the member's parts and its registration. A
//! store without a cluster waits for `lagan init` or `lagan join` ([`crate::birth`]).

use crate::birth::revive;
use crate::config::Config;
use crate::handler::Door;
use crate::http;
use crate::identity::DataDir;
use crate::node::Node;
use crate::shutdown;
use anyhow::{Context, Result, bail};
use lagan_host::port::listen_within;
use lagan_host::process::LEAVING_PATIENCE;
use lagan_net::{Server, ServerLimits};
use lagan_types::StoreId;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};

/// Bytes in flight to and from mounts. With those of the servers (below), the
/// caches and the mover's buffers a server stays below 512 MiB.
const CLIENTS_LEN_MAX: usize = 96 << 20;
/// Bytes in flight to and from other servers.
const PEERS_LEN_MAX: usize = 64 << 20;
/// Runs the server until it is told to stop.
///
/// # Errors
/// It could not start, or had to stop.
pub(crate) fn run(config: Config) -> Result<()> {
    let data = DataDir::open(&config.data, || StoreId(rand::random()))?;
    let main = runtime("lagan", network_threads())?;
    let disk = runtime("lagan-disk", 4)?;
    let result = main.block_on(serve(Arc::new(config), data, disk.handle().clone()));
    main.shutdown_timeout(Duration::from_secs(2));
    disk.shutdown_timeout(Duration::from_secs(2));
    result
}

/// Returns one thread for the network and the metadata for each four processors: one carries
/// a gigabyte a second, and waking a second one for every message costs more than it brings.
fn network_threads() -> usize {
    std::thread::available_parallelism().map_or(1, |n| (n.get() / 4).clamp(1, 8))
}

fn runtime(name: &str, workers: usize) -> Result<Runtime> {
    Builder::new_multi_thread()
        .worker_threads(workers)
        .thread_name(name)
        .enable_all()
        .build()
        .context("start runtime")
}

async fn serve(config: Arc<Config>, data: DataDir, disk: tokio::runtime::Handle) -> Result<()> {
    let membership = data.identity().membership;
    let node = Node::new(config.clone(), data, disk);
    let doors = open_doors(&node, LEAVING_PATIENCE).await?;
    let stopped = shutdown::on_signals(node.parts.cancel.clone())?;
    tracing::info!(
        name = %config.name, listen = %config.listen, peer_listen = %config.peer_listen,
        http = %config.http, boot = node.parts.boot, "server started"
    );
    let fatal = match membership {
        Some(membership) => revive(&node, membership).await,
        None => {
            tracing::info!("no cluster yet: waiting for `lagan init` or `lagan join`");
            Ok(())
        }
    };
    if fatal.is_ok() {
        stopped.await;
    }
    shutdown::stop(&node, doors).await;
    match node.parts.failure.get() {
        Some(reason) => bail!("{reason}"),
        None => fatal,
    }
}

/// Listens on all addresses.
async fn open_doors(node: &Arc<Node>, patience: Duration) -> Result<Vec<Server>> {
    let config = &node.parts.config;
    let cancel = node.parts.cancel.clone();
    listen_within(patience, || http::serve(node, config.http, cancel.clone()))
        .await
        .with_context(|| format!("listen on http {}: is the port taken?", config.http))?;
    let mut doors = Vec::new();
    for (addr, peers, len) in [
        (config.listen, false, CLIENTS_LEN_MAX),
        (config.peer_listen, true, PEERS_LEN_MAX),
    ] {
        let limits = ServerLimits {
            total_in_flight_len_max: len,
            ..ServerLimits::default()
        };
        let door = || {
            let door = Door::new(node.clone(), peers);
            Server::bind(addr, door, limits.clone(), cancel.clone())
        };
        let door = listen_within(patience, door).await;
        doors.push(door.with_context(|| format!("listen on {addr}: is the port taken?"))?);
    }
    Ok(doors)
}

#[cfg(test)]
mod tests;
