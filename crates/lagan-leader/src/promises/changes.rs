//! Mutations: what they change is claimed, promised files in their way are made, then they are
//! proposed.

use super::names::{Directories, End, Mark};
use super::{CLAIM_MAX, New, Outcome, Promises, author, end_of, found, shown_keys, stopped};
use crate::leases::Claimed;
use lagan_lease::Turn;
use lagan_raft::{Carried, ProposeError, View};
use lagan_types::lease::{Closed, Found, Key, Name, Proof};
use lagan_types::op::{FileOp, NameEffect, Op, SystemOp};
use lagan_types::query::{GetAttr, Lookup};
use lagan_types::{Answer, Command, Ino, Kind, Refusal, Time};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// What became of a mutation.
pub struct Changed {
    /// Its answer.
    pub answer: Result<Answer, Refusal>,
    /// What is there now, for the mount that asked.
    pub proof: Option<Proof>,
    /// The term, and the index of the log's entry that has it, if a mount asked for it.
    pub entry: (u64, u64),
}

impl From<Result<Answer, Refusal>> for Changed {
    fn from(answer: Result<Answer, Refusal>) -> Self {
        Changed {
            answer,
            proof: None,
            entry: (0, 0),
        }
    }
}

impl Promises {
    /// Proposes a mutation, after the promised files that it touches are made and nobody
    /// remembers any more what it changes.
    ///
    /// # Errors
    /// Those of [`Raft::propose`].
    pub async fn mutate(
        self: &Arc<Self>,
        command: Command,
        closed: Option<&Closed>,
        deadline: Duration,
    ) -> Result<Changed, ProposeError> {
        let quiet: Vec<Key> = command.op.quiet().into_iter().map(Key::Inode).collect();
        let changed = match &command.op {
            Op::File(_) => self.file(command, closed, deadline).await,
            Op::System(_) => self.system(command, deadline).await.map(Changed::from),
        };
        match &changed {
            Ok(Changed { answer: Ok(_), .. }) => self.leases.recall_quietly(&quiet),
            Err(ProposeError::Unknown) if !quiet.is_empty() => {
                let (leases, term) = (self.leases.clone(), self.raft.term());
                tokio::spawn(async move {
                    if leases.pass_barrier(term).await {
                        leases.recall_quietly(&quiet);
                    }
                });
            }
            Ok(_) | Err(_) => {}
        }
        changed
    }

    /// Proposes a command of the cluster's own.
    pub(super) async fn system(&self, command: Command, deadline: Duration) -> Outcome<Answer> {
        let Some(term) = self.raft.leading() else {
            // It says who does.
            return self.raft.propose(command, deadline).await;
        };
        match &command.op {
            Op::System(SystemOp::OpenSession(op)) => {
                if let Some(old) = op.predecessor
                    && lagan_meta::succeeds(&self.raft.read().await?, &op.identity, old)
                        .map_err(stopped)?
                {
                    self.leases.retire(old, term).await;
                }
            }
            Op::System(SystemOp::EndSession(op)) => self.leases.retire(op.session, term).await,
            Op::System(_) | Op::File(_) => {}
        }
        let keys = command.op.touches();
        if keys.is_empty() {
            return self.raft.propose_in(term, command, deadline).await;
        }
        let mut claimed = self.leases.claim(term, None, &keys, Turn::InOrder)?;
        claimed.ready(Instant::now() + CLAIM_MAX).await?;
        claimed.propose(command, deadline).await
    }

    async fn file(
        self: &Arc<Self>,
        command: Command,
        closed: Option<&Closed>,
        deadline: Duration,
    ) -> Result<Changed, ProposeError> {
        let (Op::File(op), Some(term)) = (&command.op, self.raft.leading()) else {
            // It says who leads.
            let answer = self.raft.propose(command, deadline).await;
            return answer.map(Changed::from);
        };
        let until = Instant::now() + CLAIM_MAX;
        if matches!(op, FileOp::CloseSession(_)) {
            self.leases.let_go(command.session);
        }
        let (mut keys, turn) = self.claims(op).await?;
        let mut claimed = None;
        if !keys.is_empty() {
            // A guess, so that all are recalled at once.
            keys.extend(self.victims(&self.raft.local_view(), op)?);
            let author = author(command.session, closed);
            let claim = self.leases.claim(term, author, &keys, turn)?;
            claim.ready(until).await?;
            claimed = Some(claim);
        }
        let mark = self.begin(op)?;
        if let Err(error) = self.clear_the_way(&mark, op, claimed.as_mut()).await {
            self.names().end(mark, End::NotProposed);
            self.changed.notify_waiters();
            return Err(error);
        }
        let shown = self.shown_of(op);
        let made = match op {
            FileOp::Create(op) => Some(Name::new(op.parent, &op.name)),
            _ => None,
        };
        let carried = match &mut claimed {
            Some(claimed) => claimed.carry(command, deadline).await,
            None => self.raft.carry_in(term, command, deadline).await,
        };
        let (answer, index) = match carried {
            Ok(Carried { answer, index }) => (Ok(answer), index),
            Err(error) => (Err(error), 0),
        };
        let doubtful = self.names().end(mark, end_of(&answer));
        self.changed.notify_waiters();
        if let Some(mark) = doubtful {
            self.settle_later(mark, term);
        }
        let answer = answer?;
        self.correct_time(shown, &answer);
        let proof = match (claimed, &answer) {
            (Some(claimed), Ok(done)) => {
                let new = match (made, done) {
                    (Some(name), Answer::Created(made)) => Some(New {
                        attr: &made.attr,
                        name,
                        wish: closed.and_then(|closed| closed.exclusive),
                    }),
                    _ => None,
                };
                self.prove(claimed, new)?
            }
            (_, Err(_)) | (None, _) => None,
        };
        Ok(Changed {
            answer,
            proof,
            entry: (term, index),
        })
    }

