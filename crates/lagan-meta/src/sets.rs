//! Pure decisions about the table of replica sets (docs/DESIGN.md "Replica sets").
//!
//! - There are as many *full* sets (of `copies` nodes) as give every node at least
//!   [`SETS_PER_NODE`], and all combinations where these are not many more.
//! - A full set is open while none of its nodes is down and no node joins it. If
//!   several have the same nodes (a short set became whole), only the oldest is open.
//! - A *short* set (fewer than `copies` nodes) is open exactly while fewer than
//!   `copies` nodes are up and it holds all of those.
//! - A *large* set (made when `copies` was higher) is open like a full one, but only
//!   while no full set takes chunks.
//!
//! A row stays while an extent names a chunk of its set. A row without such an extent
//! goes, unless it is the oldest of a full set or the short set of this moment. Its id
//! is never given out again, so the chunks that a node still holds of it are garbage.

use lagan_types::cluster::{Config, NodeInfo, NodeRole, NodeState, ReplicaSet};
use lagan_types::limits::SET_MEMBERS_MAX;
use lagan_types::op::SetChange;
use lagan_types::{Epoch, FsError, NodeId, Refusal, SetId};
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

/// Sets that each node shall be in, so that the load and the repair of a dead node
/// spread over many others.
pub const SETS_PER_NODE: usize = 10;

/// Returns a new set's row. The set is open if no member is down.
pub fn new_set(id: SetId, members: Vec<NodeId>, nodes: &[NodeInfo]) -> ReplicaSet {
    let sealed = !all_alive(&members, nodes);
    ReplicaSet {
        id,
        nodes: members,
        epoch: Epoch(1),
        sealed,
        joining: None,
        leaving: None,
    }
}

/// Refuses a list of members that is empty, too long, or has unknown or double ones.
///
/// # Errors
/// `Invalid`.
pub fn check_members(nodes: &[NodeInfo], members: &[NodeId]) -> Result<(), Refusal> {
    let distinct: BTreeSet<_> = members.iter().collect();
    let known = members.iter().all(|m| nodes.iter().any(|n| n.id == *m));
    if members.is_empty()
        || members.len() > SET_MEMBERS_MAX
        || distinct.len() != members.len()
        || !known
    {
        return Err(FsError::Invalid.into());
    }
    Ok(())
}

/// Returns the row after a change that names the row's epoch.
///
/// # Errors
/// `StaleEpoch` if the row has another epoch; `Invalid` if the change does not
/// fit it; `Malformed` for `Add`, which has no row.
pub fn change(
    old: &ReplicaSet,
    change: &SetChange,
    nodes: &[NodeInfo],
) -> Result<ReplicaSet, Refusal> {
    let mut row = old.clone();
    let expected = match change {
        SetChange::Add { .. } => return Err(Refusal::Malformed),
        SetChange::StartJoin { epoch, .. }
        | SetChange::FinishJoin { epoch, .. }
        | SetChange::AbortJoin { epoch, .. } => *epoch,
    };
    if expected != old.epoch {
        return Err(Refusal::StaleEpoch);
    }
    row.epoch = Epoch(old.epoch.0.saturating_add(1));
    match change {
        SetChange::Add { .. } => {}
        SetChange::StartJoin {
            joining, leaving, ..
        } => start_join(&mut row, *joining, *leaving, nodes)?,
        SetChange::FinishJoin { .. } => finish_join(&mut row, nodes)?,
        SetChange::AbortJoin { .. } => {
            row.joining.take().ok_or(FsError::Invalid)?;
            row.leaving = None;
            row.sealed = !all_alive(&row.nodes, nodes);
        }
    }
    Ok(row)
}

fn start_join(
    row: &mut ReplicaSet,
    joining: NodeId,
    leaving: Option<NodeId>,
    nodes: &[NodeInfo],
) -> Result<(), Refusal> {
    let known = nodes.iter().any(|n| n.id == joining);
    let leaves = leaving.is_none_or(|l| row.nodes.contains(&l));
    let room = leaving.is_some() || row.nodes.len() < SET_MEMBERS_MAX;
    if row.joining.is_some() || row.nodes.contains(&joining) || !known || !leaves || !room {
        return Err(FsError::Invalid.into());
    }
    row.joining = Some(joining);
    row.leaving = leaving;
    row.sealed = true;
    Ok(())
}

fn finish_join(row: &mut ReplicaSet, nodes: &[NodeInfo]) -> Result<(), Refusal> {
    let joined = row.joining.take().ok_or(FsError::Invalid)?;
    match row.leaving.take() {
        Some(left) => {
            for node in row.nodes.iter_mut().filter(|n| **n == left) {
                *node = joined;
            }
        }
        None => row.nodes.push(joined),
    }
    row.sealed = !all_alive(&row.nodes, nodes);
    Ok(())
}

