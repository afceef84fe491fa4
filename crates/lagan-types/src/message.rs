//! Requests and answers between processes: the heads of frames. Bulk data
//! travels beside the head, never through the codec.

use crate::answer::Answer;
use crate::attr::Attr;
use crate::cluster::{ClusterMap, NodeInfo};
use crate::codec::{Decode, Encode};
use crate::error::FsError;
use crate::extent::Extent;
use crate::id::{ChunkId, ClusterId, Epoch, Incarnation, Ino, NodeId, SessionId, SetId, VolumeId};
use crate::op::{Command, LockRange};
use crate::query::{Counters, Query, QueryAnswer};

/// Asked of the metadata service, on any server's `listen` or `peer_listen`
/// address; others than the leader answer `NotLeader`.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum MetaRequest {
    /// Replicate a command (the leader fills in its time). Answer: `Answer`.
    Mutate(Command),
    /// A linearizable read. Answer: `Query`.
    Query {
        volume: VolumeId,
        session: SessionId,
        query: Query,
    },
    /// The cluster map if its version is above `known`. Answer: `Map`.
    Map { known: u64 },
    /// A mount is alive. Answer: `Heartbeat`.
    SessionHeartbeat {
        session: SessionId,
        /// The orphan check that this answers (0: none), and which of its inodes are open here.
        check: u64,
        open: Vec<Ino>,
        /// The map version that it has.
        map_version: u64,
        /// The leader's term as it knows it.
        term: u64,
        /// Files that a leader before that term promised to it and that, as far as it
        /// knows, are not replicated yet.
        promised: u32,
    },
    /// A node is alive. Answer: `NodeHeartbeat`.
    NodeHeartbeat(NodeHeartbeat),
    /// A node asks for files to archive. Answer: `ArchiveJobs`.
    ArchiveJobs { node: NodeId, slots: u32 },
    /// Whole state of the cluster for `lagan status`. Answer: `Status`.
    Status,
    /// A server wants to be part of the cluster. Answer: `Joined`.
    Join { info: NodeInfo },
    /// The first server makes the cluster (only asked by `lagan init`, answered
    /// by a server that has none). Answer: `Joined`.
    Init { config: crate::cluster::Config },
    /// Asks who leads; every server answers. Answer: `Pong`.
    Ping,
    /// Asked of a server that has no cluster yet: join the one that `via`
    /// (a server's address) belongs to. Answer: `Joined`.
    JoinVia { via: String },
    /// Asked of a node that holds bytes: drop its recall cache. Answer: `Pong`.
    DropRecallCache,
    /// A process waits for this fcntl lock, or (kind `Unlock`) no longer does;
    /// repeated several times a second. Answer: `Query` with the `Lock` in its
    /// way, or `Deadlock` if waiting would close a circle.
    WaitLock {
        session: SessionId,
        ino: Ino,
        lock: LockRange,
    },
    /// A mount creates a regular file (`op::Create`). The leader may promise the
    /// file, in its memory, and answer `Promised`, or replicate the command and
    /// answer as to `Mutate`.
    Create(Command),
    /// Take a node that is gone out of the cluster; asked again and again until the
    /// answer is `Removed`, and given up by not asking. Answer: `Removing`, `Removed`.
    RemoveNode {
        node: NodeId,
        /// Although it lives, or is the last to have something.
        force: bool,
    },
    /// Drop the local copies of these archived files (inode, data version), 4,096 at
    /// most, unless they are open anywhere. Answer: `Released`.
    Release { files: Vec<(Ino, u64)> },
}

