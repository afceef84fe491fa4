//! The cluster map as this mount knows it, and which nodes it distrusts.

use crate::Client;
use crate::leader::link::is_local;
use crate::leader::placement::Placement;
use lagan_types::cluster::ClusterMap;
use lagan_types::message::{MetaReply, MetaRequest};
use lagan_types::{FsError, NodeId};
use parking_lot::{Mutex, RwLock};
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// How long a node that failed is asked last and given no new chunks if there
/// is another: longer than the leader needs to see that it is down.
const SUSPECT_FOR: Duration = Duration::from_secs(5);

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Cluster {
    placement: RwLock<Arc<Placement>>,
    suspects: Mutex<HashMap<NodeId, Instant>>,
    draw: AtomicUsize,
    fetching: tokio::sync::Mutex<()>,
}

impl Cluster {
    /// The newest map.
    pub fn current(&self) -> Arc<Placement> {
        self.placement.read().clone()
    }

    /// Its version.
    pub fn version(&self) -> u64 {
        self.placement.read().map.version
    }

    /// Takes over a map unless it is older.
    pub fn install(&self, map: ClusterMap, bind_from: Option<IpAddr>) {
        if map.version < self.version() {
            return;
        }
        let new = Placement::new(map, |addr| match bind_from {
            Some(ip) => addr.parse::<SocketAddr>().is_ok_and(|a| a.ip() == ip),
            None => is_local(addr),
        });
        let mut placement = self.placement.write();
        if new.map.version >= placement.map.version {
            *placement = Arc::new(new);
        }
    }

    /// A node failed or was silent.
    pub fn suspect(&self, node: NodeId) {
        let until = Instant::now() + SUSPECT_FOR;
        if self.suspects.lock().insert(node, until).is_none() {
            tracing::debug!(%node, "node is suspect");
        }
    }

    /// A node answered.
    pub fn trust(&self, node: NodeId) {
        let mut suspects = self.suspects.lock();
        if !suspects.is_empty() {
            suspects.remove(&node);
        }
    }

    /// Nodes to avoid now.
    pub fn suspects(&self) -> Vec<NodeId> {
        let mut suspects = self.suspects.lock();
        if suspects.is_empty() {
            return Vec::new();
        }
        let now = Instant::now();
        suspects.retain(|_, until| *until > now);
        suspects.keys().copied().collect()
    }

    /// A number that spreads choices.
    pub fn draw(&self) -> usize {
        self.draw.fetch_add(1, Ordering::Relaxed)
    }
}

impl Client {
    /// Fetches the map if the leader has a newer one; one call at a time, and
    /// who waited for another's does not repeat it.
    ///
    /// # Errors
    /// [`FsError::TimedOut`].
    pub(crate) async fn refresh_map(&self, until: Instant) -> Result<(), FsError> {
        let known = self.cluster.version();
        let turn = tokio::time::timeout_at(until, self.cluster.fetching.lock());
        let _turn = turn.await.map_err(|_| FsError::TimedOut)?;
        if self.cluster.version() > known {
            return Ok(());
        }
        match self.link.meta(&MetaRequest::Map { known }, until).await {
            Ok(MetaReply::Map(Some(map))) => {
                self.link.set_nodes(&map);
                self.cluster.install(map, self.options.bind_from);
                Ok(())
            }
            Ok(MetaReply::Map(None)) => Ok(()),
            other => Err(crate::leader::session::unanswered(other)),
        }
    }
}