/// Returns the row of a set after it lost a node for good; `None` if the set has
/// nothing to do with the node. Even the last member may be lost, and with it the
/// chunks that only it had.
pub fn without(set: &ReplicaSet, node: NodeId) -> Option<ReplicaSet> {
    let concerned =
        set.nodes.contains(&node) || set.joining == Some(node) || set.leaving == Some(node);
    if !concerned {
        return None;
    }
    let mut row = set.clone();
    row.nodes.retain(|n| *n != node);
    if row.joining == Some(node) {
        row.joining = None;
        row.leaving = None;
    }
    if row.leaving == Some(node) {
        row.leaving = None;
    }
    row.sealed = true;
    row.epoch = Epoch(set.epoch.0.saturating_add(1));
    Some(row)
}

/// The changes that the table needs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Settled {
    /// Rows to set, old and new ones.
    pub put: Vec<ReplicaSet>,
    /// Rows to remove.
    pub gone: Vec<SetId>,
}

/// Returns the changes that make the table fit the nodes. `used` says whether an
/// extent names a chunk of the set; `last` is the highest id that was given out.
pub fn settle(
    config: &Config,
    nodes: &[NodeInfo],
    table: &[ReplicaSet],
    used: impl Fn(SetId) -> bool,
    last: SetId,
) -> Settled {
    let copies = config.copies as usize;
    let up = in_states(nodes, &[NodeState::Up]);
    let alive = in_states(nodes, &[NodeState::Up, NodeState::Full]);
    let short =
        (alive.len() < copies && up.len() >= (config.min_copies as usize).max(1)).then_some(up);
    let mut state = Settling {
        copies,
        nodes,
        short,
        rows: Vec::with_capacity(table.len()),
        oldest: BTreeMap::new(),
    };
    let mut out = Settled::default();
    for set in table {
        if set.joining.is_none() && !used(set.id) && state.useless(set) {
            out.gone.push(set.id);
        } else {
            state.keep(set.clone());
        }
    }
    let made = state.add_missing(last);
    let full_open = state.full_set_takes_chunks();
    for (at, set) in state.rows.iter().enumerate() {
        let sealed = state.sealed(set, full_open);
        if at >= made {
            out.put.push(ReplicaSet {
                sealed,
                ..set.clone()
            });
        } else if sealed != set.sealed {
            out.put.push(ReplicaSet {
                sealed,
                epoch: Epoch(set.epoch.0.saturating_add(1)),
                ..set.clone()
            });
        }
    }
    out
}

/// The table that [`settle`] works on.
struct Settling<'a> {
    copies: usize,
    nodes: &'a [NodeInfo],
    /// Members of the short set of this moment, if there is to be one.
    short: Option<Vec<NodeId>>,
    /// The rows in order of id.
    rows: Vec<ReplicaSet>,
    /// Oldest set by its sorted members; sets that a node joins are left out.
    oldest: BTreeMap<Vec<NodeId>, SetId>,
}

impl Settling<'_> {
    fn keep(&mut self, row: ReplicaSet) {
        if row.joining.is_none() {
            self.oldest.entry(sorted(&row.nodes)).or_insert(row.id);
        }
        self.rows.push(row);
    }

    /// Whether the table is as good without this row. All rows before it must have been
    /// looked at.
    fn useless(&self, set: &ReplicaSet) -> bool {
        let members = sorted(&set.nodes);
        let known = members
            .iter()
            .all(|m| self.nodes.iter().any(|n| n.id == *m));
        let wanted = members.len() == self.copies || self.short.as_ref() == Some(&members);
        !known || !wanted || self.oldest.contains_key(&members)
    }

    /// Adds the missing full sets and the short one; returns the index of the first
    /// row that it added.
    fn add_missing(&mut self, last: SetId) -> usize {
        let made = self.rows.len();
        let mut wanted = missing_full(self.copies, self.nodes, &self.rows);
        let short = self.short.iter();
        wanted.extend(short.filter(|m| !self.oldest.contains_key(*m)).cloned());
        for (id, members) in (last.0.saturating_add(1)..).zip(wanted) {
            self.keep(new_set(SetId(id), members, self.nodes));
        }
        made
    }

    fn full_set_takes_chunks(&self) -> bool {
        let up = |m: &NodeId| {
            let mut found = self.nodes.iter().filter(|n| n.id == *m);
            found.next().is_some_and(|n| n.state == NodeState::Up)
        };
        let mut full = self.rows.iter().filter(|s| s.nodes.len() == self.copies);
        full.any(|s| s.joining.is_none() && s.nodes.iter().all(up))
    }

    fn sealed(&self, set: &ReplicaSet, full_open: bool) -> bool {
        let members = sorted(&set.nodes);
        if set.joining.is_some() {
            return true;
        }
        match members.len().cmp(&self.copies) {
            Ordering::Less => self.short.as_ref() != Some(&members),
            Ordering::Greater => full_open || !all_alive(&members, self.nodes),
            Ordering::Equal => {
                let oldest = self.oldest.get(&members) == Some(&set.id);
                !oldest || !all_alive(&members, self.nodes)
            }
        }
    }
}

fn in_states(nodes: &[NodeInfo], states: &[NodeState]) -> Vec<NodeId> {
    let mut ids: Vec<_> = nodes
        .iter()
        .filter(|n| n.role == NodeRole::Storage && states.contains(&n.state))
        .map(|n| n.id)
        .collect();
    ids.sort_unstable();
    ids
}

