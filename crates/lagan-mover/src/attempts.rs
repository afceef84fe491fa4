//! Attempts that nobody works on any more are failed, so that their files
//! become due again.
//!
//! Three kinds: this node's from before its start; this node's whose jobs
//! never arrived (the leader's answer was lost); and, on the leader, those of
//! nodes that are down for long.

use crate::report::report;
use crate::{Meta, MoverError};
use lagan_types::cluster::{ClusterMap, NodeState};
use lagan_types::op::{ArchiveFail, FailArchive};
use lagan_types::query::{AttemptRow, Attempts};
use lagan_types::{NodeId, Time};
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, Instant};

/// Attempts in one question and one mutation.
const PAGE: u32 = 256;

/// The attempts that this node works on: waiting, uploading or being reported.
#[derive(Debug, Default)]
pub(crate) struct Active(Mutex<HashSet<u64>>);

impl Active {
    pub fn insert(&self, attempt: u64) {
        self.0.lock().insert(attempt);
    }

    pub fn remove(&self, attempts: &[u64]) {
        let mut active = self.0.lock();
        for attempt in attempts {
            active.remove(attempt);
        }
    }

    fn contains(&self, attempt: u64) -> bool {
        self.0.lock().contains(&attempt)
    }
}

/// Every attempt that is recorded, a page at a time.
pub(crate) async fn pages<F>(meta: &dyn Meta, mut each: F) -> Result<(), MoverError>
where
    F: FnMut(Vec<AttemptRow>) + Send,
{
    let mut from = 0;
    loop {
        let rows = meta.read(Attempts { from, limit: PAGE }).await?;
        let Some(last) = rows.last().map(|r| r.number) else {
            return Ok(());
        };
        let full = rows.len() >= PAGE as usize;
        each(rows);
        if !full || last == u64::MAX {
            return Ok(());
        }
        from = last + 1;
    }
}

/// Fails the attempts that `lost` picks; returns how many.
async fn fail_lost<F>(meta: &dyn Meta, lost: F) -> Result<usize, MoverError>
where
    F: Fn(&AttemptRow) -> bool + Send + Sync,
{
    let now = Time::from_millis(meta.now_ms());
    let mut files = Vec::new();
    pages(meta, |rows| {
        files.extend(rows.into_iter().filter(|r| lost(r)).map(|row| ArchiveFail {
            ino: row.ino,
            version: row.version,
            attempt: row.number,
            key: row.key,
            retry_at: now,
        }));
    })
    .await?;
    for batch in files.chunks(PAGE as usize) {
        if !report(
            meta,
            FailArchive {
                files: batch.to_vec(),
            },
        )
        .await
        {
            return Err(MoverError::NotReported("lost attempts"));
        }
    }
    Ok(files.len())
}

/// Fails this node's attempts that it knows nothing of and that are older than `age`.
pub(crate) async fn fail_own(
    meta: &dyn Meta,
    active: &Active,
    age: Duration,
) -> Result<usize, MoverError> {
    let (node, now_ms) = (meta.node(), meta.now_ms());
    let age_ms = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
    let old = |row: &AttemptRow| age_ms == 0 || row.started_ms.saturating_add(age_ms) <= now_ms;
    fail_lost(meta, |row| {
        row.node == node && old(row) && !active.contains(row.number)
    })
    .await
}

/// The nodes that are down, and since when the leader has known it.
#[derive(Debug, Default)]
pub(crate) struct Down(BTreeMap<NodeId, Instant>);

impl Down {
    /// Takes note of the nodes' states in the map.
    pub fn see(&mut self, map: &ClusterMap, now: Instant) {
        let down = |id: &NodeId| map.node(*id).is_none_or(|n| n.state == NodeState::Down);
        self.0.retain(|id, _| down(id));
        for node in map.nodes.iter().filter(|n| n.state == NodeState::Down) {
            self.0.entry(node.id).or_insert(now);
        }
    }

    /// Nodes that are down for at least that long.
    pub fn longer_than(&self, age: Duration, now: Instant) -> Vec<NodeId> {
        let since = |t: &Instant| now.saturating_duration_since(*t);
        self.0
            .iter()
            .filter(|(_, t)| since(t) >= age)
            .map(|(id, _)| *id)
            .collect()
    }
}

/// The leader fails the attempts of nodes that are down for long.
pub(crate) async fn fail_of_nodes(meta: &dyn Meta, nodes: &[NodeId]) -> Result<usize, MoverError> {
    if nodes.is_empty() {
        return Ok(0);
    }
    fail_lost(meta, |row| nodes.contains(&row.node)).await
}
