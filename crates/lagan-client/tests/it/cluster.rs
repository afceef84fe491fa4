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
use lagan_types::message::{
    ArchiveRefusal, ArchiveReply, ArchiveRequest, Blocks, ChunkRefusal, ChunkReply, ChunkRequest,
    CreateOutcome, LeaderRefusal, LeaderReply, LeaderRequest, LeaseStatus, MetaReply, MetaRequest,
    Mutated, NodeStatus, Ping, Pong, ReadChunk, Recalled, Recalls, ReportBad, ReportReplica,
    SessionHeard, Status, WaitLock, WriteChunk,
};
use lagan_types::op::{
    Create, FileOp, GrantInos, Init, NewFile, OpenSession, RegisterNode, SessionIdentity,
    SetNodeState, SystemOp,
};
use lagan_types::query::{Extents, GetCounters, GetLock, Lookup};
use lagan_types::{
    Answer, Ask, ChunkId, ClusterId, Command, FsError, Incarnation, Ino, Kind, NodeId, Op, Query,
    QueryAnswer, Refusal, StoreId, Time, VolumeId, answer_to,
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
    /// All nodes vote, so that bytes may come with commits.
    pub votes: bool,
    /// Number of next commits whose bytes are refused.
    pub refused_bytes: u32,
    /// Number of next commits whose bytes are not on all disks.
    pub unheld: u32,
    /// Reads that mounts told of, or would have if they were not refused.
    pub told: Vec<Access>,
    pub refuse_reads: bool,
    /// Mounts that did one thing.
    others: u64,
    /// Requests since the start, by kind; those that tell of reads do not count.
    pub mutations: u32,
    pub queries: u32,
    pub chunk_writes: u32,
    pub chunk_reads: u32,
}

impl World {
    /// A command of the cluster itself.
    pub fn system<A>(&mut self, op: A) -> A::Answer
    where
        A: Ask<Request = SystemOp, Reply = Answer>,
    {
        let command = Command {
            time: now(),
            ..Command::system(op)
        };
        let answer = apply(&mut self.store, &command).unwrap();
        answer_to::<A>(answer).unwrap()
    }

    /// A mutation of a mount that does nothing else.
    pub fn of_another_mount<A>(&mut self, op: A) -> A::Answer
    where
        A: Ask<Request = FileOp, Reply = Answer>,
    {
        self.others += 1;
        let identity = SessionIdentity {
            machine: "another".into(),
            boot: "boot".into(),
            mount_point: "/mnt".into(),
            instance: 0,
        };
        let opened = self.system(OpenSession {
            nonce: self.others.into(),
            identity,
            predecessor: None,
        });
        let command = Command {
            volume: VOLUME,
            session: opened.session,
            seq: 1,
            unanswered: 1,
            time: now(),
            op: op.into().into(),
        };
        let answer = apply(&mut self.store, &command).unwrap();
        answer_to::<A>(answer).unwrap()
    }

    pub fn node_state(&mut self, node: NodeId, state: NodeState) {
        self.system(SetNodeState { node, state });
    }

    pub fn query<A>(&self, ask: A) -> A::Answer
    where
        A: Ask<Request = Query, Reply = QueryAnswer>,
    {
        lagan_meta::read(&self.store, ask).unwrap().unwrap()
    }

    /// Whether the replicated state has that name in the root.
    pub fn has(&self, name: &str) -> bool {
        let lookup = Lookup {
            parent: ROOT,
            name: name.into(),
        };
        lagan_meta::read(&self.store, lookup).unwrap().is_ok()
    }

    /// The answer to a create that can be promised.
    fn promise(&mut self, command: &Command) -> Option<CreateOutcome> {
        let Op::File(FileOp::Create(op)) = &command.op else {
            return None;
        };
        if op.kind != Kind::File {
            return None;
        }
        let ino = self.system(GrantInos { count: 1 }).first;
        let file = NewFile::promised(op, ino, now());
        let found = lagan_meta::preview(&self.store, VOLUME, command.session, &file);
        let attr = found.unwrap().ok()?;
        Some(CreateOutcome::Promised { attr, term: TERM })
    }

