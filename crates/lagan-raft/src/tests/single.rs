//! One voter alone.

use super::cluster::{Cluster, create, prepare, rows};
use crate::ProposeError;
use lagan_types::answer::Created;
use lagan_types::{Answer, FsError};
use std::time::Duration;

const DEADLINE: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_single_voter_answers_and_shows_what_it_answered() {
    let cluster = Cluster::start(1, |_| {}).await;
    let session = prepare(&cluster).await;
    let raft = cluster.node(1);
    let answer = raft.propose(create(session, 1, "a"), DEADLINE).await;
    assert!(matches!(
        answer,
        Ok(Ok(Answer::Created(Created { created: true, .. })))
    ));
    let again = raft.propose(create(session, 2, "a"), DEADLINE).await;
    assert_eq!(again, Ok(Err(FsError::Exists.into())));
    let view = raft.read().await.unwrap();
    assert!(lagan_meta::cluster_map(&view).unwrap().is_some());
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_proposals_at_once_are_each_answered_in_order_of_time() {
    let cluster = Cluster::start(1, |_| {}).await;
    let session = prepare(&cluster).await;
    let raft = cluster.node(1);
    let mut tasks = Vec::new();
    for seq in 1..=500 {
        let raft = raft.clone();
        let mut command = create(session, seq, &format!("f{seq}"));
        command.unanswered = 1;
        tasks.push(tokio::spawn(async move {
            raft.propose(command, DEADLINE).await
        }));
    }
    let mut times = std::collections::BTreeSet::new();
    for task in tasks {
        match task.await.unwrap() {
            Ok(Ok(Answer::Created(Created { attr, .. }))) => assert!(times.insert(attr.btime)),
            other => panic!("{other:?}"),
        }
    }
    // Far fewer entries than commands: they shared them.
    let stats = raft.stats();
    assert!(stats.last_log < 400, "{stats:?}");
    assert!(stats.proposed_entries < 400 && stats.proposed_commands >= 500);
    cluster.stop().await;
}

async fn survives(crash: bool) {
    let mut cluster = Cluster::start(1, |_| {}).await;
    let session = prepare(&cluster).await;
    for seq in 1..=50 {
        let command = create(session, seq, &format!("f{seq}"));
        cluster.insist(command).await.unwrap();
    }
    let before = rows(&cluster.node(1));
    if crash {
        cluster.kill(1).await;
    } else {
        cluster.node(1).shutdown().await;
        cluster.nodes.clear();
    }
    cluster.boot(1).await;
    let raft = cluster.leader().await;
    assert!(raft.read().await.is_ok());
    assert_eq!(rows(&raft), before);
    let next = cluster.insist(create(session, 51, "next")).await;
    assert!(next.is_ok());
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_answered_is_there_after_an_orderly_end() {
    survives(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_answered_is_there_after_a_crash() {
    survives(true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_birth_is_refused() {
    let cluster = Cluster::start(1, |_| {}).await;
    let raft = cluster.node(1);
    assert!(raft.is_initialized());
    assert!(matches!(
        raft.initialize("x".into()).await,
        Err(crate::RaftError::Initialized)
    ));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_node_says_so() {
    let cluster = Cluster::start(1, |_| {}).await;
    let session = prepare(&cluster).await;
    let raft = cluster.node(1);
    raft.shutdown().await;
    let answer = raft.propose(create(session, 1, "a"), DEADLINE).await;
    assert_eq!(answer, Err(ProposeError::Stopped));
}
