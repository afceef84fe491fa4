//! What the leader knows and does beside the replicated state: who lives, who has what open,
//! who waits for which lock, uploads, releases, removals.

use super::node::Joined;
use super::{Conversation, Service};
use crate::ask::{Asker, answers, asks};
use crate::cluster::{ClusterMap, NodeInfo};
use crate::codec::{Decode, Encode};
use crate::error::Refusal;
use crate::extent::Extent;
use crate::id::{Ino, NodeId, SessionId, SetId};
use crate::lease::Key;
use crate::op::{LockRange, SessionIdentity};
use crate::query::Counters;
use crate::time::Time;

asks! {
    /// Asked of the leader, on any server's `listen` or `peer_listen` address.
    #[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
    pub enum LeaderRequest -> LeaderReply {
        /// A mount is alive: sent every second, or several times.
        SessionHeartbeat {
            session: SessionId,
            /// The orphan check that this answers (0: none).
            check: u64,
            /// The inodes of that check that are open here.
            open: Vec<Ino>,
            /// The leader's term as the mount knows it.
            term: u64,
            /// Files that a leader before that term promised to it and that, as far as it
            /// knows, are not replicated yet.
            promised: u32,
            /// Renews the mount's lease: it asks for its recalls too.
            renews: bool,
        } -> SessionHeard,
        /// A mount asks what it must forget, and says what it has forgotten. The answer
        /// comes when there is something, or after some seconds with nothing.
        PollRecalls {
            session: SessionId,
            /// The leader's term as the mount knows it.
            term: u64,
            /// The number of the last recalls of that term that it carried out (0: none).
            acked: u64,
        } -> Recalls,
        /// A process waits for this fcntl lock, or (kind `Unlock`) no longer does;
        /// repeated several times a second. The answer is the lock in its way, or
        /// `Deadlock` if waiting would close a circle.
        WaitLock {
            session: SessionId,
            ino: Ino,
            lock: LockRange,
        } -> Result<Option<(SessionId, LockRange)>, Refusal>,
        /// A node is alive: sent several times a second.
        NodeHeartbeat {
            node: NodeId,
            /// Its store's boot counter.
            boot: u64,
            /// Its wall clock, milliseconds.
            time_ms: u64,
            /// Bytes in use.
            used_bytes: u64,
            /// Bytes free for chunks.
            free_bytes: u64,
            /// Takes no new chunks.
            full: bool,
            /// Chunks it holds, of each set.
            set_chunks: Vec<(SetId, u64)>,
            /// State of its way to S3: empty, or an error in words.
            s3_error: String,
            /// The endpoint refused for good (credentials, bucket).
            s3_permanent: bool,
            /// The endpoint has answered since the start that uploads may go.
            s3_ready: bool,
            /// Chunks found damaged since the start.
            damaged_chunks: u64,
            /// Bytes that came with commits and are in its memory, not yet in its chunk store.
            staged_bytes: u64,
        } -> NodeHeard,
        /// A node asks for files to archive.
        GetJobs { node: NodeId, slots: u32 } -> Vec<ArchiveJob>,
        /// A server wants to be part of the cluster.
        Join { info: NodeInfo } -> Joined,
        /// The state of the whole cluster for `lagan status`.
        GetStatus -> Box<Status>,
        /// Takes a node that is gone out of the cluster; asked again and again until the
        /// answer is `Removed`, and given up by not asking.
        Remove {
            node: NodeId,
            /// Although it lives, or is the last to have something.
            force: bool,
        } -> Removal,
        /// Drops the local copies of these archived files (inode, data version), 4,096 at
        /// most, unless they are open anywhere.
        ReleaseFiles { files: Vec<(Ino, u64)> } -> Released,
    }
}

answers! {
    /// What the leader answers.
    #[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
    pub enum LeaderReply {
        /// To a mount's heartbeat.
        SessionHeard(SessionHeard),
        /// A lock and whose it is.
        Lock(Result<Option<(SessionId, LockRange)>, Refusal>),
        /// What a mount must forget.
        Recalls(Recalls),
        /// To a node's heartbeat.
        NodeHeard(NodeHeard),
        /// Uploads.
        Jobs(Vec<ArchiveJob>),
        /// The server belongs to the cluster.
        Joined(Joined),
        /// The state of the cluster.
        Status(Box<Status>),
        /// The state of a removal.
        Removal(Removal),
        /// What was released.
        Released(Released),
    }
}

