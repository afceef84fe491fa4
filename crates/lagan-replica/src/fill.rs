//! Filling a set's joining node with the set's chunks.
//!
//! The set is sealed while it is filled, so its chunks are fixed but for
//! deletes: a page of ids from a live member, a copy of each that is missing
//! here, then the same of the next one: a chunk that rotted on one is on the
//! other. After the last page the row is changed. A crash begins again at the
//! first page and copies only what is missing.
//!
//! What this node holds of sets that it does not belong to (it was replaced
//! while it was away, or a fill was let go) is deleted here too, as far as a
//! member has it, and all of it once the set is gone. One task does both, so a set is never emptied by an old map
//! while it is filled by a newer one.

use crate::heal::{blocking, fetch};
use crate::metrics::METRICS;
use crate::peers::Peers;
use crate::reap::Meta;
use bytes::Bytes;
use lagan_chunk::Store;
use lagan_types::cluster::{ClusterMap, NodeState, ReplicaSet};
use lagan_types::message::{ChunkReply, ChunkRequest};
use lagan_types::op::{Op, SetChange};
use lagan_types::{ChunkId, Epoch, NodeId, SetId};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Ids in a page.
const PAGE: u32 = 4096;
/// Wait between looks at the map.
const IDLE: Duration = Duration::from_millis(500);

/// Fills the sets that this node joins, until `cancel`.
pub async fn run(
    meta: Arc<dyn Meta>,
    store: Arc<Store>,
    peers: Arc<Peers>,
    node: NodeId,
    cancel: CancellationToken,
) {
    let mut left = BTreeSet::new();
    loop {
        let map = peers.map();
        if let Err(e) = leave(&store, &peers, &map, node, &mut left).await {
            tracing::debug!(error = %e, "chunks of sets that this node left");
        }
        for set in map.sets.iter().filter(|s| s.joining == Some(node)) {
            if cancel.is_cancelled() {
                return;
            }
            match fill(&store, &peers, node, set).await {
                Ok(copied) => finish(&*meta, set, copied).await,
                Err(e) => {
                    tracing::warn!(set = %set.id, error = %e, "set is not filled yet");
                }
            }
        }
        tokio::select! {
            () = cancel.cancelled() => return,
            () = tokio::time::sleep(IDLE) => {}
        }
    }
}

async fn finish(meta: &dyn Meta, set: &ReplicaSet, copied: u64) {
    let change = SetChange::FinishJoin {
        set: set.id,
        epoch: set.epoch,
    };
    let op = Op::ChangeSets {
        changes: vec![change],
    };
    match meta.mutate(op).await {
        Ok(_) => tracing::info!(set = %set.id, copied, "set is whole again"),
        Err(e) => tracing::debug!(set = %set.id, error = %e, "set changed while it was filled"),
    }
}

/// Copies what is missing here; how many chunks that was.
async fn fill(
    store: &Arc<Store>,
    peers: &Peers,
    node: NodeId,
    set: &ReplicaSet,
) -> Result<u64, String> {
    let map = peers.map();
    let live = |n: &NodeId| map.node(*n).is_some_and(|n| n.state != NodeState::Down);
    let sources: Vec<NodeId> = set
        .nodes
        .iter()
        .copied()
        .filter(|n| *n != node && live(n))
        .collect();
    if sources.is_empty() {
        return Err("no member is up".into());
    }
    let mut copied = 0;
    for &source in &sources {
        let mut after = None;
        loop {
            let ids = page(peers, source, set.id, after).await?;
            let Some(&(last, _)) = ids.last() else { break };
            for (id, _) in ids {
                copied += u64::from(copy(store, peers, &sources, id).await?);
            }
            after = Some(last);
        }
    }
    Ok(copied)
}

