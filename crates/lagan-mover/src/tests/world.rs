//! A cluster in memory: its state machine, its chunks, its S3.

use crate::{Chunks, Meta, Mover, MoverError, Options};
use async_trait::async_trait;
use bytes::Bytes;
use lagan_meta::memory::MemoryStore as State;
use lagan_object::{Backoff, BreakerConfig};
use lagan_testing::memory::MemoryStore;
use lagan_types::attr::ArchiveState;
use lagan_types::cluster::{ArchiveConfig, ClusterMap, Config, NodeInfo, NodeRole, NodeState};
use lagan_types::extent::{ChunkRef, Content, Edit};
use lagan_types::message::ArchiveJob;
use lagan_types::op::{
    ArchiveStart, Commit, Create, FileOp, GrantBlock, Init, Inline, OpenSession, RegisterNode,
    Release, SessionIdentity, StartArchive, SystemOp,
};
use lagan_types::query::{Counters, Due, File, GetCounters, Object};
use lagan_types::{
    Answer, Ask, Attr, BlockId, ChunkId, ClusterId, Command, Extent, Incarnation, Ino, Kind,
    NodeId, Op, Query, QueryAnswer, Refusal, SessionId, StoreId, Time, VolumeId, answer_to,
};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub const INCARNATION: Incarnation = Incarnation(0xabc << 100);
pub const CLUSTER: ClusterId = ClusterId(7);
const VOLUME: VolumeId = VolumeId::ONLY;
const CHUNK_LEN: usize = 4 << 20;
const MINUTES_10: u64 = 600_000;

#[derive(Debug)]
struct Session {
    id: SessionId,
    seq: u64,
    block: BlockId,
    index: u16,
}

pub struct World {
    state: Mutex<State>,
    session: Mutex<Session>,
    chunks: Mutex<HashMap<ChunkId, Bytes>>,
    started: Instant,
    skew_ms: AtomicU64,
    /// Reads of chunks take one; none: they wait.
    pub reads: Semaphore,
    pub leads: AtomicBool,
    /// The metadata does not answer.
    pub away: AtomicBool,
    /// Jobs are recorded, but their answer is lost.
    pub lose_jobs: AtomicBool,
    /// Reads of chunks and looks for objects to delete panic, this often.
    pub panics: AtomicU64,
    pub s3: Arc<MemoryStore>,
    dir: tempfile::TempDir,
}

/// A mover that runs until it is dropped or stopped.
pub struct Running {
    pub mover: Arc<Mover>,
    cancel: CancellationToken,
    tasks: TaskTracker,
}

