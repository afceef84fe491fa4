//! Why the leader gives no answer to a request.

use lagan_meta::kv::StoreError;
use lagan_raft::ProposeError;

/// The reason why a request is not answered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoAnswer {
    /// The request makes no sense now; in words for a person.
    #[error("{0}")]
    Refused(String),
    /// It is not known what became of a command of the leader's own: ask again.
    #[error("the outcome of a command is not known")]
    Unknown,
    /// This node does not lead, or cannot say now that it does.
    #[error(transparent)]
    Raft(#[from] ProposeError),
    /// The state store does not work.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl NoAnswer {
    /// A cluster without configuration can do nothing but be initialised.
    pub fn not_initialised() -> Self {
        NoAnswer::Refused("the cluster is not initialised".into())
    }
}
