//! Whether a node can be taken out of the cluster now, as a pure function of
//! the map (`lagan remove`).
//!
//! What must hold: without `force` nothing that a file names has fewer replicas
//! afterwards than before, or than `copies`. So the node must be down (else it
//! would go on writing), and each used set that has it gives its place to a spare
//! first, unless enough others are in it. With `force` the same is done where it can be, and
//! the rest goes with the node.

use lagan_types::cluster::{ClusterMap, NodeState, ReplicaSet};
use lagan_types::{NodeId, SetId};

/// The judgement of a removal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The node stays, for that reason.
    Refused(String),
    /// That many sets must get another node first.
    Wait(u64),
    /// The node can go.
    Ready,
}

/// Judges the removal of `node`, which is in the map. `used` says whether files name
/// chunks of a set.
pub fn judge(map: &ClusterMap, node: NodeId, force: bool, used: impl Fn(SetId) -> bool) -> Verdict {
    if map.nodes.len() < 2 {
        return Verdict::Refused("it is the only server".into());
    }
    if !map.nodes.iter().any(|n| n.id != node && n.is_up()) {
        return Verdict::Refused("no other server is up".into());
    }
    if !force && map.is_up(node) {
        return Verdict::Refused(
            "it is up: stop it first, or say --force to have it thrown out".into(),
        );
    }
    let concerned = |s: &&ReplicaSet| {
        s.nodes.contains(&node) || s.joining == Some(node) || s.leaving == Some(node)
    };
    let sets = map.sets.iter().filter(concerned).filter(|s| used(s.id));
    let (mut waiting, mut alone, mut no_spare) = (0, 0, 0);
    for set in sets {
        match need(map, set, node) {
            Need::Nothing => {}
            Need::Work => waiting += 1,
            Need::Source => alone += 1,
            Need::Spare => no_spare += 1,
        }
    }
    if !force && alone > 0 {
        return Verdict::Refused(format!(
            "{alone} replica sets have no other server that is up: start it, or the other servers \
             that are down; --force gives up what only it has"
        ));
    }
    if !force && no_spare > 0 {
        return Verdict::Refused(format!(
            "no other server can take its place in {no_spare} replica sets: add a server or make \
             space first, or lower `copies`; --force leaves these sets with one copy less"
        ));
    }
    if waiting > 0 {
        return Verdict::Wait(waiting);
    }
    Verdict::Ready
}

/// The thing that a set needs before the node can leave it.
enum Need {
    Nothing,
    /// It gets a spare, or is just being filled.
    Work,
    /// A server that has its chunks.
    Source,
    /// A server to take the node's place.
    Spare,
}

fn need(map: &ClusterMap, set: &ReplicaSet, node: NodeId) -> Need {
    if set.joining.is_some() {
        return Need::Work;
    }
    let live = set.nodes.iter().filter(|n| map.is_up(**n));
    let others = live.clone().filter(|n| **n != node).count();
    if others >= map.config.copies as usize {
        return Need::Nothing;
    }
    if live.count() == 0 {
        return Need::Source;
    }
    let spare = |n: &&lagan_types::cluster::NodeInfo| {
        n.state == NodeState::Up && n.id != node && !set.nodes.contains(&n.id)
    };
    match map.nodes.iter().find(spare) {
        Some(_) => Need::Work,
        None => Need::Spare,
    }
}

#[cfg(test)]
mod tests;
