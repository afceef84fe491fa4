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
//! A caller of [`ReadGate::confirm`] wants to know more: that nobody else led at some moment
//! after its call began. A round that was under way then may have had its answers before, so
//! these callers share the next one. A round stands for all who had arrived when it began.
//!
//! The age of a proof is taken from a clock that goes on while the machine sleeps:
//! the others elect a new leader meanwhile, and a proof from before must be over.

use crate::error::ProposeError;
use crate::leader::LeaderInfo;
use crate::types::alias::OpenRaft;
use lagan_host::boot::boot_time;
use lagan_types::NodeId;
use openraft::error::{CheckIsLeaderError, RaftError};
use parking_lot::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::watch;

/// A round that takes longer has failed.
const ROUND_MAX: Duration = Duration::from_secs(1);

/// This node led in `term` and is the only one that can lead before `until`.
#[derive(Debug, Clone, Copy)]
struct Proof {
    /// On the clock of [`boot_time`].
    until: Duration,
    term: u64,
}

/// A round that has ended.
struct Round {
    /// Callers of [`ReadGate::confirm`] that had arrived when it began.
    arrived: u64,
    /// The term that it confirmed.
    outcome: Result<u64, ProposeError>,
}

/// Lets readers through while this node is known to lead.
pub(crate) struct ReadGate {
    core: OpenRaft,
    leader: watch::Receiver<LeaderInfo>,
    /// How long a proof counts, from the start of its round.
    length: Duration,
    proof: Mutex<Option<Proof>>,
    /// Callers of [`ReadGate::confirm`] so far.
    arrivals: AtomicU64,
    /// The last round. Written by the holder of `round`.
    last: Mutex<Option<Round>>,
    /// Held by the caller whose round the others wait for.
    round: tokio::sync::Mutex<()>,
}

impl ReadGate {
    pub fn new(core: OpenRaft, leader: watch::Receiver<LeaderInfo>, length: Duration) -> Self {
        ReadGate {
            core,
            leader,
            length,
            proof: Mutex::new(None),
            arrivals: AtomicU64::new(0),
            last: Mutex::new(None),
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
        let left = proof.until.checked_sub(boot_time()?)?;
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
        self.ask().await.map(|_| ())
    }

    /// Returns the term in which this node led at a moment after this call began, and
    /// leads now as far as it knows. Makes no round while `hands_over`.
    pub async fn confirm(&self, hands_over: impl Fn() -> bool) -> Result<u64, ProposeError> {
        let place = self.arrivals.fetch_add(1, Ordering::AcqRel) + 1;
        let round = self.round.lock().await;
        let term = match self.shared(place) {
            Some(outcome) => outcome?,
            // A round to the others would keep them from taking over.
            None if hands_over() => return Err(ProposeError::NotLeader { leader: None }),
            None => self.ask().await?,
        };
        drop(round);
        let now = self.leader.borrow();
        match now.leading() == Some(term) {
            true => Ok(term),
            false => Err(ProposeError::NotLeader {
                leader: now.leader.clone().filter(|_| !now.is_leader),
            }),
        }
    }

    /// The outcome of the last round, if it began after that caller had arrived.
    fn shared(&self, place: u64) -> Option<Result<u64, ProposeError>> {
        let last = self.last.lock();
        let round = last.as_ref().filter(|r| place <= r.arrived)?;
        Some(round.outcome.clone())
    }

    /// Makes a round. The caller holds `round`. If it is dropped meanwhile, the round
    /// stands for nobody.
    async fn ask(&self) -> Result<u64, ProposeError> {
        // Whoever is counted here began to wait before the first message goes out.
        let arrived = self.arrivals.load(Ordering::Acquire);
        let outcome = self.ask_quorum().await;
        let round = Round {
            arrived,
            outcome: outcome.clone(),
        };
        *self.last.lock() = Some(round);
        outcome
    }

    async fn ask_quorum(&self) -> Result<u64, ProposeError> {
        let (is_leader, leader) = {
            let now = self.leader.borrow();
            (now.is_leader, now.leader.clone())
        };
        if !is_leader {
            return Err(ProposeError::NotLeader { leader });
        }
        let began = boot_time();
        match tokio::time::timeout(ROUND_MAX, self.core.ensure_linearizable()).await {
            Ok(Ok(read_at)) => {
                // It is an entry of the term that the round was made in: a leader reads
                // behind the first entry of its own. The watch may be behind the core.
                let Some(read_at) = read_at else {
                    return Err(ProposeError::NotLeader { leader: None });
                };
                let term = read_at.leader_id.term;
                *self.proof.lock() = began.map(|began| Proof {
                    until: began + self.length,
                    term,
                });
                Ok(term)
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
