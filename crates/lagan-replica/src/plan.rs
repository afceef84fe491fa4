//! Which sets to refill, as a pure function of the map.
//!
//! A set needs a node when it has fewer members than `copies` (a short set of
//! a time when too few nodes were up), or when a member has been down for
//! longer than `replace_after` and a spare can take its place. Filling is:
//! seal the set with `joining` named (`StartJoin`), copy its chunks, change the
//! row (`FinishJoin`). A joining node that dies is let go (`AbortJoin`).

use lagan_types::NodeId;
use lagan_types::cluster::{ClusterMap, NodeState, ReplicaSet};
use lagan_types::op::SetChange;
use std::collections::BTreeMap;

/// Sets that are filled at the same time: each costs a node's bandwidth.
pub const JOINS_MAX: usize = 4;

/// How long each node that is down has been silent, milliseconds, as the
/// leader counts on its monotonic clock.
pub type DownFor = BTreeMap<NodeId, u64>;

/// The changes to propose now. Deterministic; empty when nothing is to be done.
pub fn plan(map: &ClusterMap, down_for: &DownFor) -> Vec<SetChange> {
    let mut changes = aborts(map);
    let running = map.sets.iter().filter(|s| s.joining.is_some()).count();
    let mut free = JOINS_MAX.saturating_sub(running);
    let mut load = joining_load(map);
    for set in &map.sets {
        if free == 0 {
            break;
        }
        if let Some((joining, leaving)) = needs(map, set, down_for, &load) {
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

fn is_up(map: &ClusterMap, node: NodeId) -> bool {
    map.node(node).is_some_and(|n| n.state != NodeState::Down)
}

fn aborts(map: &ClusterMap) -> Vec<SetChange> {
    map.sets
        .iter()
        .filter(|s| s.joining.is_some_and(|n| !is_up(map, n)))
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

/// Who should join the set, and whom it replaces.
fn needs(
    map: &ClusterMap,
    set: &ReplicaSet,
    down_for: &DownFor,
    load: &BTreeMap<NodeId, usize>,
) -> Option<(NodeId, Option<NodeId>)> {
    if set.joining.is_some() || !set.nodes.iter().any(|&n| is_up(map, n)) {
        return None;
    }
    let leaving = if set.nodes.len() < map.config.copies as usize {
        None
    } else {
        Some(lost_member(map, set, down_for)?)
    };
    Some((spare(map, set, load)?, leaving))
}

/// A member that has been down for longer than the configured time.
fn lost_member(map: &ClusterMap, set: &ReplicaSet, down_for: &DownFor) -> Option<NodeId> {
    set.nodes.iter().copied().find(|n| {
        !is_up(map, *n)
            && down_for
                .get(n)
                .is_some_and(|&ms| ms >= map.config.replace_after_ms)
    })
}

/// The node that is up, has space, is not a member, and fills the fewest sets.
fn spare(map: &ClusterMap, set: &ReplicaSet, load: &BTreeMap<NodeId, usize>) -> Option<NodeId> {
    map.nodes
        .iter()
        .filter(|n| n.state == NodeState::Up && !set.nodes.contains(&n.id))
        .min_by_key(|n| (load.get(&n.id).copied().unwrap_or(0), n.id))
        .map(|n| n.id)
}

#[cfg(test)]
mod tests;
