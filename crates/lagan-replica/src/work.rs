//! What the background work of one node shares.

use crate::peers::Peers;
use crate::reap::Meta;
use lagan_chunk::Store;
use lagan_types::NodeId;
use std::sync::Arc;
use tokio::sync::Mutex;

/// See the module. Clones share all of it.
#[derive(Clone)]
pub struct Work {
    /// The metadata.
    pub meta: Arc<dyn Meta>,
    /// This node's chunks.
    pub store: Arc<Store>,
    /// The other nodes, and the map.
    pub peers: Arc<Peers>,
    /// This node.
    pub node: NodeId,
    /// Held while rows of the reap queue are worked off, and while a missing chunk is
    /// brought back: from the question whether it is named to the end of the write.
    pub reaping: Arc<Mutex<()>>,
}

impl Work {
    /// Of `node`.
    pub fn new(meta: Arc<dyn Meta>, store: Arc<Store>, peers: Arc<Peers>, node: NodeId) -> Self {
        Work {
            meta,
            store,
            peers,
            node,
            reaping: Arc::default(),
        }
    }
}

impl std::fmt::Debug for Work {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Work")
            .field("node", &self.node)
            .finish_non_exhaustive()
    }
}
