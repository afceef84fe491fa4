//! Copies of single chunks from other members of their sets.

use crate::metrics::METRICS;
use crate::read::{NoCopy, fetch_from};
use crate::work::{Work, blocking};
use lagan_chunk::ChunkError;
use lagan_types::query::ChunkReap;
use lagan_types::{ChunkId, NodeId};
use std::collections::BTreeSet;

/// Those of the chunks that are not on disk here.
pub(crate) async fn missing(work: &Work, ids: &[ChunkId]) -> Result<Vec<ChunkId>, String> {
    let (store, ids) = (work.store.clone(), ids.to_vec());
    let missing = blocking(move || {
        let mut missing = Vec::new();
        for id in ids {
            if !store.is_on_disk(id)? {
                missing.push(id);
            }
        }
        Ok(missing)
    });
    missing.await.map_err(|e| e.to_string())
}

/// Those of the chunks that one of the sources is to delete: they must not be copied, since a node
/// that holds none when they are freed never hears that it has to delete them. A source has such
/// a chunk no longer than its row stands, so nobody's rows count but those of the nodes that the
/// chunk would be copied from; a member that is down may have very many. A node without the log
/// asks the leader for them, page by page.
pub(crate) async fn freed(
    work: &Work,
    ids: &[ChunkId],
    sources: &[NodeId],
) -> Result<BTreeSet<ChunkId>, String> {
    if work.own.map_version().is_some() {
        let (own, ids, nodes) = (work.own.clone(), ids.to_vec(), sources.to_vec());
        let freed = tokio::task::spawn_blocking(move || own.freed(&ids, &nodes));
        return freed.await.map_err(|e| e.to_string());
    }
    let mut freed = BTreeSet::new();
    for &node in sources {
        let mut from = 0;
        loop {
            let query = ChunkReap {
                node,
                from,
                now_ms: u64::MAX,
                limit: u32::MAX,
            };
            let rows = work.meta.read(query).await.map_err(|e| e.to_string())?;
            let Some((last, _)) = rows.last() else { break };
            from = last + 1;
            let is_in = |id: &&ChunkId| rows.iter().any(|(_, row)| row.frees(**id));
            freed.extend(ids.iter().filter(is_in));
        }
    }
    Ok(freed)
}

/// Why a chunk was not copied.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotCopied {
    /// The sources have it only damaged, or another one is here: no other try helps.
    #[error("{0}")]
    Bad(String),
    /// Another try may help.
    #[error("{0}")]
    Again(String),
}

/// Copies one chunk from the first source that has it. False: it was here, or
/// no source has it.
pub(crate) async fn copy(work: &Work, sources: &[NodeId], id: ChunkId) -> Result<bool, NotCopied> {
    let here = |e: ChunkError| match e {
        ChunkError::Conflict(_) | ChunkError::WrongCrc(_) | ChunkError::Invalid(_) => {
            NotCopied::Bad(e.to_string())
        }
        other => NotCopied::Again(other.to_string()),
    };
    if work.store.contains(id).map_err(here)? {
        return Ok(false);
    }
    let whole = match fetch_from(&work.peers, sources, id, None).await {
        Ok(whole) => whole,
        Err(NoCopy::Absent) => return Ok(false),
        Err(e @ NoCopy::Damaged { .. }) => {
            return Err(NotCopied::Bad(format!("chunk {id} from {e}")));
        }
        Err(e) => return Err(NotCopied::Again(format!("chunk {id} from {e}"))),
    };
    let local = work.store.clone();
    blocking(move || local.write_blocking(id, whole.data, &whole.crcs))
        .await
        .map_err(here)?;
    METRICS.filled.inc();
    Ok(true)
}
