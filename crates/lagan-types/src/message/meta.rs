//! The replicated state: mutations and reads, answered by the leader.

use super::leader::LeaderRefusal;
use super::{Conversation, Service};
use crate::answer::{Answer, Created};
use crate::ask::{Asker, answers, asks};
use crate::attr::Attr;
use crate::cluster::ClusterMap;
use crate::codec::{Decode, Encode};
use crate::error::Refusal;
use crate::id::{SessionId, VolumeId};
use crate::op::Command;
use crate::query::{Query, QueryAnswer};

asks! {
    /// Asked about the replicated state, on any server's `listen` or `peer_listen` address.
    #[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
    pub enum MetaRequest -> MetaReply {
        /// Replicates a command; the leader fills in its time.
        Mutate { command: Command } -> Result<Answer, Refusal>,
        /// Reads linearizably.
        ReadState {
            volume: VolumeId,
            session: SessionId,
            query: Query,
        } -> Result<QueryAnswer, Refusal>,
        /// Creates a regular file (`op::Create`). The leader may promise the file, in its
        /// memory, or replicate the command.
        CreateFile { command: Command } -> Result<CreateOutcome, Refusal>,
        /// The cluster map if its version is above `known`; `None`: `known` is current.
        GetMap { known: u64 } -> Option<ClusterMap>,
    }
}

answers! {
    /// What the leader answers from the replicated state.
    #[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
    pub enum MetaReply {
        /// A mutation's outcome.
        Mutated(Result<Answer, Refusal>),
        /// A read's outcome.
        Read(Result<QueryAnswer, Refusal>),
        /// A create's outcome.
        Created(Result<CreateOutcome, Refusal>),
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
