//! Asking the leader: mutations, each carried out once, and linearizable reads.
//!
//! A mutation whose deadline passes has an unknown outcome. A session that was
//! silent for too long is ended by the leader; the call that hears of it has it
//! replaced (`renew.rs`).

use crate::leader::Leader;
use crate::leader::link::unanswered;
use lagan_types::message::{MetaReply, MetaRequest};
use lagan_types::op::{Command, Create};
use lagan_types::{Answer, FileOp, FsError, Query, QueryAnswer, SessionId, Time, VolumeId};
use std::time::Duration;
use tokio::time::Instant;

/// Within this time a call was sent once only, so that "session ended" is the
/// answer to its first attempt: it was not done, and may be done again.
const ONE_ATTEMPT: Duration = Duration::from_millis(500);

impl Leader {
    /// Has a mutation carried out once.
    pub async fn mutate(&self, op: impl Into<FileOp>) -> Result<Answer, FsError> {
        self.mutate_by(op, None, self.deadline()).await
    }

    /// Has a mutation carried out once, until a deadline; with `only`, in that
    /// session or not at all. Promised files that it touches are made before.
    pub async fn mutate_by(
        &self,
        op: impl Into<FileOp>,
        only: Option<SessionId>,
        until: Instant,
    ) -> Result<Answer, FsError> {
        let op = op.into();
        self.make_touched_by_op(&op, until).await?;
        self.mutate_now(op, only, until).await
    }

    /// Does the same as [`Leader::mutate_by`], but makes no promised file.
    pub async fn mutate_now(
        &self,
        op: impl Into<FileOp>,
        only: Option<SessionId>,
        until: Instant,
    ) -> Result<Answer, FsError> {
        let op = op.into();
        let taken = |_: &MetaReply, _| true;
        match self
            .ask(&op, only, until, MetaRequest::Mutate, taken)
            .await?
        {
            MetaReply::Answer(result) => result,
            other => Err(unanswered(Ok(other))),
        }
    }

    /// Creates a regular file. True: the leader promised it, and nothing is replicated yet.
    pub async fn create_or_promise(
        &self,
        create: Create,
        until: Instant,
    ) -> Result<(Answer, bool), FsError> {
        let op = FileOp::from(create.clone());
        self.make_touched_by_op(&op, until).await?;
        let taken = |reply: &MetaReply, session| match reply {
            MetaReply::Promised { attr, term } => {
                self.take_promise((&create, session), attr, *term)
            }
            _ => true,
        };
        match self
            .ask(&op, None, until, MetaRequest::Create, taken)
            .await?
        {
            MetaReply::Promised { attr, .. } => {
                let created = true;
                Ok((Answer::Created { attr, created }, true))
            }
            MetaReply::Answer(result) => Ok((result?, false)),
            other => Err(unanswered(Ok(other))),
        }
    }

    /// Has the leader answer a mutation. A reply that is not `taken` is asked for
    /// again, as the same mutation, and then replicated.
    async fn ask(
        &self,
        op: &FileOp,
        only: Option<SessionId>,
        until: Instant,
        request: impl Fn(Command) -> MetaRequest,
        taken: impl Fn(&MetaReply, SessionId) -> bool,
    ) -> Result<MetaReply, FsError> {
        loop {
            let ticket = self.session.begin(only, until).await?;
            let id = ticket.id;
            let command = Command {
                volume: VolumeId::ONLY,
                session: id,
                seq: ticket.seq,
                unanswered: ticket.unanswered,
                time: Time::default(),
                op: op.clone().into(),
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

    /// Reads linearizably.
    pub async fn query(&self, query: Query) -> Result<QueryAnswer, FsError> {
        self.query_by(query, self.deadline()).await
    }

    /// Reads linearizably, until a deadline. Promised files that the read needs in
    /// the replicated state are made before.
    pub async fn query_by(&self, query: Query, until: Instant) -> Result<QueryAnswer, FsError> {
        self.make_touched_by_query(&query, until).await?;
        let mut request = MetaRequest::Query {
            volume: VolumeId::ONLY,
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

    /// Fetches the cluster map if the leader has a newer one.
    ///
    /// # Errors
    /// [`FsError::TimedOut`].
    pub async fn refresh_map(&self, until: Instant) -> Result<(), FsError> {
        self.cluster
            .refresh(&self.link, self.options.bind_from, until)
            .await
    }
}
