//! The parts that the whole server shares: configuration, connections, tasks, and the
//! way to stop the whole server.

use crate::config::Config;
use lagan_net::Pool;
use lagan_types::cluster::{NodeInfo, NodeRole, NodeState};
use lagan_types::{NodeId, StoreId};
use std::sync::{Arc, OnceLock};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The shared parts. Clones share all of it.
#[derive(Debug, Clone)]
pub(crate) struct Parts {
    /// The settings of this server.
    pub(crate) config: Arc<Config>,
    /// The identity of this store.
    pub(crate) store_id: StoreId,
    /// Number of this start of the store.
    pub(crate) boot: u64,
    /// Connections to other servers.
    pub(crate) pool: Pool,
    /// The runtime for work that reads disks.
    pub(crate) disk: Handle,
    /// Ends the whole server.
    pub(crate) cancel: CancellationToken,
    /// Owns every task; joined at shutdown.
    pub(crate) tasks: TaskTracker,
    /// Why the server had to stop by itself.
    pub(crate) failure: Arc<OnceLock<String>>,
}

impl Parts {
    /// Stops the server; its exit tells the reason.
    pub(crate) fn fail(&self, reason: String) {
        if self.failure.set(reason).is_ok() {
            let reason = self.failure.get().map(String::as_str);
            tracing::error!(reason, "this server cannot go on, stopping");
        }
        self.cancel.cancel();
    }

    /// Runs a task that the server cannot do without: if it ends by a panic, the server
    /// stops.
    pub(crate) fn spawn(
        &self,
        name: &'static str,
        work: impl Future<Output = ()> + Send + 'static,
    ) {
        let parts = self.clone();
        self.tasks.spawn(async move {
            if tokio::spawn(work).await.is_err_and(|e| e.is_panic()) {
                parts.fail(format!("its task {name:?} ended by a defect"));
            }
        });
    }

    /// This server's row of the node table, under that number; 0 while it has none.
    pub(crate) fn node_info(&self, node: NodeId) -> NodeInfo {
        NodeInfo {
            id: node,
            name: self.config.name.clone(),
            store: self.store_id,
            boot: self.boot,
            addr: self.config.listen.to_string(),
            peer_addr: self.config.peer_listen.to_string(),
            http: self.config.http.to_string(),
            role: NodeRole::Storage,
            state: NodeState::Up,
            voter: false,
        }
    }
}
