//! What any server answers for itself, whether it leads, and whether it belongs to a cluster.

use super::{Conversation, Service};
use crate::ask::{Asker, answers, asks};
use crate::cluster::Config;
use crate::codec::{Decode, Encode};
use crate::id::{ClusterId, Incarnation, NodeId};

asks! {
    /// Asked of one server.
    #[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
    pub enum NodeRequest -> NodeReply {
        /// Asks who leads.
        Ping -> Pong,
        /// The first server makes the cluster (`lagan init`).
        InitCluster { config: Config } -> Joined,
        /// A server that has no cluster yet joins the one that `via` (a server's address)
        /// belongs to (`lagan join`).
        JoinVia { via: String } -> Joined,
        /// Forgets the bytes that were recalled from S3.
        DropRecallCache -> (),
    }
}

answers! {
    /// What a server answers.
    #[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
    pub enum NodeReply {
        /// It is done.
        Done(()),
        /// Who leads.
        Pong(Pong),
        /// The server belongs to a cluster.
        Joined(Joined),
    }
}

impl Conversation for NodeRequest {
    const SERVICE: Service = Service::Node;
    type Reply = NodeReply;
    type Refusal = NodeRefusal;

    fn asker(&self) -> Asker {
        match self {
            NodeRequest::Ping(_) => Asker::Anybody,
            NodeRequest::InitCluster(_)
            | NodeRequest::JoinVia(_)
            | NodeRequest::DropRecallCache(_) => Asker::Operator,
        }
    }

    fn refuse(reason: String) -> NodeRefusal {
        NodeRefusal { reason }
    }
}

/// Who leads, in the opinion of the server that was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Pong {
    /// The leader, if there is one.
    pub leader: Option<NodeId>,
    /// Raft's term.
    pub term: u64,
}

/// A server's place in a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Joined {
    /// The server's number.
    pub node: NodeId,
    /// The cluster.
    pub cluster: ClusterId,
    /// The cluster's present life.
    pub incarnation: Incarnation,
}

/// The server cannot do it, or will not.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, thiserror::Error)]
#[error("{reason}")]
pub struct NodeRefusal {
    /// The reason, in words.
    pub reason: String,
}
