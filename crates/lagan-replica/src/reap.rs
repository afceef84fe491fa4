//! Deleting chunks that the metadata freed: each node works off its own rows of the
//! reap queue, which stay until the node reports them done.
//!
//! A crash between delete and report repeats the delete, which does nothing.
//! Without a cluster map nothing is deleted, since only the map says which sets this
//! node is being filled for. While it is being filled, its rows wait, so that a copy
//! made meanwhile from a member that is behind is deleted afterwards. The rows also
//! wait while the healer brings back a chunk that was missing here (see `heal`).

use crate::metrics::METRICS;
use crate::work::{Meta, Work, blocking};
use lagan_chunk::{ChunkError, Store};
use lagan_types::limits::BLOCK_IDS;
use lagan_types::op::ChunksReaped;
use lagan_types::query::{ChunkReap, ReapChunks};
use lagan_types::{BlockId, ChunkId, NodeId, SetId, VolumeId};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Rows in one round.
const ROWS: u32 = 256;
/// Time to wait after an empty round.
const IDLE: Duration = Duration::from_millis(1000);

/// Works off this node's reap rows until `cancel`.
pub async fn run(work: Work, cancel: CancellationToken) {
    loop {
        let map = work.peers.map();
        let filling = map.sets.iter().any(|s| s.joining == Some(work.node));
        let worked = if filling || map.version == 0 {
            false
        } else {
            let _held = work.reaping.lock().await;
            let round = round(&*work.meta, &work.store, work.node).await;
            round.unwrap_or_else(|e| {
                tracing::debug!(error = %e, "reap round");
                false
            })
        };
        if !worked {
            tokio::select! {
                () = cancel.cancelled() => return,
                () = tokio::time::sleep(IDLE) => {}
            }
        } else if cancel.is_cancelled() {
            return;
        }
    }
}

/// Works off one page of rows. True if there was any.
async fn round(meta: &dyn Meta, store: &Arc<Store>, node: NodeId) -> Result<bool, String> {
    let query = ChunkReap {
        node,
        now_ms: meta.now_ms(),
        limit: ROWS,
    };
    let rows = meta.read(query).await.map_err(|e| e.to_string())?;
    let Some(through) = rows.last().map(|(seq, _)| *seq) else {
        return Ok(false);
    };
    let local = store.clone();
    let reaped = blocking(move || delete(&local, &rows))
        .await
        .map_err(|e| e.to_string())?;
    METRICS.reaped.add(reaped as u64);
    meta.tell(ChunksReaped { node, through })
        .await
        .map_err(|e| e.to_string())?;
    Ok(true)
}

fn delete(store: &Store, rows: &[(u64, ReapChunks)]) -> Result<usize, ChunkError> {
    // The sets of what is here: the map may not know the newest ones yet.
    let sets: Vec<SetId> = store.set_counts().into_keys().collect();
    let mut ids = Vec::new();
    for (_, row) in rows {
        match row {
            ReapChunks::Chunks(chunks) => ids.extend_from_slice(chunks),
            ReapChunks::UnnamedOf { block, named } => {
                unnamed(store, &sets, *block, named, &mut ids)?;
            }
        }
    }
    store.delete(&ids)
}

/// Adds the chunks of a closed block that are here and that nothing names.
fn unnamed(
    store: &Store,
    sets: &[SetId],
    block: BlockId,
    named: &[u8],
    ids: &mut Vec<ChunkId>,
) -> Result<(), ChunkError> {
    let is_named = |i: u16| {
        named
            .get(i as usize / 8)
            .is_some_and(|byte| byte & (1 << (i % 8)) != 0)
    };
    for &set in sets {
        // Ids of a block in a set are neighbours in the store's order.
        let first = ChunkId::new(VolumeId::ONLY, set, block, 0);
        let before = ChunkId(first.0.wrapping_sub(1));
        let here = store.list(Some(set), Some(before), BLOCK_IDS as usize)?;
        ids.extend(
            here.into_iter()
                .map(|(id, _)| id)
                .take_while(|id| id.block() == block)
                .filter(|id| !is_named(id.index())),
        );
    }
    Ok(())
}
