//! The storage nodes that should vote (docs/DESIGN.md "Voters": 1 of 1-2, 3 of 3-4, 5 of 5
//! and more) and where they are, as pure functions.

use lagan_types::NodeId;
use lagan_types::cluster::{NodeInfo, voter_count};
use std::collections::{BTreeMap, BTreeSet};

/// A change of Raft's members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// These members are at another address now.
    Addrs(BTreeMap<NodeId, String>),
    /// These members shall vote.
    Voters(BTreeSet<NodeId>),
    /// These members are no nodes of the cluster any more.
    Forget(BTreeSet<NodeId>),
}

/// Returns the next change of Raft's `members` (with their addresses), of which `voters`
/// vote. Addresses come first, so that those who are to agree can be reached. Nodes in
/// `leaving` get no vote, but the log until their row is gone: chunks that came with commits
/// lie there until they are carried out.
pub fn next_change(
    all: &[NodeInfo],
    leaving: &BTreeSet<NodeId>,
    members: &BTreeMap<NodeId, String>,
    voters: &BTreeSet<NodeId>,
) -> Option<Change> {
    let stays = |n: &&NodeInfo| !leaving.contains(&n.id);
    let nodes: Vec<NodeInfo> = all.iter().filter(stays).cloned().collect();
    let moved: BTreeMap<NodeId, String> = all
        .iter()
        .filter(|n| members.get(&n.id).is_some_and(|addr| *addr != n.peer_addr))
        .map(|n| (n.id, n.peer_addr.clone()))
        .collect();
    if !moved.is_empty() {
        return Some(Change::Addrs(moved));
    }
    let wanted = wanted_voters(&nodes, voters);
    if wanted != *voters {
        return Some(Change::Voters(wanted));
    }
    let stays = |id: &NodeId| voters.contains(id) || all.iter().any(|n| n.id == *id);
    let gone: BTreeSet<NodeId> = members.keys().copied().filter(|id| !stays(id)).collect();
    (!gone.is_empty()).then_some(Change::Forget(gone))
}

/// Returns the voters wanted now. Present voters stay while they are registered, so
/// that a node that is only down does not lose its vote; free places go
/// to nodes that are up, lowest number first. Where there are too many voters, those
/// that are down go first. Nothing changes while most of the new voters would be down:
/// they could not agree to anything.
pub fn wanted_voters(nodes: &[NodeInfo], present: &BTreeSet<NodeId>) -> BTreeSet<NodeId> {
    let count = voter_count(nodes.len());
    let up = |n: &&NodeInfo| n.is_up();
    let stays = |n: &&NodeInfo| present.contains(&n.id);
    let first = nodes.iter().filter(stays).filter(up);
    let second = nodes.iter().filter(stays).filter(|n| !up(n));
    let mut voters: BTreeSet<NodeId> = first.chain(second).take(count).map(|n| n.id).collect();
    for spare in nodes.iter().filter(up) {
        if voters.len() >= count {
            break;
        }
        voters.insert(spare.id);
    }
    let live = nodes.iter().filter(up).filter(|n| voters.contains(&n.id));
    if 2 * live.count() > voters.len() {
        voters
    } else {
        present.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use NodeState::{Down, Up};
    use lagan_types::StoreId;
    use lagan_types::cluster::{NodeRole, NodeState};

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

    #[test]
    fn too_many_voters_lose_those_that_are_down_first() {
        check(&[Down, Up], &[1, 2, 3], &[2]);
        check(&[Down, Up, Down, Up], &[1, 2, 3, 4, 5], &[1, 2, 4]);
    }

    #[test]
    fn seat_of_a_removed_voter_goes_to_a_node_that_is_up() {
        let all = nodes(&[Up, Down, Up, Down, Up]);
        let left: Vec<NodeInfo> = all.into_iter().filter(|n| n.id != NodeId(2)).collect();
        let present = [1, 2, 3].map(NodeId).into();
        assert_eq!(wanted_voters(&left, &present), [1, 3, 5].map(NodeId).into());
    }

    #[test]
    fn voters_that_could_not_agree_are_not_made() {
        check(&[Down, Down], &[1, 2, 3], &[1, 2, 3]);
        check(&[Down, Down, Up], &[1, 2, 3], &[1, 2, 3]);
    }

    #[test]
    fn address_comes_before_votes_and_votes_before_forgetting() {
        let (mut all, none) = (nodes(&[Up, Up, Up]), BTreeSet::new());
        let mut members: BTreeMap<NodeId, String> =
            [1, 2, 3, 9].map(|n| (NodeId(n), String::new())).into();
        let voters: BTreeSet<NodeId> = [1, 2, 9].map(NodeId).into();
        all[2].peer_addr = "10.0.0.3:2".into();
        let change = next_change(&all, &none, &members, &voters);
        let moved = [(NodeId(3), "10.0.0.3:2".to_owned())];
        assert_eq!(change, Some(Change::Addrs(moved.clone().into())));
        members.extend(moved);
        let wanted: BTreeSet<NodeId> = [1, 2, 3].map(NodeId).into();
        let change = next_change(&all, &none, &members, &voters);
        assert_eq!(change, Some(Change::Voters(wanted.clone())));
        let change = next_change(&all, &none, &members, &wanted);
        assert_eq!(change, Some(Change::Forget([NodeId(9)].into())));
        members.remove(&NodeId(9));
        assert_eq!(next_change(&all, &none, &members, &wanted), None);
    }

    #[test]
    fn first_voter_of_a_cluster_is_not_forgotten_before_it_is_registered() {
        let members: BTreeMap<NodeId, String> = [(NodeId(1), String::new())].into();
        assert_eq!(
            next_change(&[], &BTreeSet::new(), &members, &[NodeId(1)].into()),
            None
        );
    }

    #[test]
    fn leaving_node_loses_its_vote_at_once_and_the_log_when_its_row_is_gone() {
        let mut all = nodes(&[Up, Up, Up, Up]);
        let members: BTreeMap<NodeId, String> =
            [1, 2, 3, 4].map(|n| (NodeId(n), String::new())).into();
        let leaving = [NodeId(3)].into();
        let voters: BTreeSet<NodeId> = [1, 2, 3].map(NodeId).into();
        let wanted: BTreeSet<NodeId> = [1, 2, 4].map(NodeId).into();
        let change = next_change(&all, &leaving, &members, &voters);
        assert_eq!(change, Some(Change::Voters(wanted.clone())));
        assert_eq!(next_change(&all, &leaving, &members, &wanted), None);
        all.remove(2);
        let change = next_change(&all, &leaving, &members, &wanted);
        assert_eq!(change, Some(Change::Forget([NodeId(3)].into())));
    }
}
