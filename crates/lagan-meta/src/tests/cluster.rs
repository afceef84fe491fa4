use super::world::{World, config, node_info};
use crate::kv::Table;
use crate::{cluster_map, map_version};
use lagan_types::cluster::next_boot;
use lagan_types::cluster::{NodeState, ReplicaSet};
use lagan_types::id::ClusterId;
use lagan_types::op::{
    ChangeSets, CloseSession, Init, MarkLost, ReapOrphans, RegisterNode, RemoveNode, SetChange,
    SetConfig, SetNodeState, SetVoter, StartArchive,
};
use lagan_types::{Epoch, FsError, Ino, NodeId, Refusal, SetId};

fn set_state(w: &mut World, node: u64, state: NodeState) {
    let node = NodeId(node);
    w.system(SetNodeState { node, state }).unwrap();
    w.check();
}

/// The members of each set that takes chunks.
fn open(w: &World) -> Vec<Vec<u64>> {
    let map = w.map();
    let mut open: Vec<Vec<u64>> = map
        .sets
        .iter()
        .filter(|s| map.writable(s))
        .map(|s| s.nodes.iter().map(|n| n.0).collect())
        .collect();
    open.sort();
    open
}

#[test]
fn there_is_no_map_before_the_first_command() {
    let store = crate::memory::MemoryStore::new();
    assert_eq!(cluster_map(&store).unwrap(), None);
    assert_eq!(map_version(&store).unwrap(), 0);
}

#[test]
fn a_cluster_is_made_once_and_keeps_its_identity() {
    let mut w = World::new();
    let again = w.system(Init { config: config(2) });
    assert_eq!(again, Err(FsError::Exists.into()));
    let mut other = config(2);
    other.cluster = ClusterId(8);
    let changed = w.system(SetConfig { config: other });
    assert_eq!(changed, Err(FsError::NotPermitted.into()));
    let mut fast = config(2);
    fast.archive_after_ms = 5;
    let version = map_version(&w.store).unwrap();
    w.system(SetConfig { config: fast }).unwrap();
    assert_eq!(map_version(&w.store).unwrap(), version + 1);
    w.file("a");
    assert_eq!(w.counters().oldest_due_ms, w.now_ms + 5);
    let mut none = config(2);
    none.copies = 0;
    let refused = w.system(SetConfig { config: none });
    assert_eq!(refused, Err(FsError::Invalid.into()));
}

#[test]
fn stores_register_once_and_older_ones_are_refused() {
    let mut w = World::new();
    let mut info = node_info(2);
    let boot = next_boot(next_boot(0, 1), 5);
    info.boot = boot;
    let register = |w: &mut World, info: &lagan_types::cluster::NodeInfo| {
        w.system(RegisterNode { info: info.clone() })
    };
    assert_eq!(register(&mut w, &info), Ok(NodeId(2)));
    assert_eq!(w.map().node(NodeId(2)).unwrap().boot, boot);
    let version = map_version(&w.store).unwrap();
    info.id = NodeId(2);
    assert_eq!(register(&mut w, &info), Ok(NodeId(2)));
    assert_eq!(map_version(&w.store).unwrap(), version);
    info.boot = next_boot(0, 1);
    assert_eq!(register(&mut w, &info), Err(FsError::Stale.into()));
    // This is another copy of the store, started as often.
    info.boot = next_boot(next_boot(0, 1), 6);
    assert_eq!(register(&mut w, &info), Err(FsError::Stale.into()));
    info.boot = next_boot(boot, 6);
    info.store = lagan_types::StoreId(99);
    assert_eq!(register(&mut w, &info), Err(FsError::Stale.into()));
    info.id = NodeId(9);
    assert_eq!(register(&mut w, &info), Err(FsError::Stale.into()));
    w.check();
}

