use super::*;
use crate::tests::world::{config, node_info};
use lagan_types::Refusal;

fn nodes(count: u64) -> Vec<NodeInfo> {
    (1..=count)
        .map(|i| NodeInfo {
            id: NodeId(i),
            ..node_info(i as u128)
        })
        .collect()
}

/// The table of sets after the nodes joined one by one.
fn grown(count: u64, copies: u8) -> Vec<ReplicaSet> {
    let config = config(copies);
    let mut table: Vec<ReplicaSet> = Vec::new();
    for n in 1..=count {
        let last = SetId(n as u32 * 10_000);
        let settled = settle(&config, &nodes(n), &table, |_| true, last);
        change_table(&mut table, settled);
    }
    table
}

fn change_table(table: &mut Vec<ReplicaSet>, settled: Settled) {
    table.retain(|s| !settled.gone.contains(&s.id));
    for row in settled.put {
        match table.iter_mut().find(|s| s.id == row.id) {
            Some(old) => *old = row,
            None => table.push(row),
        }
    }
}

#[test]
fn every_node_is_in_ten_sets_where_combinations_allow() {
    for copies in 1..=4u8 {
        for count in [copies as u64, 3, 4, 5, 6, 9, 13, 20, 50] {
            if count < copies as u64 {
                continue;
            }
            let table = grown(count, copies);
            let full: Vec<_> = table
                .iter()
                .filter(|s| s.nodes.len() == copies as usize)
                .collect();
            let all = combinations(count as usize, copies as usize);
            let own = combinations(count as usize - 1, copies as usize - 1);
            for n in 1..=count {
                let of_node = full.iter().filter(|s| s.nodes.contains(&NodeId(n))).count();
                assert!(
                    of_node >= own.min(SETS_PER_NODE),
                    "{count} nodes, {copies} copies: n{n} in {of_node} of {all}"
                );
            }
            assert!(full.len() <= 25 * count as usize, "{} sets", full.len());
            let distinct: BTreeSet<_> = full.iter().map(|s| sorted(&s.nodes)).collect();
            assert_eq!(distinct.len(), full.len());
        }
    }
}

#[test]
fn a_dead_nodes_partners_are_many() {
    let table = grown(30, 3);
    for n in 1..=30 {
        let partners: BTreeSet<_> = table
            .iter()
            .filter(|s| s.nodes.len() == 3 && s.nodes.contains(&NodeId(n)))
            .flat_map(|s| s.nodes.clone())
            .collect();
        assert!(partners.len() >= 15, "n{n}: {}", partners.len());
    }
}

#[test]
fn settled_tables_stay_as_they_are() {
    for (count, copies) in [(1, 1), (1, 2), (3, 2), (5, 3), (20, 3)] {
        let table = grown(count, copies);
        for used in [true, false] {
            let last = SetId(u32::MAX / 2);
            let again = settle(&config(copies), &nodes(count), &table, |_| used, last);
            let gone = |s: &SetId| table.iter().any(|t| t.id == *s && t.sealed);
            assert_eq!(again.put, []);
            assert!(again.gone.iter().all(gone), "{again:?}");
            assert!(!used || again.gone.is_empty(), "{again:?}");
        }
    }
}

#[test]
fn combinations_are_counted() {
    assert_eq!(combinations(5, 2), 10);
    assert_eq!(combinations(3, 3), 1);
    assert_eq!(combinations(50, 3), 19_600);
}

