//! Compares the chunks of one server with those that it must hold.

use crate::admin::check::named::{Named, Names};
use crate::admin::check::report::Finding;
use crate::exit::Outcome;
use crate::net::{Cluster, ask_at, node_addr, one_for_each};
use lagan_net::Pool;
use lagan_types::cluster::NodeInfo;
use lagan_types::message::{ChunkHealth, ListChunks, ReportReplica, VerifyChunks};
use lagan_types::query::Extents;
use lagan_types::{ChunkId, Content};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Most ids in one answer.
const LIST_LIMIT: u32 = 4096;
/// Most chunks and bytes that one request lets a server verify.
const VERIFY_CHUNKS: usize = 64;
const VERIFY_BYTES: u64 = 32 << 20;
const LIST_DEADLINE: Duration = Duration::from_secs(20);
/// Time for [`VERIFY_BYTES`] from a slow disk that has other work too.
const VERIFY_DEADLINE: Duration = Duration::from_secs(60);
/// Most unnamed chunks that are kept for each server.
const STRAYS_MAX: usize = 100_000;

/// The check of one server.
pub struct Work {
    /// Connections.
    pub pool: Pool,
    /// The server's address.
    pub addr: SocketAddr,
    /// All chunks that the metadata names.
    pub names: Arc<Names>,
    /// Positions in `names` of the chunks that the server must hold.
    pub expected: Vec<u32>,
    /// Whether replicas are only listed, not read.
    pub fast: bool,
    /// Counter of replicas, for the progress.
    pub done: Arc<AtomicU64>,
}

/// The outcome of a server's check.
#[derive(Debug, Default)]
pub struct NodeResult {
    /// Number of replicas looked at.
    pub checked: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Replicas that look wrong.
    pub problems: Vec<Problem>,
    /// Chunks that it holds and nothing names.
    pub strays: Vec<ChunkId>,
    /// Named chunks that it holds without being a member of their set.
    pub surplus: u64,
}

/// A replica that looks wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    position: u32,
    kind: &'static str,
    detail: String,
}

impl Work {
    /// Lists the server's chunks, and verifies them unless `fast`.
    ///
    /// # Errors
    /// The reason why the server cannot be checked, and how many replicas are left.
    pub async fn run(self) -> Result<NodeResult, (String, u64)> {
        let mut result = NodeResult::default();
        let all = self.expected.len() as u64;
        let present = self.list(&mut result).await.map_err(|e| (e, all))?;
        if self.fast {
            result.checked += present.len() as u64;
            self.done.fetch_add(present.len() as u64, Ordering::Relaxed);
            return Ok(result);
        }
        for batch in self.batches(&present) {
            self.verify(&batch, &mut result)
                .await
                .map_err(|e| (e, all - result.checked))?;
        }
        Ok(result)
    }

    /// Merges the server's list with the chunks that it must hold; returns those of them that
    /// it has.
    async fn list(&self, result: &mut NodeResult) -> Result<Vec<u32>, String> {
        let mut merge = Merge::new(&self.names, &self.expected);
        let mut after = None;
        loop {
            let request = ListChunks {
                set: None,
                after,
                limit: LIST_LIMIT,
            };
            let ids = ask_at(&self.pool, self.addr, request, LIST_DEADLINE).await?;
            let Some((last, _)) = ids.last().copied() else {
                break;
            };
            if after.is_some_and(|a| last <= a) {
                return Err("its list does not go on".into());
            }
            for (id, len) in ids {
                merge.held(id, len, result);
            }
            after = Some(last);
        }
        Ok(merge.end(result))
    }

    fn batches(&self, present: &[u32]) -> Vec<Vec<u32>> {
        let mut batches: Vec<Vec<u32>> = Vec::new();
        let mut bytes = 0;
        for &position in present {
            let len = named(&self.names, position).map_or(0, |c| u64::from(c.len));
            let full = |b: &Vec<u32>| b.len() >= VERIFY_CHUNKS || bytes + len > VERIFY_BYTES;
            match batches.last_mut().filter(|b| !full(b)) {
                Some(batch) => batch.push(position),
                None => {
                    batches.push(vec![position]);
                    bytes = 0;
                }
            }
            bytes += len;
        }
        batches
    }

    async fn verify(&self, batch: &[u32], result: &mut NodeResult) -> Result<(), String> {
        let chunks: Vec<Named> = batch
            .iter()
            .filter_map(|&p| named(&self.names, p))
            .collect();
        let ids = chunks.iter().map(|c| c.id).collect();
        let request = VerifyChunks { ids };
        let health = ask_at(&self.pool, self.addr, request, VERIFY_DEADLINE).await?;
        let health = one_for_each(health, chunks.len())?;
        for ((&position, chunk), health) in batch.iter().zip(&chunks).zip(health) {
            result.checked += 1;
            result.bytes += u64::from(chunk.len);
            result.problems.extend(judge(position, chunk, health));
        }
        self.done.fetch_add(batch.len() as u64, Ordering::Relaxed);
        Ok(())
    }
}

fn named(names: &Names, position: u32) -> Option<Named> {
    names.chunks.get(position as usize).copied()
}

/// The problem of a replica in that state, if there is one.
fn judge(position: u32, chunk: &Named, health: ChunkHealth) -> Option<Problem> {
    let (kind, detail) = match health {
        ChunkHealth::Healthy { len, crc } if len == chunk.len && crc == chunk.crc => return None,
        ChunkHealth::Healthy { len, crc } => (
            "damaged",
            format!(
                "{len} bytes with CRC {crc:08x}, the metadata says {} with {:08x}",
                chunk.len, chunk.crc
            ),
        ),
        ChunkHealth::Missing => ("missing", "not there".into()),
        ChunkHealth::Damaged => ("damaged", "unreadable or with a wrong CRC".into()),
    };
    Some(Problem {
        position,
        kind,
        detail,
    })
}

