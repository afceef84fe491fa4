//! Linearizable reads at the leader.
//!
//! A ReadIndex (a round to a quorum) that began at t0 proves that this node led
//! at t0 or later. Every follower that answered refuses its vote to others for
//! `election_ms.1` from its answer, also after a restart, so nobody else leads
//! before t0 + that. The proof counts for [`Options::read_proof_ms`](crate::Options),
//! which is cut to half of it. Until then each read of the local state sees all
//! that was answered before the read began: only this node answers, and it answers
//! after it has applied. Readers that come while a round is under way share it.
//!
//! The age of a proof is taken from a clock that goes on while the machine sleeps:
//! the others elect a new leader meanwhile, and a proof from before must be over.

use crate::error::ProposeError;
use crate::leader::LeaderInfo;
use crate::sys;
use crate::types::alias::OpenRaft;
use lagan_types::NodeId;
use openraft::error::{CheckIsLeaderError, RaftError};
use parking_lot::Mutex;
use std::time::Duration;
use tokio::sync::watch;

/// A round that takes longer has failed.
const ROUND_MAX: Duration = Duration::from_secs(1);

/// This node led in `term` and is the only one that can lead before `until`.
#[derive(Debug, Clone, Copy)]
struct Proof {
    /// On the clock of [`sys::boot_time`].
    until: Duration,
    term: u64,
}

/// Lets readers through while this node is known to lead.
pub(crate) struct ReadGate {
    core: OpenRaft,
    leader: watch::Receiver<LeaderInfo>,
    /// How long a proof counts, from the start of its round.
    length: Duration,
    proof: Mutex<Option<Proof>>,
    /// Held by the reader whose round the others wait for.
    round: tokio::sync::Mutex<()>,
}

impl ReadGate {
    pub fn new(core: OpenRaft, leader: watch::Receiver<LeaderInfo>, length: Duration) -> Self {
        ReadGate {
            core,
            leader,
            length,
            proof: Mutex::new(None),
            round: tokio::sync::Mutex::new(()),
        }
    }

    /// How long the last proof still counts; `None`: it does not.
    fn left(&self) -> Option<Duration> {
        let proof = (*self.proof.lock())?;
        let leader = self.leader.borrow();
        if !leader.is_leader || leader.term != proof.term {
            return None;
        }
        let left = proof.until.checked_sub(sys::boot_time()?)?;
        (!left.is_zero()).then_some(left)
    }

    /// Whether a reader may go on without waiting; `true` in the second place
    /// asks for a [`ReadGate::renew`] in the background.
    pub fn open(&self) -> (bool, bool) {
        match self.left() {
            Some(left) => (true, left < self.length / 2),
            None => (false, false),
        }
    }

    /// Begins a round unless one is under way.
    pub async fn renew(&self) {
        if let Ok(_round) = self.round.try_lock() {
            // Readers find out by themselves if this fails.
            let _ = self.ask().await;
        }
    }

    /// Returns when a read of the local state is linearizable.
    pub async fn pass(&self) -> Result<(), ProposeError> {
        if self.left().is_some() {
            return Ok(());
        }
        let _round = self.round.lock().await;
        if self.left().is_some() {
            return Ok(());
        }
        self.ask().await
    }

    async fn ask(&self) -> Result<(), ProposeError> {
        let (term, is_leader, leader) = {
            let now = self.leader.borrow();
            (now.term, now.is_leader, now.leader.clone())
        };
        if !is_leader {
            return Err(ProposeError::NotLeader { leader });
        }
        let began = sys::boot_time();
        match tokio::time::timeout(ROUND_MAX, self.core.ensure_linearizable()).await {
            Ok(Ok(_)) => {
                *self.proof.lock() = began.map(|began| Proof {
                    until: began + self.length,
                    term,
                });
                Ok(())
            }
            Ok(Err(RaftError::APIError(CheckIsLeaderError::ForwardToLeader(to)))) => {
                let leader = to.leader_id.zip(to.leader_node);
                let leader = leader.map(|(id, node)| (NodeId(id), node.addr));
                Err(ProposeError::NotLeader { leader })
            }
            Ok(Err(RaftError::APIError(CheckIsLeaderError::QuorumNotEnough(_)))) | Err(_) => {
                // Whoever leads now, it is hardly this node.
                Err(ProposeError::NotLeader { leader: None })
            }
            Ok(Err(RaftError::Fatal(_))) => Err(ProposeError::Stopped),
        }
    }
}