impl Running {
    pub async fn stop(self) {
        self.cancel.cancel();
        self.tasks.close();
        let ended = tokio::time::timeout(Duration::from_secs(10), self.tasks.wait()).await;
        ended.expect("all tasks end");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

/// Waits until something is so.
pub async fn until(what: &str, is: impl Fn() -> bool) {
    let since = Instant::now();
    while !is() {
        assert!(since.elapsed() < Duration::from_secs(20), "never: {what}");
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
}

/// Bytes that are like no others.
pub fn bytes(len: usize, seed: u32) -> Vec<u8> {
    (0..len as u32)
        .map(|i| (i ^ (i >> 8) ^ (i >> 16)).wrapping_add(seed) as u8)
        .collect()
}

fn node(n: u64) -> NodeInfo {
    NodeInfo {
        id: NodeId(0),
        name: format!("server-{n}"),
        store: StoreId(n.into()),
        boot: 1,
        addr: format!("127.0.0.{n}:1"),
        peer_addr: format!("127.0.0.{n}:2"),
        http: format!("127.0.0.{n}:3"),
        role: NodeRole::Storage,
        state: NodeState::Up,
        voter: true,
    }
}

impl World {
    /// Three nodes, two copies, an archive under `pre`; this is node 1, the leader.
    pub fn new() -> Arc<Self> {
        let world = World {
            state: Mutex::default(),
            session: Mutex::new(Session {
                id: SessionId::SYSTEM,
                seq: 0,
                block: BlockId(0),
                index: 0,
            }),
            chunks: Mutex::default(),
            started: Instant::now(),
            skew_ms: AtomicU64::new(1_000_000_000),
            reads: Semaphore::new(100_000),
            leads: AtomicBool::new(true),
            away: AtomicBool::new(false),
            lose_jobs: AtomicBool::new(false),
            panics: AtomicU64::new(0),
            s3: Arc::new(MemoryStore::new()),
            dir: tempfile::tempdir().unwrap(),
        };
        let archive = ArchiveConfig {
            endpoint: None,
            region: "r".into(),
            bucket: "b".into(),
            prefix: "pre".into(),
        };
        let config = Config {
            cluster: CLUSTER,
            incarnation: INCARNATION,
            archive: Some(archive),
            archive_after_ms: MINUTES_10,
            ..Config::default()
        };
        world.system(Init { config }).unwrap();
        for n in 1..=3 {
            world.system(RegisterNode { info: node(n) }).unwrap();
        }
        world.open_session();
        Arc::new(world)
    }

    fn panic_if_wanted(&self) {
        let left = self
            .panics
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1));
        assert!(left.is_err(), "on purpose");
    }

    fn open_session(&self) {
        let identity = SessionIdentity {
            machine: "m".into(),
            boot: "b".into(),
            mount_point: "/mnt".into(),
            instance: 1,
        };
        let op = OpenSession {
            nonce: 1,
            identity,
            predecessor: None,
        };
        let session = self.system(op).expect("a session").session;
        self.session.lock().id = session;
    }

    pub fn options(&self) -> Options {
        Options {
            uploads: 4,
            poll: Duration::from_millis(5),
            duty: Duration::from_millis(5),
            file_backoff: Backoff::new(2, 10),
            cache_dir: self.dir.path().join("recall"),
            recall_deadline: Duration::from_secs(5),
            breaker: BreakerConfig {
                probe: Backoff::new(5, 20),
                permanent_probe_ms: 20,
                ..BreakerConfig::default()
            },
            ..Options::default()
        }
    }

    pub fn start(self: &Arc<Self>) -> Running {
        self.start_with(self.options())
    }

    /// A mover that has nothing to do but to recall.
    pub async fn start_without_duties(self: &Arc<Self>) -> Running {
        self.s3.fault_next(lagan_testing::memory::Fault::Fail(
            lagan_object::ErrorKind::Permanent,
        ));
        let mut options = self.options();
        options.breaker.permanent_probe_ms = 3_600_000;
        options.duty = Duration::from_secs(3600);
        let running = self.start_with(options);
        until("closed for good", || running.mover.health().permanent).await;
        running
    }

    pub fn start_with(self: &Arc<Self>, options: Options) -> Running {
        let (cancel, tasks) = (CancellationToken::new(), TaskTracker::new());
        let (meta, chunks) = (self.clone(), self.clone());
        let mover = Mover::start(
            options,
            meta,
            chunks,
            self.s3.clone(),
            cancel.clone(),
            &tasks,
        );
        Running {
            mover,
            cancel,
            tasks,
        }
    }

    pub fn skip_ms(&self, ms: u64) {
        self.skew_ms.fetch_add(ms, Ordering::Relaxed);
    }

    /// All files that wait become due.
    pub fn skip_archive_time(&self) {
        self.skip_ms(MINUTES_10 + 1);
    }

    // -- the state machine --------------------------------------------------

    fn apply(&self, session: SessionId, seq: u64, op: impl Into<Op>) -> Result<Answer, Refusal> {
        let time = Time::from_millis(self.now());
        let command = Command {
            volume: VOLUME,
            session,
            seq,
            unanswered: seq,
            time,
            op: op.into(),
        };
        lagan_meta::apply(&mut *self.state.lock(), &command).unwrap()
    }

    pub fn system<A>(&self, op: A) -> Result<A::Answer, Refusal>
    where
        A: Ask<Request = SystemOp, Reply = Answer>,
    {
        answer_to::<A>(self.apply(SessionId::SYSTEM, 0, op.into()))
    }

    pub fn op<A>(&self, op: A) -> Result<A::Answer, Refusal>
    where
        A: Ask<Request = FileOp, Reply = Answer>,
    {
        let mut session = self.session.lock();
        session.seq += 1;
        answer_to::<A>(self.apply(session.id, session.seq, op.into()))
    }

    pub fn ask<A>(&self, ask: A) -> Result<A::Answer, Refusal>
    where
        A: Ask<Request = Query, Reply = QueryAnswer>,
    {
        lagan_meta::read(&*self.state.lock(), ask).unwrap()
    }

    pub fn check(&self) {
        let wrong = lagan_meta::invariants::check(&*self.state.lock());
        assert!(wrong.is_empty(), "{wrong:#?}");
    }

    fn now(&self) -> u64 {
        self.started.elapsed().as_millis() as u64 + self.skew_ms.load(Ordering::Relaxed)
    }

    // -- files --------------------------------------------------------------

    fn chunk_id(&self, map: &ClusterMap) -> (ChunkId, lagan_types::Epoch) {
        let set = map
            .sets
            .iter()
            .find(|s| map.writable(s))
            .expect("a set that is open");
        let full = {
            let session = self.session.lock();
            session.block == BlockId(0) || session.index >= 1000
        };
        if full {
            let block = self.op(GrantBlock).expect("a block").block;
            let mut session = self.session.lock();
            (session.block, session.index) = (block, 0);
        }
        let mut session = self.session.lock();
        session.index += 1;
        (
            ChunkId::new(VOLUME, set.id, session.block, session.index - 1),
            set.epoch,
        )
    }

    pub fn create(&self, name: &str) -> Ino {
        let answer = self.op(Create {
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
        });
        answer.expect("a file").attr.ino
    }

    /// Writes bytes as a client would, in chunks of 4 MiB.
    pub fn write(&self, ino: Ino, offset: u64, data: &[u8]) {
        let map = self.cluster_map();
        for (i, part) in data.chunks(CHUNK_LEN).enumerate() {
            let (id, set_epoch) = self.chunk_id(&map);
            self.chunks.lock().insert(id, Bytes::copy_from_slice(part));
            let chunk = ChunkRef {
                id,
                set_epoch,
                skip: 0,
                chunk_len: part.len() as u32,
                chunk_crc: crc32fast::hash(part),
            };
            let edit = Edit {
                offset: offset + (i * CHUNK_LEN) as u64,
                len: part.len() as u64,
                content: Some(chunk),
            };
            let commit = Commit {
                ino,
                edits: vec![edit],
                append: false,
                size_min: 0,
                expect_version: None,
                kill_suid: false,
                mtime: None,
                inline: Inline::Stored,
            };
            self.op(commit).unwrap();
        }
    }

    pub fn file(&self, name: &str, data: &[u8]) -> Ino {
        let ino = self.create(name);
        self.write(ino, 0, data);
        ino
    }

    fn row(&self, ino: Ino) -> (Attr, Vec<Extent>, Option<Object>) {
        let file = self.ask(File { ino }).expect("a file");
        (file.attr, file.extents, file.object)
    }

    pub fn state(&self, ino: Ino) -> ArchiveState {
        self.row(ino).0.archive
    }

    pub fn version(&self, ino: Ino) -> u64 {
        self.row(ino).0.version
    }

    pub fn object(&self, ino: Ino) -> Option<Object> {
        self.row(ino).2
    }

    pub fn counters(&self) -> Counters {
        self.ask(GetCounters).expect("counters")
    }

    pub async fn archived(&self, ino: Ino) -> Object {
        let done = || self.state(ino) == ArchiveState::Archived;
        until("archived", done).await;
        self.object(ino).expect("an archived file has an object")
    }

    /// Swaps the file's chunks for its object and forgets their bytes.
    pub fn release(&self, ino: Ino) {
        let (attr, extents, _) = self.row(ino);
        self.system(Release {
            files: vec![(ino, attr.version)],
        })
        .unwrap();
        let mut chunks = self.chunks.lock();
        for extent in extents {
            if let Content::Chunk { id, .. } = extent.content {
                chunks.remove(&id);
            }
        }
    }

    pub fn cluster_map(&self) -> ClusterMap {
        lagan_meta::cluster_map(&*self.state.lock())
            .unwrap()
            .unwrap()
    }

    /// Objects in S3 that are files' content.
    pub fn object_keys(&self) -> Vec<String> {
        let keys = self.s3.keys().into_iter();
        keys.filter(|k| !k.contains("/.lagan")).collect()
    }
}

#[async_trait]
impl Meta for World {
    async fn mutate(&self, op: SystemOp) -> Result<Answer, MoverError> {
        if self.away.load(Ordering::Relaxed) {
            return Err(MoverError::NoLeader("no leader".into()));
        }
        Ok(self.apply(SessionId::SYSTEM, 0, op)?)
    }

