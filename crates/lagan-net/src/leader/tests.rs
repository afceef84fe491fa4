use super::*;
use crate::handshake::{Hello, Role};
use crate::message::Request;
use crate::pool::PoolOptions;
use crate::testing::{LONG, hello};
use crate::{Handler, Peer, Reply, Server, ServerLimits};
use lagan_types::Incarnation;
use lagan_types::cluster::ClusterMap;
use lagan_types::message::{GetMap, MetaRequest, NodeRequest, Pong};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use tokio_util::sync::CancellationToken;

/// The leader of the test's cluster; 0: there is none.
type Leading = Arc<AtomicU64>;

/// A metadata server as far as finding the leader goes.
struct Node {
    id: NodeId,
    leading: Leading,
    /// Names the leader's address when asked.
    hints: Arc<Mutex<HashMap<NodeId, SocketAddr>>>,
    /// Answers nothing but pings.
    hung: Arc<AtomicU64>,
    held: Mutex<Vec<Reply>>,
    refuse: bool,
}

impl Handler for Node {
    fn check_hello(&self, theirs: &Hello, _: SocketAddr) -> Result<Hello, String> {
        if self.refuse {
            return Err("not of this cluster".to_owned());
        }
        Ok(Hello {
            role: Role::Server,
            incarnation: Some(Incarnation(1)),
            node: Some(self.id),
            ..theirs.clone()
        })
    }

    fn handle(&self, peer: &Arc<Peer>, request: Request, reply: Reply) {
        let leader = Some(NodeId(self.leading.load(SeqCst))).filter(|n| n.0 != 0);
        if self.hung.load(SeqCst) == self.id.0 {
            return self.held.lock().push(reply);
        }
        if peer.hello.service == Service::Node {
            assert_eq!(request.decode(), Ok(NodeRequest::Ping(Ping)));
            return reply.answer::<Ping>(Ok(Pong { leader, term: 5 }), Bytes::new());
        }
        assert_eq!(
            request.decode(),
            Ok(MetaRequest::GetMap(GetMap { known: 0 }))
        );
        reply.refuse::<MetaRequest>(match leader == Some(self.id) {
            true => LeaderRefusal::Refused(self.id.to_string()),
            false => LeaderRefusal::NotLeader {
                leader,
                addr: leader.and_then(|l| self.hints.lock().get(&l).map(|a| a.to_string())),
            },
        });
    }
}

struct Cluster {
    client: LeaderClient,
    leading: Leading,
    hung: Arc<AtomicU64>,
    hints: Arc<Mutex<HashMap<NodeId, SocketAddr>>>,
    nodes: Vec<(CancellationToken, SocketAddr)>,
}

impl Cluster {
    fn start(refuse: bool) -> Self {
        let leading = Leading::default();
        let hints: Arc<Mutex<HashMap<NodeId, SocketAddr>>> = Arc::default();
        let hung: Arc<AtomicU64> = Arc::default();
        let mut nodes = Vec::new();
        for id in 1..=3 {
            let node = Node {
                id: NodeId(id),
                leading: leading.clone(),
                hints: hints.clone(),
                hung: hung.clone(),
                held: Mutex::default(),
                refuse,
            };
            let cancel = CancellationToken::new();
            let at = "127.0.0.1:0".parse().unwrap();
            let limits = ServerLimits {
                drain_deadline: Duration::from_millis(20),
                ..ServerLimits::default()
            };
            let server = Server::bind(at, Arc::new(node), limits, cancel.clone()).unwrap();
            nodes.push((cancel, server.local_addr()));
        }
        let servers = nodes.iter().map(|n| n.1).collect();
        let client = LeaderClient::new(Pool::new(PoolOptions::new(hello())), servers);
        Cluster {
            client,
            leading,
            hung,
            hints,
            nodes,
        }
    }

    async fn call(&self, deadline: Duration) -> Result<Option<ClusterMap>, NetError> {
        self.client.ask(GetMap { known: 0 }, deadline).await
    }

    async fn is_answered_by(&self, node: u64) {
        let got = self.call(LONG).await;
        assert_eq!(got, Err(NetError::Declined(NodeId(node).to_string())));
        let addr = self.nodes[node as usize - 1].1;
        assert_eq!(self.client.leader(), Some(addr));
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.nodes.iter().for_each(|n| n.0.cancel());
    }
}

#[tokio::test]
async fn the_leader_is_found_with_and_without_hints() {
    let cluster = Cluster::start(false);
    cluster.leading.store(3, SeqCst);
    cluster.is_answered_by(3).await;
    cluster.leading.store(1, SeqCst);
    cluster.is_answered_by(1).await;
    let addr = cluster.nodes[1].1;
    cluster.hints.lock().insert(NodeId(2), addr);
    cluster.leading.store(2, SeqCst);
    cluster.is_answered_by(2).await;
}

#[tokio::test]
async fn an_election_is_waited_for() {
    let cluster = Cluster::start(false);
    let leading = cluster.leading.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(200)).await;
        leading.store(2, SeqCst);
    });
    cluster.is_answered_by(2).await;
}

#[tokio::test]
async fn a_dead_leader_is_left_for_the_next() {
    let cluster = Cluster::start(false);
    cluster.leading.store(1, SeqCst);
    cluster.is_answered_by(1).await;
    cluster.nodes[0].0.cancel();
    cluster.leading.store(3, SeqCst);
    cluster.is_answered_by(3).await;
}

#[tokio::test]
async fn a_hung_leader_is_left_when_the_others_name_another() {
    let cluster = Cluster::start(false);
    cluster.leading.store(1, SeqCst);
    cluster.is_answered_by(1).await;
    cluster.hung.store(1, SeqCst);
    cluster.leading.store(2, SeqCst);
    cluster.is_answered_by(2).await;
}

#[tokio::test]
async fn no_leader_is_a_time_out_of_known_outcome() {
    let cluster = Cluster::start(false);
    for _ in 0..50 {
        let start = Instant::now();
        let got = cluster.call(Duration::from_millis(200)).await;
        assert!(got.is_err() && start.elapsed() >= Duration::from_millis(200));
        if got == Err(NetError::TimedOut { sent: false }) {
            return;
        }
        // The time was over in the middle of an attempt: this machine is slow.
    }
    panic!("the outcome is never known");
}

#[tokio::test]
async fn a_cluster_that_refuses_us_says_so_at_once() {
    let cluster = Cluster::start(true);
    let got = cluster.call(LONG).await;
    assert!(matches!(got, Err(NetError::Refused { .. })), "{got:?}");
}