#[test]
fn changes_want_the_rows_epoch_and_state() {
    let nodes = nodes(3);
    let row = new_set(SetId(1), vec![NodeId(1), NodeId(2)], &nodes);
    let (set, epoch) = (row.id, row.epoch);
    let finish = SetChange::FinishJoin { set, epoch };
    assert_eq!(change(&row, &finish, &nodes), Err(FsError::Invalid.into()));
    let other = SetChange::FinishJoin {
        set,
        epoch: Epoch(9),
    };
    assert_eq!(change(&row, &other, &nodes), Err(Refusal::StaleEpoch));
    let start = |joining, leaving| SetChange::StartJoin {
        set,
        epoch,
        joining: NodeId(joining),
        leaving,
    };
    for bad in [start(1, None), start(9, None), start(3, Some(NodeId(3)))] {
        assert_eq!(change(&row, &bad, &nodes), Err(FsError::Invalid.into()));
    }
    let joining = change(&row, &start(3, None), &nodes).unwrap();
    let epoch = joining.epoch;
    let aborted = change(&joining, &SetChange::AbortJoin { set, epoch }, &nodes).unwrap();
    assert_eq!((aborted.nodes.len(), aborted.sealed), (2, false));
    let grown = change(&joining, &SetChange::FinishJoin { set, epoch }, &nodes).unwrap();
    assert_eq!(grown.nodes, [NodeId(1), NodeId(2), NodeId(3)]);
}

/// A cluster whose nodes come, go and are removed, whose sets are refilled, and
/// whose chunks come and go.
#[derive(Debug)]
struct Model {
    config: Config,
    nodes: Vec<NodeInfo>,
    table: Vec<ReplicaSet>,
    used: BTreeSet<SetId>,
    last: SetId,
}

#[derive(Debug, Clone)]
enum Step {
    State(usize, NodeState),
    Copies(u8),
    Write(usize),
    Free(usize),
    Fill,
    Add,
    Remove(usize),
}

impl Model {
    fn new(copies: u8) -> Self {
        let mut model = Model {
            config: config(copies),
            nodes: nodes(3),
            table: Vec::new(),
            used: BTreeSet::new(),
            last: SetId(0),
        };
        model.settle();
        model
    }

    fn settle(&mut self) {
        let used = |set| self.used.contains(&set);
        let settled = settle(&self.config, &self.nodes, &self.table, used, self.last);
        for gone in &settled.gone {
            assert!(!self.used.contains(gone), "{gone} is used and went");
        }
        for row in &settled.put {
            let old = self.table.iter().any(|s| s.id == row.id);
            assert!(old || row.id > self.last, "{} was given out before", row.id);
        }
        let highest = settled.put.iter().map(|s| s.id).max();
        self.last = self.last.max(highest.unwrap_or(SetId(0)));
        change_table(&mut self.table, settled);
        self.check();
    }

