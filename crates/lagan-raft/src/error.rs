//! The errors of this crate, from a caller's point of view.

use lagan_types::NodeId;

/// The node's consensus cannot start, or has stopped.
#[derive(Debug, thiserror::Error)]
pub enum RaftError {
    /// The disk below it.
    #[error("{0}: {1}")]
    Io(String, std::io::Error),
    /// The log on disk is not one that this node can trust.
    #[error("log damaged: {0}")]
    LogDamaged(String),
    /// Another build wrote the log; nothing in it was changed.
    #[error("the metadata log has format version {found}, this build reads version {known}: {}", other_build(*found, *known))]
    LogVersion {
        /// The version of a segment.
        found: u32,
        /// The version that this build reads.
        known: u32,
    },
    /// The state store does not open, or does not fit the log.
    #[error("state store: {0}")]
    State(String),
    /// The cluster was made already.
    #[error("already initialized")]
    Initialized,
    /// Only the leader can do that.
    #[error("not the leader")]
    NotLeader {
        /// The leader and its address, if known.
        leader: Option<(NodeId, String)>,
    },
    /// The deadline passed.
    #[error("timed out: {0}")]
    TimedOut(&'static str),
    /// Refused by the consensus, in its words.
    #[error("refused: {0}")]
    Refused(String),
    /// The node has stopped.
    #[error("stopped: {0}")]
    Stopped(String),
}

impl RaftError {
    /// Names the operation that an I/O error ended.
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> RaftError {
        let what = what.into();
        move |e| RaftError::Io(what, e)
    }
}

/// Bytes that are no message between peers, so their sender is no peer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub String);

/// The reason why a proposal or a read has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// The command did not happen: ask the leader.
    #[error("not the leader")]
    NotLeader {
        /// The leader and its address, if known.
        leader: Option<(NodeId, String)>,
    },
    /// The command may have happened or may yet happen (never the answer to a read).
    #[error("outcome unknown")]
    Unknown,
    /// The command did not happen: too many wait already, or no quorum answers a read.
    /// Try again later.
    #[error("overloaded or no quorum")]
    Busy,
    /// The command did not happen: this node has stopped.
    #[error("stopped")]
    Stopped,
}

/// The reason why a peer has not answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TransportError {
    /// No connection: do not try again at once.
    #[error("unreachable: {0}")]
    Unreachable(String),
    /// The deadline passed or the connection broke in between.
    #[error("no answer: {0}")]
    NoAnswer(String),
}

/// Says what to do about a log of another build.
fn other_build(found: u32, known: u32) -> &'static str {
    if found > known {
        return "a newer build wrote it, start that one";
    }
    "an older build wrote it, start that one; there is no way to read it here, and with an \
     empty data directory the server begins without what it held"
}
