//! Puts commands and barriers into the queue for the log.

use super::Raft;
use crate::batcher::{Carried, Content, Outcome, Proposal, Reply};
use crate::error::ProposeError;
use crate::leader::LeaderInfo;
use lagan_types::{Command, NodeId};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

/// Entries that a follower may lack and is near all the same: those of a message or two.
const NEAR: u64 = 512;

impl Raft {
    /// Replicates a command and returns its answer. The leader fills in the
    /// command's time.
    ///
    /// # Errors
    /// Fails as [`Raft::propose_in`] does, in the present term.
    ///
    /// # Cancel safety
    /// A dropped call's command may still happen.
    pub async fn propose(&self, command: Command, deadline: Duration) -> Outcome {
        let term = self.check_leads()?;
        let carried = self.propose_now(term, command, deadline).await;
        carried.map(|carried| carried.answer)
    }

    /// Does what [`Raft::propose`] does, but only while this node leads in that term: the
    /// command gets into the log in that term or never, even if it waits here while the
    /// node loses an election and wins the next.
    ///
    /// # Errors
    /// [`ProposeError::Unknown`] if the deadline passes or the leadership is lost
    /// while it is under way; the others say that it did not happen and never will.
    ///
    /// # Cancel safety
    /// A dropped call's command may still happen.
    pub async fn propose_in(&self, term: u64, command: Command, deadline: Duration) -> Outcome {
        let carried = self.carry_in(term, command, deadline).await;
        carried.map(|carried| carried.answer)
    }

    /// Does what [`Raft::propose_in`] does, and tells which entry has the command.
    ///
    /// # Errors
    /// Fails as [`Raft::propose_in`] does.
    ///
    /// # Cancel safety
    /// A dropped call's command may still happen.
    pub async fn carry_in(
        &self,
        term: u64,
        command: Command,
        deadline: Duration,
    ) -> Result<Carried, ProposeError> {
        self.check_leads_in(term)?;
        self.propose_now(term, command, deadline).await
    }

    /// Returns when each of these nodes has appended the entry itself, which this node proposed
    /// in that term and has applied: so they have it on disk with the bytes that came with it.
    /// A node that got the state by a snapshot never has it.
    ///
    /// # Errors
    /// [`ProposeError::Unknown`]: this node does not lead in that term any more.
    ///
    /// # Cancel safety
    /// A dropped call has done nothing.
    pub async fn held(&self, term: u64, index: u64, nodes: &[NodeId]) -> Result<(), ProposeError> {
        let mut changes = self.holds.watch();
        let all = || nodes.iter().all(|&node| self.is_held(term, index, node));
        tokio::select! {
            biased;
            _ = changes.wait_for(|_| all()) => Ok(()),
            () = self.lost(term) => Err(ProposeError::Unknown),
        }
    }

    /// Whether the node follows closely: an entry that is proposed now is in its log soon.
    pub fn is_near(&self, node: NodeId) -> bool {
        let last = self.core.metrics().borrow().last_log_index.unwrap_or(0);
        let near = last.saturating_sub(NEAR);
        node == self.options.node || self.holds.has_some_after(node, self.term(), near)
    }

    /// Whether the node is known to have appended the entry itself, as [`Raft::held`] says.
    pub fn is_held(&self, term: u64, index: u64, node: NodeId) -> bool {
        node == self.options.node || self.holds.has(node, term, index)
    }

    /// Returns when an entry that was proposed in that term after this call began has been
    /// applied here. So each command that this node put into the queue in this term before
    /// has been applied here or never will be, whatever its proposer was told. A call that
    /// has returned or was dropped has put its command there before, or never will; a call
    /// that still waits for room in a full queue has not.
    ///
    /// # Errors
    /// Fails as [`Raft::propose_in`] does. Then nothing is known.
    ///
    /// # Cancel safety
    /// A dropped call leaves at most an entry without commands.
    pub async fn barrier_in(&self, term: u64, deadline: Duration) -> Result<(), ProposeError> {
        self.check_leads_in(term)?;
        // The queue has one order, one task takes from it, the core appends in that order,
        // and entries are applied in the order of the log. An entry of this node in this
        // term that comes later in the log is hence behind all that were proposed before.
        // What came before and is not in the log by then was refused, or left out because
        // its caller had gone.
        self.ask(term, deadline, Content::Barrier).await
    }

    async fn propose_now(
        &self,
        term: u64,
        command: Command,
        deadline: Duration,
    ) -> Result<Carried, ProposeError> {
        let command = Box::new(command);
        self.ask(term, deadline, |reply| Content::Command(command, reply))
            .await
    }

    /// Puts a proposal into the queue and waits for its answer.
    async fn ask<T>(
        &self,
        term: u64,
        deadline: Duration,
        content: impl FnOnce(Reply<T>) -> Content,
    ) -> Result<T, ProposeError> {
        let _pending = Pending::new(&self.pending);
        let until = Instant::now() + deadline;
        let (reply, answer) = oneshot::channel();
        let content = content(reply);
        match self.queue.try_send(Proposal { term, content }) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Closed(_)) => return Err(ProposeError::Stopped),
            Err(mpsc::error::TrySendError::Full(proposal)) => {
                match timeout_at(until, self.queue.reserve()).await {
                    Ok(Ok(permit)) => permit.send(proposal),
                    Ok(Err(_)) => return Err(ProposeError::Stopped),
                    Err(_) => return Err(ProposeError::Busy),
                }
            }
        }
        match timeout_at(until, answer).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) | Err(_) => Err(ProposeError::Unknown),
        }
    }

    /// Refuses at once what could only be refused later, or wait in vain; returns the
    /// term in which this node leads.
    fn check_leads(&self) -> Result<u64, ProposeError> {
        let leader = self.leader.borrow();
        if leader.stopped {
            return Err(ProposeError::Stopped);
        }
        let Some(term) = leader.leading() else {
            return Err(ProposeError::NotLeader {
                leader: leader.leader.clone(),
            });
        };
        let lonely = leader.voters.len() > 1 && self.quorum_is_silent();
        if lonely || self.hands_over(&leader) {
            return Err(ProposeError::NotLeader { leader: None });
        }
        Ok(term)
    }

    fn check_leads_in(&self, term: u64) -> Result<(), ProposeError> {
        match self.check_leads()? == term {
            true => Ok(()),
            false => Err(ProposeError::NotLeader { leader: None }),
        }
    }

    /// Whether this node leads and wants another node to. The only voter leads on: no
    /// other node can take over, and none could become a voter if it refused commands.
    pub(super) fn hands_over(&self, leader: &LeaderInfo) -> bool {
        let others = leader.is_leader && leader.voters.len() > 1;
        others && self.stepping_down.load(Ordering::Relaxed)
    }

    /// Whether this leader has not heard of a quorum for so long that another one may
    /// have been elected.
    fn quorum_is_silent(&self) -> bool {
        let silent_ms = 2 * self.options.election_ms.1;
        let metrics = self.core.metrics();
        let metrics = metrics.borrow();
        metrics
            .millis_since_quorum_ack
            .is_some_and(|ms| ms > silent_ms)
    }
}

/// One caller that waits for the answer to a command or a barrier.
struct Pending<'a>(&'a AtomicUsize);

impl<'a> Pending<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Pending(count)
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