    /// Resets the counters of requests and returns them: mutations, queries, chunk writes, reads.
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
        match peer.hello.service {
            Service::Node => {
                let leader = Some(NodeId(1));
                reply.answer::<Ping>(Ok(Pong { leader, term: TERM }), Bytes::new());
            }
            Service::Meta if self.id != NodeId(1) => {
                reply.refuse::<MetaRequest>(not_leader(&world));
            }
            Service::Leader if self.id != NodeId(1) => {
                reply.refuse::<LeaderRequest>(not_leader(&world));
            }
            Service::Meta => match meta(&mut world, request.decode().unwrap()) {
                Some(answer) => reply.send(Response::encode(&Ok::<_, LeaderRefusal>(answer))),
                None => peer.close(),
            },
            Service::Leader => {
                let answer = leader(&mut world, request.decode().unwrap());
                reply.send(Response::encode(&Ok::<_, LeaderRefusal>(answer)));
            }
            // Never answered, and not closed either: no packets at all.
            _ if world.silent.contains(&self.id) => std::mem::forget(reply),
            Service::Chunk => {
                let ask = request.decode().unwrap();
                let (answer, data) = chunk(&mut world, self.id, ask, request.data);
                reply.send(Response::encode_with(&answer, data));
            }
            Service::Archive => {
                let (answer, data) = archive(&world, request.decode().unwrap());
                reply.send(Response::encode_with(&answer, data));
            }
            Service::Raft => panic!("no mount asks this"),
        }
    }
}

fn not_leader(world: &World) -> LeaderRefusal {
    LeaderRefusal::NotLeader {
        leader: Some(NodeId(1)),
        addr: world.addrs.get(&NodeId(1)).map(ToString::to_string),
    }
}

/// `None`: the answer is lost.
fn meta(world: &mut World, request: MetaRequest) -> Option<MetaReply> {
    Some(match request {
        MetaRequest::CreateFile(ask) => {
            if world.promises
                && let Some(promised) = world.promise(&ask.command)
            {
                return Some(MetaReply::Created(Ok(promised).into()));
            }
            let made = answer_to::<Create>(mutate(world, ask.command)?);
            MetaReply::Created(made.map(CreateOutcome::Replicated).into())
        }
        MetaRequest::Mutate(ask) => MetaReply::Mutated(bring(world, ask.command)?),
        MetaRequest::ReadState(ask) => {
            world.queries += 1;
            let found = query(&world.store, ask.volume, ask.session, &ask.query);
            MetaReply::Read(found.unwrap().into())
        }
        MetaRequest::GetMap(ask) => {
            let mut map = cluster_map(&world.store).unwrap();
            let nodes = map.iter_mut().flat_map(|map| &mut map.nodes);
            nodes.for_each(|node| node.voter = world.votes);
            MetaReply::Map(map.filter(|m| m.version > ask.known))
        }
    })
}

/// A mutation with the bytes that come with it. `None`: the answer is lost.
fn bring(world: &mut World, mut command: Command) -> Option<Mutated> {
    let commit = match &command.op {
        Op::File(op) if op.inline().is_some() => op.clone(),
        _ => return Some(mutate(world, command)?.into()),
    };
    let refused = world.refused_bytes > 0;
    if refused {
        world.refused_bytes -= 1;
        command.op = commit.clone().without_data().into();
    }
    let commit = commit.inline().unwrap();
    assert!(world.votes && commit.is_whole());
    let answer = mutate(world, command)?;
    let brings = answer.is_ok() && !refused;
    for (chunk, data) in commit.inline_chunks().filter(|_| brings) {
        let map = cluster_map(&world.store).unwrap().unwrap();
        let set = map.set(chunk.id.set()).unwrap();
        for &member in &set.nodes {
            let (data, crcs) = (data.clone(), vec![chunk.chunk_crc]);
            world
                .chunks
                .insert((member, chunk.id), Stored { data, crcs });
        }
    }
    let mut mutated = Mutated::from(answer);
    mutated.held = world.unheld == 0;
    world.unheld = world.unheld.saturating_sub(u32::from(brings));
    Some(mutated)
}

/// `None`: the answer is lost.
fn mutate(world: &mut World, mut command: Command) -> Option<Result<Answer, Refusal>> {
    command.time = now();
    match &command.op {
        // Mounts do this at times of their own: no test that counts shall notice.
        Op::File(FileOp::NoteAccesses(op)) => {
            world.told.extend(&op.reads);
            return Some(match world.refuse_reads {
                true => Err(FsError::Io.into()),
                false => apply(&mut world.store, &command).unwrap(),
            });
        }
        Op::File(FileOp::Commit(_)) if world.stale_commits > 0 => {
            world.mutations += 1;
            world.stale_commits -= 1;
            return Some(Err(Refusal::StaleEpoch));
        }
        _ => world.mutations += 1,
    }
    let answer = apply(&mut world.store, &command).unwrap();
    if world.lost_answers > 0 {
        world.lost_answers -= 1;
        return None;
    }
    Some(answer)
}