    fn check(&self) {
        let copies = self.config.copies as usize;
        let up = in_states(&self.nodes, &[NodeState::Up]);
        let alive = in_states(&self.nodes, &[NodeState::Up, NodeState::Full]);
        let is_up = |s: &ReplicaSet| s.nodes.iter().all(|n| up.contains(n));
        let takes = |s: &&ReplicaSet| !s.sealed && is_up(s);
        let open: Vec<_> = self.table.iter().filter(takes).collect();
        if up.len() >= copies {
            let right = |s: &&&ReplicaSet| s.nodes.len() == copies;
            assert!(open.iter().filter(right).count() > 0, "{self:#?}");
            assert!(open.iter().all(|s| s.nodes.len() == copies), "{self:#?}");
        } else if alive.len() < copies && up.len() >= self.config.min_copies as usize {
            assert!(open.iter().any(|s| sorted(&s.nodes) == up), "{self:#?}");
        }
        let sealed_wrongly = |s: &&ReplicaSet| !s.sealed && !all_alive(&s.nodes, &self.nodes);
        assert_eq!(self.table.iter().find(sealed_wrongly), None);
        // There are the used sets, the full sets, and the short set of this moment.
        let unused = self.table.iter().filter(|s| !self.used.contains(&s.id));
        let all = combinations(self.nodes.len(), copies.min(self.nodes.len()));
        assert!(unused.count() <= all + 1, "{self:#?}");
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::State(at, state) => {
                let at = at % self.nodes.len();
                self.nodes[at].state = *state;
            }
            Step::Copies(copies) => {
                self.config.copies = *copies;
                self.config.min_copies = 1;
            }
            Step::Write(at) => {
                let open = self.table.iter().filter(|s| !s.sealed);
                let open: Vec<SetId> = open.map(|s| s.id).collect();
                if !open.is_empty() {
                    self.used.insert(open[at % open.len()]);
                }
            }
            Step::Free(at) => {
                let nth = self.used.iter().nth(at % self.used.len().max(1)).copied();
                nth.map(|set| self.used.remove(&set));
            }
            Step::Fill => self.fill(),
            Step::Add => {
                let id = self.nodes.iter().map(|n| n.id.0).max().unwrap_or(0) + 1;
                if self.nodes.len() < 6 {
                    self.nodes.push(NodeInfo {
                        id: NodeId(id),
                        ..node_info(id as u128)
                    });
                }
            }
            Step::Remove(at) => self.remove(at % self.nodes.len()),
        }
        self.settle();
    }

    /// Short sets get members, as the leader plans it.
    fn fill(&mut self) {
        let copies = self.config.copies as usize;
        let up = in_states(&self.nodes, &[NodeState::Up]);
        for set in &mut self.table {
            while set.nodes.len() < copies && self.used.contains(&set.id) {
                let Some(spare) = up.iter().find(|n| !set.nodes.contains(n)) else {
                    break;
                };
                set.nodes.push(*spare);
            }
        }
    }

    fn remove(&mut self, at: usize) {
        if self.nodes.len() < 2 {
            return;
        }
        let node = self.nodes.remove(at).id;
        for set in &mut self.table {
            if let Some(row) = without(set, node) {
                *set = row;
            }
        }
    }
}

fn steps() -> impl proptest::strategy::Strategy<Value = Vec<Step>> {
    use proptest::prelude::*;
    let state = prop_oneof![
        3 => Just(NodeState::Up),
        2 => Just(NodeState::Down),
        1 => Just(NodeState::Full)
    ];
    let step = prop_oneof![
        6 => (0..8usize, state).prop_map(|(at, state)| Step::State(at, state)),
        1 => (1..4u8).prop_map(Step::Copies),
        4 => (0..64usize).prop_map(Step::Write),
        3 => (0..64usize).prop_map(Step::Free),
        2 => Just(Step::Fill),
        1 => Just(Step::Add),
        1 => (0..8usize).prop_map(Step::Remove),
    ];
    proptest::collection::vec(step, 1..80)
}

proptest::proptest! {
    #[test]
    fn table_stays_small_and_serves_whatever_happens(copies in 1..4u8, steps in steps()) {
        let mut model = Model::new(copies);
        for step in &steps {
            model.step(step);
        }
        // When all nodes are up again and the files of that time are gone, their sets are gone too.
        for node in &mut model.nodes {
            node.state = NodeState::Up;
        }
        model.used.clear();
        model.settle();
        let copies = model.config.copies as usize;
        let wanted = match model.nodes.len() < copies {
            true => 1,
            false => combinations(model.nodes.len(), copies),
        };
        assert_eq!(model.table.len(), wanted, "{model:#?}");
    }
}

#[test]
fn large_sets_take_no_chunks_once_there_are_smaller_ones() {
    let mut model = Model::new(3);
    model.step(&Step::Write(0));
    let large = model.table[0].clone();
    assert_eq!((large.nodes.len(), large.sealed), (3, false));
    model.step(&Step::Copies(2));
    let row = |m: &Model| m.table.iter().find(|s| s.id == large.id).cloned();
    assert!(row(&model).is_some_and(|s| s.sealed && s.epoch > large.epoch));
    assert_eq!(model.table.iter().filter(|s| !s.sealed).count(), 3);
    model.step(&Step::Free(0));
    assert_eq!(row(&model), None);
}
