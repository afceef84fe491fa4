//! Creates that are answered before they are replicated: the leader's promises.
//!
//! `names` holds the promises, `hold` keeps names free after a change of leader; both are
//! pure. This file proposes their commands and makes other calls wait for them.

mod hold;
mod names;

use crate::clock::Uptime;
use hold::Hold;
use lagan_host::wall::since_1970;
use lagan_raft::{ProposeError, Raft};
use lagan_types::op::{FileOp, GrantInos, MakePromised, NameEffect, NewFile, Op, SystemOp};
use lagan_types::query::{Lookup, Sessions};
use lagan_types::{
    Answer, Ask, Attr, Command, Ino, Kind, Query, QueryAnswer, Refusal, SessionId, Time, answer_to,
};
use names::{Claim, Directories, End, INOS_GRANT, Mark, Names, Touch, Wish};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

/// Time to make a promised file.
const MAKE_DEADLINE: Duration = Duration::from_secs(5);

type Outcome<T> = Result<Result<T, Refusal>, ProposeError>;

/// The promises of the node that runs `raft`, while it leads.
pub struct Promises {
    raft: Arc<Raft>,
    uptime: Uptime,
    names: Mutex<Names>,
    /// Notified when a promise ended or can be claimed again.
    changed: Notify,
    hold: Mutex<Hold>,
    /// Notified when a session has settled.
    settled: Notify,
    granting: AtomicBool,
}

impl std::fmt::Debug for Promises {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Promises").finish_non_exhaustive()
    }
}

/// Where a read finds its answer.
#[derive(Debug)]
pub enum Reading {
    /// In the state.
    State,
    /// Here: the asker's own promised file. It counts only if this node leads.
    Own(Attr),
}

impl Promises {
    /// Makes the promises of the node that runs `raft`.
    pub fn new(raft: Arc<Raft>) -> Self {
        Promises {
            raft,
            uptime: Uptime::default(),
            names: Mutex::default(),
            changed: Notify::new(),
            hold: Mutex::default(),
            settled: Notify::new(),
            granting: AtomicBool::new(false),
        }
    }