    async fn query(&self, query: Query) -> Result<QueryAnswer, MoverError> {
        if matches!(query, Query::ObjectReap(_)) {
            self.panic_if_wanted();
        }
        if self.away.load(Ordering::Relaxed) {
            return Err(MoverError::NoLeader("no leader".into()));
        }
        let state = self.state.lock();
        Ok(lagan_meta::query(&*state, VOLUME, SessionId::SYSTEM, &query).unwrap()?)
    }

    async fn jobs(&self, slots: u32) -> Result<Vec<ArchiveJob>, MoverError> {
        let now_ms = self.now();
        if self.away.load(Ordering::Relaxed) {
            return Err(MoverError::NoLeader("no leader".into()));
        }
        let limit = slots;
        let due = self.ask(Due { now_ms, limit })?;
        let start = |f: &lagan_types::query::DueFile| ArchiveStart {
            ino: f.ino,
            version: f.version,
            node: NodeId(1),
        };
        let files: Vec<_> = due.iter().map(start).collect();
        if files.is_empty() {
            return Ok(Vec::new());
        }
        let attempts = self.system(StartArchive { files })?;
        if self.lose_jobs.load(Ordering::Relaxed) {
            return Err(MoverError::NoLeader("answer lost".into()));
        }
        let jobs = due.iter().zip(attempts).filter_map(|(file, attempt)| {
            attempt.map(|attempt| ArchiveJob {
                ino: file.ino,
                version: file.version,
                attempt: attempt.number,
                key: attempt.key,
                size: attempt.size,
                meta: vec![("mode".into(), "0644".into())],
                name: b"mail.eml".to_vec(),
                extents: None,
            })
        });
        Ok(jobs.collect())
    }

    fn is_leader(&self) -> bool {
        self.leads.load(Ordering::Relaxed)
    }

    fn map(&self) -> Arc<ClusterMap> {
        Arc::new(self.cluster_map())
    }

    fn node(&self) -> NodeId {
        NodeId(1)
    }

    fn now_ms(&self) -> u64 {
        self.now()
    }
}

#[async_trait]
impl Chunks for World {
    async fn read(&self, id: ChunkId, offset: u32, len: u32) -> Result<Bytes, MoverError> {
        self.panic_if_wanted();
        let permit = self.reads.acquire().await.expect("never closed");
        drop(permit);
        let chunks = self.chunks.lock();
        let chunk = chunks
            .get(&id)
            .ok_or_else(|| MoverError::Chunk("not there".into()))?;
        Ok(chunk.slice(offset as usize..(offset + len) as usize))
    }
}
