//! Deleting chunks that the metadata freed: each node works off its own rows of the
//! reap queue, which stay until the node reports them done.
//!
//! A crash between delete and report repeats the delete, which does nothing.
//! Without a cluster map nothing is deleted, since only the map says which sets this
//! node is being filled for. While it is being filled, its rows wait, so that a copy
//! made meanwhile from a member that is behind is deleted afterwards. The rows also
//! wait while the healer brings back a chunk that was missing here (see `heal`).
//!
//! A node that gets the log reads its rows in its own state: the commands that brought the
//! chunks were carried out before, so none stores them after they were deleted. It reports
//! rows only when that state is durable with all that came with it, so that no replay of the
//! log does.

use crate::metrics::METRICS;
use crate::work::{Work, blocking};
use lagan_chunk::{ChunkError, Store};
use lagan_types::limits::BLOCK_IDS;
use lagan_types::op::ChunksReaped;
use lagan_types::query::{ChunkReap, ReapChunks};
use lagan_types::{BlockId, ChunkId, SetId, VolumeId, answer_to};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Rows in one round.
const ROWS: u32 = 256;
/// Time until this node has carried out what it reported, about.
const LAG: Duration = Duration::from_millis(100);
/// Time to wait after an empty round.
const IDLE: Duration = Duration::from_millis(1000);

/// What became of a round.
enum Round {
    /// There was nothing to do.
    Idle,
    /// What was reported is not carried out here yet.
    Waits,
    Worked,
}

/// Works off this node's reap rows until `cancel`.
pub async fn run(work: Work, cancel: CancellationToken) {
    let mut reported = 0;
    loop {
        let map = work.peers.map();
        let filling = map.sets.iter().any(|s| s.joining == Some(work.node));
        let round = if filling || map.version == 0 {
            Round::Idle
        } else {
            let _held = work.reaping.lock().await;
            let round = round(&work, &mut reported).await;
            round.unwrap_or_else(|e| {
                tracing::debug!(error = %e, "reap round");
                Round::Idle
            })
        };
        let pause = match round {
            Round::Idle => IDLE,
            Round::Waits => LAG,
            Round::Worked => Duration::ZERO,
        };
        tokio::select! {
            biased;
            () = cancel.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Works off one page of rows behind those that this node has `reported`.
async fn round(work: &Work, reported: &mut u64) -> Result<Round, String> {
    let (meta, node) = (&*work.meta, work.node);
    let query = ChunkReap {
        node,
        from: 0,
        now_ms: meta.now_ms(),
        limit: ROWS,
    };
    let follows = work.own.map_version().is_some();
    let rows = match follows {
        true => answer_to::<ChunkReap>(work.own.query(query.into())),
        false => meta.read(query).await,
    };
    let mut rows = rows.map_err(|e| e.to_string())?;
    let any = !rows.is_empty();
    rows.retain(|(seq, _)| *seq > *reported);
    let Some(through) = rows.last().map(|(seq, _)| *seq) else {
        return Ok(if any { Round::Waits } else { Round::Idle });
    };
    let rows = Arc::new(rows);
    let delete = || {
        let (store, rows) = (work.store.clone(), rows.clone());
        blocking(move || delete(&store, &rows))
    };
    let mut reaped = delete().await.map_err(|e| e.to_string())?;
    if follows {
        work.own.settle().await?;
        // A chunk that the store did not take before may have come to disk since.
        reaped += delete().await.map_err(|e| e.to_string())?;
    }
    METRICS.reaped.add(reaped as u64);
    meta.tell(ChunksReaped { node, through })
        .await
        .map_err(|e| e.to_string())?;
    *reported = through;
    Ok(Round::Worked)
}

fn delete(store: &Store, rows: &[(u64, ReapChunks)]) -> Result<usize, ChunkError> {
    // What no command named may be in memory only. A full store takes it when this has made room.
    match store.settle_blocking() {
        Ok(()) | Err(ChunkError::NoSpace) => {}
        Err(e) => return Err(e),
    }
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