    /// Has mounts forget the time of a directory, if a promised file in it was made with another
    /// time than it was shown with: the clock was set back since.
    fn correct_time(&self, shown: Option<(Time, Ino)>, answer: &Result<Answer, Refusal>) {
        if let (Some((time, directory)), Ok(done)) = (shown, answer)
            && made_at(done).is_some_and(|made| made != time)
        {
            self.leases.recall_quietly(&[Key::Inode(directory)]);
        }
    }

    /// Returns the time that a promised file was shown with, and its directory, if the
    /// mutation makes one.
    fn shown_of(&self, op: &FileOp) -> Option<(Time, Ino)> {
        let file = match op {
            FileOp::CreatePromised(op) => &op.file,
            FileOp::CreateCommit(op) => &op.file,
            _ => return None,
        };
        let names = self.names();
        Some((names.promised(file.ino)?.btime, file.parent))
    }

    /// Takes the mark of a mutation away whose outcome nobody knows, when it was carried out or
    /// never will be.
    fn settle_later(self: &Arc<Self>, mark: Mark, term: u64) {
        let me = self.clone();
        tokio::spawn(async move {
            if me.leases.pass_barrier(term).await {
                me.names().settle(mark);
                me.changed.notify_waiters();
            }
        });
    }

    /// Returns the keys to claim for a mutation, as far as it names them, and its turn.
    ///
    /// The file of a promise that this node gave is shown already. That of a leader before it
    /// is not, unless it was made: making it changes its name and its directory too. It does
    /// not wait for the hold, which is there for it: who may have a lease of an earlier term
    /// has it on what that leader showed, with the file.
    async fn claims(&self, op: &FileOp) -> Result<(Vec<Key>, Turn), ProposeError> {
        let mut keys = op.touches();
        let (file, commits) = match op {
            FileOp::CreatePromised(op) => (&op.file, false),
            FileOp::CreateCommit(op) => (&op.file, true),
            _ => return Ok((keys, Turn::InOrder)),
        };
        if self.names().promised(file.ino).is_some() {
            return Ok((keys, Turn::InOrder));
        }
        let view = self.raft.read().await?;
        let made = lagan_meta::read(&view, GetAttr { ino: file.ino }).map_err(stopped)?;
        if made.is_ok() {
            // To make it again changes nothing, and its mount, which may not have heard that
            // it was made, must not wait for the hold: the hold waits for it.
            if !commits {
                keys.clear();
            }
            return Ok((keys, Turn::InOrder));
        }
        keys.extend(shown_keys(file));
        Ok((keys, Turn::Early))
    }

    /// Makes the promised files that stand in a mutation's way, and claims the inodes under
    /// its names, which do not change any more.
    async fn clear_the_way(
        &self,
        mark: &Mark,
        op: &FileOp,
        claimed: Option<&mut Claimed>,
    ) -> Result<(), ProposeError> {
        for &ino in &mark.first {
            self.make(ino).await?;
        }
        let Some(claimed) = claimed else {
            return Ok(());
        };
        let victims = self.victims(&self.raft.read().await?, op)?;
        let new = victims
            .into_iter()
            .filter(|key| !claimed.keys().contains(key));
        let new: Vec<Key> = new.collect();
        if !new.is_empty() {
            claimed.extend(&new);
            claimed.ready(Instant::now() + CLAIM_MAX).await?;
        }
        Ok(())
    }

    fn victims(&self, view: &View, op: &FileOp) -> Result<Vec<Key>, ProposeError> {
        let mut keys = Vec::new();
        for (parent, name) in op.victims() {
            let name = Name::new(parent, name);
            if let Some(Found::Inode(ino)) = found(view, &name).map_err(stopped)? {
                keys.push(Key::Inode(ino));
            }
        }
        Ok(keys)
    }

    fn begin(&self, op: &FileOp) -> Result<Mark, ProposeError> {
        let (directories, renames_other) = match op.effect() {
            NameEffect::RemovesDirectory => (Directories::Removes, false),
            NameEffect::TakesForDirectory => (Directories::Makes, false),
            // Only a directory can take the place of a directory.
            NameEffect::Moves(parent, name) if self.is_no_directory(parent, name)? => {
                (Directories::Keeps, true)
            }
            NameEffect::Moves(..) => (Directories::Removes, false),
            NameEffect::None | NameEffect::Own(_) | NameEffect::Takes => {
                (Directories::Keeps, false)
            }
        };
        let mut names = self.names();
        if renames_other && names.moves_directories() {
            return Ok(names.begin(op, Directories::Removes));
        }
        Ok(names.begin(op, directories))
    }

    fn is_no_directory(&self, parent: Ino, name: &[u8]) -> Result<bool, ProposeError> {
        let name = name.to_vec();
        let found = lagan_meta::read(&self.raft.local_view(), Lookup { parent, name });
        let attr = found.map_err(stopped)?;
        Ok(attr.is_ok_and(|attr| attr.kind != Kind::Directory))
    }
}

/// Returns the time at which the file of an answer was made.
fn made_at(answer: &Answer) -> Option<Time> {
    match answer {
        Answer::Created(made) => Some(made.attr.btime),
        Answer::Committed(made) => Some(made.attr.btime),
        _ => None,
    }
}
