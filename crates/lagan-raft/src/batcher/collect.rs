//! Chooses what goes into the next entry: the proposals of one term, in the order of the
//! queue.
//!
//! What must hold: a batch has only proposals of the term that it names, and each proposal
//! is in one batch or is refused. So a proposal that waited until its term was over is
//! answered with "did not happen" and is in no entry.

use crate::error::ProposeError;
use crate::leader::LeaderInfo;
use crate::types::{Batch, BatchAnswer};
use lagan_types::limits::{BATCH_COMMANDS_MAX, BATCH_LEN_MAX};
use lagan_types::{Answer, Command, FsError, Refusal, Time};
use tokio::sync::{mpsc, oneshot, watch};

/// An entry with so many bytes takes no more commands: what comes with it holds up the
/// heartbeats behind it.
const ENTRY_LEN_WANTED: usize = 1024 * 1024;

/// The outcome that a proposer gets.
pub(crate) type Outcome = Result<Result<Answer, Refusal>, ProposeError>;

/// A command that was carried out, or refused by the state machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Carried {
    /// Its answer.
    pub answer: Result<Answer, Refusal>,
    /// Index of the log's entry that has it; 0: none has.
    pub index: u64,
}

/// The way back to a caller.
pub(crate) type Reply<T> = oneshot::Sender<Result<T, ProposeError>>;

/// A proposal on its way.
pub(crate) struct Proposal {
    /// It gets into the log in this term or never.
    pub term: u64,
    pub content: Content,
}

/// The content of a proposal.
pub(crate) enum Content {
    Command(Box<Command>, Reply<Carried>),
    /// Nothing but a place in the log, behind all that was proposed before.
    Barrier(Reply<()>),
}

impl Proposal {
    /// Whether its caller has gone.
    fn is_closed(&self) -> bool {
        match &self.content {
            Content::Command(_, reply) => reply.is_closed(),
            Content::Barrier(reply) => reply.is_closed(),
        }
    }

    /// Says that it did not happen. A caller that has gone needs no answer.
    pub fn refuse(self, error: ProposeError) {
        let _ = match self.content {
            Content::Command(_, reply) => reply.send(Err(error)).is_ok(),
            Content::Barrier(reply) => reply.send(Err(error)).is_ok(),
        };
    }
}

/// The callers that wait for one entry.
#[derive(Default)]
pub(super) struct Waiting {
    /// In the order of the entry's commands.
    commands: Vec<Reply<Carried>>,
    barriers: Vec<Reply<()>>,
}

impl Waiting {
    /// Gives each its own answer, of the entry with that index. A caller that has gone needs
    /// none.
    pub fn answer(self, outcome: Result<(u64, BatchAnswer), ProposeError>) {
        match outcome {
            Ok((index, BatchAnswer::Done(answers))) => {
                for (reply, answer) in self.commands.into_iter().zip(answers) {
                    let _ = reply.send(Ok(Carried { answer, index }));
                }
                for reply in self.barriers {
                    let _ = reply.send(Ok(()));
                }
            }
            Ok((_, BatchAnswer::Late)) => self.refuse(&ProposeError::NotLeader { leader: None }),
            Err(e) => self.refuse(&e),
        }
    }

    fn refuse(self, error: &ProposeError) {
        for reply in self.commands {
            let _ = reply.send(Err(error.clone()));
        }
        for reply in self.barriers {
            let _ = reply.send(Err(error.clone()));
        }
    }

    fn len(&self) -> usize {
        self.commands.len() + self.barriers.len()
    }
}

/// The content of one entry, as it is collected.
pub(super) struct Collected {
    /// The term in which this node led when it began.
    term: Option<u64>,
    commands: Vec<Command>,
    /// The encoded commands.
    body: Vec<u8>,
    waiting: Waiting,
}

impl Collected {
    /// How many commands it has.
    pub fn commands(&self) -> usize {
        self.commands.len()
    }

    /// The batch and those who wait for it; `None`: there is nothing to propose.
    pub fn into_batch(self) -> Option<(Batch, Waiting)> {
        let term = self.term.filter(|_| self.waiting.len() > 0)?;
        let batch = Batch::from_parts(term, self.commands, &self.body);
        Some((batch, self.waiting))
    }
}

/// Takes from the queue.
pub(super) struct Collector {
    queue: mpsc::Receiver<Proposal>,
    leader: watch::Receiver<LeaderInfo>,
    /// Time of the last command.
    last_time: Time,
}

impl Collector {
    /// A collector whose commands come after `last_time`.
    pub fn new(
        queue: mpsc::Receiver<Proposal>,
        leader: watch::Receiver<LeaderInfo>,
        last_time: Time,
    ) -> Self {
        Collector {
            queue,
            leader,
            last_time,
        }
    }

    /// A watch of who leads.
    pub fn leader(&self) -> watch::Receiver<LeaderInfo> {
        self.leader.clone()
    }

    /// Waits for a proposal; `None`: there will be none any more.
    pub async fn wait(&mut self) -> Option<Proposal> {
        self.queue.recv().await
    }

    /// Takes what waits, up to one entry's worth; returns with it the proposal that must
    /// wait for the next entry, if there is one. The times of the commands are no earlier
    /// than `now`.
    pub fn collect(&mut self, first: Proposal, now: Time) -> (Collected, Option<Proposal>) {
        let mut collected = Collected {
            term: self.leader.borrow().leading(),
            commands: Vec::new(),
            body: Vec::new(),
            waiting: Waiting::default(),
        };
        let mut next = Some(first);
        while let Some(proposal) = next {
            if !proposal.is_closed() {
                let left = self.take(proposal, now, &mut collected);
                if left.is_some() {
                    return (collected, left);
                }
            }
            let full = collected.body.len() >= ENTRY_LEN_WANTED;
            if full || collected.waiting.len() >= BATCH_COMMANDS_MAX {
                break;
            }
            next = self.queue.try_recv().ok();
        }
        (collected, None)
    }

    /// Takes no more proposals, and refuses those that are left.
    pub fn stop(mut self, held: Option<Proposal>) {
        self.queue.close();
        let mut next = held.or_else(|| self.queue.try_recv().ok());
        while let Some(left) = next {
            left.refuse(ProposeError::Stopped);
            next = self.queue.try_recv().ok();
        }
    }

    /// Adds a proposal or refuses it; returns it if it must wait for the next entry.
    fn take(&mut self, proposal: Proposal, now: Time, into: &mut Collected) -> Option<Proposal> {
        if into.term != Some(proposal.term) {
            // Its caller may know of a newer term than this batch does.
            if self.leader.borrow().leading() == Some(proposal.term) {
                return Some(proposal);
            }
            proposal.refuse(ProposeError::NotLeader { leader: None });
            return None;
        }
        let (mut command, reply) = match proposal.content {
            Content::Command(command, reply) => (command, reply),
            Content::Barrier(reply) => {
                into.waiting.barriers.push(reply);
                return None;
            }
        };
        command.time = self.last_time.succ().max(now);
        let start = into.body.len();
        lagan_types::codec::encode_into(&*command, &mut into.body);
        if into.body.len() > BATCH_LEN_MAX - Batch::ENVELOPE_LEN {
            into.body.truncate(start);
            if start > 0 {
                let content = Content::Command(command, reply);
                return Some(Proposal {
                    content,
                    ..proposal
                });
            }
            let _ = reply.send(Ok(Carried {
                answer: Err(FsError::TooBig.into()),
                index: 0,
            }));
            return None;
        }
        self.last_time = command.time;
        into.commands.push(*command);
        into.waiting.commands.push(reply);
        None
    }
}

#[cfg(test)]
mod tests;
