//! The session: its mutations, each done once, and what happens when it ends.
//!
//! A mutation whose deadline passes has an unknown outcome. A session that was
//! silent for too long is ended by the leader; then a new one is opened, names
//! go on, and handles with unflushed data or locks answer
//! [`FsError::SessionEnded`] until they are opened again.

use crate::Client;
use crate::leader::window::Window;
use lagan_net::NetError;
use lagan_types::message::{MetaReply, MetaRequest};
use lagan_types::op::Command;
use lagan_types::{
    Answer, FsError, Incarnation, Op, Query, QueryAnswer, SessionId, Time, VolumeId,
};
use parking_lot::Mutex;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// The one volume.
pub(crate) const VOLUME: VolumeId = VolumeId(1);
/// Within this time a call was sent once only, so that "session ended" is the
/// answer to its first attempt: it was not done, and may be done again.
const ONE_ATTEMPT: Duration = Duration::from_millis(500);

/// See the module.
#[derive(Debug)]
pub(crate) struct Session {
    state: Mutex<State>,
    /// A sequence was finished.
    room: Notify,
    renewing: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct State {
    id: SessionId,
    window: Window,
}

/// A mutation under way.
struct Ticket<'a> {
    session: &'a Session,
    id: SessionId,
    seq: u64,
    unanswered: u64,
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        let mut state = self.session.state.lock();
        if state.id == self.id {
            state.window.finish(self.seq);
        }
        drop(state);
        self.session.room.notify_waiters();
    }
}

impl Session {
    /// The session of that number, nothing sent yet.
    pub fn new(id: SessionId) -> Self {
        Session {
            state: Mutex::new(State {
                id,
                window: Window::default(),
            }),
            room: Notify::new(),
            renewing: tokio::sync::Mutex::default(),
        }
    }

    /// Its number.
    pub fn id(&self) -> SessionId {
        self.state.lock().id
    }

    async fn begin(&self, only: Option<SessionId>, until: Instant) -> Result<Ticket<'_>, FsError> {
        loop {
            let room = self.room.notified();
            if let Some(ticket) = self.try_begin(only)? {
                return Ok(ticket);
            }
            tokio::time::timeout_at(until, room)
                .await
                .map_err(|_| FsError::TimedOut)?;
        }
    }

    fn try_begin(&self, only: Option<SessionId>) -> Result<Option<Ticket<'_>>, FsError> {
        let mut state = self.state.lock();
        if only.is_some_and(|id| id != state.id) {
            return Err(FsError::SessionEnded);
        }
        Ok(state.window.begin().map(|seq| Ticket {
            session: self,
            id: state.id,
            seq,
            unanswered: state.window.unanswered(),
        }))
    }
}

/// What a reply of the wrong kind, or none, means.
pub(crate) fn unanswered(reply: Result<MetaReply, NetError>) -> FsError {
    match reply {
        Err(error) => {
            tracing::debug!(%error, "no answer from the metadata leader");
            FsError::TimedOut
        }
        Ok(MetaReply::Refused(reason)) => {
            tracing::warn!(reason, "metadata leader refused");
            FsError::Io
        }
        Ok(_) => FsError::Malformed,
    }
}

impl Client {
    /// When a call that starts now must have ended.
    pub(crate) fn deadline(&self) -> Instant {
        Instant::now() + self.options.timeout
    }

    /// Has a mutation carried out once.
    pub(crate) async fn mutate(&self, op: Op) -> Result<Answer, FsError> {
        self.mutate_by(op, None, self.deadline()).await
    }

    /// As [`Client::mutate`]; with `only`, in that session or not at all.
    pub(crate) async fn mutate_by(
        &self,
        op: Op,
        only: Option<SessionId>,
        until: Instant,
    ) -> Result<Answer, FsError> {
        self.make_touched_by_op(&op, until).await?;
        self.mutate_now(op, only, until).await
    }

    /// As [`Client::mutate_by`], whatever files are only promised.
    pub(crate) async fn mutate_now(
        &self,
        op: Op,
        only: Option<SessionId>,
        until: Instant,
    ) -> Result<Answer, FsError> {
        let ask = |command| MetaRequest::Mutate(command);
        match self.ask(&op, only, until, ask).await? {
            MetaReply::Answer(result) => result,
            other => Err(unanswered(Ok(other))),
        }
    }

    /// Makes a regular file; true: the leader promised it, nothing is replicated.
    pub(crate) async fn create_or_reserve(
        &self,
        op: Op,
        until: Instant,
    ) -> Result<(Answer, bool), FsError> {
        self.make_touched_by_op(&op, until).await?;
        let taken = |reply: &MetaReply, session| match reply {
            MetaReply::Reserved { attr, term } => self.promised((&op, session), attr, *term),
            _ => true,
        };
        match self
            .ask_until(&op, None, until, MetaRequest::Create, taken)
            .await?
        {
            MetaReply::Reserved { attr, .. } => {
                let created = true;
                Ok((Answer::Created { attr, created }, true))
            }
            MetaReply::Answer(result) => Ok((result?, false)),
            other => Err(unanswered(Ok(other))),
        }
    }

