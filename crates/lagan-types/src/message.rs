//! Requests and answers between processes: the heads of frames. Bulk data
//! travels beside the head, never through the codec.
//!
//! A connection is for one [`Service`], and each service has one table of requests:
//!
//! | service | requests | who answers |
//! | --- | --- | --- |
//! | `Node` | [`NodeRequest`] | any server, for itself |
//! | `Meta` | [`MetaRequest`] | the leader: the replicated state |
//! | `Leader` | [`LeaderRequest`] | the leader: what it knows and does |
//! | `Chunk` | [`ChunkRequest`] | the chunk store of a server |
//! | `Archive` | [`ArchiveRequest`] | the mover of a server |
//! | `Raft` | `lagan-raft`'s own | the consensus of a server |
//!
//! The head of an answer is `Result<Reply, Refusal>` with the types of the service's
//! [`Conversation`]. To add a request: a row in its table, and its answer's type in the table
//! of replies if it is a new one; the compiler asks for who may send it and for its service's
//! code. Raise `PROTOCOL_VERSIONS`.

mod archive;
mod chunk;
mod leader;
mod meta;
mod node;

pub use archive::{
    ArchiveRefusal, ArchiveReply, ArchiveRequest, CheckObjects, ListObjects, ObjectHealth,
    ObjectList, Recall, Recalled,
};
pub use chunk::{
    Blocks, ChunkHealth, ChunkRefusal, ChunkReply, ChunkRequest, ListChunks, ReadChunk, Replica,
    ReportBad, ReportReplica, VerifyChunks, WriteChunk,
};
pub use leader::{
    ArchiveJob, GetJobs, GetStatus, Join, LeaderRefusal, LeaderReply, LeaderRequest, LeaseStatus,
    NodeHeard, NodeHeartbeat, NodeStatus, PollRecalls, Recalls, ReleaseFiles, Released, Removal,
    Remove, SessionHeard, SessionHeartbeat, Status, WaitLock,
};
pub use meta::{
    CreateFile, CreateOutcome, FileCreated, GetMap, MetaReply, MetaRequest, Mutate, Mutated,
    ReadState, StateRead,
};
pub use node::{
    DropRecallCache, InitCluster, JoinVia, Joined, NodeRefusal, NodeReply, NodeRequest, Ping, Pong,
};

use crate::ask::{Ask, Asker};
use crate::codec::{Decode, Encode};

/// The use of a connection. Each use has connections of its own, so that bulk bytes
/// never stand before a heartbeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Service {
    /// What any server answers for itself.
    Node,
    /// The replicated state: file system calls.
    Meta,
    /// The leader's own knowledge and work: heartbeats, status, removal.
    Leader,
    /// The chunk store: bulk bytes.
    Chunk,
    /// The mover: bytes of archived files.
    Archive,
    /// Raft between servers.
    Raft,
}

impl Service {
    /// All services, in the order of their numbers.
    pub const ALL: [Service; 6] = [
        Service::Node,
        Service::Meta,
        Service::Leader,
        Service::Chunk,
        Service::Archive,
        Service::Raft,
    ];

    /// Its name in words for an operator.
    pub fn name(self) -> &'static str {
        match self {
            Service::Node => "node",
            Service::Meta => "meta",
            Service::Leader => "leader",
            Service::Chunk => "chunk",
            Service::Archive => "archive",
            Service::Raft => "raft",
        }
    }
}

/// The requests of one service, with all answers to them and the reasons why there is none.
pub trait Conversation: Encode + Decode<()> {
    /// The service whose connections carry them.
    const SERVICE: Service;
    /// All answers.
    type Reply: Encode + Decode<()>;
    /// Why a request is not answered.
    type Refusal: Encode + Decode<()>;

    /// Who may send the request.
    fn asker(&self) -> Asker;

    /// The refusal in words.
    fn refuse(reason: String) -> Self::Refusal;
}

/// The refusal of the service that a request is for.
pub type RefusalOf<A> = <<A as Ask>::Request as Conversation>::Refusal;

/// A request of a service.
pub trait Message:
    Ask<Request: Conversation<Reply = <Self as Ask>::Reply>, Reply: Encode + Decode<()>>
{
}

impl<A> Message for A where
    A: Ask<Request: Conversation<Reply = <A as Ask>::Reply>, Reply: Encode + Decode<()>>
{
}
