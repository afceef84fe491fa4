//! Which nodes should vote, as a pure function (DESIGN §3: 1 of 1-2 storage
//! nodes, 3 of 3-4, 5 of 5 and more).

use lagan_types::NodeId;
use lagan_types::cluster::{NodeInfo, NodeState, voter_count};
use std::collections::BTreeSet;

/// The voters wanted now. Present voters stay while they are registered, so
/// that a node that is only down does not lose its vote; places left are given
/// to nodes that are up, lowest number first.
pub fn wanted_voters(nodes: &[NodeInfo], present: &BTreeSet<NodeId>) -> BTreeSet<NodeId> {
    let count = voter_count(nodes.len());
    let mut voters: BTreeSet<NodeId> = nodes
        .iter()
        .map(|n| n.id)
        .filter(|id| present.contains(id))
        .take(count)
        .collect();
    let spares = nodes
        .iter()
        .filter(|n| n.state != NodeState::Down)
        .map(|n| n.id);
    for id in spares {
        if voters.len() >= count {
            break;
        }
        voters.insert(id);
    }
    voters
}

#[cfg(test)]
mod tests {
    use super::*;
    use lagan_types::StoreId;
    use lagan_types::cluster::NodeRole;

    fn nodes(states: &[NodeState]) -> Vec<NodeInfo> {
        let node = |(i, &state): (usize, &NodeState)| NodeInfo {
            id: NodeId(i as u64 + 1),
            name: String::new(),
            store: StoreId(0),
            boot: 1,
            addr: String::new(),
            peer_addr: String::new(),
            http: String::new(),
            role: NodeRole::Storage,
            state,
            voter: false,
        };
        states.iter().enumerate().map(node).collect()
    }

    fn check(states: &[NodeState], present: &[u64], expected: &[u64]) {
        let set = |ids: &[u64]| ids.iter().map(|&n| NodeId(n)).collect::<BTreeSet<_>>();
        assert_eq!(wanted_voters(&nodes(states), &set(present)), set(expected));
    }

    use NodeState::{Down, Up};

    #[test]
    fn number_of_voters_follows_the_number_of_nodes() {
        check(&[Up], &[1], &[1]);
        check(&[Up, Up], &[1], &[1]);
        check(&[Up, Up, Up], &[1], &[1, 2, 3]);
        check(&[Up; 4], &[1, 2, 3], &[1, 2, 3]);
        check(&[Up; 7], &[1, 2, 3], &[1, 2, 3, 4, 5]);
    }

    #[test]
    fn voter_that_is_down_keeps_its_vote() {
        check(&[Up, Down, Up, Up], &[1, 2, 3], &[1, 2, 3]);
    }

    #[test]
    fn node_that_is_down_gets_no_vote() {
        check(&[Up, Down, Up], &[1], &[1, 3]);
    }
}
