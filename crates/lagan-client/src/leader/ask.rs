//! Asking the leader: mutations, each carried out once, and linearizable reads.
//!
//! A mutation whose deadline passes has an unknown outcome. A session that was
//! silent for too long is ended by the leader; the call that hears of it has it
//! replaced (`renew.rs`).

use crate::leader::Leader;
use crate::leader::link::{fs_error, unanswered};
use crate::leader::session::Ticket;
use lagan_types::answer::Created;
use lagan_types::message::{CreateFile, CreateOutcome, Mutate, ReadState};
use lagan_types::op::{Command, Create};
use lagan_types::{
    Answer, Ask, FileOp, FsError, Query, QueryAnswer, Refusal, SessionId, Time, VolumeId, answer_to,
};
use std::time::Duration;
use tokio::time::Instant;

/// Within this time a call was sent once only, so that "session ended" is the
/// answer to its first attempt: it was not done, and may be done again.
const ONE_ATTEMPT: Duration = Duration::from_millis(500);

impl Leader {
    /// Has a mutation carried out once.
    pub async fn mutate<A>(&self, op: A) -> Result<A::Answer, FsError>
    where
        A: Ask<Request = FileOp, Reply = Answer>,
    {
        let done = self.mutate_by(op, None, self.deadline()).await;
        done.map_err(fs_error)
    }

    /// Has a mutation carried out once, until a deadline; with `only`, in that
    /// session or not at all. Promised files that it touches are made before.
    ///
    /// # Errors
    /// [`Refusal::SessionEnded`] if `only` is over: it was not carried out;
    /// [`FsError::TimedOut`] with the outcome unknown; whatever the leader answers.
    pub async fn mutate_by<A>(
        &self,
        op: A,
        only: Option<SessionId>,
        until: Instant,
    ) -> Result<A::Answer, Refusal>
    where
        A: Ask<Request = FileOp, Reply = Answer>,
    {
        let op = op.into();
        self.make_touched_by_op(&op, until).await?;
        answer_to::<A>(self.replicate(op, only, until).await)
    }

    /// Does the same as [`Leader::mutate_by`], but makes no promised file.
    pub async fn mutate_now<A>(
        &self,
        op: A,
        only: Option<SessionId>,
        until: Instant,
    ) -> Result<A::Answer, Refusal>
    where
        A: Ask<Request = FileOp, Reply = Answer>,
    {
        answer_to::<A>(self.replicate(op.into(), only, until).await)
    }

    async fn replicate(
        &self,
        op: FileOp,
        only: Option<SessionId>,
        until: Instant,
    ) -> Result<Answer, Refusal> {
        loop {
            let ticket = self.session.begin(only, until).await?;
            let (id, sent) = (ticket.id, Instant::now());
            let command = command(&ticket, op.clone());
            let answer = self.link.ask(Mutate { command }, until).await;
            drop(ticket);
            match answer.map_err(unanswered)? {
                Err(Refusal::SessionEnded) => self.go_on_after(id, sent, only, until).await?,
                answer => return answer,
            }
        }
    }

    /// Creates a regular file. True: the leader promised it, and nothing is replicated yet. A
    /// promise that is not taken is asked for again, as the same mutation, and then
    /// replicated.
    pub async fn create_or_promise(
        &self,
        create: Create,
        until: Instant,
    ) -> Result<(Created, bool), FsError> {
        let op = FileOp::from(create.clone());
        self.make_touched_by_op(&op, until).await?;
        loop {
            let ticket = self.session.begin(None, until).await.map_err(fs_error)?;
            let (id, sent) = (ticket.id, Instant::now());
            let asked = CreateFile {
                command: command(&ticket, op.clone()),
            };
            let answer = self.link.ask(asked, until).await.map_err(unanswered)?;
            let created = match answer {
                Ok(CreateOutcome::Promised { attr, term }) => {
                    if self.take_promise((&create, id), &attr, term) {
                        let created = true;
                        return Ok((Created { attr, created }, true));
                    }
                    let command = command(&ticket, op.clone());
                    let answer = self.link.ask(Mutate { command }, until).await;
                    answer_to::<Create>(answer.map_err(unanswered)?)
                }
                Ok(CreateOutcome::Replicated(created)) => Ok(created),
                Err(refusal) => Err(refusal),
            };
            drop(ticket);
            match created {
                Err(Refusal::SessionEnded) => {
                    let renewed = self.go_on_after(id, sent, None, until).await;
                    renewed.map_err(fs_error)?;
                }
                created => return Ok((created.map_err(fs_error)?, false)),
            }
        }
    }

    /// Has a session that was ended replaced, so that its mutation can be sent again.
    ///
    /// # Errors
    /// [`Refusal::SessionEnded`] if the mutation must not be sent again: it is of that
    /// session only, may have been carried out, or its time is over.
    async fn go_on_after(
        &self,
        ended: SessionId,
        sent: Instant,
        only: Option<SessionId>,
        until: Instant,
    ) -> Result<(), Refusal> {
        let once = sent.elapsed() < ONE_ATTEMPT;
        self.renew(ended, until).await?;
        if only.is_some() || !once || Instant::now() >= until {
            return Err(Refusal::SessionEnded);
        }
        Ok(())
    }

    /// Reads linearizably.
    pub async fn query<A>(&self, ask: A) -> Result<A::Answer, FsError>
    where
        A: Ask<Request = Query, Reply = QueryAnswer>,
    {
        self.query_by(ask, self.deadline()).await
    }

    /// Reads linearizably, until a deadline. Promised files that the read needs in
    /// the replicated state are made before.
    pub async fn query_by<A>(&self, ask: A, until: Instant) -> Result<A::Answer, FsError>
    where
        A: Ask<Request = Query, Reply = QueryAnswer>,
    {
        let query = ask.into();
        self.make_touched_by_query(&query, until).await?;
        answer_to::<A>(self.read(query, until).await).map_err(fs_error)
    }

    async fn read(&self, query: Query, until: Instant) -> Result<QueryAnswer, Refusal> {
        loop {
            let session = self.session();
            let ask = ReadState {
                volume: VolumeId::ONLY,
                session,
                query: query.clone(),
            };
            match self.link.ask(ask, until).await.map_err(unanswered)? {
                Err(Refusal::SessionEnded) if Instant::now() < until => {
                    if self.session() == session {
                        self.renew(session, until).await?;
                    }
                }
                answer => return answer,
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

fn command(ticket: &Ticket<'_>, op: FileOp) -> Command {
    Command {
        volume: VolumeId::ONLY,
        session: ticket.id,
        seq: ticket.seq,
        unanswered: ticket.unanswered,
        time: Time::default(),
        op: op.into(),
    }
}