/// The merge of two lists in order of id: chunks that must be there, and chunks that are.
struct Merge<'a> {
    names: &'a Names,
    expected: std::iter::Peekable<std::slice::Iter<'a, u32>>,
    present: Vec<u32>,
}

impl<'a> Merge<'a> {
    fn new(names: &'a Names, expected: &'a [u32]) -> Self {
        Merge {
            names,
            expected: expected.iter().peekable(),
            present: Vec::new(),
        }
    }

    fn held(&mut self, id: ChunkId, len: u32, result: &mut NodeResult) {
        while let Some(&&position) = self.expected.peek() {
            let Some(chunk) = named(self.names, position).filter(|c| c.id <= id) else {
                break;
            };
            self.expected.next();
            if chunk.id < id {
                result.problems.push(missing(position));
                continue;
            }
            self.present.push(position);
            if len != chunk.len {
                result.problems.push(Problem {
                    position,
                    kind: "damaged",
                    detail: format!("{len} bytes, the metadata says {}", chunk.len),
                });
            }
            return;
        }
        if self.names.position(id).is_some() {
            result.surplus += 1;
        } else if result.strays.len() < STRAYS_MAX {
            result.strays.push(id);
        }
    }

    fn end(self, result: &mut NodeResult) -> Vec<u32> {
        result.problems.extend(self.expected.map(|&p| missing(p)));
        self.present
    }
}

fn missing(position: u32) -> Problem {
    Problem {
        position,
        kind: "missing",
        detail: "not there".into(),
    }
}

impl Problem {
    /// The finding for the report.
    pub fn finding(self, node: &NodeInfo, names: &Names) -> Finding {
        let chunk = named(names, self.position);
        Finding {
            ino: chunk.map(|c| c.ino.0),
            offset: chunk.map(|c| c.offset),
            chunk: chunk.map(|c| c.id.to_string()),
            server: Some(node.name.clone()),
            ..Finding::of(self.kind, self.detail)
        }
    }
}

/// Whether a replica still looks wrong: its chunk is still named, the server is still a
/// member, and the replica is not healthy when read once more.
///
/// # Errors
/// Those of the cluster.
pub async fn persists(
    cluster: &Cluster,
    node: &NodeInfo,
    names: &Names,
    problem: &Problem,
) -> Outcome<bool> {
    let Some(chunk) = named(names, problem.position) else {
        return Ok(false);
    };
    let query = Extents {
        ino: chunk.ino,
        offset: chunk.offset,
        limit: 1,
    };
    let still_named = cluster.query(query).await?.is_ok_and(|page| {
        page.extents
            .iter()
            .any(|e| matches!(e.content, Content::Chunk { id, .. } if id == chunk.id))
    });
    let map = cluster.map().await?;
    let member = map
        .set(chunk.id.set())
        .is_some_and(|s| s.nodes.contains(&node.id));
    if !still_named || !member {
        return Ok(false);
    }
    let verify = VerifyChunks {
        ids: vec![chunk.id],
    };
    let answer = ask_at(cluster.pool(), node_addr(node)?, verify, VERIFY_DEADLINE).await;
    let health = answer.ok().and_then(|health| health.first().copied());
    Ok(health.is_none_or(|h| judge(problem.position, &chunk, h).is_some()))
}

/// Reports a replica to its server, which fetches a good one if it can.
pub async fn report(cluster: &Cluster, node: &NodeInfo, names: &Names, problem: &Problem) {
    let (Some(chunk), Ok(addr)) = (named(names, problem.position), node_addr(node)) else {
        return;
    };
    let report = ReportReplica {
        id: chunk.id,
        ino: chunk.ino,
        offset: chunk.offset,
    };
    // If this report is lost, the next check makes it again.
    let _ = ask_at(cluster.pool(), addr, report, LIST_DEADLINE).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use lagan_types::Ino;

    fn names(ids: &[u128]) -> Names {
        let chunks = ids
            .iter()
            .map(|&id| Named {
                id: ChunkId(id),
                len: 10,
                crc: 7,
                ino: Ino(1),
                offset: 0,
            })
            .collect();
        Names {
            chunks,
            objects: Vec::new(),
        }
    }

    #[test]
    fn merge_tells_missing_from_strays_and_surplus() {
        let names = names(&[1, 3, 5, 7, 9]);
        let expected = [0, 1, 3, 4];
        let mut result = NodeResult::default();
        let mut merge = Merge::new(&names, &expected);
        for (id, len) in [(2, 10), (3, 10), (4, 10), (5, 10), (7, 11)] {
            merge.held(ChunkId(id), len, &mut result);
        }
        assert_eq!(merge.end(&mut result), [1, 3]);
        let problems: Vec<_> = result
            .problems
            .iter()
            .map(|p| (p.position, p.kind))
            .collect();
        assert_eq!(problems, [(0, "missing"), (3, "damaged"), (4, "missing")]);
        assert_eq!(result.strays, [ChunkId(2), ChunkId(4)]);
        assert_eq!(result.surplus, 1);
    }

    #[test]
    fn replica_is_judged_by_length_and_crc() {
        let chunk = names(&[1]).chunks[0];
        let kind = |h| judge(0, &chunk, h).map(|p| p.kind);
        assert_eq!(kind(ChunkHealth::Healthy { len: 10, crc: 7 }), None);
        assert_eq!(
            kind(ChunkHealth::Healthy { len: 10, crc: 8 }),
            Some("damaged")
        );
        assert_eq!(kind(ChunkHealth::Damaged), Some("damaged"));
        assert_eq!(kind(ChunkHealth::Missing), Some("missing"));
    }
}
