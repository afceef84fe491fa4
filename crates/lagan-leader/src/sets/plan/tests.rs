use super::{Circumstances, DownFor, JOINS_MAX};
use lagan_types::cluster::{ClusterMap, Config, NodeInfo, NodeRole, NodeState, ReplicaSet};
use lagan_types::op::SetChange;
use lagan_types::{Epoch, NodeId, SetId, StoreId};
use std::collections::BTreeSet;

/// Where files use every set.
fn plan(map: &ClusterMap, down_for: &DownFor) -> Vec<SetChange> {
    let now = Circumstances {
        down_for: down_for.clone(),
        leaving: BTreeSet::new(),
    };
    super::plan(map, &now, &mut |_| true)
}

/// Nodes and sets numbered from 1.
pub(crate) fn map(copies: u8, states: &[NodeState], sets: &[&[u64]]) -> ClusterMap {
    let nodes = states.iter().enumerate().map(|(i, &state)| NodeInfo {
        id: NodeId(i as u64 + 1),
        name: format!("server-{}", i + 1),
        store: StoreId(i as u128),
        boot: 1,
        addr: String::new(),
        peer_addr: String::new(),
        http: String::new(),
        role: NodeRole::Storage,
        state,
        voter: true,
    });
    let sets = sets.iter().enumerate().map(|(i, nodes)| ReplicaSet {
        id: SetId(i as u32 + 1),
        nodes: nodes.iter().map(|&n| NodeId(n)).collect(),
        epoch: Epoch(1),
        sealed: false,
        joining: None,
        leaving: None,
    });
    ClusterMap {
        version: 1,
        nodes: nodes.collect(),
        sets: sets.collect(),
        config: Config {
            copies,
            ..Config::default()
        },
    }
}

use NodeState::{Down, Full, Up};

#[test]
fn healthy_sets_need_nothing() {
    assert_eq!(
        plan(
            &map(2, &[Up, Up, Up], &[&[1, 2], &[1, 3], &[2, 3]]),
            &DownFor::new()
        ),
        vec![]
    );
}

#[test]
fn short_set_is_filled_when_a_node_is_free() {
    let m = map(3, &[Up, Up, Up], &[&[1, 2, 3], &[1, 2]]);
    assert_eq!(
        plan(&m, &DownFor::new()),
        vec![SetChange::StartJoin {
            set: SetId(2),
            epoch: Epoch(1),
            joining: NodeId(3),
            leaving: None
        }]
    );
}

#[test]
fn short_set_waits_while_nobody_is_free() {
    assert_eq!(
        plan(&map(3, &[Up, Up, Down], &[&[1, 2]]), &DownFor::new()),
        vec![]
    );
}

#[test]
fn dead_member_is_replaced_only_after_its_time() {
    let m = map(2, &[Up, Down, Up], &[&[1, 2]]);
    let early = DownFor::from([(NodeId(2), m.config.replace_after_ms - 1)]);
    assert_eq!(plan(&m, &early), vec![]);
    let late = DownFor::from([(NodeId(2), m.config.replace_after_ms)]);
    assert_eq!(
        plan(&m, &late),
        vec![SetChange::StartJoin {
            set: SetId(1),
            epoch: Epoch(1),
            joining: NodeId(3),
            leaving: Some(NodeId(2))
        }]
    );
}

#[test]
fn full_node_is_no_spare() {
    assert_eq!(
        plan(&map(3, &[Up, Up, Full], &[&[1, 2]]), &DownFor::new()),
        vec![]
    );
}

#[test]
fn set_without_a_live_member_cannot_be_filled() {
    let m = map(2, &[Down, Down, Up, Up], &[&[1, 2]]);
    let down = DownFor::from([(NodeId(1), u64::MAX), (NodeId(2), u64::MAX)]);
    assert_eq!(plan(&m, &down), vec![]);
}

#[test]
fn join_of_a_dead_node_is_aborted() {
    let mut m = map(3, &[Up, Up, Down], &[&[1, 2]]);
    m.sets[0].joining = Some(NodeId(3));
    assert_eq!(
        plan(&m, &DownFor::new()),
        vec![SetChange::AbortJoin {
            set: SetId(1),
            epoch: Epoch(1)
        }]
    );
}

#[test]
fn joins_at_a_time_are_bounded_and_spread() {
    let sets: Vec<&[u64]> = vec![&[1, 2]; 10];
    let m = map(3, &[Up, Up, Up, Up], &sets);
    let changes = plan(&m, &DownFor::new());
    assert_eq!(changes.len(), JOINS_MAX);
    let on_3 = changes
        .iter()
        .filter(|c| {
            matches!(
                c,
                SetChange::StartJoin {
                    joining: NodeId(3),
                    ..
                }
            )
        })
        .count();
    assert_eq!(on_3, JOINS_MAX / 2);
}

#[test]
fn node_that_is_removed_gives_its_place_at_once() {
    let m = map(2, &[Up, Down, Up, Up], &[&[1, 2], &[3, 4]]);
    let now = Circumstances {
        down_for: DownFor::new(),
        leaving: BTreeSet::from([NodeId(2), NodeId(3)]),
    };
    let changes = super::plan(&m, &now, &mut |_| true);
    let join = |set, joining, leaving| SetChange::StartJoin {
        set: SetId(set),
        epoch: Epoch(1),
        joining: NodeId(joining),
        leaving: Some(NodeId(leaving)),
    };
    assert_eq!(changes, [join(1, 4, 2), join(2, 1, 3)]);
    let mut filling = m.clone();
    filling.sets[0].joining = Some(NodeId(3));
    let changes = super::plan(&filling, &now, &mut |_| true);
    assert!(matches!(
        changes[0],
        SetChange::AbortJoin { set: SetId(1), .. }
    ));
}

#[test]
fn set_that_no_file_uses_is_left_alone() {
    let m = map(3, &[Up, Up, Up], &[&[1, 2], &[2, 3]]);
    let now = Circumstances::default();
    let changes = super::plan(&m, &now, &mut |set| set == SetId(2));
    assert!(matches!(
        changes.as_slice(),
        [SetChange::StartJoin { set: SetId(2), .. }]
    ));
}
