//! The servers, and what can go wrong with them.

use bytes::Bytes;
use lagan_client::{Client, ConnectError, Options};
use lagan_meta::memory::MemoryStore;
use lagan_meta::{apply, cluster_map, invariants, map_version, query, session_exists};
use lagan_net::message::Response;
use lagan_net::{Handler, Hello, Peer, Reply, Request, Role, Server, ServerLimits, Service};
use lagan_types::access::Access;
use lagan_types::chunk::verify_blocks;
use lagan_types::cluster::{Config, NodeInfo, NodeRole, NodeState};
use lagan_types::limits::BLOCK_LEN;
use lagan_types::message::{ChunkReply, ChunkRequest, MetaReply, MetaRequest, NodeStatus, Status};
use lagan_types::op::{
    FileOp, GrantInos, Init, NewFile, RegisterNode, SessionIdentity, SetNodeState,
};
use lagan_types::query::Counters;
use lagan_types::{
    Answer, ChunkId, ClusterId, Command, FsError, Incarnation, Ino, Kind, NodeId, Op, Query,
    QueryAnswer, SessionId, StoreId, Time, VolumeId,
};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

pub const LIFE: Incarnation = Incarnation(0x1234_5678_9abc_def0_1111_2222_3333_4444);
pub const ROOT: Ino = Ino::ROOT;
pub const VOLUME: VolumeId = VolumeId::ONLY;
/// The leader's term.
const TERM: u64 = 1;

/// One replica.
#[derive(Clone)]
pub struct Stored {
    pub data: Bytes,
    pub crcs: Vec<u32>,
}

/// The state that all servers share, and the faults.
#[derive(Default)]
pub struct World {
    pub store: MemoryStore,
    pub chunks: HashMap<(NodeId, ChunkId), Stored>,
    pub addrs: BTreeMap<NodeId, SocketAddr>,
    /// Nodes whose chunk service takes requests and never answers.
    pub silent: BTreeSet<NodeId>,
    /// Nodes that the leader has not heard of.
    pub unheard: BTreeSet<NodeId>,
    /// Nodes that say that they are full.
    pub full: BTreeSet<NodeId>,
    /// Number of next mutations whose answers are lost after they were carried out.
    pub lost_answers: u32,
    /// Number of next commits that find their sets changed.
    pub stale_commits: u32,
    /// An orphan check for every heartbeat, and what was answered.
    pub check: (u64, Vec<Ino>),
    pub checked: Vec<(u64, Vec<Ino>)>,
    pub reported_bad: Vec<(NodeId, ChunkId)>,
    pub objects: HashMap<(Ino, u64), Bytes>,
    /// Creates of files are promised, and kept nowhere: as by a leader that dies.
    pub promises: bool,
    /// Reads that mounts told of, or would have if they were not refused.
    pub told: Vec<Access>,
    pub refuse_reads: bool,
    /// Requests since the start, by kind; those that tell of reads do not count.
    pub mutations: u32,
    pub queries: u32,
    pub chunk_writes: u32,
    pub chunk_reads: u32,
}

impl World {
    /// A command of the cluster itself.
    pub fn system(&mut self, op: impl Into<Op>) -> Answer {
        let command = Command {
            volume: VOLUME,
            session: SessionId::SYSTEM,
            seq: 0,
            unanswered: 0,
            time: now(),
            op: op.into(),
        };
        apply(&mut self.store, &command).unwrap().unwrap()
    }

    pub fn node_state(&mut self, node: NodeId, state: NodeState) {
        self.system(SetNodeState { node, state });
    }

    pub fn query(&self, q: Query) -> QueryAnswer {
        query(&self.store, VOLUME, SessionId::SYSTEM, &q)
            .unwrap()
            .unwrap()
    }

    /// Whether the replicated state has that name in the root.
    pub fn has(&self, name: &str) -> bool {
        let lookup = Query::Lookup {
            parent: ROOT,
            name: name.into(),
        };
        query(&self.store, VOLUME, SessionId::SYSTEM, &lookup)
            .unwrap()
            .is_ok()
    }