    /// Locks the names, of the present term.
    fn names(&self) -> parking_lot::MutexGuard<'_, Names> {
        let term = self.raft.term();
        let mut names = self.names.lock();
        names.enter(term);
        names
    }

    // -- sessions -------------------------------------------------------------

    /// Notes that the session has no promise left of a leader before that term.
    pub fn session_settled(&self, session: SessionId, term: u64) {
        if term != self.raft.term() {
            return;
        }
        let mut hold = self.hold.lock();
        hold.enter(term, self.uptime.ms());
        hold.settled(session);
        drop(hold);
        self.settled.notify_waiters();
    }

    /// Gives up the promises of a session that is over.
    pub fn session_ended(&self, session: SessionId) {
        self.names().session_ended(session);
        self.changed.notify_waiters();
    }

    /// Returns when names may be taken and directories removed in this term.
    async fn wait_for_hold(&self) -> Result<(), ProposeError> {
        loop {
            let settled = self.settled.notified();
            tokio::pin!(settled);
            settled.as_mut().enable();
            let left = {
                let mut hold = self.hold.lock();
                hold.enter(self.raft.term(), self.uptime.ms());
                hold.left_ms(self.uptime.ms(), || self.live_sessions())?
            };
            if left == 0 {
                return Ok(());
            }
            // The end of the time, or somebody settled: look again.
            let _ = tokio::time::timeout(Duration::from_millis(left), settled).await;
        }
    }

    fn live_sessions(&self) -> Result<Vec<SessionId>, ProposeError> {
        let found = lagan_meta::read(&self.raft.local_view(), Sessions).map_err(stopped)?;
        let sessions = found.unwrap_or_default();
        Ok(sessions.into_iter().map(|(id, _)| id).collect())
    }

    // -- creates --------------------------------------------------------------

    /// Promises the name that a create wants, if it can, and returns the file's attributes
    /// and the term; `None`: replicate the create.
    ///
    /// # Errors
    /// Those of [`Raft::read`].
    pub async fn create(
        self: &Arc<Self>,
        command: &Command,
    ) -> Result<Option<(Attr, u64)>, ProposeError> {
        let Some(file) = regular_file(&command.op) else {
            return Ok(None);
        };
        if !self.raft.is_leader() {
            return Ok(None);
        }
        self.wait_for_hold().await?;
        let (wish, term) = {
            let mut names = self.names();
            if names.wants_inos() {
                self.grant_inos();
            }
            let asked = (command.session, command.seq);
            (names.wish(asked, file), names.term())
        };
        match wish {
            Wish::Not => Ok(None),
            Wish::Again(attr) => self.raft.read().await.map(|_| Some((attr, term))),
            Wish::Look(file) => {
                let attr = self.promise(command, file).await?;
                Ok(attr.map(|attr| (attr, term)))
            }
        }
    }

    async fn promise(
        &self,
        command: &Command,
        file: NewFile,
    ) -> Result<Option<Attr>, ProposeError> {
        let mut look = Look {
            of: self,
            ino: Some(file.ino),
        };
        // Taken after the name was marked: it has all that was answered before.
        let view = self.raft.read().await?;
        let (volume, session) = (command.volume, command.session);
        let found = lagan_meta::preview(&view, volume, session, &file);
        let Ok(attr) = found.map_err(stopped)? else {
            // The state machine says why not, when the create is replicated.
            return Ok(None);
        };
        if !self.names().promise(file.ino, attr.clone()) {
            return Ok(None);
        }
        look.ino = None;
        self.changed.notify_waiters();
        Ok(Some(attr))
    }

    fn grant_inos(self: &Arc<Self>) {
        if self.granting.swap(true, Ordering::AcqRel) {
            return;
        }
        let me = self.clone();
        tokio::spawn(async move {
            let term = me.raft.term();
            let op = GrantInos { count: INOS_GRANT };
            if let Ok(Ok(granted)) = me.propose(op).await {
                me.names().grant(term, granted.first, granted.count);
            }
            me.granting.store(false, Ordering::Release);
        });
    }

    async fn propose<A>(&self, op: A) -> Outcome<A::Answer>
    where
        A: Ask<Request = SystemOp, Reply = Answer>,
    {
        let command = Command::system(op);
        let answer = self.raft.propose(command, MAKE_DEADLINE).await?;
        Ok(answer_to::<A>(answer))
    }

    /// Makes a promised file, or waits for somebody else who makes it.
    async fn make(&self, ino: Ino) -> Result<(), ProposeError> {
        let until = Instant::now() + MAKE_DEADLINE;
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let claim = self.names().claim(ino);
            match claim {
                Claim::Gone => return Ok(()),
                Claim::Wait => timeout_at(until, changed)
                    .await
                    .map_err(|_| ProposeError::Unknown)?,
                Claim::Propose(file, asked) => {
                    let made = self.propose(MakePromised { file, asked }).await;
                    let end = end_of(&made);
                    if end == End::Refused {
                        tracing::error!(%ino, answer = ?made, "a promised name is lost");
                    }
                    self.names().made(ino, end);
                    self.changed.notify_waiters();
                    return made.map(|_| ());
                }
            }
        }
    }

    // -- the others -------------------------------------------------------------

    /// Proposes a mutation, after the promised files that it touches are made.
    ///
    /// # Errors
    /// Those of [`Raft::propose`].
    pub async fn mutate(&self, command: Command, deadline: Duration) -> Outcome<Answer> {
        let op = match &command.op {
            Op::File(op) if self.raft.is_leader() => op,
            // It says who leads; the cluster's own commands touch no promise.
            Op::File(_) | Op::System(_) => return self.raft.propose(command, deadline).await,
        };
        if op.effect().is_on_others() {
            self.wait_for_hold().await?;
        }
        let mark = self.begin(op)?;
        for &ino in &mark.first {
            if let Err(error) = self.make(ino).await {
                self.names().end(mark, End::NotProposed);
                self.changed.notify_waiters();
                return Err(error);
            }
        }
        let answer = self.raft.propose(command, deadline).await;
        self.names().end(mark, end_of(&answer));
        self.changed.notify_waiters();
        answer
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

    /// Says where a read finds its answer, if it need not wait. Call it before the read
    /// takes its view of the state.
    pub fn reading_now(&self, session: SessionId, query: &Query) -> Option<Reading> {
        match self.touch(session, query) {
            Touch::None => Some(Reading::State),
            Touch::Own(attr) => Some(Reading::Own(attr)),
            Touch::Make(_) => None,
        }
    }

    fn touch(&self, session: SessionId, query: &Query) -> Touch {
        let names = self.names();
        if names.is_empty() {
            return Touch::None;
        }
        names.touched(session, query)
    }

    /// Makes the files that are in the read's way, then answers as
    /// [`Promises::reading_now`].
    ///
    /// # Errors
    /// Those of [`Raft::propose`].
    pub async fn before_read(
        &self,
        session: SessionId,
        query: &Query,
    ) -> Result<Reading, ProposeError> {
        match self.touch(session, query) {
            Touch::None => Ok(Reading::State),
            Touch::Own(attr) => Ok(Reading::Own(attr)),
            Touch::Make(inos) => {
                for ino in inos {
                    self.make(ino).await?;
                }
                Ok(Reading::State)
            }
        }
    }

    /// Corrects a read's answer by the promises. Call it with each answer.
    pub fn after_read(&self, answer: &mut QueryAnswer) {
        let names = self.names();
        if !names.is_empty() {
            names.show(answer);
        }
    }
}

/// A name whose owner looks whether it is free; given up when dropped.
struct Look<'a> {
    of: &'a Promises,
    ino: Option<Ino>,
}

impl Drop for Look<'_> {
    fn drop(&mut self) {
        if let Some(ino) = self.ino {
            self.of.names().cancel(ino);
            self.of.changed.notify_waiters();
        }
    }
}

fn regular_file(op: &Op) -> Option<NewFile> {
    match op {
        Op::File(FileOp::Create(op)) if op.kind == Kind::File => {
            let now = Time::after_1970(since_1970());
            Some(NewFile::promised(op, Ino(0), now))
        }
        _ => None,
    }
}

fn end_of<T>(outcome: &Outcome<T>) -> End {
    match outcome {
        Ok(Ok(_)) => End::Done,
        Ok(Err(_)) => End::Refused,
        Err(ProposeError::NotLeader { .. } | ProposeError::Busy) => End::NotProposed,
        Err(_) => End::Unknown,
    }
}

fn stopped(error: lagan_meta::kv::StoreError) -> ProposeError {
    tracing::error!(%error, "state store");
    ProposeError::Stopped
}
