//! Rounds that ask a quorum who leads.

use super::cluster::{Cluster, id_of, prepare, slow_clocks, wait_until};
use crate::{Options, ProposeError};
use lagan_types::NodeId;
use std::time::Duration;

/// Longer than these tests take.
fn long_proofs(options: &mut Options) {
    slow_clocks(options);
    options.read_proof_ms = 30_000;
}

const PROOF: Duration = Duration::from_secs(2);

fn short_proofs(options: &mut Options) {
    slow_clocks(options);
    options.read_proof_ms = PROOF.as_millis() as u64;
}

/// Time for messages of a round whose outcome is known already.
const REST: Duration = Duration::from_millis(100);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_confirmation_is_a_new_round_although_reads_need_none() {
    let cluster = Cluster::start(3, long_proofs).await;
    prepare(&cluster).await;
    let leader = cluster.leader().await;
    for _ in 0..3 {
        assert!(leader.try_read().is_some());
        let calls = cluster.net.calls();
        assert_eq!(leader.confirm().await, Ok(leader.leading().unwrap()));
        assert!(cluster.net.calls() > calls);
    }
    // A leader that reaches nobody still reads by its proof, and confirms nothing.
    cluster.net.cut(NodeId(id_of(&cluster, &leader)));
    assert!(leader.try_read().is_some());
    let refused = leader.confirm().await;
    assert_eq!(refused, Err(ProposeError::NotLeader { leader: None }));
    assert!(leader.try_read().is_some());
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_share_the_round_after_the_one_that_is_under_way() {
    let cluster = Cluster::start(3, long_proofs).await;
    prepare(&cluster).await;
    let leader = cluster.leader().await;
    // Right after a heartbeat no message but those of the rounds is due for seconds.
    let calls = cluster.net.calls();
    wait_until("a heartbeat comes", || cluster.net.calls() > calls).await;
    tokio::time::sleep(REST).await;
    let calls = cluster.net.calls();
    // The first makes a round; all arrive before it ends, and share the second.
    let held = cluster.net.hold().await;
    let one = || leader.confirm();
    let confirming = async { tokio::join!(one(), one(), one(), one(), one(), one(), one(), one()) };
    let letting_go = async {
        tokio::time::sleep(REST).await;
        drop(held);
    };
    let (all, ()) = tokio::join!(confirming, letting_go);
    let term = leader.leading().unwrap();
    assert_eq!((all.0, all.7), (Ok(term), Ok(term)));
    tokio::time::sleep(REST).await;
    let calls = cluster.net.calls() - calls;
    // Two rounds to two followers; on a slow machine a heartbeat to each. Eight rounds
    // take 16.
    assert!((4..=6).contains(&calls), "{calls} messages");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_confirmation_lets_reads_through() {
    let cluster = Cluster::start(3, short_proofs).await;
    prepare(&cluster).await;
    let leader = cluster.leader().await;
    tokio::time::sleep(PROOF).await;
    assert!(leader.try_read().is_none());
    leader.confirm().await.unwrap();
    assert!(leader.try_read().is_some());
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_hands_over_makes_no_round() {
    let cluster = Cluster::start(3, long_proofs).await;
    prepare(&cluster).await;
    let leader = cluster.leader().await;
    leader.set_may_lead(false);
    tokio::time::sleep(REST).await;
    let calls = cluster.net.calls();
    let refused = leader.confirm().await;
    assert_eq!(refused, Err(ProposeError::NotLeader { leader: None }));
    assert_eq!(cluster.net.calls(), calls);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_confirms_nothing_and_names_the_leader() {
    let cluster = Cluster::start(3, long_proofs).await;
    prepare(&cluster).await;
    let leader = cluster.leader().await;
    let leader_id = NodeId(id_of(&cluster, &leader));
    let follower = cluster.nodes.values().find(|n| !n.is_leader()).unwrap();
    match follower.confirm().await {
        Err(ProposeError::NotLeader { leader: Some(to) }) => assert_eq!(to.0, leader_id),
        other => panic!("{other:?}"),
    }
    cluster.stop().await;
}
