//! Fetching what this node lacks of its own sets, after its [`Doubt`](crate::Doubt) was raised.
//!
//! The sets stay open: what is written meanwhile is written here, too. Each other member must
//! have been asked before a set counts as compared; one that is down is asked when it is back.
//! What cannot be had (damaged, or gone meanwhile) is left to the healer.
//!
//! A chunk that was freed must not come back: this node may have deleted it and said so, while
//! the member that lists it has not. Such a chunk is in that member's rows of the reap queue
//! until it has deleted it; so what stands in a member's rows is not fetched. This node's own
//! rows, which may be many after a long absence, need no look: they are worked off afterwards.

use crate::copy::{NotCopied, copy, freed, missing};
use crate::listing::Listing;
use crate::work::{Work, blocking};
use lagan_types::cluster::{ClusterMap, ReplicaSet};
use lagan_types::{ChunkId, NodeId, SetId};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// Ids that are looked at together: nothing is reaped meanwhile.
const BATCH: usize = 64;
/// Time between comparisons that could not end, at first and at most.
const PAUSE: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// How far the comparison is.
#[derive(Debug, Default)]
pub(crate) struct Comparison {
    /// The raising of the doubt that it is for.
    number: u64,
    /// Sets that were compared with all their members.
    done: BTreeSet<SetId>,
    /// When it goes on, and how long it waits after that.
    next: Option<(Instant, Duration)>,
}

impl Comparison {
    /// Compares what is left, if there is doubt and it is time, and ends the doubt when nothing
    /// is left. The map must be the one that this node has carried out.
    pub async fn go_on(&mut self, work: &Work, map: &ClusterMap) {
        let Some(number) = work.doubt.raised() else {
            return;
        };
        if self.number != number || self.next.is_none() {
            *self = Comparison {
                number,
                next: Some((Instant::now(), PAUSE)),
                ..Comparison::default()
            };
        }
        let (at, pause) = self.next.unwrap_or((Instant::now(), PAUSE));
        if Instant::now() < at {
            return;
        }
        match self.compare(work, map).await {
            Ok(copied) => {
                tracing::info!(copied, "this node has what its sets have");
                self.next = None;
            }
            Err(why) => {
                tracing::debug!(why, "this node's sets are not compared yet");
                let longer = (2 * pause).min(PAUSE_MAX);
                self.next = Some((Instant::now() + pause, longer));
            }
        }
    }

    async fn compare(&mut self, work: &Work, map: &ClusterMap) -> Result<u64, String> {
        let (mut copied, mut left) = (0, None);
        for set in map.sets.iter().filter(|s| s.nodes.contains(&work.node)) {
            if self.done.contains(&set.id) {
                continue;
            }
            match compare_set(work, map, set).await {
                Ok(count) => {
                    copied += count;
                    self.done.insert(set.id);
                }
                Err(why) => left = Some(why),
            }
        }
        if let Some(why) = left {
            return Err(why);
        }
        let (doubt, number) = (work.doubt.clone(), self.number);
        let ended = tokio::task::spawn_blocking(move || doubt.end(number)).await;
        let ended = ended.map_err(|e| e.to_string())?;
        ended.map_err(|e| e.to_string())?;
        Ok(copied)
    }
}

/// Copies what each other member has and this node has not; returns how many.
async fn compare_set(work: &Work, map: &ClusterMap, set: &ReplicaSet) -> Result<u64, String> {
    work.store.check().map_err(|e| e.to_string())?;
    let others = set.nodes.iter().copied().filter(|n| *n != work.node);
    let (up, down): (Vec<NodeId>, Vec<NodeId>) = others.partition(|n| map.is_up(*n));
    let (mut copied, mut again) = (0, None);
    for &source in &up {
        let mut listing = Listing::new(&work.peers, source, set.id);
        while let Some(ids) = listing.next().await? {
            for ids in ids.chunks(BATCH) {
                copied += fetch(work, &up, ids, &mut again).await?;
            }
        }
    }
    // What is only on its way may not come to disk, and nothing else remembers it.
    let local = work.store.clone();
    let settled = blocking(move || local.settle_blocking()).await;
    settled.map_err(|e| e.to_string())?;
    match (again, down.first()) {
        (Some(why), _) => Err(why),
        (None, Some(node)) => Err(format!("node {node} of set {} is down", set.id)),
        (None, None) => Ok(copied),
    }
}

/// Copies those of the chunks that are missing here and not freed; returns how many. `again`:
/// why another comparison may find more.
async fn fetch(
    work: &Work,
    sources: &[NodeId],
    ids: &[ChunkId],
    again: &mut Option<String>,
) -> Result<u64, String> {
    let missing = missing(work, ids).await?;
    if missing.is_empty() {
        return Ok(0);
    }
    // From the question whether they are freed to the write nothing is reaped here: else a row
    // that is worked off in between brings one back for ever.
    let _held = work.reaping.lock().await;
    let freed = freed(work, &missing, sources).await?;
    let mut copied = 0;
    for id in missing.into_iter().filter(|id| !freed.contains(id)) {
        if work.store.contains(id).map_err(|e| e.to_string())? {
            *again = Some("chunks are on their way to disk".into());
            continue;
        }
        match copy(work, sources, id).await {
            Ok(fetched) => copied += u64::from(fetched),
            Err(NotCopied::Bad(why)) => {
                tracing::warn!(chunk = %id, why, "chunk is left to the healer");
            }
            Err(NotCopied::Again(why)) => *again = Some(why),
        }
    }
    Ok(copied)
}