    async fn ask(
        &self,
        op: &Op,
        only: Option<SessionId>,
        until: Instant,
        request: impl Fn(Command) -> MetaRequest,
    ) -> Result<MetaReply, FsError> {
        self.ask_until(op, only, until, request, |_, _| true).await
    }

    /// Has the leader answer a mutation. A reply that is not `taken` is asked for
    /// again, as the same mutation, and then replicated.
    async fn ask_until(
        &self,
        op: &Op,
        only: Option<SessionId>,
        until: Instant,
        request: impl Fn(Command) -> MetaRequest,
        taken: impl Fn(&MetaReply, SessionId) -> bool,
    ) -> Result<MetaReply, FsError> {
        loop {
            let ticket = self.session.begin(only, until).await?;
            let id = ticket.id;
            let command = Command {
                volume: VOLUME,
                session: id,
                seq: ticket.seq,
                unanswered: ticket.unanswered,
                time: Time::default(),
                op: op.clone(),
            };
            let sent = Instant::now();
            let mut reply = self.link.meta(&request(command.clone()), until).await;
            if reply.as_ref().is_ok_and(|r| !taken(r, id)) {
                reply = self.link.meta(&MetaRequest::Mutate(command), until).await;
            }
            drop(ticket);
            match reply {
                Ok(MetaReply::Answer(Err(FsError::SessionEnded))) => {
                    let once = sent.elapsed() < ONE_ATTEMPT;
                    self.renew(id, until).await?;
                    if only.is_some() || !once || Instant::now() >= until {
                        return Err(FsError::SessionEnded);
                    }
                }
                Ok(reply) => return Ok(reply),
                other => return Err(unanswered(other)),
            }
        }
    }

    /// A linearizable read.
    pub(crate) async fn query(&self, query: Query) -> Result<QueryAnswer, FsError> {
        self.query_by(query, self.deadline()).await
    }

    /// As [`Client::query`], until then.
    pub(crate) async fn query_by(
        &self,
        query: Query,
        until: Instant,
    ) -> Result<QueryAnswer, FsError> {
        self.make_touched_by_query(&query, until).await?;
        let mut request = MetaRequest::Query {
            volume: VOLUME,
            session: self.session(),
            query,
        };
        loop {
            match self.link.meta(&request, until).await {
                Ok(MetaReply::Query(Err(FsError::SessionEnded))) if Instant::now() < until => {
                    let id = self.session();
                    if let MetaRequest::Query { session, .. } = &mut request {
                        if *session == id {
                            self.renew(id, until).await?;
                        }
                        *session = self.session();
                    }
                }
                Ok(MetaReply::Query(result)) => return result,
                other => return Err(unanswered(other)),
            }
        }
    }

    /// Replaces a session that was ended, unless another call has done so.
    pub(crate) async fn renew(&self, ended: SessionId, until: Instant) -> Result<(), FsError> {
        let turn = tokio::time::timeout_at(until, self.session.renewing.lock());
        let _turn = turn.await.map_err(|_| FsError::TimedOut)?;
        if self.session() != ended {
            return Ok(());
        }
        if self.closing.load(Ordering::Acquire) {
            return Err(FsError::SessionEnded);
        }
        let (id, _) = open_session(&self.link, &self.options, Some(ended), until).await?;
        tracing::warn!(old = %ended, session = %id, "session was ended, a new one is open");
        *self.session.state.lock() = State {
            id,
            window: Window::default(),
        };
        self.session.room.notify_waiters();
        self.ids.reset(id);
        self.lose_session_state();
        Ok(())
    }

    /// What the old session held is gone: unflushed data, locks, promised files.
    fn lose_session_state(&self) {
        let mut lost = self.locks.clear();
        lost.extend(self.reserved.clear());
        let mut freed = 0;
        for inode in self.files.inodes() {
            if inode.state.lock().is_dirty() || lost.contains(&inode.ino) {
                // First the handles: what is written after this is refused.
                self.files.end_handles(inode.ino);
                self.pages.lost(inode.ino);
                freed += inode.state.lock().discard();
            }
        }
        self.give_back(freed);
    }
}

/// Opens a session.
pub(crate) async fn open_session(
    link: &crate::leader::link::Link,
    options: &crate::Options,
    predecessor: Option<SessionId>,
    until: Instant,
) -> Result<(SessionId, Incarnation), FsError> {
    let request = MetaRequest::Mutate(Command {
        volume: VOLUME,
        session: SessionId::SYSTEM,
        seq: 0,
        unanswered: 0,
        time: Time::default(),
        op: Op::OpenSession {
            nonce: rand::random(),
            identity: options.identity.clone(),
            predecessor,
        },
    });
    match link.meta(&request, until).await {
        Ok(MetaReply::Answer(Ok(Answer::Session {
            session,
            incarnation,
        }))) => Ok((session, incarnation)),
        Ok(MetaReply::Answer(Err(error))) => Err(error),
        other => Err(unanswered(other)),
    }
}
