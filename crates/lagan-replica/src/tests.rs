//! Nodes with real stores on loopback, over the real state machine without
//! its replication: sets lose members, are filled, are left.

mod freed;

use crate::heal::Healer;
use crate::{ChunkService, Doubt, Meta, OwnState, Peers, Work, fill, reap};
use async_trait::async_trait;
use bytes::Bytes;
use lagan_chunk::Store;
use lagan_meta::kv::{Table, Write};
use lagan_meta::memory::MemoryStore;
use lagan_net::{
    Handler, Hello, MapCell, Peer, Pool, PoolOptions, Reply, Request, Role, Server, ServerLimits,
    Service,
};
use lagan_types::answer::{GrantedBlock, NewSession};
use lagan_types::cluster::{ClusterMap, Config, NodeInfo, NodeRole, NodeState, ReplicaSet};
use lagan_types::op::{
    ChangeSets, ChunksReaped, EndSession, GrantBlock, Init, Op, OpenSession, RegisterNode,
    SessionIdentity, SetChange, SetNodeState, SystemOp,
};
use lagan_types::query::{ChunkReap, Query, QueryAnswer};
use lagan_types::{
    Answer, Ask, BlockId, ChunkId, Command, Incarnation, NodeId, Refusal, SessionId, SetId,
    StoreId, Time, VolumeId, chunk,
};
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

const LONG: Duration = Duration::from_secs(20);

/// The state machine that all nodes ask.
#[derive(Default)]
pub(crate) struct State {
    store: Mutex<MemoryStore>,
    /// Nodes whose rows of the reap queue somebody asked for.
    looked_at: Mutex<BTreeSet<NodeId>>,
}

impl State {
    pub fn apply(
        &self,
        session: SessionId,
        seq: u64,
        op: impl Into<Op>,
    ) -> Result<Answer, Refusal> {
        let command = Command {
            volume: VolumeId::ONLY,
            session,
            seq,
            unanswered: seq,
            time: Time { secs: 1, nanos: 0 },
            op: op.into(),
        };
        lagan_meta::apply(&mut *self.store.lock(), &command).unwrap()
    }

    pub fn read<A>(&self, ask: A) -> A::Answer
    where
        A: Ask<Request = Query, Reply = QueryAnswer>,
    {
        let answer = lagan_meta::read(&*self.store.lock(), ask);
        answer.unwrap().unwrap()
    }

    pub fn map(&self) -> ClusterMap {
        lagan_meta::cluster_map(&*self.store.lock())
            .unwrap()
            .unwrap()
    }
}

#[async_trait]
impl Meta for State {
    async fn mutate(&self, op: SystemOp) -> Result<Answer, Refusal> {
        self.apply(SessionId::SYSTEM, 0, op)
    }

    async fn query(&self, query: Query) -> Result<QueryAnswer, Refusal> {
        if let Query::ChunkReap(rows) = &query {
            self.looked_at.lock().insert(rows.node);
        }
        let store = self.store.lock();
        lagan_meta::query(&*store, VolumeId::ONLY, SessionId::SYSTEM, &query).unwrap()
    }

    fn now_ms(&self) -> u64 {
        1_000_000
    }
}

/// What a node that gets the log, or does not, has carried out of it.
pub(crate) struct Own {
    state: Arc<State>,
    pub map_version: Mutex<Option<u64>>,
    /// Why it is not durable.
    pub unsettled: Mutex<Option<String>>,
}

#[async_trait]
impl OwnState for Own {
    fn map_version(&self) -> Option<u64> {
        *self.map_version.lock()
    }

    fn query(&self, query: Query) -> Result<QueryAnswer, Refusal> {
        let store = self.state.store.lock();
        lagan_meta::query(&*store, VolumeId::ONLY, SessionId::SYSTEM, &query).unwrap()
    }

    fn freed(&self, ids: &[ChunkId], nodes: &[NodeId]) -> BTreeSet<ChunkId> {
        self.state.looked_at.lock().extend(nodes);
        let store = self.state.store.lock();
        let freed = |n: &NodeId| lagan_meta::freed(&*store, *n, ids).unwrap();
        nodes.iter().flat_map(freed).collect()
    }