    /// The answer to a create that can be promised.
    fn promise(&mut self, command: &Command) -> Option<MetaReply> {
        let Op::File(FileOp::Create(op)) = &command.op else {
            return None;
        };
        if op.kind != Kind::File {
            return None;
        }
        let Answer::Inos { first: ino, .. } = self.system(GrantInos { count: 1 }) else {
            panic!("numbers");
        };
        let file = NewFile {
            ino,
            parent: op.parent,
            name: op.name.clone(),
            mode: op.mode & !op.umask,
            uid: op.uid,
            gid: op.gid,
            time: now(),
        };
        let found = lagan_meta::preview(&self.store, VOLUME, command.session, &file);
        let attr = found.unwrap().ok()?;
        Some(MetaReply::Promised { attr, term: TERM })
    }

    /// Resets the counters of requests and returns them: mutations, queries,
    /// chunk writes, chunk reads.
    pub fn take_counts(&mut self) -> (u32, u32, u32, u32) {
        (
            std::mem::take(&mut self.mutations),
            std::mem::take(&mut self.queries),
            std::mem::take(&mut self.chunk_writes),
            std::mem::take(&mut self.chunk_reads),
        )
    }
}

fn now() -> Time {
    Time::after_1970(lagan_host::wall::since_1970())
}

struct Node {
    id: NodeId,
    world: Arc<Mutex<World>>,
}

impl Handler for Node {
    fn check_hello(&self, hello: &Hello, _: SocketAddr) -> Result<Hello, String> {
        hello.check_incarnation(Some(LIFE))?;
        Ok(Hello {
            node: Some(self.id),
            ..Hello::client(Role::Server, Some(LIFE), hello.service)
        })
    }

    fn handle(&self, peer: &Arc<Peer>, request: Request, reply: Reply) {
        let mut world = self.world.lock().unwrap();
        if peer.hello.service == Service::Meta {
            let request = request.decode().unwrap();
            match meta(&mut world, self.id, request) {
                Some(answer) => reply.send(Response::encode(&answer)),
                None => peer.close(),
            }
            return;
        }
        if world.silent.contains(&self.id) {
            // Never answered, and not closed either: no packets at all.
            std::mem::forget(reply);
            return;
        }
        let (answer, data) = chunk(&mut world, self.id, request.decode().unwrap(), request.data);
        reply.send(Response::encode_with(&answer, data));
    }
}

/// `None`: the answer is lost.
fn meta(world: &mut World, node: NodeId, request: MetaRequest) -> Option<MetaReply> {
    if node != NodeId(1) && !matches!(request, MetaRequest::Ping) {
        return Some(MetaReply::NotLeader {
            leader: Some(NodeId(1)),
            addr: world.addrs.get(&NodeId(1)).map(ToString::to_string),
        });
    }
    Some(match request {
        MetaRequest::Create(command) if world.promises => {
            let reply = world.promise(&command);
            return reply.or_else(|| meta(world, node, MetaRequest::Mutate(command)));
        }
        MetaRequest::Mutate(Command {
            op: Op::File(FileOp::NoteAccesses(op)),
            ..
        }) if world.refuse_reads => {
            world.told.extend(op.reads);
            MetaReply::Answer(Err(FsError::Io))
        }
        MetaRequest::Mutate(command) if matches!(command.op, Op::File(FileOp::NoteAccesses(_))) => {
            tell(world, command)
        }
        MetaRequest::Mutate(mut command) | MetaRequest::Create(mut command) => {
            world.mutations += 1;
            let commit = matches!(command.op, Op::File(FileOp::Commit(_)));
            if commit && world.stale_commits > 0 {
                world.stale_commits -= 1;
                return Some(MetaReply::Answer(Err(FsError::StaleEpoch)));
            }
            command.time = now();
            let answer = apply(&mut world.store, &command).unwrap();
            if world.lost_answers > 0 {
                world.lost_answers -= 1;
                return None;
            }
            MetaReply::Answer(answer)
        }
        MetaRequest::Query {
            volume,
            session,
            query: q,
        } => {
            world.queries += 1;
            MetaReply::Query(query(&world.store, volume, session, &q).unwrap())
        }
        MetaRequest::Map { known } => {
            let map = cluster_map(&world.store).unwrap();
            MetaReply::Map(map.filter(|m| m.version > known))
        }
        MetaRequest::SessionHeartbeat {
            session,
            check,
            open,
            ..
        } => {
            if check > 0 {
                world.checked.push((check, open));
            }
            MetaReply::Heartbeat {
                alive: session_exists(&world.store, session).unwrap(),
                map_version: map_version(&world.store).unwrap(),
                check: world.check.0,
                orphans: world.check.1.clone(),
                term: TERM,
            }
        }
        MetaRequest::Ping => MetaReply::Pong {
            leader: Some(NodeId(1)),
            term: TERM,
        },
        MetaRequest::Status => MetaReply::Status(Box::new(status(world))),
        MetaRequest::WaitLock { ino, lock, .. } => {
            MetaReply::Query(Ok(world.query(Query::GetLock { ino, lock })))
        }
        other => MetaReply::Refused(format!("{other:?}")),
    })
}

