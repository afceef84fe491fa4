//! Which sets to fill anew, as a pure function of the map.
//!
//! A set needs a node when it has fewer members than `copies` (it was made when too few
//! nodes were up), or when a member has been down for
//! longer than `replace_after`, or is being removed, and a spare can take its
//! place. A set whose chunks no file names is left alone. Filling has three steps:
//! the leader seals the set and names the joining node (`StartJoin`), the node copies the
//! chunks, and then changes the row (`FinishJoin`). If a joining node dies, the leader gives
//! the join up (`AbortJoin`).

use lagan_types::cluster::{ClusterMap, NodeState, ReplicaSet};
use lagan_types::op::SetChange;
use lagan_types::{NodeId, SetId};
use std::collections::{BTreeMap, BTreeSet};

/// Most sets that are filled at the same time: each costs a node's bandwidth.
pub const JOINS_MAX: usize = 4;

/// Milliseconds that each node that is down has been silent, by the leader's monotonic
/// clock.
pub type DownFor = BTreeMap<NodeId, u64>;

/// Facts that the leader knows beside the map.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Circumstances {
    /// Nodes that are silent, and for how long.
    pub down_for: DownFor,
    /// Nodes that are being removed: others take their places now, and they take none.
    pub leaving: BTreeSet<NodeId>,
}

/// Returns the changes to propose now. Deterministic; empty when nothing is to be done.
/// `used` says whether files name chunks of a set; it is asked about few.
pub fn plan(
    map: &ClusterMap,
    now: &Circumstances,
    used: &mut dyn FnMut(SetId) -> bool,
) -> Vec<SetChange> {
    let mut changes = aborts(map, now);
    let running = map.sets.iter().filter(|s| s.joining.is_some()).count();
    let mut free = JOINS_MAX.saturating_sub(running);
    let mut load = joining_load(map);
    for set in &map.sets {
        if free == 0 {
            break;
        }
        if let Some((joining, leaving)) = needs(map, set, now, &load)
            && used(set.id)
        {
            *load.entry(joining).or_default() += 1;
            free -= 1;
            changes.push(SetChange::StartJoin {
                set: set.id,
                epoch: set.epoch,
                joining,
                leaving,
            });
        }
    }
    changes
}

fn aborts(map: &ClusterMap, now: &Circumstances) -> Vec<SetChange> {
    let lost = |n: NodeId| !map.is_up(n) || now.leaving.contains(&n);
    map.sets
        .iter()
        .filter(|s| s.joining.is_some_and(lost))
        .map(|s| SetChange::AbortJoin {
            set: s.id,
            epoch: s.epoch,
        })
        .collect()
}

fn joining_load(map: &ClusterMap) -> BTreeMap<NodeId, usize> {
    let mut load = BTreeMap::new();
    for node in map.sets.iter().filter_map(|s| s.joining) {
        *load.entry(node).or_default() += 1;
    }
    load
}

/// Returns the node that should join the set, and the member that it replaces.
fn needs(
    map: &ClusterMap,
    set: &ReplicaSet,
    now: &Circumstances,
    load: &BTreeMap<NodeId, usize>,
) -> Option<(NodeId, Option<NodeId>)> {
    if set.joining.is_some() || !set.nodes.iter().any(|&n| map.is_up(n)) {
        return None;
    }
    let leaving = if set.nodes.len() < map.config.copies as usize {
        None
    } else {
        Some(lost_member(map, set, now)?)
    };
    Some((spare(map, set, now, load)?, leaving))
}

/// Finds a member that is being removed, or has been down for longer than the configured
/// time.
fn lost_member(map: &ClusterMap, set: &ReplicaSet, now: &Circumstances) -> Option<NodeId> {
    let long = |n: &NodeId| {
        let down_ms = now.down_for.get(n);
        !map.is_up(*n) && down_ms.is_some_and(|&ms| ms >= map.config.replace_after_ms)
    };
    let lost = |n: &NodeId| now.leaving.contains(n) || long(n);
    set.nodes.iter().copied().find(lost)
}

/// Finds the node that is up, has space, is not a member, and fills the fewest sets.
fn spare(
    map: &ClusterMap,
    set: &ReplicaSet,
    now: &Circumstances,
    load: &BTreeMap<NodeId, usize>,
) -> Option<NodeId> {
    map.nodes
        .iter()
        .filter(|n| n.state == NodeState::Up && !set.nodes.contains(&n.id))
        .filter(|n| !now.leaving.contains(&n.id))
        .min_by_key(|n| (load.get(&n.id).copied().unwrap_or(0), n.id))
        .map(|n| n.id)
}

#[cfg(test)]
pub(crate) mod tests;
