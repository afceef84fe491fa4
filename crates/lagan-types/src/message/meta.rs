//! The replicated state: mutations and reads, answered by the leader.

use super::leader::LeaderRefusal;
use super::{Conversation, Service};
use crate::answer::{Answer, Created};
use crate::ask::{Asker, answers, asks};
use crate::attr::Attr;
use crate::cluster::ClusterMap;
use crate::codec::{Decode, Encode};
use crate::data::Data;
use crate::error::Refusal;
use crate::id::{ChunkId, SessionId, VolumeId};
use crate::lease::{Closed, Leased, Proof, Wish};
use crate::op::Command;
use crate::query::{Query, QueryAnswer};

asks! {
    /// Asked about the replicated state, on any server's `listen` or `peer_listen` address.
    #[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
    pub enum MetaRequest -> MetaReply {
        /// Replicates a command; the leader fills in its time.
        Mutate {
            command: Command,
            /// What the mount has closed for it; `None`: the mount remembers nothing.
            closed: Option<Closed>,
        } -> Mutated,
        /// Reads linearizably.
        ReadState {
            volume: VolumeId,
            session: SessionId,
            query: Query,
            /// Whether the mount wants to remember the answer.
            wish: Option<Wish>,
            /// Bytes of the chunks named by the answer that may come with it, at most; 0: none.
            along: u32,
        } -> StateRead,
        /// Creates a regular file (`op::Create`). The leader may promise the file, in its
        /// memory, or replicate the command.
        CreateFile {
            command: Command,
            /// As in [`Mutate`].
            closed: Option<Closed>,
        } -> FileCreated,
        /// The cluster map if its version is above `known`; `None`: `known` is current.
        GetMap { known: u64 } -> Option<ClusterMap>,
    }
}

answers! {
    /// What the leader answers from the replicated state.
    #[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
    pub enum MetaReply {
        /// A mutation's outcome.
        Mutated(Mutated),
        /// A read's outcome.
        Read(StateRead),
        /// A create's outcome.
        Created(FileCreated),
        /// The cluster map.
        Map(Option<ClusterMap>),
    }
}

impl Conversation for MetaRequest {
    const SERVICE: Service = Service::Meta;
    type Reply = MetaReply;
    type Refusal = LeaderRefusal;

    fn asker(&self) -> Asker {
        match self {
            // `SystemOp::asker` says who may send a mutation of the cluster's own.
            MetaRequest::Mutate(_)
            | MetaRequest::ReadState(_)
            | MetaRequest::CreateFile(_)
            | MetaRequest::GetMap(_) => Asker::Anybody,
        }
    }

    fn refuse(reason: String) -> LeaderRefusal {
        LeaderRefusal::Refused(reason)
    }
}

impl Mutate {
    /// Makes the request of an asker that remembers nothing.
    pub fn new(command: Command) -> Self {
        Mutate {
            command,
            closed: None,
        }
    }
}

impl ReadState {
    /// Makes the request of an asker that remembers nothing.
    pub fn new(session: SessionId, query: impl Into<Query>) -> Self {
        ReadState {
            volume: VolumeId::ONLY,
            session,
            query: query.into(),
            wish: None,
            along: 0,
        }
    }
}

/// What became of a mutation.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Mutated {
    /// Its answer.
    pub answer: Result<Answer, Refusal>,
    /// What is there now, for the mount that asked.
    pub proof: Option<Proof>,
    /// Whether the bytes that came with it, if any did, are on the disk of every member of
    /// their sets. If not, they must be stored elsewhere before anybody relies on them.
    pub held: bool,
}

impl From<Result<Answer, Refusal>> for Mutated {
    fn from(answer: Result<Answer, Refusal>) -> Self {
        Mutated {
            answer,
            proof: None,
            held: true,
        }
    }
}

/// What a read found.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct StateRead {
    /// Its answer.
    pub answer: Result<QueryAnswer, Refusal>,
    /// Which parts of it the mount may remember.
    pub leased: Option<Leased>,
    /// Whole chunks that the answer names, as far as they were at hand: not verified.
    pub chunks: Vec<(ChunkId, Data)>,
}

impl From<Result<QueryAnswer, Refusal>> for StateRead {
    fn from(answer: Result<QueryAnswer, Refusal>) -> Self {
        StateRead {
            answer,
            leased: None,
            chunks: Vec::new(),
        }
    }
}

/// What became of a create, with the same for its mount.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct FileCreated {
    /// Its outcome.
    pub outcome: Result<CreateOutcome, Refusal>,
    /// What is there now, for the mount that asked.
    pub proof: Option<Proof>,
}

impl From<Result<CreateOutcome, Refusal>> for FileCreated {
    fn from(outcome: Result<CreateOutcome, Refusal>) -> Self {
        let proof = None;
        FileCreated { outcome, proof }
    }
}

/// What became of a create.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum CreateOutcome {
    /// The name is the asker's alone, by the word of the leader of that term; the file is
    /// not replicated until `CreatePromised` or `CreateCommit` is.
    Promised {
        /// The file as it will be.
        attr: Attr,
        /// The leader's term.
        term: u64,
    },
    /// The command was replicated.
    Replicated(Created),
}
