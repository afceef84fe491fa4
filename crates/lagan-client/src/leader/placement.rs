//! The choice among sets and members, for chunks that are written or read. Pure.

use lagan_types::cluster::{ClusterMap, NodeState, ReplicaSet};
use lagan_types::{NodeId, SetId};
use std::collections::HashSet;

/// A cluster map with what follows from it.
#[derive(Debug, Default)]
pub struct Placement {
    /// The map.
    pub map: ClusterMap,
    near: HashSet<NodeId>,
    /// Indexes of sets that take new chunks; those with a near member first.
    writable: Vec<usize>,
    near_writable: usize,
}

/// Why no set could be chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoSet {
    /// Servers are full.
    Full,
    /// Servers are down, or not yet seen to be up: wait.
    None,
}

impl Placement {
    /// Derives what is needed from a map; `near` tells whether a node is on this machine.
    pub fn new(map: ClusterMap, near: impl Fn(&str) -> bool) -> Self {
        let near: HashSet<NodeId> = map
            .nodes
            .iter()
            .filter(|n| near(&n.addr))
            .map(|n| n.id)
            .collect();
        let is_near = |i: &usize| map.sets[*i].nodes.iter().any(|n| near.contains(n));
        let all = (0..map.sets.len())
            .filter(|&i| map.writable(&map.sets[i]) && !map.sets[i].nodes.is_empty());
        let (mut writable, far): (Vec<usize>, Vec<usize>) = all.partition(is_near);
        let near_writable = writable.len();
        writable.extend(far);
        Placement {
            map,
            near,
            writable,
            near_writable,
        }
    }

    /// Chooses a set for a new chunk: near before far, without suspects before
    /// with; among equals by `draw`. `avoid` are sets that refused just now.
    ///
    /// # Errors
    /// [`NoSet`] if there is none.
    pub fn choose(
        &self,
        suspect: impl Fn(NodeId) -> bool,
        avoid: &[SetId],
        draw: usize,
    ) -> Result<&ReplicaSet, NoSet> {
        let healthy = |s: &ReplicaSet| !s.nodes.iter().any(|&n| suspect(n));
        let (near, far) = self.writable.split_at(self.near_writable);
        for only_healthy in [true, false] {
            for tier in [near, far] {
                let found = (0..tier.len())
                    .map(|i| &self.map.sets[tier[(i + draw) % tier.len()]])
                    .find(|s| !avoid.contains(&s.id) && (!only_healthy || healthy(s)));
                if let Some(set) = found {
                    return Ok(set);
                }
            }
        }
        Err(self.why_none(avoid))
    }

    /// Whether no set takes chunks for want of space.
    pub fn full(&self) -> bool {
        self.writable.is_empty() && self.why_none(&[]) == NoSet::Full
    }

    fn why_none(&self, avoid: &[SetId]) -> NoSet {
        let alive = |n: &NodeId| {
            self.map
                .node(*n)
                .is_some_and(|n| n.state != NodeState::Down)
        };
        let full = self
            .map
            .sets
            .iter()
            .any(|s| !s.sealed && s.nodes.iter().all(alive));
        if full || !avoid.is_empty() {
            NoSet::Full
        } else {
            NoSet::None
        }
    }

    /// The members of a set in the order in which to ask them: near, others,
    /// suspects; among equals by `draw`. Empty if the set is unknown.
    pub fn order(&self, set: SetId, suspect: impl Fn(NodeId) -> bool, draw: usize) -> Vec<NodeId> {
        let Some(set) = self.map.set(set) else {
            return Vec::new();
        };
        let len = set.nodes.len();
        let mut nodes: Vec<NodeId> = (0..len).map(|i| set.nodes[(i + draw) % len]).collect();
        nodes.sort_by_key(|n| {
            let down = self.map.node(*n).is_none_or(|n| n.state == NodeState::Down);
            (suspect(*n) || down, !self.near.contains(n))
        });
        nodes
    }

    /// Storage nodes in the order in which to ask them for what any can do.
    pub fn any_order(&self, suspect: impl Fn(NodeId) -> bool, draw: usize) -> Vec<NodeId> {
        let len = self.map.nodes.len();
        let mut nodes: Vec<NodeId> = (0..len)
            .map(|i| self.map.nodes[(i + draw) % len].id)
            .collect();
        nodes.sort_by_key(|n| {
            let down = self.map.node(*n).is_none_or(|n| n.state == NodeState::Down);
            (suspect(*n) || down, !self.near.contains(n))
        });
        nodes
    }

