//! The cluster map and the configuration that all nodes share.

use crate::codec::{Decode, Encode};
use crate::id::{ClusterId, Epoch, Incarnation, NodeId, SetId, StoreId};
use crate::limits::SET_MEMBERS_MAX;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// What a node is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeRole {
    /// Stores chunks and, if chosen, votes.
    Storage,
}

/// Whether the leader hears from a node. Written by Raft commands only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeState {
    /// It answers.
    Up,
    /// It was silent for too long; its sets are sealed.
    Down,
    /// It answers and reads, but takes no new chunks for want of space.
    Full,
}

/// One row of the node table.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct NodeInfo {
    /// Its number.
    pub id: NodeId,
    /// The name that people use.
    pub name: String,
    /// The store registered under that number.
    pub store: StoreId,
    /// The boot number: it rises with each start of the store (see [`next_boot`]).
    pub boot: u64,
    /// Where clients connect: `ip:port`.
    pub addr: String,
    /// Where the other servers connect: `ip:port`.
    pub peer_addr: String,
    /// Where /health and /metrics are: `ip:port`.
    pub http: String,
    /// What it is for.
    pub role: NodeRole,
    /// Whether it is up.
    pub state: NodeState,
    /// Whether it votes in Raft.
    pub voter: bool,
}

impl NodeInfo {
    /// Whether the leader hears from the node; one that is full is up, too.
    pub fn is_up(&self) -> bool {
        self.state != NodeState::Down
    }
}

/// How many of `nodes` storage nodes vote (docs/DESIGN.md "Voters").
pub fn voter_count(nodes: usize) -> usize {
    match nodes {
        0..=2 => 1,
        3..=4 => 3,
        _ => 5,
    }
}

/// Bits of a boot number below its counter.
const BOOT_DRAW_BITS: u32 = 20;

/// The number of a store's next start: a counter that rises with each, and below
/// it bits drawn for this start, so that two copies of one store that were
/// started equally often differ.
pub fn next_boot(last: u64, draw: u32) -> u64 {
    let counter = (last >> BOOT_DRAW_BITS) + 1;
    counter << BOOT_DRAW_BITS | (draw as u64 & ((1 << BOOT_DRAW_BITS) - 1))
}

/// Whether a store that says `boot` has all the past of the one that was
/// registered as `registered`: the same start, or a later one.
pub fn boot_follows(boot: u64, registered: u64) -> bool {
    boot == registered || boot >> BOOT_DRAW_BITS > registered >> BOOT_DRAW_BITS
}

/// One row of the set table.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct ReplicaSet {
    /// Its number, part of the ids of its chunks.
    pub id: SetId,
    /// The members, in the order of placement.
    pub nodes: Vec<NodeId>,
    /// Rises with each change of the row.
    pub epoch: Epoch,
    /// Takes no new chunks.
    pub sealed: bool,
    /// A node that is being filled with the set's chunks: it will replace
    /// `leaving`, or be added where that is `None`.
    pub joining: Option<NodeId>,
    /// The member that `joining` replaces.
    pub leaving: Option<NodeId>,
}

/// Whether the bytes of chunks of a set may come with a commit, as far as votes go: every member
/// must get the log, and no majority without a member may forget it.
pub fn log_keeps(members: &[NodeId], voters: &BTreeSet<NodeId>) -> bool {
    let majority = voters.len() / 2 + 1;
    members.iter().all(|m| voters.contains(m)) && members.len() + majority > voters.len()
}

/// Nodes and sets, at one version.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode, Serialize, Deserialize)]
pub struct ClusterMap {
    /// Rises with each change of nodes, sets or configuration.
    pub version: u64,
    /// In order of id.
    pub nodes: Vec<NodeInfo>,
    /// In order of id.
    pub sets: Vec<ReplicaSet>,
    /// The shared configuration.
    pub config: Config,
}

impl ClusterMap {
    /// The node's row.
    pub fn node(&self, id: NodeId) -> Option<&NodeInfo> {
        self.nodes.iter().find(|n| n.id == id)
    }

    /// Whether the node is in the map and up.
    pub fn is_up(&self, id: NodeId) -> bool {
        self.node(id).is_some_and(NodeInfo::is_up)
    }

    /// The set's row.
    pub fn set(&self, id: SetId) -> Option<&ReplicaSet> {
        self.sets
            .binary_search_by_key(&id, |s| s.id)
            .ok()
            .map(|i| &self.sets[i])
    }

    /// Whether chunks may be written to the set: not sealed, every member up and not full.
    pub fn writable(&self, set: &ReplicaSet) -> bool {
        !set.sealed
            && set
                .nodes
                .iter()
                .all(|&n| self.node(n).is_some_and(|n| n.state == NodeState::Up))
    }
}