#[test]
fn a_short_set_serves_until_there_are_enough_nodes() {
    let w = World::with(1, 2);
    assert_eq!(open(&w), [[1]]);
    let w = World::with(2, 2);
    assert_eq!(open(&w), [[1, 2]]);
    let mut w = World::with(3, 2);
    assert_eq!(open(&w), [[1, 2], [1, 3], [2, 3]]);
    set_state(&mut w, 1, NodeState::Down);
    assert_eq!(open(&w), [[2, 3]]);
    set_state(&mut w, 3, NodeState::Down);
    assert_eq!(open(&w), [[2]]);
    let count = w.map().sets.len();
    set_state(&mut w, 3, NodeState::Up);
    assert_eq!(open(&w), [[2, 3]]);
    set_state(&mut w, 3, NodeState::Down);
    assert_eq!(open(&w), [[2]]);
    set_state(&mut w, 3, NodeState::Up);
    set_state(&mut w, 1, NodeState::Up);
    assert_eq!(open(&w), [[1, 2], [1, 3], [2, 3]]);
    assert!(w.map().sets.len() < count, "the short sets are gone");
}

#[test]
fn fewer_than_min_copies_up_means_no_set() {
    let mut w = World::with(3, 3);
    let mut two = config(3);
    two.min_copies = 2;
    w.system(SetConfig { config: two }).unwrap();
    set_state(&mut w, 1, NodeState::Down);
    assert_eq!(open(&w), [[2, 3]]);
    set_state(&mut w, 2, NodeState::Down);
    assert_eq!(open(&w), Vec::<Vec<u64>>::new());
}

#[test]
fn a_full_node_takes_no_chunks_but_its_sets_stay() {
    let mut w = World::new();
    let epochs: Vec<Epoch> = w.map().sets.iter().map(|s| s.epoch).collect();
    set_state(&mut w, 1, NodeState::Full);
    assert_eq!(open(&w), [[2, 3]]);
    let now: Vec<Epoch> = w.map().sets.iter().map(|s| s.epoch).collect();
    assert_eq!(now, epochs);
}

#[test]
fn a_join_seals_then_swaps_the_member() {
    let mut w = World::with(4, 2);
    let find = |w: &World, set: SetId| -> ReplicaSet { w.map().set(set).unwrap().clone() };
    let set = w.open_set().0;
    let before = find(&w, set);
    let leaving = before.nodes[0];
    let joining = (1..=4)
        .map(NodeId)
        .find(|n| !before.nodes.contains(n))
        .unwrap();
    let start = SetChange::StartJoin {
        set,
        epoch: before.epoch,
        joining,
        leaving: Some(leaving),
    };
    let changes = vec![start];
    w.system(ChangeSets {
        changes: changes.clone(),
    })
    .unwrap();
    let during = find(&w, set);
    assert!(during.sealed && during.epoch > before.epoch);
    let again = w.system(ChangeSets { changes });
    assert_eq!(again, Err(Refusal::StaleEpoch));
    // A member that goes down and comes back does not open the set.
    set_state(&mut w, leaving.0, NodeState::Down);
    set_state(&mut w, leaving.0, NodeState::Up);
    assert!(find(&w, set).sealed);
    let epoch = find(&w, set).epoch;
    let changes = vec![SetChange::FinishJoin { set, epoch }];
    w.system(ChangeSets { changes }).unwrap();
    let after = find(&w, set);
    assert!(after.nodes.contains(&joining) && !after.nodes.contains(&leaving));
    assert!(!after.sealed && after.joining.is_none());
    w.check();
}

#[test]
fn votes_are_kept_in_the_node_table() {
    let mut w = World::new();
    let version = w.map().version;
    for _ in 0..2 {
        let (node, voter) = (NodeId(2), true);
        w.system(SetVoter { node, voter }).unwrap();
        assert!(w.map().node(node).unwrap().voter);
        assert_eq!(w.map().version, version + 1);
    }
    let (node, voter) = (NodeId(9), true);
    let unknown = w.system(SetVoter { node, voter });
    assert_eq!(unknown, Err(FsError::NotFound.into()));
}

