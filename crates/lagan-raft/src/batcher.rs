//! Puts commands into log entries. Commands that arrive while entries are in flight
//! share the next entry, with one sync and one apply. An idle log takes a command at once.

use crate::error::ProposeError;
use crate::leader::LeaderInfo;
use crate::state::StateStore;
use crate::types::alias::OpenRaft;
use crate::types::{Batch, BatchAnswer, TypeConfig};
use lagan_host::wall::since_1970;
use lagan_types::limits::{BATCH_COMMANDS_MAX, BATCH_LEN_MAX};
use lagan_types::{Answer, Command, FsError, NodeId, Refusal, Time};
use openraft::error::ClientWriteError;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

/// The outcome that a proposer gets.
pub(crate) type Outcome = Result<Result<Answer, Refusal>, ProposeError>;

/// A command on its way.
pub(crate) struct Proposal {
    pub command: Command,
    pub reply: oneshot::Sender<Outcome>,
}

/// Time for which an entry without an answer holds its place in flight.
const ANSWER_MAX: Duration = Duration::from_secs(30);
/// Room for the envelope of a batch.
const ENVELOPE_LEN: usize = 16;

/// Commands for one entry, as they are collected.
#[derive(Default)]
struct Collected {
    commands: Vec<Command>,
    replies: Vec<oneshot::Sender<Outcome>>,
    body: Vec<u8>,
}

/// The one task that makes entries, in the order of the queue.
pub(crate) struct Batcher {
    pub core: OpenRaft,
    pub state: StateStore,
    pub queue: mpsc::Receiver<Proposal>,
    pub leader: watch::Receiver<LeaderInfo>,
    pub in_flight: Arc<Semaphore>,
    pub cancel: CancellationToken,
    /// Time of the last command.
    pub last_time: Time,
}

impl Batcher {
    /// Works until cancelled; proposers that wait then are told that their command did
    /// not happen.
    pub async fn run(mut self) {
        let cancel = self.cancel.clone();
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
                    first = self.queue.recv() => first,
                },
            };
            let Some(first) = first else { break };
            let mut collected = Collected::default();
            held = self.collect(first, &mut collected);
            if !collected.commands.is_empty() {
                self.propose(collected, permit).await;
            }
        }
        self.queue.close();
        while let Ok(left) = self.queue.try_recv() {
            // A proposer that has gone needs no answer.
            let _ = left.reply.send(Err(ProposeError::Stopped));
        }
    }

    /// Takes what waits, up to one entry's worth; returns what did not fit.
    fn collect(&mut self, first: Proposal, into: &mut Collected) -> Option<Proposal> {
        let mut clock = self.last_time.max(self.state.last_time());
        let now = Time::after_1970(since_1970());
        let mut next = Some(first);
        while let Some(mut proposal) = next {
            if proposal.reply.is_closed() {
                next = self.queue.try_recv().ok();
                continue;
            }
            proposal.command.time = now.max(clock.succ());
            let start = into.body.len();
            lagan_types::codec::encode_into(&proposal.command, &mut into.body);
            if into.body.len() > BATCH_LEN_MAX - ENVELOPE_LEN {
                into.body.truncate(start);
                if start > 0 {
                    self.last_time = clock;
                    return Some(proposal);
                }
                let _ = proposal.reply.send(Ok(Err(FsError::TooBig.into())));
            } else {
                clock = proposal.command.time;
                into.commands.push(proposal.command);
                into.replies.push(proposal.reply);
            }
            if into.commands.len() >= BATCH_COMMANDS_MAX {
                break;
            }
            next = self.queue.try_recv().ok();
        }
        self.last_time = clock;
        None
    }

    async fn propose(&self, collected: Collected, permit: OwnedSemaphorePermit) {
        let batch = Batch::from_parts(collected.commands, &collected.body);
        let mut leader = self.leader.clone();
        let term = leader.borrow_and_update().term;
        match self.core.client_write_ff(batch).await {
            Ok(answer) => {
                tokio::spawn(deliver(answer, collected.replies, permit, leader, term));
            }
            Err(_) => answer_all(collected.replies, &ProposeError::Stopped),
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
    replies: Vec<oneshot::Sender<Outcome>>,
    permit: OwnedSemaphorePermit,
    mut leader: watch::Receiver<LeaderInfo>,
    term: u64,
) {
    let lost = async {
        // Our term is over: the entry may still be committed by another leader,
        // but this node may never hear of it.
        let over = |l: &LeaderInfo| l.term != term && !l.is_leader;
        if leader.wait_for(over).await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    let outcome = tokio::select! {
        biased;
        answer = answer => match answer {
            Ok(Ok(done)) => Ok(done.data),
            Ok(Err(ClientWriteError::ForwardToLeader(forward))) => {
                let leader = forward.leader_id.zip(forward.leader_node);
                let leader = leader.map(|(id, node)| (NodeId(id), node.addr));
                Err(ProposeError::NotLeader { leader })
            }
            Ok(Err(ClientWriteError::ChangeMembershipError(_))) => Err(ProposeError::Unknown),
            Err(_) => Err(ProposeError::Unknown),
        },
        () = lost => Err(ProposeError::Unknown),
        () = tokio::time::sleep(ANSWER_MAX) => Err(ProposeError::Unknown),
    };
    drop(permit);
    match outcome {
        Ok(BatchAnswer(answers)) => {
            for (reply, answer) in replies.into_iter().zip(answers) {
                let _ = reply.send(Ok(answer));
            }
        }
        Err(e) => answer_all(replies, &e),
    }
}

fn answer_all(replies: Vec<oneshot::Sender<Outcome>>, error: &ProposeError) {
    for reply in replies {
        let _ = reply.send(Err(error.clone()));
    }
}
