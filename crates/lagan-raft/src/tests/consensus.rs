//! Three voters.

use super::cluster::{
    Cluster, PATIENCE, all_equal, another_leads, assert_same, command, create, exists, id_of, init,
    open_session, prepare, rows,
};
use crate::{Options, ProposeError, Raft};
use lagan_types::answer::Created;
use lagan_types::op::GrantBlock;
use lagan_types::{Answer, FsError, NodeId, SessionId};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const DEADLINE: Duration = Duration::from_secs(20);

/// For what must not see the leader change: a sync of a second makes it look dead.
fn no_elections(options: &mut Options) {
    options.election_ms = (30_000, 60_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn followers_name_the_leader_and_reach_its_state() {
    let cluster = Cluster::start(3, no_elections).await;
    let session = prepare(&cluster).await;
    let leader = cluster.leader().await;
    let leader_id = NodeId(id_of(&cluster, &leader));
    for seq in 1..=30 {
        let name = format!("f{seq}");
        cluster.insist(create(session, seq, &name)).await.unwrap();
    }
    for (id, node) in &cluster.nodes {
        // A follower hears of the last change of members some time after the leader.
        let until = Instant::now() + PATIENCE;
        while node.voters().len() != 3 {
            assert!(Instant::now() < until, "{id:?} knows no voters");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        if *id == leader_id {
            continue;
        }
        match node.propose(create(session, 99, "x"), DEADLINE).await {
            Err(ProposeError::NotLeader { leader: Some(to) }) => {
                assert_eq!(to, (leader_id, format!("addr-{}", leader_id.0)));
            }
            other => panic!("{other:?}"),
        }
        assert!(node.read().await.is_err());
    }
    all_equal(&cluster).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_leader_is_replaced_and_nothing_answered_is_lost() {
    let mut cluster = Cluster::start(3, |_| {}).await;
    let session = prepare(&cluster).await;
    for seq in 1..=20 {
        let name = format!("f{seq}");
        cluster.insist(create(session, seq, &name)).await.unwrap();
    }
    let old = id_of(&cluster, &cluster.leader().await);
    cluster.kill(old).await;
    for seq in 21..=40 {
        let name = format!("f{seq}");
        cluster.insist(create(session, seq, &name)).await.unwrap();
    }
    let leader = cluster.leader().await;
    let view = leader.read().await.unwrap();
    for seq in 1..=40 {
        assert!(exists(&view, session, &format!("f{seq}")), "f{seq}");
    }
    cluster.boot(old).await;
    all_equal(&cluster).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retry_at_another_leader_returns_the_first_answer() {
    let mut cluster = Cluster::start(3, |_| {}).await;
    let session = prepare(&cluster).await;
    let first = cluster.insist(create(session, 1, "once")).await;
    assert!(matches!(
        first,
        Ok(Answer::Created(Created { created: true, .. }))
    ));
    let old = id_of(&cluster, &cluster.leader().await);
    cluster.kill(old).await;
    let again = cluster.insist(create(session, 1, "once")).await;
    assert_eq!(again, first);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_cut_off_answers_no_reads_after_another_leads() {
    let cluster = Cluster::start(3, |_| {}).await;
    let session = prepare(&cluster).await;
    let old = cluster.leader().await;
    let old_id = NodeId(id_of(&cluster, &old));
    cluster.net.cut(old_id);
    let term = old.term();
    let pending = old.propose(create(session, 1, "lost?"), Duration::from_millis(300));
    assert!(matches!(
        pending.await,
        Err(ProposeError::Unknown | ProposeError::NotLeader { .. })
    ));
    let until = Instant::now() + PATIENCE;
    let new = loop {
        // Whatever the old one still answers must have been read before the
        // new one answered: stop asking it first.
        let stale = old.read().await;
        // It may have been followed by another already when it was cut off.
        let leads = cluster
            .nodes
            .iter()
            .find(|(id, n)| **id != old_id && n.is_leader() && n.term() >= term);
        if let Some((_, new)) = leads {
            assert!(stale.is_err() || new.read().await.is_err() || old.read().await.is_err());
            break new.clone();
        }
        assert!(Instant::now() < until);
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let answer = cluster.insist(create(session, 2, "after")).await;
    assert!(answer.is_ok());
    assert!(old.read().await.is_err());
    assert!(
        old.propose(create(session, 3, "no"), DEADLINE)
            .await
            .is_err()
    );
    cluster.net.mend(old_id);
    cluster.caught_up(old_id.0, &new).await;
    all_equal(&cluster).await;
    cluster.stop().await;
}

/// Kills a follower and makes so many files that the others' logs no longer have what it
/// lacks. Returns the session that made them, and the follower.
async fn leave_one_behind(cluster: &mut Cluster, files: u64) -> (SessionId, u64) {
    let session = prepare(cluster).await;
    let leader = cluster.leader().await;
    let away = (1..=3).find(|&n| n != id_of(cluster, &leader)).unwrap();
    cluster.caught_up(away, &leader).await;
    cluster.kill(away).await;
    for seq in 1..=files {
        let name = format!("f{seq}");
        cluster.insist(create(session, seq, &name)).await.unwrap();
    }
    let until = Instant::now() + PATIENCE;
    while cluster.leader().await.stats().purged < files / 2 {
        assert!(Instant::now() < until, "the log is not purged");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    (session, away)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_was_away_long_gets_a_snapshot() {
    let mut cluster = Cluster::start(3, |o| {
        o.snapshot_every = 50;
        o.keep_entries = 10;
        o.durable_every_ms = 50;
    })
    .await;
    let (session, away) = leave_one_behind(&mut cluster, 300).await;
    cluster.boot(away).await;
    all_equal(&cluster).await;
    assert!(cluster.node(away).stats().snapshot > 0);
    // And it goes on from there, also after a crash.
    cluster.kill(away).await;
    cluster.insist(create(session, 301, "more")).await.unwrap();
    cluster.boot(away).await;
    all_equal(&cluster).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_is_installed_while_writes_go_on() {
    let mut cluster = Cluster::start(3, |o| {
        no_elections(o);
        o.snapshot_every = 50;
        o.keep_entries = 10;
        // Nothing but the installation itself says that the state covers what was purged.
        o.durable_every_ms = 60_000;
    })
    .await;
    let (session, away) = leave_one_behind(&mut cluster, 200).await;
    let leader = cluster.leader().await;
    let writing = Arc::new(AtomicBool::new(true));
    let writer = tokio::spawn({
        let (leader, writing) = (leader.clone(), writing.clone());
        async move {
            let mut seq = 200;
            while writing.load(Ordering::Relaxed) {
                seq += 1;
                let name = format!("f{seq}");
                let made = leader.propose(create(session, seq, &name), DEADLINE).await;
                made.unwrap().unwrap();
            }
        }
    });
    cluster.boot(away).await;
    let until = Instant::now() + PATIENCE;
    while cluster.node(away).stats().snapshot == 0 {
        assert!(Instant::now() < until, "no snapshot came");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // Entries go on to come right behind it.
    tokio::time::sleep(Duration::from_millis(300)).await;
    writing.store(false, Ordering::Relaxed);
    writer.await.unwrap();
    all_equal(&cluster).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_nodes_crash_at_once_and_come_back_with_everything() {
    let mut cluster = Cluster::start(3, |o| o.durable_every_ms = 100).await;
    let session = prepare(&cluster).await;
    for seq in 1..=60 {
        let name = format!("f{seq}");
        cluster.insist(create(session, seq, &name)).await.unwrap();
    }
    let leader = cluster.leader().await;
    let before = rows(&leader);
    drop(leader);
    for node in 1..=3 {
        cluster.kill(node).await;
    }
    for node in 1..=3 {
        cluster.boot(node).await;
    }
    let leader = cluster.leader().await;
    assert_same(&rows(&leader), &before, "leader");
    all_equal(&cluster).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_steps_down_is_replaced() {
    let cluster = Cluster::start(3, |_| {}).await;
    prepare(&cluster).await;
    let old = cluster.leader().await;
    let term = old.term();
    let until = Instant::now() + PATIENCE;
    while old.term() == term {
        // It leads on when nobody takes over soon.
        assert!(Instant::now() < until, "nobody takes over");
        old.step_down().await;
    }
    let new = cluster.leader().await;
    assert!(new.term() > term);
    cluster.insist(open_session(2)).await.unwrap();
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_may_not_lead_leaves_it_to_others_until_it_may() {
    let cluster = Cluster::start(3, |_| {}).await;
    prepare(&cluster).await;
    let first = cluster.leader().await;
    let first_id = id_of(&cluster, &first);
    assert!(first.set_may_lead(false), "a change");
    assert!(!first.set_may_lead(false), "none");
    let refused = first.propose(open_session(2), DEADLINE).await;
    assert!(
        matches!(refused, Err(ProposeError::NotLeader { .. })),
        "{refused:?}"
    );
    let second = another_leads(&cluster, &[first_id]).await;
    let second_id = id_of(&cluster, &second);
    cluster.insist(open_session(3)).await.unwrap();
    // Nor does it stand when the next one goes.
    assert!(second.set_may_lead(false));
    let third = another_leads(&cluster, &[first_id, second_id]).await;
    let third_id = id_of(&cluster, &third);
    cluster.insist(open_session(4)).await.unwrap();
    // Its clock was set: now it is needed.
    assert!(first.set_may_lead(true));
    assert!(third.set_may_lead(false));
    let last = another_leads(&cluster, &[second_id, third_id]).await;
    assert_eq!(id_of(&cluster, &last), first_id);
    cluster.insist(open_session(5)).await.unwrap();
    all_equal(&cluster).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_only_voter_leads_although_it_should_not() {
    let mut cluster = Cluster::start(1, |_| {}).await;
    prepare(&cluster).await;
    let first = cluster.leader().await;
    first.set_may_lead(false);
    cluster.insist(open_session(2)).await.unwrap();
    // So that others can become voters, of whom one leads then.
    for node in [2, 3] {
        cluster.boot(node).await;
        let added = first.add_learner(NodeId(node), format!("addr-{node}"));
        added.await.unwrap();
    }
    // It may hand over before it has the answer.
    let _ = first.set_voters([1, 2, 3].map(NodeId).into()).await;
    another_leads(&cluster, &[1]).await;
    cluster.insist(open_session(3)).await.unwrap();
    cluster.stop().await;
}

async fn members_become(raft: &Raft, wanted: impl Fn(&BTreeMap<NodeId, String>) -> bool) {
    let mut leader = raft.watch();
    let change = leader.wait_for(|l| wanted(&l.members));
    let changed = tokio::time::timeout(PATIENCE, change).await;
    changed.expect("members change").expect("it runs");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_voter_can_be_replaced() {
    let mut cluster = Cluster::start(3, no_elections).await;
    let session = prepare(&cluster).await;
    let leader = cluster.leader().await;
    let leader_id = id_of(&cluster, &leader);
    let gone = (1..=3).find(|&n| n != leader_id).unwrap();
    cluster.kill(gone).await;
    cluster.boot(4).await;
    leader
        .add_learner(NodeId(4), "addr-4".into())
        .await
        .unwrap();
    let voters = [1, 2, 3, 4].into_iter().filter(|&n| n != gone);
    leader
        .set_voters(voters.map(NodeId).collect())
        .await
        .unwrap();
    assert!(!leader.voters().contains(&NodeId(gone)));
    leader.forget([NodeId(gone)].into()).await.unwrap();
    members_become(&leader, |m| !m.contains_key(&NodeId(gone))).await;
    let moved = BTreeMap::from([(NodeId(4), "addr-44".to_owned())]);
    leader.set_addrs(moved).await.unwrap();
    members_become(&leader, |m| {
        m.get(&NodeId(4)).is_some_and(|a| a == "addr-44")
    })
    .await;
    cluster.insist(create(session, 1, "x")).await.unwrap();
    all_equal(&cluster).await;
    // Only commands that the state machine refuses are left to try.
    let again = cluster.insist(init()).await;
    assert_eq!(again, Err(FsError::Exists.into()));
    let unknown = command(SessionId(77), 1, GrantBlock);
    assert!(cluster.insist(unknown).await.is_err());
    cluster.stop().await;
}
