use super::*;
use crate::tests::world::{config, node_info};

fn nodes(count: u64) -> Vec<NodeInfo> {
    (1..=count)
        .map(|i| NodeInfo {
            id: NodeId(i),
            ..node_info(i as u128)
        })
        .collect()
}

/// The table after the nodes came one by one.
fn grown(count: u64, copies: u8) -> Vec<ReplicaSet> {
    let config = config(copies);
    let mut table: Vec<ReplicaSet> = Vec::new();
    for n in 1..=count {
        for row in settle(&config, &nodes(n), &table, None) {
            match table.iter_mut().find(|s| s.id == row.id) {
                Some(old) => *old = row,
                None => table.push(row),
            }
        }
    }
    table
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
        let more = settle(&config(copies), &nodes(count), &table, None);
        assert_eq!(more, []);
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
    assert_eq!(change(&row, &finish, &nodes), Err(FsError::Invalid));
    let seal = SetChange::Seal {
        set,
        epoch: Epoch(9),
    };
    assert_eq!(change(&row, &seal, &nodes), Err(FsError::StaleEpoch));
    let start = |joining, leaving| SetChange::StartJoin {
        set,
        epoch,
        joining: NodeId(joining),
        leaving,
    };
    for bad in [start(1, None), start(9, None), start(3, Some(NodeId(3)))] {
        assert_eq!(change(&row, &bad, &nodes), Err(FsError::Invalid));
    }
    let joining = change(&row, &start(3, None), &nodes).unwrap();
    let epoch = joining.epoch;
    let open = SetChange::Unseal { set, epoch };
    assert_eq!(change(&joining, &open, &nodes), Err(FsError::Invalid));
    let aborted = change(&joining, &SetChange::AbortJoin { set, epoch }, &nodes).unwrap();
    assert_eq!((aborted.nodes.len(), aborted.sealed), (2, false));
    let grown = change(&joining, &SetChange::FinishJoin { set, epoch }, &nodes).unwrap();
    assert_eq!(grown.nodes, [NodeId(1), NodeId(2), NodeId(3)]);
}
