//! Puts commands into log entries. Commands that arrive while entries are in flight
//! share the next entry, with one sync and one apply. An idle log takes a command at once.
//!
//! What must hold: "did not happen" is said only of what never happens, and "happened" only
//! of what was applied here. All else is unknown. So, by the place that a proposal got to:
//!
//! | its term is over before | the log has it | answer |
//! | --- | --- | --- |
//! | it is in a batch | never: it is in no entry | not leader |
//! | the core takes the batch, and this node follows | never: the core refuses it | not leader |
//! | the core takes the batch, and this node leads again | in another term than its own: nobody applies it | not leader |
//! | it is committed | in its own term, and another leader decides | its answer, if it comes; else unknown |
//!
//! In the last case the entry may be cut off this node's log. That does not mean that it
//! never happens: another node may have it, and with more than three voters may be elected
//! later and commit it.

use crate::error::ProposeError;
use crate::leader::LeaderInfo;
use crate::state::StateStore;
use crate::types::alias::OpenRaft;
use crate::types::{Batch, BatchAnswer, TypeConfig};
use collect::{Collector, Waiting};
use lagan_host::wall::since_1970;
use lagan_types::{NodeId, Time};
use openraft::error::ClientWriteError;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

mod collect;
#[cfg(test)]
mod tests;

pub use collect::Carried;
pub(crate) use collect::{Content, Outcome, Proposal, Reply};

/// Time for which an entry without an answer holds its place in flight.
const ANSWER_MAX: Duration = Duration::from_secs(30);

/// What a node has proposed since its start.
#[derive(Debug, Default)]
pub(crate) struct Proposed {
    /// Entries.
    pub entries: AtomicU64,
    /// The commands in them.
    pub commands: AtomicU64,
}

/// The one task that makes entries, in the order of the queue.
pub(crate) struct Batcher {
    core: OpenRaft,
    state: StateStore,
    collector: Collector,
    in_flight: Arc<Semaphore>,
    proposed: Arc<Proposed>,
}

impl Batcher {
    /// A batcher of what comes through `queue`.
    pub fn new(
        core: OpenRaft,
        state: StateStore,
        queue: mpsc::Receiver<Proposal>,
        leader: watch::Receiver<LeaderInfo>,
        in_flight: Arc<Semaphore>,
        proposed: Arc<Proposed>,
    ) -> Self {
        Batcher {
            collector: Collector::new(queue, leader, state.last_time()),
            core,
            state,
            in_flight,
            proposed,
        }
    }

    /// Works until cancelled; proposers that wait in the queue then are told that their
    /// command did not happen.
    pub async fn run(mut self, cancel: CancellationToken) {
        let mut held = None;
        loop {
            let permit = tokio::select! {
                biased;
                () = cancel.cancelled() => break,
                permit = self.in_flight.clone().acquire_owned() => permit,
            };
            let Ok(permit) = permit else { break };
            let first = match held.take() {
                Some(first) => Some(first),
                None => tokio::select! {
                    biased;
                    () = cancel.cancelled() => break,
                    first = self.collector.wait() => first,
                },
            };
            let Some(first) = first else { break };
            let now = Time::after_1970(since_1970());
            let applied = self.state.last_time();
            let (collected, left) = self.collector.collect(first, now.max(applied.succ()));
            held = left;
            let commands = collected.commands() as u64;
            if let Some((batch, waiting)) = collected.into_batch() {
                self.proposed.entries.fetch_add(1, Ordering::Relaxed);
                self.proposed
                    .commands
                    .fetch_add(commands, Ordering::Relaxed);
                self.propose(batch, waiting, permit).await;
            }
        }
        self.collector.stop(held);
    }

    async fn propose(&self, batch: Batch, waiting: Waiting, permit: OwnedSemaphorePermit) {
        match self.core.client_write_ff(batch.clone()).await {
            Ok(answer) => {
                let leader = self.collector.leader();
                tokio::spawn(deliver(answer, batch, waiting, permit, leader));
            }
            // The core never got it.
            Err(_) => waiting.answer(Err(ProposeError::Stopped)),
        }
    }
}

type WriteAnswer = oneshot::Receiver<
    Result<
        openraft::raft::ClientWriteResponse<TypeConfig>,
        ClientWriteError<u64, openraft::BasicNode>,
    >,
>;

/// Waits for an entry's answer and gives each proposer its own.
async fn deliver(
    answer: WriteAnswer,
    batch: Batch,
    waiting: Waiting,
    permit: OwnedSemaphorePermit,
    mut leader: watch::Receiver<LeaderInfo>,
) {
    let lost = async {
        // This node led in the batch's term and does no more: the entry may still be
        // committed by another leader, but this node may never hear of it. If the node has
        // stopped, the core still says what it knows.
        let over = |l: &LeaderInfo| !l.is_leader && !l.stopped;
        if leader.wait_for(over).await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    let outcome = tokio::select! {
        biased;
        answer = answer => match answer {
            Ok(written) => {
                let written = written.map(|done| (done.log_id.index, done.data));
                outcome_of(written, batch.has_entered())
            }
            Err(_) => Err(ProposeError::Unknown),
        },
        () = lost => Err(ProposeError::Unknown),
        () = tokio::time::sleep(ANSWER_MAX) => Err(ProposeError::Unknown),
    };
    drop(permit);
    waiting.answer(outcome);
}

/// Says what the core's answer means. The core refuses an entry that it does not take in
/// the same words as one that it took and had to cut off again; `entered` tells them apart.
fn outcome_of(
    written: Result<(u64, BatchAnswer), ClientWriteError<u64, openraft::BasicNode>>,
    entered: bool,
) -> Result<(u64, BatchAnswer), ProposeError> {
    match written {
        Ok(answer) => Ok(answer),
        Err(ClientWriteError::ForwardToLeader(forward)) if !entered => {
            let leader = forward.leader_id.zip(forward.leader_node);
            let leader = leader.map(|(id, node)| (NodeId(id), node.addr));
            Err(ProposeError::NotLeader { leader })
        }
        Err(ClientWriteError::ForwardToLeader(_) | ClientWriteError::ChangeMembershipError(_)) => {
            Err(ProposeError::Unknown)
        }
    }
}
