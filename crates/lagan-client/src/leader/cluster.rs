//! The cluster map as this mount knows it, and which nodes it distrusts.

use crate::leader::link::{Link, is_local, unanswered};
use crate::leader::placement::Placement;
use lagan_types::cluster::ClusterMap;
use lagan_types::message::GetMap;
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

/// The cluster map, and the nodes that failed a moment ago.
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

    /// The version of the newest map.
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

    /// Distrusts a node that failed or was silent.
    pub fn suspect(&self, node: NodeId) {
        let until = Instant::now() + SUSPECT_FOR;
        if self.suspects.lock().insert(node, until).is_none() {
            tracing::debug!(%node, "node is suspect");
        }
    }

    /// Trusts a node that answered.
    pub fn trust(&self, node: NodeId) {
        let mut suspects = self.suspects.lock();
        if !suspects.is_empty() {
            suspects.remove(&node);
        }
    }

    /// The nodes to avoid now.
    pub fn suspects(&self) -> Vec<NodeId> {
        let mut suspects = self.suspects.lock();
        if suspects.is_empty() {
            return Vec::new();
        }
        let now = Instant::now();
        suspects.retain(|_, until| *until > now);
        suspects.keys().copied().collect()
    }

    /// Draws a number that spreads choices.
    pub fn draw(&self) -> usize {
        self.draw.fetch_add(1, Ordering::Relaxed)
    }

    /// Fetches the map if the leader has a newer one. One call does so at a time; a
    /// call that waited for another's fetch does not repeat it.
    ///
    /// # Errors
    /// [`FsError::TimedOut`].
    pub async fn refresh(
        &self,
        link: &Link,
        bind_from: Option<IpAddr>,
        until: Instant,
    ) -> Result<(), FsError> {
        let known = self.version();
        let turn = tokio::time::timeout_at(until, self.fetching.lock());
        let _turn = turn.await.map_err(|_| FsError::TimedOut)?;
        if self.version() > known {
            return Ok(());
        }
        let newer = link.ask(GetMap { known }, until).await;
        if let Some(map) = newer.map_err(unanswered)? {
            link.set_nodes(&map);
            self.install(map, bind_from);
        }
        Ok(())
    }
}
