//! Filling a set's joining node with the set's chunks.
//!
//! The set is sealed while it is filled, so its chunks are fixed but for
//! deletes. The node asks a live member for a page of ids, copies each chunk that is
//! missing here, and goes on to the last page; then it does the same with the next
//! member, since a chunk that rotted on one is on the other. At the end it changes
//! the set's row. After a crash it begins again at the first page and copies only
//! what is missing.
//!
//! The same task deletes chunks of sets that this node does not belong to (it was
//! replaced while it was away, or a fill was aborted): those that a member has, and
//! all of them once the set is gone. And it compares this node's own sets with others when
//! chunks may be missing (`compare`). One task does all of it, so an old map
//! never empties a set that a newer one fills.

use crate::compare::Comparison;
use crate::copy::{copy, freed, missing};
use crate::listing::{Listing, PAGE};
use crate::work::{Meta, Work, blocking};
use lagan_chunk::Store;
use lagan_types::cluster::{ClusterMap, ReplicaSet};
use lagan_types::op::{ChangeSets, SetChange};
use lagan_types::{ChunkId, Epoch, NodeId, SetId};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Time between looks at the map.
const IDLE: Duration = Duration::from_millis(500);

/// Fills the sets that this node joins, until `cancel`.
pub async fn run(work: Work, cancel: CancellationToken) {
    let mut left = BTreeSet::new();
    let mut comparison = Comparison::default();
    loop {
        let map = work.peers.map();
        let own = work.own.map_version().unwrap_or(map.version);
        // What this node carries out later may bring chunks of sets that it has left since.
        if own >= map.version
            && let Err(e) = leave(&work, &map, &mut left).await
        {
            tracing::debug!(error = %e, "chunks of sets that this node left");
        }
        if own == map.version && map.version > 0 {
            comparison.go_on(&work, &map).await;
        }
        // A state before the join does not have all rows of what was freed until then.
        let joins = |s: &&ReplicaSet| s.joining == Some(work.node) && own >= map.version;
        for set in map.sets.iter().filter(joins) {
            if cancel.is_cancelled() {
                return;
            }
            match fill(&work, set).await {
                Ok(copied) => finish(&*work.meta, set, copied).await,
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
    let changes = vec![change];
    match meta.tell(ChangeSets { changes }).await {
        Ok(()) => tracing::info!(set = %set.id, copied, "set is whole again"),
        Err(e) => tracing::debug!(set = %set.id, error = %e, "set changed while it was filled"),
    }
}

/// Copies the chunks of the set that are missing here; returns how many.
async fn fill(work: &Work, set: &ReplicaSet) -> Result<u64, String> {
    let map = work.peers.map();
    let live = |n: &NodeId| *n != work.node && map.is_up(*n);
    let sources: Vec<NodeId> = set.nodes.iter().copied().filter(live).collect();
    if sources.is_empty() {
        return Err("no member is up".into());
    }
    let mut copied = 0;
    for &source in &sources {
        let mut listing = Listing::new(&work.peers, source, set.id);
        while let Some(ids) = listing.next().await? {
            copied += fetch(work, &sources, &ids).await?;
        }
    }
    Ok(copied)
}

/// Copies those of the chunks that are missing here and not freed; returns how many. What is
/// freed later is in this node's rows, too: so one question is enough for a whole page, and it
/// may be a long one.
async fn fetch(work: &Work, sources: &[NodeId], ids: &[ChunkId]) -> Result<u64, String> {
    let missing = missing(work, ids).await?;
    if missing.is_empty() {
        return Ok(0);
    }
    let freed = freed(work, &missing, sources).await?;
    let mut copied = 0;
    for id in missing.into_iter().filter(|id| !freed.contains(id)) {
        let fetched = copy(work, sources, id).await;
        copied += u64::from(fetched.map_err(|e| e.to_string())?);
    }
    Ok(copied)
}

/// Deletes chunks of sets that this node is no member of, as far as a member has
/// them. A chunk that no member has stays: it may be the last copy. Set rows in `done`
/// are not looked at again.
async fn leave(
    work: &Work,
    map: &ClusterMap,
    done: &mut BTreeSet<(SetId, Epoch)>,
) -> Result<(), String> {
    for (id, count) in work.store.set_counts() {
        let Some(set) = map.set(id) else {
            if is_gone(map, id) {
                drop_set(&work.store, id).await?;
                tracing::info!(set = %id, dropped = count, "deleted chunks of a set that is gone");
            }
            continue;
        };
        let ours = set.nodes.contains(&work.node) || set.joining.is_some();
        if ours || done.contains(&(id, set.epoch)) {
            continue;
        }
        let Some(&member) = set.nodes.iter().find(|n| map.is_up(**n)) else {
            continue;
        };
        let dropped = leave_set(work, id, member).await?;
        done.insert((id, set.epoch));
        if dropped > 0 {
            tracing::info!(set = %id, dropped, of = count, "deleted chunks of a set that others hold now");
        }
    }
    Ok(())
}

/// Whether a set that is not in the map was in an older one. Sets go when nothing
/// names their chunks any more, and their numbers rise, so a map with a later set is
/// not too old to know this one.
fn is_gone(map: &ClusterMap, set: SetId) -> bool {
    map.sets.last().is_some_and(|last| set < last.id)
}

/// Deletes all chunks of a set that are here.
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

/// Deletes the chunks of one set that `member` lists; returns how many.
async fn leave_set(work: &Work, set: SetId, member: NodeId) -> Result<usize, String> {
    let mut dropped = 0;
    let mut listing = Listing::new(&work.peers, member, set);
    while let Some(ids) = listing.next().await? {
        let local = work.store.clone();
        dropped += blocking(move || local.delete(&ids))
            .await
            .map_err(|e| e.to_string())?;
    }
    Ok(dropped)
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