    /// Whether every member of the set is known to be down.
    pub fn all_down(&self, set: SetId) -> bool {
        let down = |n: &NodeId| {
            let node = self.map.node(*n);
            node.is_none_or(|n| n.state == NodeState::Down)
        };
        let set = self.map.set(set);
        set.is_some_and(|s| !s.nodes.is_empty() && s.nodes.iter().all(down))
    }

    /// The address at which clients connect to a node.
    pub fn addr(&self, node: NodeId) -> Option<&str> {
        self.map.node(node).map(|n| n.addr.as_str())
    }

    /// Members of a set that are up, and the copies wanted.
    pub fn copies(&self, set: SetId) -> (usize, usize) {
        let up = self.map.set(set).map_or(0, |s| {
            s.nodes
                .iter()
                .filter(|n| {
                    self.map
                        .node(**n)
                        .is_some_and(|n| n.state != NodeState::Down)
                })
                .count()
        });
        (up, self.map.config.copies as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lagan_types::cluster::{Config, NodeInfo, NodeRole};
    use lagan_types::{Epoch, StoreId};

    fn map(states: &[NodeState], sets: &[&[u64]]) -> ClusterMap {
        ClusterMap {
            version: 1,
            nodes: (1..)
                .zip(states)
                .map(|(id, &state)| NodeInfo {
                    id: NodeId(id),
                    name: format!("n{id}"),
                    store: StoreId(id as u128),
                    boot: 1,
                    addr: format!("10.0.0.{id}:1"),
                    peer_addr: String::new(),
                    http: String::new(),
                    role: NodeRole::Storage,
                    state,
                    voter: true,
                })
                .collect(),
            sets: (1..)
                .zip(sets)
                .map(|(id, nodes)| ReplicaSet {
                    id: SetId(id),
                    nodes: nodes.iter().map(|&n| NodeId(n)).collect(),
                    epoch: Epoch(1),
                    sealed: false,
                    joining: None,
                    leaving: None,
                })
                .collect(),
            config: Config::default(),
        }
    }

    const UP: NodeState = NodeState::Up;

    #[test]
    fn a_set_with_a_near_member_is_preferred() {
        let p = Placement::new(map(&[UP, UP, UP], &[&[1, 2], &[2, 3]]), |a| {
            a.starts_with("10.0.0.3")
        });
        for draw in 0..5 {
            assert_eq!(p.choose(|_| false, &[], draw).unwrap().id, SetId(2));
        }
        assert_eq!(p.order(SetId(2), |_| false, 0), [NodeId(3), NodeId(2)]);
    }

    #[test]
    fn suspects_are_avoided_while_another_set_is_left() {
        let p = Placement::new(map(&[UP, UP, UP], &[&[1, 2], &[2, 3], &[1, 3]]), |_| false);
        for draw in 0..5 {
            let set = p.choose(|n| n == NodeId(1), &[], draw).unwrap().id;
            assert_eq!(set, SetId(2));
            assert!(p.choose(|_| true, &[], draw).is_ok());
        }
    }

    #[test]
    fn writes_spread_over_equal_sets() {
        let p = Placement::new(map(&[UP, UP, UP], &[&[1, 2], &[2, 3], &[1, 3]]), |_| true);
        let chosen: HashSet<_> = (0..3)
            .map(|d| p.choose(|_| false, &[], d).unwrap().id)
            .collect();
        assert_eq!(chosen.len(), 3);
    }

    #[test]
    fn full_servers_are_no_space_and_dead_ones_are_not() {
        let full = Placement::new(map(&[UP, NodeState::Full], &[&[1, 2]]), |_| true);
        assert_eq!(full.choose(|_| false, &[], 0).err(), Some(NoSet::Full));
        assert!(full.full());
        let down = Placement::new(map(&[UP, NodeState::Down], &[&[1, 2]]), |_| true);
        assert_eq!(down.choose(|_| false, &[], 0).err(), Some(NoSet::None));
        assert!(!down.full());
        let refused = Placement::new(map(&[UP, UP], &[&[1, 2]]), |_| true);
        assert_eq!(
            refused.choose(|_| false, &[SetId(1)], 0).err(),
            Some(NoSet::Full)
        );
        assert!(!refused.full());
    }
}
