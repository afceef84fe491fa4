//! Registering this start of the store with the cluster.
//!
//! The leader takes a start that follows the one it knows. Another process with a copy of
//! the same store would register as well: the newer start wins, and the other one learns
//! from its heartbeat that it is not known, is refused when it registers again, and stops.

use crate::meta_edge::MetaEdge;
use anyhow::{Result, bail};
use lagan_net::MapCell;
use lagan_replica::Meta as _;
use lagan_types::cluster::NodeInfo;
use lagan_types::op::RegisterNode;
use lagan_types::{FsError, Refusal};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Time between attempts to register with a leader that is not there yet.
const PAUSE: Duration = Duration::from_millis(300);

/// The registration of one start of one node.
pub(crate) struct Registration {
    edge: Arc<MetaEdge>,
    map: Arc<MapCell>,
    info: NodeInfo,
    /// The cluster took this start.
    registered: AtomicBool,
    cancel: CancellationToken,
}

impl Registration {
    /// Prepares to register the row `info`; gives up at `cancel`.
    pub(crate) fn new(
        edge: Arc<MetaEdge>,
        map: Arc<MapCell>,
        info: NodeInfo,
        cancel: CancellationToken,
    ) -> Self {
        Registration {
            edge,
            map,
            info,
            registered: AtomicBool::new(false),
            cancel,
        }
    }

    /// Registers this start with the leader, for as long as it takes.
    ///
    /// # Errors
    /// The registered store is another or a newer one.
    pub(crate) async fn register(&self) -> Result<()> {
        loop {
            let op = RegisterNode {
                info: self.info.clone(),
            };
            match self.edge.mutate(op.into()).await {
                Ok(_) => {
                    self.registered.store(true, Ordering::Release);
                    self.edge.fetch_map(&self.map).await;
                    return Ok(());
                }
                Err(Refusal::Fs(FsError::Stale)) => bail!(
                    "the cluster knows another or a newer store as node {}, or removed it: this \
                     directory is an older copy or of no use; give the server an empty one and \
                     join it under a new name",
                    self.info.id.0
                ),
                Err(refusal) => tracing::debug!(%refusal, "not registered yet"),
            }
            tokio::select! {
                () = self.cancel.cancelled() => return Ok(()),
                () = tokio::time::sleep(PAUSE) => {}
            }
        }
    }

    /// Registers again, if this start was registered: the leader does not know it any
    /// more, so another process runs under this node's number with a copy of its store.
    /// One of them must go, and it is the one that is refused here.
    ///
    /// # Errors
    /// As [`Registration::register`].
    pub(crate) async fn not_known(&self) -> Result<()> {
        match self.registered.load(Ordering::Acquire) {
            true => self.register().await,
            false => Ok(()),
        }
    }
}
