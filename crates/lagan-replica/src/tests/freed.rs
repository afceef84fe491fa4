//! Chunks that were freed are not copied, whoever has not deleted them yet.

use super::*;

/// Node 3 joins the set of nodes 1 and 2; with the log, or without.
async fn third_joins(state: &Arc<State>, set: SetId, follows: bool) -> Node {
    let third = Node::start(state, 3);
    *third.own.map_version.lock() = follows.then_some(u64::MAX);
    start_join(state, set, None);
    third.map.put(state.map());
    third.work(state);
    eventually("node 3 is a member", || {
        state.map().set(set).unwrap().nodes.len() == 3
    })
    .await;
    third
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn joining_node_does_not_get_what_was_freed_before() {
    for follows in [true, false] {
        let (state, nodes) = cluster(2);
        let set = set_of(&state.map(), [1, 2]);
        let named = chunk_of(set, 1);
        nodes[0].put(named);
        // The members have not worked off their rows yet.
        let freed = freed_chunk(&state, &nodes[0], set);
        let third = third_joins(&state, set, follows).await;
        assert!(third.has(named) && !third.has(freed), "{follows}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn joining_node_looks_at_no_rows_of_members_that_are_down() {
    for follows in [true, false] {
        let (state, nodes) = cluster(2);
        let set = set_of(&state.map(), [1, 2]);
        nodes[0].put(chunk_of(set, 1));
        set_state(&state, NodeId(2), NodeState::Down);
        let freed = freed_chunk(&state, &nodes[0], set);
        assert_eq!(rows_of(&state, NodeId(2)), 1, "they wait while it is down");
        let third = third_joins(&state, set, follows).await;
        assert!(third.has(chunk_of(set, 1)) && !third.has(freed));
        let looked_at = state.looked_at.lock();
        assert!(looked_at.contains(&NodeId(1)), "{follows}");
        assert!(!looked_at.contains(&NodeId(2)), "{follows}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node_in_doubt_looks_at_the_rows_of_those_that_it_asks() {
    let (state, nodes) = cluster(2);
    let set = set_of(&state.map(), [1, 2]);
    let third = third_joins(&state, set, true).await;
    set_state(&state, NodeId(2), NodeState::Down);
    let lacked = chunk_of(set, 1);
    third.put(lacked);
    // Node 3 has the map of before it was a member, and works off no rows.
    let freed = freed_chunk(&state, &third, set);
    state.looked_at.lock().clear();
    // It works off its own rows by its own state, which nobody counts.
    *nodes[0].own.map_version.lock() = Some(state.map().version);
    nodes[0].doubt.raise().unwrap();
    nodes[0].map.put(state.map());
    nodes[0].work(&state);
    eventually("it has what node 3 has", || nodes[0].has(lacked)).await;
    assert!(!nodes[0].has(freed));
    assert_eq!(*state.looked_at.lock(), [NodeId(3)].into());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn joining_node_sees_all_rows_also_without_the_log() {
    let (state, nodes) = cluster(2);
    let set = set_of(&state.map(), [1, 2]);
    // Of a block that none of the sessions below gets.
    let named = ChunkId::new(VolumeId::ONLY, set, BlockId(9_999), 1);
    nodes[0].put(named);
    // More rows than one answer holds.
    let freed: Vec<ChunkId> = (0..300)
        .map(|_| freed_chunk(&state, &nodes[0], set))
        .collect();
    let third = third_joins(&state, set, false).await;
    assert!(third.has(named));
    let back = freed.iter().filter(|id| third.has(**id)).count();
    assert_eq!(back, 0, "chunks that are copied stay for ever");
}