/// Mounts do this at times of their own: no test that counts shall notice.
fn tell(world: &mut World, mut command: Command) -> MetaReply {
    command.time = now();
    if let Op::File(FileOp::NoteAccesses(op)) = &command.op {
        world.told.extend(&op.reads);
    }
    MetaReply::Answer(apply(&mut world.store, &command).unwrap())
}

fn status(world: &World) -> Status {
    let QueryAnswer::Counters(counters) = world.query(Query::Counters) else {
        panic!("counters");
    };
    let counters: Counters = counters;
    let map = cluster_map(&world.store).unwrap().unwrap();
    let silent_ms = |node| match world.unheard.contains(node) {
        true => NodeStatus::NOT_HEARD,
        false => 0,
    };
    let nodes = map.nodes.iter().map(|n| NodeStatus {
        node: n.id,
        silent_ms: silent_ms(&n.id),
        used_bytes: 1000,
        free_bytes: 3000,
        chunks: 0,
        s3_error: String::new(),
        s3_permanent: false,
        s3_ready: false,
        damaged_chunks: 0,
        clock_skew_ms: 0,
    });
    Status {
        leader: Some(NodeId(1)),
        term: TERM,
        nodes: nodes.collect(),
        map,
        degraded_chunks: 0,
        counters,
        sessions: Vec::new(),
        time_ms: 0,
    }
}

fn chunk(
    world: &mut World,
    node: NodeId,
    request: ChunkRequest,
    data: Bytes,
) -> (ChunkReply, Bytes) {
    let none = Bytes::new();
    match request {
        ChunkRequest::Write {
            id,
            set_epoch,
            block_crcs,
            forward,
        } => {
            world.chunk_writes += 1;
            assert!(forward && verify_blocks(&data, &block_crcs));
            (
                write_chunk(world, node, id, set_epoch, &block_crcs, data),
                none,
            )
        }
        ChunkRequest::Read { id, offset, len } => {
            world.chunk_reads += 1;
            match world.chunks.get(&(node, id)) {
                None => (ChunkReply::NotFound, none),
                Some(stored) => read_chunk(stored, offset, len),
            }
        }
        ChunkRequest::ReportBad { id } => {
            world.reported_bad.push((node, id));
            (ChunkReply::Done, none)
        }
        ChunkRequest::ReportReplica { id, ino, offset } => {
            let named = Query::Extents {
                ino,
                offset,
                limit: 1,
            };
            let answer = query(&world.store, VOLUME, SessionId::SYSTEM, &named);
            // As servers do: what is not named there is of no interest.
            if format!("{answer:?}").contains(&format!("{id:?}")) {
                world.reported_bad.push((node, id));
            }
            (ChunkReply::Done, none)
        }
        ChunkRequest::Recall {
            ino,
            version,
            offset,
            len,
        } => match world.objects.get(&(ino, version)) {
            None => (ChunkReply::NotFound, none),
            Some(object) => {
                let data = object.slice(offset as usize..offset as usize + len as usize);
                let crc = crc32fast::hash(&data);
                (ChunkReply::Recalled { crc }, data)
            }
        },
        other => (ChunkReply::Failed(format!("{other:?}")), none),
    }
}

