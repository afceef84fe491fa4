//! Healing: a damaged or missing replica is replaced by a copy of another.
//!
//! Chunks never change, so two replicas are equal or one is corrupt: healing
//! is copying. A suspect is verified first; a healthy one is left alone.

use crate::metrics::METRICS;
use crate::peers::Peers;
use bytes::Bytes;
use lagan_chunk::{ChunkError, Store};
use lagan_types::chunk::verify_blocks;
use lagan_types::limits::CHUNK_LEN_MAX;
use lagan_types::message::{ChunkReply, ChunkRequest};
use lagan_types::{ChunkId, NodeId};
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Suspects that may wait; further ones are found again by the next reader.
const SUSPECTS_MAX: usize = 1024;

/// Takes suspects; [`Healer::run`] works them off.
#[derive(Debug)]
pub struct Healer {
    suspects: mpsc::Sender<ChunkId>,
}

/// A whole chunk as a peer has it, verified.
#[derive(Debug, Clone)]
pub struct WholeChunk {
    /// Its bytes.
    pub data: Bytes,
    /// Its block CRCs.
    pub crcs: Vec<u32>,
}

impl Healer {
    /// A healer, and the queue that [`Healer::run`] takes.
    pub fn new() -> (Arc<Healer>, mpsc::Receiver<ChunkId>) {
        let (suspects, queue) = mpsc::channel(SUSPECTS_MAX);
        (Arc::new(Healer { suspects }), queue)
    }

    /// The chunk may be damaged here. Never waits.
    pub fn suspect(&self, id: ChunkId) {
        if self.suspects.try_send(id).is_err() {
            tracing::debug!(chunk = %id, "too many suspects, left for the next reader");
        }
    }

    /// Works off the queue until `cancel`.
    pub async fn run(
        mut queue: mpsc::Receiver<ChunkId>,
        store: Arc<Store>,
        peers: Arc<Peers>,
        node: NodeId,
        cancel: CancellationToken,
    ) {
        loop {
            let id = tokio::select! {
                () = cancel.cancelled() => return,
                id = queue.recv() => match id { Some(id) => id, None => return },
            };
            match heal(&store, &peers, node, id).await {
                Ok(false) => {}
                Ok(true) => {
                    METRICS.healed.inc();
                    tracing::warn!(chunk = %id, "healed a damaged chunk from another replica");
                }
                Err(e) => {
                    METRICS.heal_failures.inc();
                    tracing::error!(chunk = %id, error = %e, "damaged chunk could not be healed");
                }
            }
        }
    }
}

/// Verifies the chunk here and replaces it if it is damaged or missing. True if
/// it was.
async fn heal(
    store: &Arc<Store>,
    peers: &Peers,
    node: NodeId,
    id: ChunkId,
) -> Result<bool, String> {
    let local = store.clone();
    let state = blocking(move || local.verify(id)).await;
    match state {
        Ok(()) => return Ok(false),
        Err(ChunkError::NotFound(_)) => {
            tracing::debug!(chunk = %id, "suspect is not here");
        }
        Err(ref e) => tracing::warn!(chunk = %id, error = %e, "chunk is damaged"),
    }
    let map = peers.map();
    let set = map.set(id.set()).ok_or("its set is unknown")?;
    if !set.nodes.contains(&node) {
        return Ok(false);
    }
    for &other in set.nodes.iter().filter(|&&n| n != node) {
        match fetch(peers, other, id).await {
            Ok(Some(whole)) => {
                let local = store.clone();
                blocking(move || replace(&local, id, whole))
                    .await
                    .map_err(|e| e.to_string())?;
                return Ok(true);
            }
            Ok(None) => {}
            Err(e) => tracing::debug!(node = %other, error = %e, "no copy from there"),
        }
    }
    match state {
        // Deleted everywhere: nothing to heal.
        Err(ChunkError::NotFound(_)) => Ok(false),
        _ => Err("no other replica gave a good copy".into()),
    }
}

/// A crash between the two steps leaves this replica missing, which a check
/// of the set finds; the bytes are safe on the member they came from.
fn replace(store: &Store, id: ChunkId, whole: WholeChunk) -> Result<(), ChunkError> {
    store.delete(&[id])?;
    store.write_blocking(id, whole.data, &whole.crcs)
}

/// Fetches and verifies a whole chunk from `node`; `None`: it is not there.
///
/// # Errors
/// In words: no answer, or bytes without the CRCs they came with.
pub async fn fetch(peers: &Peers, node: NodeId, id: ChunkId) -> Result<Option<WholeChunk>, String> {
    let request = ChunkRequest::Read {
        id,
        offset: 0,
        len: CHUNK_LEN_MAX,
    };
    let (head, data) = peers
        .call(node, &request, Bytes::new(), CHUNK_LEN_MAX as u64)
        .await
        .map_err(|e| e.to_string())?;
    match head {
        ChunkReply::Blocks {
            chunk_len,
            first_block: 0,
            crcs,
        } if data.len() == chunk_len as usize && verify_blocks(&data, &crcs) => {
            Ok(Some(WholeChunk { data, crcs }))
        }
        ChunkReply::NotFound => Ok(None),
        ChunkReply::Blocks { .. } => Err("sent bytes that do not fit their crcs".into()),
        other => Err(format!("answered {other:?}")),
    }
}

/// Runs disk work off the async workers.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ChunkError> + Send + 'static,
) -> Result<T, ChunkError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(_) => Err(ChunkError::Closed),
    }
}