/// Deletes what is here of sets that this node is no member of, and that a
/// member has. What no member has stays: it may be the last copy. Rows in `done`
/// are not looked at again.
async fn leave(
    store: &Arc<Store>,
    peers: &Peers,
    map: &ClusterMap,
    node: NodeId,
    done: &mut BTreeSet<(SetId, Epoch)>,
) -> Result<(), String> {
    for (id, count) in store.set_counts() {
        let Some(set) = map.set(id) else {
            if is_gone(map, id) {
                drop_set(store, id).await?;
                tracing::info!(set = %id, dropped = count, "deleted chunks of a set that is gone");
            }
            continue;
        };
        let ours = set.nodes.contains(&node) || set.joining.is_some();
        if ours || done.contains(&(id, set.epoch)) {
            continue;
        }
        let live = |n: &&NodeId| map.node(**n).is_some_and(|n| n.state != NodeState::Down);
        let Some(&member) = set.nodes.iter().find(live) else {
            continue;
        };
        let dropped = leave_set(store, peers, id, member).await?;
        done.insert((id, set.epoch));
        if dropped > 0 {
            tracing::info!(set = %id, dropped, of = count, "deleted chunks of a set that others hold now");
        }
    }
    Ok(())
}

/// Whether the set was in the map once: a set goes when nothing names its chunks
/// any more, and numbers rise, so that a map with a later one is no older.
fn is_gone(map: &ClusterMap, set: SetId) -> bool {
    map.sets.last().is_some_and(|last| set < last.id)
}

/// Deletes all that is here of a set.
async fn drop_set(store: &Arc<Store>, set: SetId) -> Result<(), String> {
    loop {
        let local = store.clone();
        let dropped = blocking(move || {
            let here = local.list(Some(set), None, PAGE as usize)?;
            let ids: Vec<ChunkId> = here.into_iter().map(|(id, _)| id).collect();
            local.delete(&ids)
        });
        if dropped.await.map_err(|e| e.to_string())? == 0 {
            return Ok(());
        }
    }
}

/// One set, against what `member` lists; how many were deleted.
async fn leave_set(
    store: &Arc<Store>,
    peers: &Peers,
    set: SetId,
    member: NodeId,
) -> Result<usize, String> {
    let (mut after, mut dropped) = (None, 0);
    loop {
        let theirs = page(peers, member, set, after).await?;
        let Some(&(last, _)) = theirs.last() else {
            return Ok(dropped);
        };
        let ids: Vec<ChunkId> = theirs.into_iter().map(|(id, _)| id).collect();
        let local = store.clone();
        dropped += blocking(move || local.delete(&ids))
            .await
            .map_err(|e| e.to_string())?;
        after = Some(last);
    }
}

async fn page(
    peers: &Peers,
    source: NodeId,
    set: SetId,
    after: Option<ChunkId>,
) -> Result<Vec<(ChunkId, u32)>, String> {
    let request = ChunkRequest::List {
        set: Some(set),
        after,
        limit: PAGE,
    };
    let answer = peers.call(source, &request, Bytes::new(), 1 << 20).await;
    match answer.map_err(|e| e.to_string())?.0 {
        ChunkReply::Ids(ids) => Ok(ids),
        other => Err(format!("node {source} answered {other:?}")),
    }
}

/// Copies one chunk from the first source that has it. False: it was here, or
/// it is gone everywhere.
async fn copy(
    store: &Arc<Store>,
    peers: &Peers,
    sources: &[NodeId],
    id: ChunkId,
) -> Result<bool, String> {
    if store.contains(id).map_err(|e| e.to_string())? {
        return Ok(false);
    }
    let mut problem = None;
    for &source in sources {
        match fetch(peers, source, id).await {
            Ok(Some(whole)) => {
                let local = store.clone();
                blocking(move || local.write_blocking(id, whole.data, &whole.crcs))
                    .await
                    .map_err(|e| e.to_string())?;
                METRICS.filled.inc();
                return Ok(true);
            }
            Ok(None) => {}
            Err(e) => problem = Some(format!("chunk {id} from node {source}: {e}")),
        }
    }
    problem.map_or(Ok(false), Err)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn set_is_gone_only_where_a_later_one_is_known() {
        let set = |id| ReplicaSet {
            id: SetId(id),
            nodes: vec![NodeId(1), NodeId(2)],
            epoch: Epoch(1),
            sealed: false,
            joining: None,
            leaving: None,
        };
        let mut m = ClusterMap {
            sets: vec![set(1), set(3)],
            ..ClusterMap::default()
        };
        let gone: Vec<bool> = (1..=4).map(|n| is_gone(&m, SetId(n))).collect();
        assert_eq!(gone, [true, true, false, false]);
        assert!(
            m.set(SetId(1)).is_some(),
            "asked only about those not there"
        );
        m.sets.clear();
        assert!(!is_gone(&m, SetId(1)));
    }
}