fn leader(world: &mut World, request: LeaderRequest) -> LeaderReply {
    match request {
        LeaderRequest::SessionHeartbeat(beat) => {
            if beat.check > 0 {
                world.checked.push((beat.check, beat.open));
            }
            LeaderReply::SessionHeard(SessionHeard {
                now: now(),
                alive: session_exists(&world.store, beat.session).unwrap(),
                map_version: map_version(&world.store).unwrap(),
                check: world.check.0,
                orphans: world.check.1.clone(),
                term: TERM,
                leased: false,
            })
        }
        LeaderRequest::PollRecalls(poll) => LeaderReply::Recalls(Recalls {
            term: TERM,
            number: poll.acked,
            keys: Vec::new(),
        }),
        LeaderRequest::GetStatus(_) => LeaderReply::Status(Box::new(status(world))),
        LeaderRequest::WaitLock(WaitLock { ino, lock, .. }) => {
            LeaderReply::Lock(Ok(world.query(GetLock { ino, lock })))
        }
        other => panic!("{other:?}"),
    }
}

fn status(world: &World) -> Status {
    let counters = world.query(GetCounters);
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
        leases: LeaseStatus::default(),
    }
}

/// The answer of a chunk store, and the data beside it.
type Served = (Result<ChunkReply, ChunkRefusal>, Bytes);

fn chunk(world: &mut World, node: NodeId, request: ChunkRequest, data: Bytes) -> Served {
    let none = Bytes::new();
    match request {
        ChunkRequest::WriteChunk(ask) => {
            world.chunk_writes += 1;
            assert!(ask.forward && verify_blocks(&data, &ask.block_crcs));
            let written = write_chunk(world, node, &ask, data);
            (written.map(ChunkReply::Done), none)
        }
        ChunkRequest::ReadChunk(ReadChunk { id, offset, len }) => {
            world.chunk_reads += 1;
            match world.chunks.get(&(node, id)) {
                None => (Err(ChunkRefusal::NotFound), none),
                Some(stored) => read_chunk(stored, offset, len),
            }
        }
        ChunkRequest::ReportBad(ReportBad { id }) => {
            world.reported_bad.push((node, id));
            (Ok(ChunkReply::Done(())), none)
        }
        ChunkRequest::ReportReplica(ReportReplica { id, ino, offset }) => {
            let named = Extents {
                ino,
                offset,
                limit: 1,
            };
            let answer = lagan_meta::read(&world.store, named);
            // As servers do: what is not named there is of no interest.
            if format!("{answer:?}").contains(&format!("{id:?}")) {
                world.reported_bad.push((node, id));
            }
            (Ok(ChunkReply::Done(())), none)
        }
        other => panic!("{other:?}"),
    }
}

fn archive(
    world: &World,
    request: ArchiveRequest,
) -> (Result<ArchiveReply, ArchiveRefusal>, Bytes) {
    let ArchiveRequest::Recall(ask) = request else {
        panic!("{request:?}");
    };
    let Some(object) = world.objects.get(&(ask.ino, ask.version)) else {
        return (Err(ArchiveRefusal::Gone), Bytes::new());
    };
    let data = object.slice(ask.offset as usize..ask.offset as usize + ask.len as usize);
    let crc = crc32fast::hash(&data);
    (Ok(ArchiveReply::Recalled(Recalled { crc })), data)
}

fn write_chunk(
    world: &mut World,
    node: NodeId,
    ask: &WriteChunk,
    data: Bytes,
) -> Result<(), ChunkRefusal> {
    let id = ask.id;
    let map = cluster_map(&world.store).unwrap().unwrap();
    let set = map.set(id.set()).unwrap();
    assert!(set.nodes.contains(&node));
    if set.epoch != ask.set_epoch || set.sealed {
        return Err(ChunkRefusal::StaleEpoch);
    }
    if set.nodes.iter().any(|n| world.full.contains(n)) {
        return Err(ChunkRefusal::Full);
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
            crcs: ask.block_crcs.clone(),
        };
        let old = world.chunks.insert((member, id), stored);
        assert!(old.is_none(), "a chunk id was used twice");
    }
    if failed.is_empty() {
        Ok(())
    } else {
        Err(ChunkRefusal::MembersFailed(failed))
    }
}

fn read_chunk(stored: &Stored, offset: u32, len: u32) -> Served {
    let first = offset / BLOCK_LEN;
    let last = (offset + len).div_ceil(BLOCK_LEN);
    let from = (first * BLOCK_LEN) as usize;
    let to = ((last * BLOCK_LEN) as usize).min(stored.data.len());
    let blocks = Blocks {
        chunk_len: stored.data.len() as u32,
        first_block: first,
        crcs: stored.crcs[first as usize..(last as usize).min(stored.crcs.len())].to_vec(),
    };
    let data = stored.data.slice(from..to);
    (Ok(ChunkReply::Blocks(blocks)), data)
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