fn write_chunk(
    world: &mut World,
    node: NodeId,
    id: ChunkId,
    epoch: lagan_types::Epoch,
    crcs: &[u32],
    data: Bytes,
) -> ChunkReply {
    let map = cluster_map(&world.store).unwrap().unwrap();
    let set = map.set(id.set()).unwrap();
    assert!(set.nodes.contains(&node));
    if set.epoch != epoch || set.sealed {
        return ChunkReply::StaleEpoch;
    }
    if set.nodes.iter().any(|n| world.full.contains(n)) {
        return ChunkReply::Full;
    }
    let failed: Vec<NodeId> = set
        .nodes
        .iter()
        .copied()
        .filter(|n| world.silent.contains(n))
        .collect();
    for &member in set.nodes.iter().filter(|n| !failed.contains(n)) {
        let stored = Stored {
            data: data.clone(),
            crcs: crcs.to_vec(),
        };
        let old = world.chunks.insert((member, id), stored);
        assert!(old.is_none(), "a chunk id was used twice");
    }
    if failed.is_empty() {
        ChunkReply::Written
    } else {
        ChunkReply::MembersFailed(failed)
    }
}

fn read_chunk(stored: &Stored, offset: u32, len: u32) -> (ChunkReply, Bytes) {
    let first = offset / BLOCK_LEN;
    let last = (offset + len).div_ceil(BLOCK_LEN);
    let from = (first * BLOCK_LEN) as usize;
    let to = ((last * BLOCK_LEN) as usize).min(stored.data.len());
    let reply = ChunkReply::Blocks {
        chunk_len: stored.data.len() as u32,
        first_block: first,
        crcs: stored.crcs[first as usize..(last as usize).min(stored.crcs.len())].to_vec(),
    };
    (reply, stored.data.slice(from..to))
}

/// A cluster of servers; they end with it.
pub struct Cluster {
    world: Arc<Mutex<World>>,
    pub addrs: Vec<SocketAddr>,
    cancel: CancellationToken,
    check_at_end: bool,
}

impl Cluster {
    pub fn start(nodes: u64, copies: u8) -> Cluster {
        let world = Arc::new(Mutex::new(World::default()));
        let cancel = CancellationToken::new();
        world.lock().unwrap().system(Init {
            config: Config {
                cluster: ClusterId(1),
                incarnation: LIFE,
                volume: "vol".into(),
                copies,
                min_copies: 1,
                ..Config::default()
            },
        });
        let mut addrs = Vec::new();
        for id in 1..=nodes {
            let node = Node {
                id: NodeId(id),
                world: world.clone(),
            };
            let server = Server::bind(
                "127.0.0.1:0".parse().unwrap(),
                Arc::new(node),
                ServerLimits::default(),
                cancel.clone(),
            )
            .unwrap();
            let addr = server.local_addr();
            let mut world = world.lock().unwrap();
            world.addrs.insert(NodeId(id), addr);
            world.system(RegisterNode {
                info: node_info(id, addr),
            });
            addrs.push(addr);
        }
        Cluster {
            world,
            addrs,
            cancel,
            check_at_end: true,
        }
    }

    /// Locks what the servers share; not to be held across an await.
    pub fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }

    pub fn options(&self, instance: u128) -> Options {
        let servers = self.addrs.iter().map(ToString::to_string).collect();
        let identity = SessionIdentity {
            machine: "machine".into(),
            boot: "boot".into(),
            mount_point: format!("/mnt/{instance}"),
            instance,
        };
        Options::new(servers, "vol".into(), identity)
    }

    pub async fn mount(&self, instance: u128) -> Arc<Client> {
        Client::connect(self.options(instance)).await.unwrap()
    }

    pub async fn mount_with(&self, instance: u128, timeout: Duration) -> Arc<Client> {
        let mut options = self.options(instance);
        options.timeout = timeout;
        for _ in 0..20 {
            match Client::connect(options.clone()).await {
                // So short a time-out may pass while this machine is slow.
                Err(ConnectError::NoAnswer { .. }) => {}
                client => return client.unwrap(),
            }
        }
        panic!("the servers never answer in time");
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.cancel.cancel();
        if self.check_at_end && !std::thread::panicking() {
            let broken = invariants::check(&self.world.lock().unwrap().store);
            assert!(broken.is_empty(), "{broken:#?}");
        }
    }
}

fn node_info(id: u64, addr: SocketAddr) -> NodeInfo {
    NodeInfo {
        id: NodeId(0),
        name: format!("node-{id}"),
        store: StoreId(id as u128),
        boot: 1,
        addr: addr.to_string(),
        peer_addr: addr.to_string(),
        http: String::new(),
        role: NodeRole::Storage,
        state: NodeState::Up,
        voter: true,
    }
}
