//! The chunks and objects that the metadata names.

use crate::admin::check::report::{Finding, Report};
use crate::admin::output::Progress;
use crate::exit::{Doing, Failure, Outcome};
use crate::net::Cluster;
use lagan_types::cluster::ClusterMap;
use lagan_types::query::{AllExtents, AllExtentsPage};
use lagan_types::{ChunkId, Content, Extent, Ino, NodeId, SetId};
use std::collections::BTreeMap;

/// Most extents in one answer.
const PAGE: u32 = 4096;

/// A chunk, and one place that names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Named {
    /// Its id.
    pub id: ChunkId,
    /// Bytes.
    pub len: u32,
    /// CRC-32 of all of it.
    pub crc: u32,
    /// A file that names it.
    pub ino: Ino,
    /// Offset in that file.
    pub offset: u64,
}

/// All chunks and objects that the metadata names.
#[derive(Debug, Default)]
pub struct Names {
    /// The chunks in order of id, each once.
    pub chunks: Vec<Named>,
    /// Archived versions with bytes that are in S3 only, each once, and the first such byte of
    /// the file.
    pub objects: Vec<(Ino, u64, u64)>,
}

/// Reads every extent of the volume.
///
/// # Errors
/// Those of the cluster.
pub async fn read(
    cluster: &Cluster,
    report: &mut Report,
    progress: &mut Progress,
) -> Outcome<Names> {
    let mut names = Names::default();
    let mut last_ino = Ino(0);
    let mut from = Some((Ino(0), 0));
    while let Some(at) = from {
        let query = AllExtents {
            from: at,
            limit: PAGE,
        };
        let answer = cluster.query(query).await?;
        let AllExtentsPage { extents, next } = answer.doing(|| "read the extents".into())?;
        for (ino, extent) in &extents {
            report.extents += 1;
            if *ino != last_ino {
                report.files += 1;
                last_ino = *ino;
            }
            names.add(*ino, extent, report);
        }
        if next.is_some_and(|next| next <= at) {
            return Err(Failure::error(
                "read the extents: the answer does not go on",
            ));
        }
        from = next;
        progress.show(|| format!("{} extents read", report.extents));
    }
    names.sort();
    report.chunks = names.chunks.len() as u64;
    Ok(names)
}

impl Names {
    fn add(&mut self, ino: Ino, extent: &Extent, report: &mut Report) {
        match extent.content {
            Content::Chunk {
                id,
                chunk_len,
                chunk_crc,
                ..
            } => self.chunks.push(Named {
                id,
                len: chunk_len,
                crc: chunk_crc,
                ino,
                offset: extent.offset,
            }),
            Content::Object { version, .. } => {
                report.object_extents += 1;
                if self.objects.last().map(|o| (o.0, o.1)) != Some((ino, version)) {
                    self.objects.push((ino, version, extent.offset));
                }
            }
            Content::Lost => report.find(Finding {
                ino: Some(ino.0),
                offset: Some(extent.offset),
                ..Finding::of("lost", format!("{} bytes are gone", extent.len))
            }),
        }
    }

    fn sort(&mut self) {
        self.chunks.sort_unstable();
        self.chunks.dedup_by_key(|c| c.id);
    }

    /// Position of a chunk in `chunks`.
    pub fn position(&self, id: ChunkId) -> Option<usize> {
        self.chunks.binary_search_by_key(&id, |c| c.id).ok()
    }

    /// Positions of the chunks that a node must hold, in order.
    pub fn of_node(&self, node: NodeId, map: &ClusterMap) -> Vec<u32> {
        let member: BTreeMap<SetId, bool> = map
            .sets
            .iter()
            .map(|s| (s.id, s.nodes.contains(&node)))
            .collect();
        self.chunks
            .iter()
            .enumerate()
            .filter(|(_, c)| member.get(&c.id.set()).copied().unwrap_or(false))
            .map(|(i, _)| i as u32)
            .collect()
    }

    /// Number of chunks of each set.
    pub fn per_set(&self) -> BTreeMap<SetId, u64> {
        let mut sets = BTreeMap::new();
        for chunk in &self.chunks {
            *sets.entry(chunk.id.set()).or_default() += 1;
        }
        sets
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lagan_types::cluster::ReplicaSet;
    use lagan_types::{BlockId, Epoch, VolumeId};

    fn chunk(set: u32, index: u16) -> Extent {
        Extent {
            offset: 100 * u64::from(index),
            len: 10,
            content: Content::Chunk {
                id: ChunkId::new(VolumeId::ONLY, SetId(set), BlockId(5), index),
                skip: 0,
                chunk_len: 10,
                chunk_crc: 1,
            },
        }
    }

    fn object(version: u64) -> Extent {
        Extent {
            offset: 0,
            len: 1,
            content: Content::Object { version, offset: 0 },
        }
    }

    #[test]
    fn shared_chunks_and_objects_count_once_and_lost_ones_are_found() {
        let mut names = Names::default();
        let mut report = Report::default();
        for extent in [chunk(2, 1), chunk(1, 0), chunk(2, 1), object(3), object(3)] {
            names.add(Ino(9), &extent, &mut report);
        }
        let lost = Extent {
            content: Content::Lost,
            ..object(0)
        };
        names.add(Ino(9), &lost, &mut report);
        names.sort();
        assert_eq!(names.chunks.len(), 2);
        assert_eq!(names.objects, [(Ino(9), 3, 0)]);
        assert_eq!(report.finding_count, 1);
        assert_eq!(
            names.per_set(),
            BTreeMap::from([(SetId(1), 1), (SetId(2), 1)])
        );
    }

    #[test]
    fn node_must_hold_the_chunks_of_its_sets() {
        let mut names = Names::default();
        let mut report = Report::default();
        for extent in [chunk(1, 0), chunk(2, 1), chunk(7, 2)] {
            names.add(Ino(9), &extent, &mut report);
        }
        names.sort();
        let set = |id, nodes: &[u64]| ReplicaSet {
            id: SetId(id),
            nodes: nodes.iter().map(|&n| NodeId(n)).collect(),
            epoch: Epoch(1),
            sealed: false,
            joining: None,
            leaving: None,
        };
        let map = ClusterMap {
            sets: vec![set(1, &[1, 2]), set(2, &[2, 3])],
            ..ClusterMap::default()
        };
        assert_eq!(names.of_node(NodeId(2), &map), [0, 1]);
        assert_eq!(names.of_node(NodeId(3), &map), [1]);
        report.count_degraded(&names.per_set(), &map);
        assert_eq!(report.degraded_chunks, 3, "no node of the map is up");
    }
}