/// Answers of the metadata service.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum MetaReply {
    /// To `Mutate`.
    Answer(Result<Answer, FsError>),
    /// To `Query`.
    Query(Result<QueryAnswer, FsError>),
    /// To `Map`; `None`: `known` is current.
    Map(Option<ClusterMap>),
    /// To `SessionHeartbeat`.
    Heartbeat {
        /// False: the session was ended; open a new one.
        alive: bool,
        /// The map's version: fetch it if it is newer.
        map_version: u64,
        /// An orphan check to answer with the next heartbeat (0: none), and the inodes.
        check: u64,
        orphans: Vec<Ino>,
        /// The leader's term.
        term: u64,
    },
    /// To `NodeHeartbeat`: the map's version, and whether the leader knows the node.
    NodeHeartbeat {
        map_version: u64,
        known: bool,
        time_ms: u64,
    },
    /// To `ArchiveJobs`.
    ArchiveJobs(Vec<ArchiveJob>),
    /// To `Status`.
    Status(Box<Status>),
    /// To `Join` and `Init`.
    Joined {
        node: NodeId,
        cluster: ClusterId,
        incarnation: Incarnation,
    },
    /// Ask that one; `None`: no leader is known here, ask again soon.
    NotLeader {
        leader: Option<NodeId>,
        addr: Option<String>,
    },
    /// The request is refused; the reason in words.
    Refused(String),
    /// To `Ping`.
    Pong { leader: Option<NodeId>, term: u64 },
    /// To `Create`: the name is the asker's alone, by the word of the leader of
    /// that term; the file is not replicated until `CreatePromised` or `CreateCommit` is.
    Promised { attr: Attr, term: u64 },
    /// To `RemoveNode`: not yet; `sets` and `votes` say what is left to do.
    Removing {
        /// Sets whose chunks other nodes get first.
        sets: u64,
        /// It still votes.
        votes: bool,
    },
    /// To `RemoveNode`: there is no such node (any more).
    Removed,
    /// To `Release`.
    Released(Released),
}

/// The outcome of a release. Files that are not counted had changed or had nothing
/// to release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode)]
pub struct Released {
    /// Files released.
    pub files: u64,
    /// Their bytes that were local, of one copy.
    pub bytes: u64,
    /// Files left as they are because they are open.
    pub open: u64,
    /// Files of which this is not known yet: a mount did not answer. Ask again.
    pub unknown: u64,
}

/// What a node tells the leader, several times a second.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct NodeHeartbeat {
    /// The node that sends it.
    pub node: NodeId,
    /// Its store's boot counter.
    pub boot: u64,
    /// Its wall clock, milliseconds.
    pub time_ms: u64,
    /// Bytes in use.
    pub used_bytes: u64,
    /// Bytes free for chunks.
    pub free_bytes: u64,
    /// Takes no new chunks.
    pub full: bool,
    /// Chunks it holds, of each set.
    pub set_chunks: Vec<(SetId, u64)>,
    /// State of its way to S3: empty, or an error in words.
    pub s3_error: String,
    /// The endpoint refused for good (credentials, bucket).
    pub s3_permanent: bool,
    /// The endpoint has answered since the start that uploads may go.
    pub s3_ready: bool,
    /// Chunks found damaged since the start.
    pub damaged_chunks: u64,
}

/// One upload.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct ArchiveJob {
    /// The file.
    pub ino: Ino,
    /// The data version to upload.
    pub version: u64,
    /// The attempt.
    pub attempt: u64,
    /// The object's key.
    pub key: String,
    /// Bytes.
    pub size: u64,
    /// Path, owner, mode, times: the object's metadata.
    pub meta: Vec<(String, String)>,
    /// Last component of a path, for the download's name and content type.
    pub name: Vec<u8>,
    /// All extents of that version; `None`: too many to send along, ask for them.
    pub extents: Option<Vec<Extent>>,
}

/// What `lagan status` shows.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, serde::Serialize, serde::Deserialize)]
pub struct Status {
    /// The leader.
    pub leader: Option<NodeId>,
    /// Raft's term.
    pub term: u64,
    /// The map with configuration.
    pub map: ClusterMap,
    /// Each node's state by its last heartbeat.
    pub nodes: Vec<NodeStatus>,
    /// Chunks in sets that have fewer live members than `copies`.
    pub degraded_chunks: u64,
    /// Counters of the volume.
    pub counters: Counters,
    /// Live sessions.
    pub sessions: Vec<(SessionId, crate::op::SessionIdentity)>,
    /// The leader's wall clock, milliseconds.
    pub time_ms: u64,
}

/// A node as the leader last heard of it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, serde::Serialize, serde::Deserialize)]
pub struct NodeStatus {
    /// The node.
    pub node: NodeId,
    /// Milliseconds since its last heartbeat; [`Self::NOT_HEARD`] if this leader
    /// has had none.
    pub silent_ms: u64,
    /// Bytes in use.
    pub used_bytes: u64,
    /// Bytes free for chunks.
    pub free_bytes: u64,
    /// Chunks it holds.
    pub chunks: u64,
    /// State of its way to S3: empty, or an error in words.
    pub s3_error: String,
    /// That error needs a person.
    pub s3_permanent: bool,
    /// The endpoint has answered since the server's start that uploads may go.
    pub s3_ready: bool,
    /// Chunks found damaged.
    pub damaged_chunks: u64,
    /// Its clock differs from the leader's by this, milliseconds.
    pub clock_skew_ms: i64,
}