#[test]
fn one_refused_change_refuses_all() {
    let mut w = World::new();
    let set = w.open_set();
    let members = w.map().set(set.0).unwrap().nodes.clone();
    let other = (1..=3).map(NodeId).find(|n| !members.contains(n));
    let changes = vec![
        SetChange::StartJoin {
            set: set.0,
            epoch: set.1,
            joining: other.unwrap(),
            leaving: None,
        },
        SetChange::Add {
            nodes: vec![NodeId(1), NodeId(1)],
        },
    ];
    let refused = w.system(ChangeSets { changes });
    assert_eq!(refused, Err(FsError::Invalid.into()));
    assert_eq!(w.open_set(), set);
}

#[test]
fn joining_node_deletes_freed_chunks_too() {
    let mut w = World::with(4, 2);
    let a = w.file("a");
    let id = w.write(a, 0, 10);
    let set = w.map().set(id.set()).unwrap().clone();
    let joining = (1..=4)
        .map(NodeId)
        .find(|n| !set.nodes.contains(n))
        .unwrap();
    let changes = vec![SetChange::StartJoin {
        set: set.id,
        epoch: set.epoch,
        joining,
        leaving: None,
    }];
    w.system(ChangeSets { changes }).unwrap();
    w.unlink(Ino::ROOT, "a").unwrap();
    w.system(ReapOrphans { inos: vec![a] }).unwrap();
    assert_eq!(w.reaped(joining.0), [id]);
    w.check();
}

/// Three nodes and two copies: the second node goes down, and a file uses all of its sets.
fn with_dead_node() -> (World, Vec<SetId>) {
    let mut w = World::new();
    let a = w.file("a");
    let mut used = Vec::new();
    for n in 0..12 {
        let id = w.write(a, n * 100, 100);
        let set = w.map().set(id.set()).unwrap().clone();
        if set.nodes.contains(&NodeId(2)) && !used.contains(&set.id) {
            used.push(set.id);
        }
    }
    set_state(&mut w, 2, NodeState::Down);
    (w, used)
}

fn remove(w: &mut World, node: u64, force: bool) -> Result<(), Refusal> {
    let node = NodeId(node);
    let done = w.system(RemoveNode { node, force });
    w.check();
    done
}

#[test]
fn node_that_lives_or_is_needed_stays() {
    let (mut w, used) = with_dead_node();
    assert_eq!(remove(&mut w, 1, false), Err(FsError::Busy.into()));
    assert_eq!(remove(&mut w, 9, true), Err(FsError::NotFound.into()));
    assert!(!used.is_empty());
    assert_eq!(remove(&mut w, 2, false), Err(FsError::Busy.into()));
    let mut one = World::with(1, 1);
    assert_eq!(remove(&mut one, 1, true), Err(FsError::Invalid.into()));
}

#[test]
fn removed_node_leaves_nothing_behind() {
    let (mut w, used) = with_dead_node();
    for set in used {
        let row = w.map().set(set).unwrap().clone();
        let joining = (1..=3).map(NodeId).find(|n| !row.nodes.contains(n));
        let start = SetChange::StartJoin {
            set,
            epoch: row.epoch,
            joining: joining.unwrap(),
            leaving: Some(NodeId(2)),
        };
        let changes = vec![start];
        w.system(ChangeSets { changes }).unwrap();
        assert_eq!(remove(&mut w, 2, false), Err(FsError::Busy.into()));
        let epoch = w.map().set(set).unwrap().epoch;
        let changes = vec![SetChange::FinishJoin { set, epoch }];
        w.system(ChangeSets { changes }).unwrap();
    }
    // Every node has to look through a block that closes.
    w.op(CloseSession).unwrap();
    assert!(w.counters().reap_chunks >= 3);
    assert_eq!(remove(&mut w, 2, false), Ok(()));
    let map = w.map();
    assert_eq!(map.node(NodeId(2)), None);
    assert!(map.sets.iter().all(|s| !s.nodes.contains(&NodeId(2))));
    assert_eq!(open(&w), [[1, 3]]);
    assert_eq!(w.reap_rows(2), 0);
    assert_eq!(w.counters().reap_chunks, w.reap_rows(1) + w.reap_rows(3));
    // No node has its store any more, and none gets its number.
    let mut info = node_info(2);
    info.id = NodeId(2);
    let back = w.system(RegisterNode { info });
    assert_eq!(back, Err(FsError::Stale.into()));
    let new = w.system(RegisterNode { info: node_info(4) });
    assert_eq!(new, Ok(NodeId(4)));
    w.check();
    assert_eq!(open(&w), [[1, 3], [1, 4], [3, 4]]);
}

