//! Finds chunks that servers hold and that nothing names.
//!
//! Most of them are on their way: a chunk is written before it is named, and stays a while
//! after its name went. The questions come in this order, so that no change in between
//! makes a chunk look like garbage: is its block open (on its way in); is it named now; is
//! it in a reap row of its server (on its way out); is it still there?

use crate::admin::check::named;
use crate::admin::check::report::{Finding, Report};
use crate::admin::output::Progress;
use crate::exit::{Doing, Outcome};
use crate::net::{Cluster, ask_at, node_addr};
use lagan_types::cluster::NodeInfo;
use lagan_types::message::{ChunkHealth, VerifyChunks};
use lagan_types::query::{Blocks, ChunkReap, ReapChunks};
use lagan_types::{BlockId, ChunkId, NodeId};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Most blocks in one query.
const BLOCKS: usize = 256;
/// Most reap rows in one answer; the cluster may give fewer.
const REAP_ROWS: u32 = 4096;
/// Most chunks in one request.
const VERIFY: usize = 64;
const VERIFY_DEADLINE: Duration = Duration::from_secs(60);

/// Sorts suspects into findings and pending ones.
///
/// # Errors
/// Those of the cluster.
pub async fn check(
    cluster: &Cluster,
    suspects: Vec<(NodeInfo, ChunkId)>,
    report: &mut Report,
    progress: &mut Progress,
) -> Outcome<()> {
    if suspects.is_empty() {
        return Ok(());
    }
    let open = open_blocks(cluster, &suspects).await?;
    let (pending, rest): (Vec<_>, Vec<_>) = suspects
        .into_iter()
        .partition(|(_, id)| open.contains(&id.block()));
    report.pending += pending.len() as u64;
    if rest.is_empty() {
        return Ok(());
    }
    let now = named::read(cluster, &mut Report::default(), progress).await?;
    let mut by_node: BTreeMap<u64, (NodeInfo, Vec<ChunkId>)> = BTreeMap::new();
    for (node, id) in rest
        .into_iter()
        .filter(|(_, id)| now.position(*id).is_none())
    {
        let entry = by_node
            .entry(node.id.0)
            .or_insert_with(|| (node, Vec::new()));
        entry.1.push(id);
    }
    if by_node.is_empty() {
        return Ok(());
    }
    let reap = reap_rows(cluster).await?;
    for (node, ids) in by_node.into_values() {
        let none = Vec::new();
        let rows = reap.rows.get(&node.id).unwrap_or(&none);
        let (pending, rest): (Vec<_>, Vec<_>) = ids
            .into_iter()
            .partition(|id| reap.more || is_reaped(*id, rows));
        report.pending += pending.len() as u64;
        for id in still_there(cluster, &node, rest).await? {
            report.find(Finding {
                chunk: Some(id.to_string()),
                server: Some(node.name.clone()),
                ..Finding::of("stray", "nothing names it, and nothing deletes it".into())
            });
        }
    }
    Ok(())
}

async fn open_blocks(
    cluster: &Cluster,
    suspects: &[(NodeInfo, ChunkId)],
) -> Outcome<BTreeSet<BlockId>> {
    let blocks: BTreeSet<BlockId> = suspects.iter().map(|(_, id)| id.block()).collect();
    let blocks: Vec<BlockId> = blocks.into_iter().collect();
    let mut open = BTreeSet::new();
    for part in blocks.chunks(BLOCKS) {
        let query = Blocks {
            blocks: part.to_vec(),
        };
        let answer = cluster.query(query).await?;
        let states = answer.doing(|| "look at the blocks".into())?;
        let pairs = part.iter().zip(states);
        open.extend(pairs.filter(|(_, named)| named.is_some()).map(|(b, _)| *b));
    }
    Ok(open)
}

/// The chunks that wait for deletion.
struct Reap {
    rows: BTreeMap<NodeId, Vec<ReapChunks>>,
    /// Whether there are more rows than an answer holds: any chunk may be in one of them.
    more: bool,
}

async fn reap_rows(cluster: &Cluster) -> Outcome<Reap> {
    let mut rows = BTreeMap::new();
    let mut seen = 0;
    for node in cluster.map().await?.nodes {
        let query = ChunkReap {
            node: node.id,
            from: 0,
            now_ms: u64::MAX,
            limit: REAP_ROWS,
        };
        let answer = cluster.query(query).await?;
        let found = answer.doing(|| "read what is to be deleted".into())?;
        seen += found.len() as u64;
        rows.insert(node.id, found.into_iter().map(|(_, row)| row).collect());
    }
    let all = cluster.status().await?.counters.reap_chunks;
    Ok(Reap {
        rows,
        more: all > seen,
    })
}

fn is_reaped(id: ChunkId, rows: &[ReapChunks]) -> bool {
    rows.iter().any(|row| match row {
        ReapChunks::Chunks(ids) => ids.contains(&id),
        ReapChunks::UnnamedOf { block, named } => {
            let bit = usize::from(id.index());
            *block == id.block()
                && named
                    .get(bit / 8)
                    .is_none_or(|byte| byte >> (bit % 8) & 1 == 0)
        }
    })
}

async fn still_there(
    cluster: &Cluster,
    node: &NodeInfo,
    ids: Vec<ChunkId>,
) -> Outcome<Vec<ChunkId>> {
    let addr = node_addr(node)?;
    let mut there = Vec::new();
    for part in ids.chunks(VERIFY) {
        let verify = VerifyChunks { ids: part.to_vec() };
        if let Ok(health) = ask_at(cluster.pool(), addr, verify, VERIFY_DEADLINE).await {
            let pairs = part.iter().zip(health);
            there.extend(
                pairs
                    .filter(|(_, h)| *h != ChunkHealth::Missing)
                    .map(|(id, _)| *id),
            );
        }
    }
    Ok(there)
}

#[cfg(test)]
mod tests {
    use super::*;
    use lagan_types::{SetId, VolumeId};

    #[test]
    fn chunk_in_a_reap_row_is_on_its_way_out() {
        let id = |index| ChunkId::new(VolumeId::ONLY, SetId(1), BlockId(7), index);
        let rows = [ReapChunks::Chunks(vec![id(1)])];
        assert!(is_reaped(id(1), &rows));
        assert!(!is_reaped(id(2), &rows));
        let rows = [ReapChunks::UnnamedOf {
            block: BlockId(7),
            named: vec![0b0000_0100],
        }];
        assert!(!is_reaped(id(2), &rows));
        assert!(is_reaped(id(3), &rows));
        assert!(is_reaped(id(900), &rows));
    }
}