/// What all nodes must agree on: set at `lagan init`, changed by `lagan set`.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct Config {
    /// The cluster.
    pub cluster: ClusterId,
    /// This life of it.
    pub incarnation: Incarnation,
    /// The first volume's name, as in `host:/name`.
    pub volume: String,
    /// Replicas of a chunk.
    pub copies: u8,
    /// Replicas of a chunk, at least, while nodes are down.
    pub min_copies: u8,
    /// From the last commit of content to the upload, milliseconds. A change counts at
    /// once, for files that wait already too.
    pub archive_after_ms: u64,
    /// How long a node may be down before its sets are given to a spare, milliseconds.
    pub replace_after_ms: u64,
    /// Where the archive is; `None`: no archiving.
    pub archive: Option<ArchiveConfig>,
    /// Release starts when a node's disk is fuller than this, percent.
    pub high_water_percent: u8,
    /// And stops when it is emptier than this, percent.
    pub low_water_percent: u8,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            cluster: ClusterId(0),
            incarnation: Incarnation(0),
            volume: "vol".into(),
            copies: 2,
            min_copies: 1,
            archive_after_ms: 600_000,
            replace_after_ms: 600_000,
            archive: None,
            high_water_percent: 85,
            low_water_percent: 75,
        }
    }
}

impl Config {
    /// Whether a cluster can work by it: what `lagan init` and `lagan set` refuse
    /// otherwise, and the state machine, whoever asks.
    ///
    /// # Errors
    /// In words that begin with the key, as `lagan set` names it.
    pub fn check(&self) -> Result<(), String> {
        let members = 1..=SET_MEMBERS_MAX;
        if !members.contains(&usize::from(self.copies)) {
            return Err(format!("copies: 1 to {SET_MEMBERS_MAX} are possible"));
        }
        if !(1..=self.copies).contains(&self.min_copies) {
            return Err(format!(
                "min_copies: 1 to {} are possible with {} copies",
                self.copies, self.copies
            ));
        }
        if self.volume.is_empty() {
            return Err("volume: needs a name".into());
        }
        // At 100 % a disk is full before anything is released.
        if self.high_water_percent >= 100 {
            return Err("high_water: must be below 100%".into());
        }
        // At the same mark release would begin and end with every byte.
        if self.low_water_percent >= self.high_water_percent {
            return Err(format!(
                "low_water: must be below high_water ({}%)",
                self.high_water_percent
            ));
        }
        match &self.archive {
            Some(archive) if archive.bucket.is_empty() => {
                Err("bucket: missing for an archive".into())
            }
            _ => Ok(()),
        }
    }
}

/// The part of the S3 configuration that is no secret.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct ArchiveConfig {
    /// `http://host:port`; `None`: AWS's own for the region.
    pub endpoint: Option<String>,
    /// The region.
    pub region: String,
    /// The bucket.
    pub bucket: String,
    /// The first part of each key; may be empty; no slash at either end.
    pub prefix: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configuration_that_cannot_work_is_named_by_its_key() {
        assert_eq!(Config::default().check(), Ok(()));
        let refused = |change: fn(&mut Config)| {
            let mut config = Config::default();
            change(&mut config);
            let why = config.check().unwrap_err();
            why.split(':').next().unwrap_or_default().to_owned()
        };
        assert_eq!(refused(|c| c.copies = 0), "copies");
        assert_eq!(refused(|c| c.copies = 9), "copies");
        assert_eq!(refused(|c| c.min_copies = 0), "min_copies");
        assert_eq!(refused(|c| c.min_copies = 3), "min_copies");
        assert_eq!(refused(|c| c.volume.clear()), "volume");
        assert_eq!(refused(|c| c.high_water_percent = 100), "high_water");
        assert_eq!(refused(|c| c.low_water_percent = 85), "low_water");
        let bucket = refused(|c| {
            c.archive = Some(ArchiveConfig {
                endpoint: None,
                region: "r".into(),
                bucket: String::new(),
                prefix: String::new(),
            })
        });
        assert_eq!(bucket, "bucket");
    }

    #[test]
    fn older_copy_of_a_store_does_not_follow() {
        let first = next_boot(0, 77);
        let second = next_boot(first, 5);
        assert!(boot_follows(first, first));
        assert!(boot_follows(second, first));
        assert!(!boot_follows(first, second));
        // A copy made before the second start, started once more.
        for draw in [4, 6, u32::MAX] {
            assert!(!boot_follows(next_boot(first, draw), second));
        }
    }

    #[test]
    fn bytes_are_in_the_log_only_where_its_voters_keep_them() {
        let keeps = |members: &[u64], voters: &[u64]| {
            let members: Vec<NodeId> = members.iter().copied().map(NodeId).collect();
            log_keeps(&members, &voters.iter().copied().map(NodeId).collect())
        };
        assert!(keeps(&[1], &[1]) && keeps(&[1, 2, 3], &[1, 2, 3]));
        assert!(keeps(&[2, 3], &[1, 2, 3]), "each majority has one of them");
        assert!(!keeps(&[3], &[1, 2, 3]), "a majority may forget it alone");
        assert!(!keeps(&[1, 2, 4], &[1, 2, 3]), "one does not get the log");
        assert!(!keeps(&[4, 5], &[1, 2, 3, 4, 5]), "three may forget");
        assert!(keeps(&[3, 4, 5], &[1, 2, 3, 4, 5]));
    }
}