#[test]
fn forced_removal_takes_the_last_replica_too() {
    let mut w = World::with(1, 2);
    let a = w.file("a");
    let id = w.write(a, 0, 10);
    w.system(RegisterNode { info: node_info(2) }).unwrap();
    w.system(RegisterNode { info: node_info(3) }).unwrap();
    assert_eq!(remove(&mut w, 1, true), Ok(()));
    let map = w.map();
    let set = map.set(id.set()).unwrap();
    assert!(set.nodes.is_empty() && set.sealed);
    let lost = MarkLost {
        ino: a,
        offset: 0,
        chunk: id,
    };
    w.system(lost).unwrap();
    w.check();
    set_state(&mut w, 2, NodeState::Full);
    assert_eq!(w.map().set(id.set()), None);
}

#[test]
fn uploads_of_a_removed_node_are_due_again() {
    let mut w = World::new();
    let a = w.file("a");
    w.write(a, 0, 10);
    let version = w.attr(a).version;
    let files = vec![lagan_types::op::ArchiveStart {
        ino: a,
        version,
        node: NodeId(3),
    }];
    w.system(StartArchive { files }).unwrap();
    assert_eq!(w.counters().attempts, 1);
    assert_eq!(remove(&mut w, 3, true), Ok(()));
    let counters = w.counters();
    assert_eq!((counters.attempts, counters.due_files), (0, 1));
    assert_eq!(counters.reap_objects, 1);
}

#[test]
fn state_of_a_build_that_did_not_count_loses_no_set() {
    use crate::kv::Write;
    let mut w = World::with(1, 2);
    let rows: Vec<_> = w
        .store
        .rows()
        .filter(|(t, k, _)| *t == Table::SetUse || (*t == Table::Config && *k == [2]))
        .map(|(t, k, _)| (t, k.to_vec()))
        .collect();
    assert_eq!(rows.len(), 1, "nothing is used, and that is known");
    for (table, key) in rows {
        w.store.delete(table, &key).unwrap();
    }
    let before = w.map().sets.len();
    for store in 2..=3 {
        let info = node_info(store);
        w.system(RegisterNode { info }).unwrap();
    }
    assert_eq!(w.map().sets.len(), before + 3);
}

#[test]
fn hostile_rows_stop_the_node_and_do_not_panic() {
    use crate::kv::{StoreError, Write};
    let mut w = World::new();
    let a = w.file("a");
    let edit = w.edit(0, 10);
    let rows: Vec<_> = w
        .store
        .rows()
        .map(|(t, k, v)| (t, k.to_vec(), v.to_vec()))
        .collect();
    let op = World::commit_of(a, vec![edit]);
    let command = w.command(w.session, op);
    let mut stopped = 0;
    for (table, key, value) in rows {
        for len in 0..value.len() {
            let mut store = w.store.clone();
            store.put(table, &key, &value[..len]).unwrap();
            match crate::apply(&mut store, &command) {
                Err(StoreError::Malformed(found, _)) => {
                    assert_eq!(found, table);
                    stopped += 1;
                }
                Ok(Ok(_)) => {}
                other => panic!("{table:?} {key:?} {len}: {other:?}"),
            }
            let _ = crate::invariants::check(&store);
            let _ = cluster_map(&store);
        }
    }
    assert!(stopped > 100, "{stopped}");
    assert_eq!(w.store.rows().filter(|r| r.0 == Table::Inode).count(), 2);
}
