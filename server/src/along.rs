//! This node's chunks, for answers that bring the bytes of small files along.

use bytes::Bytes;
use lagan_chunk::{BlockRange, Store};
use lagan_leader::ChunksHere;
use lagan_net::MapCell;
use lagan_types::{ChunkId, NodeId};
use std::sync::Arc;
use tokio::runtime::Handle;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::Instant;

/// The chunks of one node.
pub(crate) struct Here {
    node: NodeId,
    map: Arc<MapCell>,
    store: Arc<Store>,
    /// Disk reads run here, so that they never hold up a heartbeat.
    disk: Handle,
}

impl Here {
    /// The chunks of `node` in `store`; disk reads run on `disk`.
    pub(crate) fn new(node: NodeId, map: Arc<MapCell>, store: Arc<Store>, disk: Handle) -> Self {
        Here {
            node,
            map,
            store,
            disk,
        }
    }
}

impl ChunksHere for Here {
    fn has(&self, id: ChunkId) -> bool {
        let map = self.map.get();
        map.set(id.set())
            .is_some_and(|set| set.nodes.contains(&self.node))
    }

    fn read_now(&self, id: ChunkId, len: u32) -> Option<Bytes> {
        whole(self.store.read_now(id, 0, len)?, len)
    }

    fn read(
        &self,
        wanted: Vec<(ChunkId, u32)>,
        until: Instant,
    ) -> UnboundedReceiver<(ChunkId, Bytes)> {
        let (send, receive) = unbounded_channel();
        let store = self.store.clone();
        self.disk.spawn(async move {
            for (id, len) in wanted {
                if Instant::now() >= until {
                    return;
                }
                // Whoever reads the file learns what is wrong with a chunk, and reports it.
                let range = store.read(id, 0, len).ok();
                let bytes = range.and_then(|range| whole(range, len));
                if bytes.is_some_and(|bytes| send.send((id, bytes)).is_err()) {
                    return;
                }
            }
        });
        receive
    }
}

/// The bytes of a chunk of that length.
fn whole(range: BlockRange, len: u32) -> Option<Bytes> {
    let is_whole = range.chunk_len == len && range.data.len() == len as usize;
    is_whole.then_some(range.data)
}