impl Conversation for LeaderRequest {
    const SERVICE: Service = Service::Leader;
    type Reply = LeaderReply;
    type Refusal = LeaderRefusal;

    fn asker(&self) -> Asker {
        match self {
            LeaderRequest::SessionHeartbeat(_)
            | LeaderRequest::PollRecalls(_)
            | LeaderRequest::WaitLock(_)
            | LeaderRequest::GetStatus(_) => Asker::Anybody,
            LeaderRequest::NodeHeartbeat(_)
            | LeaderRequest::GetJobs(_)
            | LeaderRequest::Join(_) => Asker::Server,
            LeaderRequest::Remove(_) | LeaderRequest::ReleaseFiles(_) => Asker::Operator,
        }
    }

    fn refuse(reason: String) -> LeaderRefusal {
        LeaderRefusal::Refused(reason)
    }
}

/// Why a server does not answer what only the leader answers.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, thiserror::Error)]
pub enum LeaderRefusal {
    /// Ask that one; `None`: no leader is known here, ask again soon.
    #[error("this server does not lead")]
    NotLeader {
        /// The leader.
        leader: Option<NodeId>,
        /// Its address, as the asker can reach it.
        addr: Option<String>,
    },
    /// The leader refuses; the reason in words.
    #[error("{0}")]
    Refused(String),
}

impl LeaderRefusal {
    /// No leader is known here.
    pub const UNKNOWN: Self = LeaderRefusal::NotLeader {
        leader: None,
        addr: None,
    };
}

/// The answer to a mount's heartbeat.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct SessionHeard {
    /// False: the session was ended; open a new one.
    pub alive: bool,
    /// The map's version: fetch it if it is newer.
    pub map_version: u64,
    /// An orphan check to answer with the next heartbeat (0: none).
    pub check: u64,
    /// The inodes of that check.
    pub orphans: Vec<Ino>,
    /// The leader's term.
    pub term: u64,
    /// The mount may remember what it is told is leased, for `LEASE_MS` from the sending of
    /// the heartbeat (`lagan-lease`).
    pub leased: bool,
    /// The leader's clock.
    pub now: Time,
}

/// What a mount must forget.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Recalls {
    /// The leader's term.
    pub term: u64,
    /// The number to acknowledge when all of it is forgotten.
    pub number: u64,
    /// The keys; none: the mount knew another term, or there is nothing yet.
    pub keys: Vec<Key>,
}

/// The answer to a node's heartbeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct NodeHeard {
    /// The map's version.
    pub map_version: u64,
    /// Whether the leader knows the node.
    pub known: bool,
    /// The cluster's time, milliseconds.
    pub time_ms: u64,
}

/// The state of a removal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum Removal {
    /// Not yet; this is left to do.
    Removing {
        /// Sets whose chunks other nodes get first.
        sets: u64,
        /// It still votes.
        votes: bool,
    },
    /// There is no such node (any more).
    Removed,
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
    pub sessions: Vec<(SessionId, SessionIdentity)>,
    /// The leader's wall clock, milliseconds.
    pub time_ms: u64,
    /// What mounts may remember.
    pub leases: LeaseStatus,
}

/// The leases that a leader has given, and what they cost since its term began.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode, serde::Serialize, serde::Deserialize,
)]
pub struct LeaseStatus {
    /// Keys that mounts may remember, each counted once for each mount.
    pub held: u64,
    /// Recalls that are not acknowledged.
    pub recalling: u64,
    /// Recalls so far.
    pub recalled: u64,
    /// Changes that waited for recalls so far.
    pub waited: u64,
    /// Milliseconds that they waited, all together.
    pub waited_ms: u64,
    /// The longest such wait, milliseconds.
    pub waited_max_ms: u64,
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
