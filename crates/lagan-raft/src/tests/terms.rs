//! What is proposed in a term happens in it or never.

use super::cluster::{
    Cluster, all_equal, another_leads, create, exists, id_of, open_session, prepare, rows,
    slow_clocks, wait_until,
};
use crate::{Batch, BatchAnswer, ProposeError, Raft};
use std::sync::Arc;
use std::time::Duration;

const DEADLINE: Duration = Duration::from_secs(60);
/// Time for things to happen that must not happen.
const MEANWHILE: Duration = Duration::from_millis(300);
const NOT_LEADER: ProposeError = ProposeError::NotLeader { leader: None };

/// Has another node elected, and then this one again. Returns its new term.
async fn lead_again(cluster: &Cluster, raft: &Arc<Raft>) -> u64 {
    let id = id_of(cluster, raft);
    raft.set_may_lead(false);
    another_leads(cluster, &[id]).await;
    raft.set_may_lead(true);
    for other in cluster.nodes.values().filter(|n| !Arc::ptr_eq(n, raft)) {
        other.set_may_lead(false);
    }
    let others: Vec<_> = (1..=3).filter(|n| *n != id).collect();
    another_leads(cluster, &others).await;
    raft.leading().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_until_its_term_is_over_never_happens() {
    let cluster = Cluster::start(3, |_| {}).await;
    let session = prepare(&cluster).await;
    let leader = cluster.leader().await;
    let term = leader.leading().unwrap();
    assert_eq!(term, leader.term());
    // The batcher waits for a proposal with a place in flight in hand: take it after that.
    let (held, _) = tokio::join!(
        leader.hold_entries(),
        leader.propose(open_session(2), DEADLINE)
    );
    let proposing = tokio::spawn({
        let (raft, command) = (leader.clone(), create(session, 1, "late"));
        async move { raft.propose_in(term, command, DEADLINE).await }
    });
    let barrier = tokio::spawn({
        let raft = leader.clone();
        async move { raft.barrier_in(term, DEADLINE).await }
    });
    let lost = tokio::spawn({
        let raft = leader.clone();
        async move { raft.lost(term).await }
    });
    wait_until("both wait", || leader.stats().queued == 2).await;
    assert!(!lost.is_finished());
    let again = lead_again(&cluster, &leader).await;
    assert!(again > term);
    lost.await.unwrap();
    assert!(!proposing.is_finished() && !barrier.is_finished());
    drop(held);
    assert_eq!(proposing.await.unwrap(), Err(NOT_LEADER));
    assert_eq!(barrier.await.unwrap(), Err(NOT_LEADER));
    // Nor is that term taken any more.
    let refused = leader.propose_in(term, create(session, 1, "late"), DEADLINE);
    assert_eq!(refused.await, Err(NOT_LEADER));
    assert_eq!(leader.barrier_in(term, DEADLINE).await, Err(NOT_LEADER));
    // A batch that was on its way to the core gets into the log, and nobody applies it.
    let late = Batch::new(term, vec![create(session, 1, "late")]);
    assert_eq!(leader.write_batch(late).await, BatchAnswer::Late);
    let made = leader.propose_in(again, create(session, 2, "now"), DEADLINE);
    assert!(matches!(made.await, Ok(Ok(_))));
    all_equal(&cluster).await;
    let view = leader.local_view();
    assert!(exists(&view, session, "now") && !exists(&view, session, "late"));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_that_was_in_the_log_and_was_cut_off_is_unknown() {
    let cluster = Cluster::start(3, |_| {}).await;
    let session = prepare(&cluster).await;
    let old = cluster.leader().await;
    let old_id = id_of(&cluster, &old);
    let (term, before) = (old.leading().unwrap(), old.stats().last_log);
    cluster.net.cut(lagan_types::NodeId(old_id));
    let proposing = tokio::spawn({
        let (raft, command) = (old.clone(), create(session, 1, "cut"));
        async move { raft.propose_in(term, command, DEADLINE).await }
    });
    wait_until("it is in the log", || old.stats().last_log > before).await;
    another_leads(&cluster, &[old_id]).await;
    cluster.insist(create(session, 2, "kept")).await.unwrap();
    assert!(!proposing.is_finished());
    cluster.net.mend(lagan_types::NodeId(old_id));
    assert_eq!(proposing.await.unwrap(), Err(ProposeError::Unknown));
    all_equal(&cluster).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_barrier_waits_for_all_that_was_proposed_before() {
    let cluster = Cluster::start(1, |_| {}).await;
    let session = prepare(&cluster).await;
    let raft = cluster.node(1);
    let (term, before) = (raft.leading().unwrap(), raft.stats().last_log);
    raft.set_disk_still(true);
    let first = raft.propose_in(term, create(session, 1, "a"), Duration::from_millis(50));
    assert_eq!(first.await, Err(ProposeError::Unknown));
    wait_until("it is in the log", || raft.stats().last_log > before).await;
    let second = tokio::spawn({
        let (raft, command) = (raft.clone(), create(session, 2, "b"));
        async move { raft.propose_in(term, command, DEADLINE).await }
    });
    wait_until("the second, too", || raft.stats().last_log > before + 1).await;
    let barrier = tokio::spawn({
        let raft = raft.clone();
        async move {
            raft.barrier_in(term, DEADLINE).await.unwrap();
            raft.local_view()
        }
    });
    tokio::time::sleep(MEANWHILE).await;
    assert!(!barrier.is_finished());
    let view = raft.local_view();
    assert!(!exists(&view, session, "a") && !exists(&view, session, "b"));
    raft.set_disk_still(false);
    let view = barrier.await.unwrap();
    assert!(exists(&view, session, "a") && exists(&view, session, "b"));
    assert!(matches!(second.await.unwrap(), Ok(Ok(_))));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_barrier_alone_changes_nothing() {
    let cluster = Cluster::start(3, slow_clocks).await;
    prepare(&cluster).await;
    let leader = cluster.leader().await;
    let term = leader.leading().unwrap();
    let (before, last) = (rows(&leader), leader.stats().last_log);
    leader.barrier_in(term, DEADLINE).await.unwrap();
    assert_eq!(leader.stats().applied, last + 1);
    assert_eq!(rows(&leader), before);
    let follower = cluster.nodes.values().find(|n| !n.is_leader()).unwrap();
    assert_eq!(follower.leading(), None);
    let refused = follower.barrier_in(term, DEADLINE).await;
    // It may not have heard yet who leads.
    assert!(matches!(refused, Err(ProposeError::NotLeader { .. })));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_term_is_lost_when_the_node_stops() {
    let cluster = Cluster::start(1, |_| {}).await;
    let raft = cluster.node(1);
    let term = raft.leading().unwrap();
    raft.lost(term + 1).await;
    let lost = tokio::spawn({
        let raft = raft.clone();
        async move { raft.lost(term).await }
    });
    tokio::time::sleep(MEANWHILE).await;
    assert!(!lost.is_finished());
    raft.shutdown().await;
    lost.await.unwrap();
    assert_eq!(raft.leading(), None);
    let refused = raft.barrier_in(term, DEADLINE).await;
    assert_eq!(refused, Err(ProposeError::Stopped));
}
