//! Tests which disks have an entry before it is told or answered, and in how many messages.

use super::cluster::{Cluster, create, open_session, prepare, slow_clocks, wait_until};
use crate::Raft;
use lagan_types::NodeId;
use std::sync::Arc;
use std::time::{Duration, Instant};

const DEADLINE: Duration = Duration::from_secs(20);
/// Time for things to happen that must not happen.
const MEANWHILE: Duration = Duration::from_millis(500);

fn followers(cluster: &Cluster, leader: &Arc<Raft>) -> Vec<Arc<Raft>> {
    let nodes = cluster.nodes.values();
    nodes.filter(|n| !Arc::ptr_eq(n, leader)).cloned().collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_single_voter_answers_nothing_that_its_disk_does_not_have() {
    let cluster = Cluster::start(1, |_| {}).await;
    let session = prepare(&cluster).await;
    let raft = cluster.node(1);
    let before = raft.stats().applied;
    raft.set_disk_still(true);
    let proposing = {
        let raft = raft.clone();
        tokio::spawn(async move { raft.propose(create(session, 1, "a"), DEADLINE).await })
    };
    wait_until("the entry is queued", || raft.stats().last_log > before).await;
    tokio::time::sleep(MEANWHILE).await;
    assert!(!proposing.is_finished());
    assert_eq!(raft.stats().applied, before);
    raft.set_disk_still(false);
    assert!(matches!(proposing.await.unwrap(), Ok(Ok(_))));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_hears_of_a_commit_before_the_leaders_disk_has_it() {
    let cluster = Cluster::start(3, |o| o.election_ms = (30_000, 60_000)).await;
    let session = prepare(&cluster).await;
    let leader = cluster.leader().await;
    let others = followers(&cluster, &leader);
    let before = leader.stats().applied;
    for node in &others {
        wait_until("followers apply", || node.stats().applied == before).await;
    }
    leader.set_disk_still(true);
    let proposing = {
        let raft = leader.clone();
        tokio::spawn(async move { raft.propose(create(session, 1, "a"), DEADLINE).await })
    };
    for node in &others {
        // Both disks have it, so a quorum, but the leader's has not.
        wait_until("followers write", || node.stats().last_log > before).await;
    }
    tokio::time::sleep(MEANWHILE).await;
    assert!(!proposing.is_finished());
    for node in cluster.nodes.values() {
        assert_eq!(node.stats().applied, before);
    }
    leader.set_disk_still(false);
    assert!(matches!(proposing.await.unwrap(), Ok(Ok(_))));
    for node in &others {
        wait_until("followers apply", || node.stats().applied > before).await;
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_does_not_vouch_for_what_its_disk_does_not_have() {
    let cluster = Cluster::start(3, |o| o.election_ms = (30_000, 60_000)).await;
    let session = prepare(&cluster).await;
    let leader = cluster.leader().await;
    let others = followers(&cluster, &leader);
    let before = leader.stats().applied;
    // One that stands still in the middle of a sync takes no entry.
    for node in &others {
        wait_until("followers keep up", || node.stats().applied >= before).await;
    }
    others.iter().for_each(|node| node.set_disk_still(true));
    let proposing = {
        let raft = leader.clone();
        tokio::spawn(async move { raft.propose(create(session, 1, "a"), DEADLINE).await })
    };
    for node in &others {
        wait_until("followers queue", || node.stats().last_log > before).await;
    }
    tokio::time::sleep(MEANWHILE).await;
    assert!(!proposing.is_finished());
    assert_eq!(leader.stats().applied, before);
    others[0].set_disk_still(false);
    assert!(matches!(proposing.await.unwrap(), Ok(Ok(_))));
    others[1].set_disk_still(false);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whose_disk_stands_still_is_replaced() {
    let cluster = Cluster::start(3, |_| {}).await;
    let session = prepare(&cluster).await;
    let old = cluster.leader().await;
    old.set_disk_still(true);
    let lost = {
        let raft = old.clone();
        tokio::spawn(async move { raft.propose(create(session, 1, "a"), DEADLINE).await })
    };
    let others = followers(&cluster, &old);
    wait_until("another leads", || others.iter().any(|n| n.is_leader())).await;
    old.set_disk_still(false);
    // Whatever became of it, it is known to all in the end.
    let _ = lost.await.unwrap();
    cluster.insist(open_session(2)).await.unwrap();
    let leader = cluster.leader().await;
    for id in 1..=3 {
        cluster.caught_up(id, &leader).await;
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entry_costs_one_message_to_each_follower() {
    const COUNT: u64 = 60;
    let cluster = Cluster::start(3, slow_clocks).await;
    let session = prepare(&cluster).await;
    let leader = cluster.leader().await;
    let (calls, began) = (cluster.net.calls(), Instant::now());
    for seq in 1..=COUNT {
        let command = create(session, seq, &format!("f{seq}"));
        assert!(matches!(leader.propose(command, DEADLINE).await, Ok(Ok(_))));
    }
    let calls = cluster.net.calls() - calls;
    // Heartbeats, and commits told by themselves after a pause.
    let pauses = began.elapsed().as_millis() as u64 / 2_000 + 1;
    assert!(calls <= 2 * (COUNT + 3 * pauses), "{calls} messages");
    // The last is told with a heartbeat.
    for id in 1..=3 {
        cluster.caught_up(id, &leader).await;
        assert!(cluster.nodes.contains_key(&NodeId(id)));
    }
    cluster.stop().await;
}
