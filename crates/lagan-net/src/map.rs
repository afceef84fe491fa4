//! The cluster map as this process has it: who is in the cluster, and where.

use lagan_types::cluster::ClusterMap;
use parking_lot::RwLock;
use std::sync::Arc;
use tokio::sync::Notify;

/// The newest cluster map that this node has seen. Versions never go back.
#[derive(Debug, Default)]
pub struct MapCell {
    map: RwLock<Arc<ClusterMap>>,
    stale: Notify,
}

impl MapCell {
    /// The map. Version 0 before the first one arrived.
    pub fn get(&self) -> Arc<ClusterMap> {
        self.map.read().clone()
    }

    /// Puts a newer map in place; an older one is ignored.
    pub fn put(&self, map: ClusterMap) {
        let mut cell = self.map.write();
        if map.version > cell.version {
            *cell = Arc::new(map);
        }
    }

    /// Asks for a fetch: something was seen that this map does not know.
    pub fn want_newer(&self) {
        self.stale.notify_one();
    }

    /// Waits until somebody asks for a fetch.
    pub async fn wanted(&self) {
        self.stale.notified().await;
    }
}