fn sorted(nodes: &[NodeId]) -> Vec<NodeId> {
    let mut nodes = nodes.to_vec();
    nodes.sort_unstable();
    nodes
}

/// Whether every member is known and not down.
pub fn all_alive(members: &[NodeId], nodes: &[NodeInfo]) -> bool {
    members.iter().all(|m| {
        nodes
            .iter()
            .any(|n| n.id == *m && n.state != NodeState::Down)
    })
}

/// Returns the members of each full set that is still to be made.
fn missing_full(copies: usize, nodes: &[NodeInfo], table: &[ReplicaSet]) -> Vec<Vec<NodeId>> {
    let all = in_states(nodes, &[NodeState::Up, NodeState::Full, NodeState::Down]);
    if copies == 0 || all.len() < copies {
        return Vec::new();
    }
    let full = table.iter().filter(|s| s.nodes.len() == copies);
    let mut spread = Spread::new(full.map(|s| sorted(&s.nodes)));
    let mut made = Vec::new();
    if combinations(all.len(), copies) <= 2 * SETS_PER_NODE * all.len() / copies {
        let mut members = Vec::new();
        every_combination(&all, copies, &mut members, &mut |set| {
            if spread.add(set.to_vec()) {
                made.push(set.to_vec());
            }
        });
        return made;
    }
    let mut stuck: BTreeSet<NodeId> = BTreeSet::new();
    while let Some(node) = spread.poorest(&all, &stuck) {
        match spread.choose(node, &all, copies) {
            Some(set) => {
                spread.add(set.clone());
                made.push(set);
            }
            None => {
                stuck.insert(node);
            }
        }
    }
    made
}

/// `n` over `k`, saturating.
fn combinations(n: usize, k: usize) -> usize {
    (0..k).fold(1usize, |c, i| c.saturating_mul(n - i) / (i + 1))
}

fn every_combination(
    rest: &[NodeId],
    left: usize,
    members: &mut Vec<NodeId>,
    found: &mut dyn FnMut(&[NodeId]),
) {
    if left == 0 {
        found(members);
        return;
    }
    for (at, node) in rest.iter().enumerate() {
        members.push(*node);
        every_combination(&rest[at + 1..], left - 1, members, found);
        members.pop();
    }
}

/// Counts the sets of each node and of each pair of nodes.
struct Spread {
    sets: BTreeSet<Vec<NodeId>>,
    of_node: BTreeMap<NodeId, usize>,
    of_pair: BTreeMap<(NodeId, NodeId), usize>,
}

impl Spread {
    fn new(sets: impl Iterator<Item = Vec<NodeId>>) -> Self {
        let mut spread = Spread {
            sets: BTreeSet::new(),
            of_node: BTreeMap::new(),
            of_pair: BTreeMap::new(),
        };
        for set in sets {
            spread.add(set);
        }
        spread
    }

    /// Adds a set; false if there is one with these members already.
    fn add(&mut self, set: Vec<NodeId>) -> bool {
        if self.sets.contains(&set) {
            return false;
        }
        for &a in &set {
            *self.of_node.entry(a).or_default() += 1;
            for &b in set.iter().filter(|&&b| b != a) {
                *self.of_pair.entry((a, b)).or_default() += 1;
            }
        }
        self.sets.insert(set);
        true
    }

    fn count(&self, node: NodeId) -> usize {
        self.of_node.get(&node).copied().unwrap_or(0)
    }

    fn together(&self, a: NodeId, b: NodeId) -> usize {
        self.of_pair.get(&(a, b)).copied().unwrap_or(0)
    }

    /// Returns the node that is in the fewest sets, if it needs more.
    fn poorest(&self, all: &[NodeId], stuck: &BTreeSet<NodeId>) -> Option<NodeId> {
        all.iter()
            .copied()
            .filter(|n| !stuck.contains(n) && self.count(*n) < SETS_PER_NODE)
            .min_by_key(|n| (self.count(*n), *n))
    }

    /// Chooses a new set with that node. Partners with whom it shares the fewest sets
    /// come first, then nodes that are in the fewest.
    fn choose(&self, node: NodeId, all: &[NodeId], copies: usize) -> Option<Vec<NodeId>> {
        let mut first: Vec<NodeId> = all.iter().copied().filter(|n| *n != node).collect();
        first.sort_by_key(|n| (self.together(node, *n), self.count(*n), *n));
        first.into_iter().find_map(|partner| {
            let mut set = vec![node];
            if copies > 1 {
                set.push(partner);
            }
            while set.len() < copies {
                let next = all
                    .iter()
                    .copied()
                    .filter(|n| !set.contains(n))
                    .min_by_key(|n| {
                        let met: usize = set.iter().map(|m| self.together(*m, *n)).sum();
                        (met, self.count(*n), *n)
                    })?;
                set.push(next);
            }
            set.sort_unstable();
            (!self.sets.contains(&set)).then_some(set)
        })
    }
}

#[cfg(test)]
mod tests;