    async fn settle(&self) -> Result<(), String> {
        self.unsettled.lock().clone().map_or(Ok(()), Err)
    }
}

struct Chunks(Arc<ChunkService>);

impl Handler for Chunks {
    fn check_hello(&self, hello: &Hello, _: SocketAddr) -> Result<Hello, String> {
        Ok(hello.clone())
    }

    fn handle(&self, _: &Arc<Peer>, request: Request, reply: Reply) {
        let message = request.decode().unwrap();
        self.0.handle(message, request.data, reply);
    }
}

pub(crate) struct Node {
    pub id: NodeId,
    pub store: Arc<Store>,
    pub map: Arc<MapCell>,
    peers: Arc<Peers>,
    pub cancel: CancellationToken,
    pub own: Arc<Own>,
    pub doubt: Arc<Doubt>,
    dir: TempDir,
}

impl Node {
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    fn start(state: &Arc<State>, id: u64) -> Node {
        let dir = tempfile::tempdir().unwrap();
        let mut options = lagan_chunk::Options::new(dir.path());
        options.segment_len = 8 << 20;
        options.prewrite = false;
        options.reserve_bytes = 8 << 20;
        options.capacity_bytes = Some(256 << 20);
        let store = Store::open(options).unwrap();
        let map = Arc::new(MapCell::default());
        let hello = Hello::client(Role::Server, Some(Incarnation(1)), Service::Chunk);
        let pool = Arc::new(Pool::new(PoolOptions::new(hello)));
        let peers = Arc::new(Peers::new(pool, map.clone()));
        let (healer, _) = Healer::new();
        let handle = tokio::runtime::Handle::current();
        let service = ChunkService::new(store.clone(), peers.clone(), healer, NodeId(id), handle);
        let cancel = CancellationToken::new();
        let server = Server::bind(
            "127.0.0.1:0".parse().unwrap(),
            Arc::new(Chunks(service)),
            ServerLimits::default(),
            cancel.clone(),
        );
        let addr = server.unwrap().local_addr().to_string();
        let info = NodeInfo {
            id: NodeId(0),
            name: format!("server-{id}"),
            store: StoreId(id.into()),
            boot: 1,
            addr: addr.clone(),
            peer_addr: addr,
            http: String::new(),
            role: NodeRole::Storage,
            state: NodeState::Up,
            voter: true,
        };
        let node = state.apply(SessionId::SYSTEM, 0, RegisterNode { info });
        assert_eq!(node, Ok(Answer::Node(NodeId(id))));
        Node {
            id: NodeId(id),
            store,
            map,
            peers,
            cancel,
            own: Arc::new(Own {
                state: state.clone(),
                map_version: Mutex::default(),
                unsettled: Mutex::default(),
            }),
            doubt: Arc::new(Doubt::open(dir.path().join("doubt"))),
            dir,
        }
    }

    pub fn put(&self, id: ChunkId) {
        let data = Bytes::from(vec![id.index() as u8; 3000]);
        let crcs = chunk::block_crcs(&data);
        self.store.write_blocking(id, data, &crcs).unwrap();
    }

    pub fn has(&self, id: ChunkId) -> bool {
        self.store.contains(id).unwrap()
    }

    fn work(&self, state: &Arc<State>) {
        let work = self.parts(state);
        tokio::spawn(fill::run(work.clone(), self.cancel.clone()));
        tokio::spawn(reap::run(work, self.cancel.clone()));
    }

