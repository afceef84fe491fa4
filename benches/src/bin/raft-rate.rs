//! Commits a second of one and of three voters in this process, with 1, 16 and
//! 256 proposers:
//! `cargo run --profile dist -p lagan-benches --bin raft-rate -- [SECONDS]`.

use bytes::Bytes;
use lagan_benches::cpu;
use lagan_raft::{BoxFuture, NoChunks, Options, Raft, Transport, TransportError};
use lagan_types::cluster::Config;
use lagan_types::op::{Create, Init, OpenSession, SessionIdentity};
use lagan_types::{Answer, Command, Ino, Kind, NodeId, Op, SessionId, Time, VolumeId};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

#[derive(Default)]
struct Net(Mutex<BTreeMap<NodeId, Weak<Raft>>>);

impl Transport for Net {
    fn call(
        &self,
        to: NodeId,
        _addr: &str,
        head: Vec<u8>,
        data: Bytes,
        _deadline: Duration,
    ) -> BoxFuture<'_, Result<(Bytes, Bytes), TransportError>> {
        let target = self.0.lock().ok().and_then(|n| n.get(&to)?.upgrade());
        Box::pin(async move {
            let target = target.ok_or_else(|| TransportError::Unreachable(to.to_string()))?;
            let answer = target.handle(head.into(), data).await;
            let (head, data) = answer.map_err(|e| TransportError::NoAnswer(e.to_string()))?;
            Ok((head.into(), data))
        })
    }
}

fn command(session: SessionId, seq: u64, op: impl Into<Op>) -> Command {
    Command {
        volume: VolumeId::ONLY,
        session,
        seq,
        unanswered: seq,
        time: Time::default(),
        op: op.into(),
    }
}

async fn session(raft: &Raft, nonce: u128) -> SessionId {
    let op = OpenSession {
        nonce,
        identity: SessionIdentity {
            machine: "m".into(),
            boot: "b".into(),
            mount_point: format!("/{nonce}"),
            instance: nonce,
        },
        predecessor: None,
    };
    let command = command(SessionId::SYSTEM, 0, op);
    match raft.propose(command, Duration::from_secs(10)).await {
        Ok(Ok(Answer::Session(new))) => new.session,
        other => panic!("{other:?}"),
    }
}

async fn measure(raft: &Arc<Raft>, proposers: u64, seconds: f64) {
    let stop = Arc::new(AtomicBool::new(false));
    let mut sessions = Vec::new();
    for _ in 0..proposers {
        sessions.push(session(raft, rand::random()).await);
    }
    let (began, cpu_began, syncs) = (Instant::now(), cpu::used(), raft.stats().syncs);
    let mut tasks = Vec::new();
    for (proposer, session) in sessions.into_iter().enumerate() {
        let (raft, stop) = (raft.clone(), stop.clone());
        tasks.push(tokio::spawn(async move {
            let mut times = Vec::new();
            for seq in 1.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let name = format!("{session}-{proposer}-{seq}-a-file-name.eml");
                let op = Create {
                    parent: Ino::ROOT,
                    name: name.into(),
                    kind: Kind::File,
                    mode: 0o644,
                    umask: 0,
                    uid: 0,
                    gid: 0,
                    rdev: 0,
                    target: Vec::new(),
                    exclusive: true,
                };
                let began = Instant::now();
                let answer = raft
                    .propose(command(session, seq, op), Duration::from_secs(10))
                    .await;
                assert!(matches!(answer, Ok(Ok(_))), "{answer:?}");
                times.push(began.elapsed().as_micros() as u64);
            }
            times
        }));
    }
    tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
    stop.store(true, Ordering::Relaxed);
    let mut times = Vec::new();
    for task in tasks {
        times.extend(task.await.expect("proposer"));
    }
    let (elapsed, cpu_used) = (began.elapsed(), cpu::used() - cpu_began);
    times.sort_unstable();
    let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize] as f64 / 1000.0;
    println!(
        "{proposers:>4} proposers: {:>7.0}/s  p50 {:.2} ms  p99 {:.2} ms  {:>5.0} us CPU each  {:.1} per sync",
        times.len() as f64 / elapsed.as_secs_f64(),
        at(0.5),
        at(0.99),
        cpu_used.as_micros() as f64 / times.len() as f64,
        times.len() as f64 / (raft.stats().syncs - syncs) as f64,
    );
}

async fn run(voters: u64, seconds: f64) {
    let dir = tempfile::tempdir_in(".").expect("directory");
    let net = Arc::new(Net::default());
    let mut nodes = Vec::new();
    for node in 1..=voters {
        let options = Options::new(dir.path().join(node.to_string()), NodeId(node));
        let raft = Raft::start(options, net.clone(), Arc::new(NoChunks(NodeId(1))))
            .await
            .expect("start");
        let weak = Arc::downgrade(&raft);
        net.0.lock().expect("net").insert(NodeId(node), weak);
        nodes.push(raft);
    }
    let first = nodes[0].clone();
    first.initialize("1".into()).await.expect("initialize");
    for node in 2..=voters {
        let added = first.add_learner(NodeId(node), node.to_string()).await;
        added.expect("add");
    }
    let all = (1..=voters).map(NodeId).collect();
    first.set_voters(all).await.expect("voters");
    let config = Config::default();
    let init = command(SessionId::SYSTEM, 0, Init { config });
    let born = first.propose(init, Duration::from_secs(10)).await;
    assert!(matches!(born, Ok(Ok(_))), "{born:?}");
    println!("{voters} voters");
    for proposers in [1, 16, 256] {
        measure(&first, proposers, seconds).await;
    }
    let began = Instant::now();
    for _ in 0..100_000 {
        first.read().await.expect("read");
    }
    println!("  read: {:.2} us", began.elapsed().as_micros() as f64 / 1e5);
    for node in nodes {
        node.shutdown().await;
    }
}

#[tokio::main(worker_threads = 2)]
async fn main() {
    let seconds = std::env::args().nth(1).and_then(|s| s.parse().ok());
    let seconds = seconds.unwrap_or(2.0);
    for voters in [1, 3] {
        run(voters, seconds).await;
    }
}