impl NodeStatus {
    /// The silence of a node that has not been heard of: of what it would have
    /// said, nothing is known.
    pub const NOT_HEARD: u64 = u64::MAX;
}

/// Asked of the chunk service.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum ChunkRequest {
    /// Store a chunk; data: its bytes. With `forward` the receiver also sends
    /// it to the set's other members and answers when all have it on disk. Answer: `Written`.
    Write {
        id: ChunkId,
        set_epoch: Epoch,
        block_crcs: Vec<u32>,
        forward: bool,
    },
    /// The whole blocks that cover `offset..offset + len`. Answer: `Blocks`, data: bytes.
    Read { id: ChunkId, offset: u32, len: u32 },
    /// Ids held, in order. Answer: `Ids`.
    List {
        set: Option<SetId>,
        after: Option<ChunkId>,
        limit: u32,
    },
    /// Read and verify. Answer: `Verified`.
    Verify { ids: Vec<ChunkId> },
    /// A reader found a bad block here: verify, heal. Answer: `Done`.
    ReportBad { id: ChunkId },
    /// Bytes of an archived object, verified; through the node's recall cache. Answer:
    /// `Recalled`, data: bytes.
    Recall {
        ino: Ino,
        version: u64,
        offset: u64,
        len: u32,
    },
    /// Whether S3 has these objects as the metadata says; 256 at most. Answer: `Objects`.
    CheckObjects { objects: Vec<crate::query::Object> },
    /// Objects of this life of the cluster in S3, in order of key, above `after`. Answer:
    /// `ObjectList`.
    ListObjects { after: Option<String>, limit: u32 },
    /// The replica here of a chunk that file `ino` names at `offset` is missing or
    /// damaged: verify, ask the metadata, heal. Answer: `Done`.
    ReportReplica { id: ChunkId, ino: Ino, offset: u64 },
}

/// Answers of the chunk service.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum ChunkReply {
    /// On disk on every member.
    Written,
    /// Not on every member: these failed or were silent. Take another set.
    MembersFailed(Vec<NodeId>),
    /// The set's row is newer than the writer's: fetch the map.
    StaleEpoch,
    /// No space for chunks here.
    Full,
    /// Whole blocks; `first_block * BLOCK_LEN` is the first byte.
    Blocks {
        chunk_len: u32,
        first_block: u32,
        crcs: Vec<u32>,
    },
    /// Not here: fetch the file's map again; no sign of a bad replica.
    NotFound,
    /// Here, but damaged or unreadable: ask another replica.
    Damaged,
    /// Ids and lengths.
    Ids(Vec<(ChunkId, u32)>),
    /// The health of each asked chunk on this node.
    Verified(Vec<ChunkHealth>),
    /// Done.
    Done,
    /// Recalled bytes with the CRC-32 of exactly these.
    Recalled { crc: u32 },
    /// S3 did not give the bytes: in words, and whether trying again may help.
    RecallFailed { reason: String, transient: bool },
    /// The node cannot: in words.
    Failed(String),
    /// The health of each asked object in S3, in the order asked.
    Objects(Vec<ObjectHealth>),
    /// Keys and bytes; `last`: there are no more.
    ObjectList {
        objects: Vec<(String, u64)>,
        last: bool,
    },
}

/// State of one object in S3.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum ObjectHealth {
    /// Present, of the right length, and of the right CRC where S3 knows one.
    Healthy,
    /// Not there.
    Missing,
    /// There, but another: its length, and its CRC-32 where S3 knows one.
    Differs {
        /// Bytes.
        size: u64,
        /// CRC-32 of all of it.
        crc: Option<u32>,
    },
    /// S3 did not say: why.
    Unknown(String),
}

/// State of one replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum ChunkHealth {
    /// Present, all CRCs right: its length and CRC.
    Healthy {
        /// Bytes.
        len: u32,
        /// CRC-32 of all of it.
        crc: u32,
    },
    /// Not there.
    Missing,
    /// There, but wrong.
    Damaged,
}