    pub fn parts(&self, state: &Arc<State>) -> Work {
        let stores = (self.store.clone(), self.doubt.clone());
        let (own, peers) = (self.own.clone(), self.peers.clone());
        Work::new(state.clone(), own, stores, peers, self.id)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

pub(crate) fn cluster(count: u64) -> (Arc<State>, Vec<Node>) {
    let state = Arc::new(State::default());
    let config = Config {
        incarnation: Incarnation(1),
        replace_after_ms: 1000,
        ..Config::default()
    };
    state.apply(SessionId::SYSTEM, 0, Init { config }).unwrap();
    // No file names the chunks of these tests: every set counts as used.
    let counted = lagan_meta::layout::SETS_COUNTED_KEY;
    let mut store = state.store.lock();
    store.delete(Table::Config, counted).unwrap();
    drop(store);
    let nodes = (1..=count).map(|id| Node::start(&state, id)).collect();
    (state, nodes)
}

async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let end = Instant::now() + LONG;
    while !condition() {
        assert!(Instant::now() < end, "never: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn set_state(state: &State, node: NodeId, to: NodeState) {
    let op = SetNodeState { node, state: to };
    state.apply(SessionId::SYSTEM, 0, op).unwrap();
}

/// Node 3 joins the set from now on.
fn start_join(state: &State, set: SetId, leaving: Option<NodeId>) {
    let changes = vec![SetChange::StartJoin {
        set,
        epoch: state.map().set(set).unwrap().epoch,
        joining: NodeId(3),
        leaving,
    }];
    let change = ChangeSets { changes };
    state.apply(SessionId::SYSTEM, 0, change).unwrap();
}

pub(crate) fn set_of(map: &ClusterMap, members: [u64; 2]) -> SetId {
    let members = members.map(NodeId);
    let set = map.sets.iter().find(|s| s.nodes == members);
    set.unwrap().id
}

pub(crate) fn chunk_of(set: SetId, index: u16) -> ChunkId {
    ChunkId::new(VolumeId::ONLY, set, BlockId(77), index)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_member_is_replaced_and_gives_up_its_chunks_when_it_returns() {
    let (state, nodes) = cluster(3);
    let set = set_of(&state.map(), [1, 2]);
    let (both, rotten, last) = (chunk_of(set, 1), chunk_of(set, 2), chunk_of(set, 3));
    nodes[0].put(both);
    nodes[1].put(both);
    nodes[0].put(rotten);
    // Only the one that was lost has this: it stays until somebody looks at it.
    nodes[1].put(last);

    set_state(&state, NodeId(2), NodeState::Down);
    // As the leader plans it for a member that was down for long.
    start_join(&state, set, Some(NodeId(2)));
    nodes[0].map.put(state.map());
    nodes[2].map.put(state.map());
    nodes[2].work(&state);
    let members = || state.map().set(set).unwrap().nodes.clone();
    eventually("node 3 takes the place of node 2", || {
        members() == [NodeId(1), NodeId(3)]
    })
    .await;
    assert!(nodes[2].has(both) && nodes[2].has(rotten));
    let open = |s: &ReplicaSet| !s.sealed && s.nodes == members();
    assert!(
        state.map().sets.iter().any(open),
        "one of them takes chunks"
    );

    set_state(&state, NodeId(2), NodeState::Up);
    nodes[1].map.put(state.map());
    nodes[1].work(&state);
    eventually("node 2 gives up what others hold", || !nodes[1].has(both)).await;
    assert!(nodes[1].has(last));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn joining_node_gets_what_only_the_second_member_has() {
    let (state, nodes) = cluster(2);
    let set = set_of(&state.map(), [1, 2]);
    let id = chunk_of(set, 1);
    nodes[1].put(id);
    let third = Node::start(&state, 3);
    start_join(&state, set, None);
    third.map.put(state.map());
    third.work(&state);
    eventually("node 3 is a member", || {
        state.map().set(set).unwrap().nodes.len() == 3
    })
    .await;
    assert!(third.has(id));
}

/// A session, and a block of ids that it holds.
fn open_block(state: &State) -> (SessionId, BlockId) {
    let identity = SessionIdentity {
        machine: "m".into(),
        boot: "b".into(),
        mount_point: "/mnt".into(),
        instance: 1,
    };
    let open = OpenSession {
        nonce: 1,
        identity,
        predecessor: None,
    };
    let Ok(Answer::Session(NewSession { session, .. })) = state.apply(SessionId::SYSTEM, 0, open)
    else {
        panic!("no session");
    };
    let Ok(Answer::Block(GrantedBlock { block, .. })) = state.apply(session, 1, GrantBlock) else {
        panic!("no block");
    };
    (session, block)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_of_closed_blocks_waits_for_the_map_and_goes_from_all_sets() {
    let (state, nodes) = cluster(2);
    let set = set_of(&state.map(), [1, 2]);
    let (session, block) = open_block(&state);
    let known = ChunkId::new(VolumeId::ONLY, set, block, 1);
    let unknown = ChunkId::new(VolumeId::ONLY, SetId(999), block, 2);
    nodes[0].put(known);
    nodes[0].put(unknown);
    state
        .apply(SessionId::SYSTEM, 0, EndSession { session })
        .unwrap();
    nodes[0].work(&state);
    let rows = |now_ms| {
        let query = ChunkReap {
            node: NodeId(1),
            from: 0,
            now_ms,
            limit: 10,
        };
        state.read(query).len()
    };
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(rows(u64::MAX), 1, "a node without a map answered for a row");
    nodes[0].map.put(state.map());
    eventually("the row is worked off", || rows(u64::MAX) == 0).await;
    assert!(!nodes[0].has(known) && !nodes[0].has(unknown));
}

/// Frees a chunk that the node has, by the end of its session: a row of the reap queue.
fn freed_chunk(state: &State, node: &Node, set: SetId) -> ChunkId {
    let (session, block) = open_block(state);
    let id = ChunkId::new(VolumeId::ONLY, set, block, 1);
    node.put(id);
    let end = EndSession { session };
    state.apply(SessionId::SYSTEM, 0, end).unwrap();
    id
}

fn rows_of(state: &State, node: NodeId) -> usize {
    let query = ChunkReap {
        node,
        from: 0,
        now_ms: u64::MAX,
        limit: 10,
    };
    state.read(query).len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_are_reported_only_when_no_replay_stores_their_chunks_again() {
    let (state, nodes) = cluster(2);
    let set = set_of(&state.map(), [1, 2]);
    let id = freed_chunk(&state, &nodes[0], set);
    *nodes[0].own.map_version.lock() = Some(u64::MAX);
    *nodes[0].own.unsettled.lock() = Some("not yet".into());
    nodes[0].map.put(state.map());
    nodes[0].work(&state);
    eventually("it is deleted", || !nodes[0].has(id)).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(rows_of(&state, NodeId(1)), 1, "a crash may bring it back");
    *nodes[0].own.unsettled.lock() = None;
    eventually("the row is reported", || rows_of(&state, NodeId(1)) == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node_in_doubt_fetches_what_others_have_and_nothing_that_was_freed() {
    let (state, nodes) = cluster(2);
    let set = set_of(&state.map(), [1, 2]);
    let (lacked, whole) = (chunk_of(set, 1), chunk_of(set, 2));
    nodes[1].put(lacked);
    nodes[0].put(whole);
    nodes[1].put(whole);
    // This node has worked off its row; the other one has not.
    let freed = freed_chunk(&state, &nodes[1], set);
    let query = ChunkReap {
        node: NodeId(1),
        from: 0,
        now_ms: u64::MAX,
        limit: 10,
    };
    let through = state.read(query).last().unwrap().0;
    let node = NodeId(1);
    let reaped = ChunksReaped { node, through };
    state.apply(SessionId::SYSTEM, 0, reaped).unwrap();
    nodes[0].doubt.raise().unwrap();
    nodes[0].work(&state);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(nodes[0].doubt.raised().is_some(), "it has no map yet");
    // The other one cannot be asked yet.
    set_state(&state, NodeId(2), NodeState::Down);
    nodes[0].map.put(state.map());
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert!(nodes[0].doubt.raised().is_some());
    set_state(&state, NodeId(2), NodeState::Up);
    nodes[0].map.put(state.map());
    eventually("the doubt ends", || nodes[0].doubt.raised().is_none()).await;
    assert!(nodes[0].has(lacked) && nodes[0].has(whole));
    assert!(!nodes[0].has(freed) && nodes[1].has(freed));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node_leaves_no_set_before_it_has_carried_out_that_it_left() {
    let (state, nodes) = cluster(3);
    let set = set_of(&state.map(), [1, 2]);
    let id = chunk_of(set, 1);
    nodes[0].put(id);
    nodes[2].put(id);
    *nodes[2].own.map_version.lock() = Some(0);
    nodes[2].map.put(state.map());
    nodes[2].work(&state);
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert!(nodes[2].has(id), "an entry may still bring more");
    *nodes[2].own.map_version.lock() = Some(state.map().version);
    eventually("it leaves the set", || !nodes[2].has(id)).await;
}
