//! Asking the leader: mutations, each carried out once, and linearizable reads.
//!
//! A mutation whose deadline passes has an unknown outcome. A session that was
//! silent for too long is ended by the leader; the call that hears of it has it
//! replaced (`renew.rs`).

use crate::leader::Leader;
use crate::leader::leases::{Leases, Listing, OwnChange};
use crate::leader::link::{fs_error, unanswered};
use crate::leader::session::Ticket;
use lagan_lease::Ahead;
use lagan_types::answer::Created;
use lagan_types::lease::Wish;
use lagan_types::message::{
    CreateFile, CreateOutcome, FileCreated, Mutate, Mutated, ReadState, StateRead,
};
use lagan_types::op::{Command, Create};
use lagan_types::query::{DirPage, GetAttrs, Lookup, LookupAll, ReadDir};
use lagan_types::{
    Answer, Ask, FileOp, FsError, Ino, Query, QueryAnswer, Refusal, SessionId, Time, VolumeId,
    answer_to,
};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Most names of a directory that are fetched at once.
const NAMES_MAX: usize = 4_096;
/// They are given up after this.
const NAMES_TIME: Duration = Duration::from_secs(5);
/// So many at a time.
const NAMES_PAGE_LEN: u32 = 1_024;

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
        answer_to::<A>(
            self.replicate(op, only, until)
                .await
                .map(|(answer, _)| answer),
        )
    }

    /// Does the same as [`Leader::mutate_now`], and says whether the bytes that came with it
    /// are on disk wherever they are to be.
    pub async fn mutate_held<A>(
        &self,
        op: A,
        only: Option<SessionId>,
        until: Instant,
    ) -> Result<(A::Answer, bool), Refusal>
    where
        A: Ask<Request = FileOp, Reply = Answer>,
    {
        let (answer, held) = self.replicate(op.into(), only, until).await?;
        answer_to::<A>(Ok(answer)).map(|answer| (answer, held))
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
        let done = self.mutate_held(op, only, until).await;
        done.map(|(answer, _)| answer)
    }

    /// Begins a change: neither this mount nor its kernel believes what it changes.
    async fn begin(&self, op: &FileOp, until: Instant) -> Result<OwnChange, FsError> {
        loop {
            let (change, loans) = self.leases.begin(op);
            if !self.leases.touches_local(op) {
                self.kernel.take_back(&self.leases, loans).await;
                return Ok(change);
            }
            // Somebody here has made it just now.
            change.refused();
            self.make_touched_by_op(op, until).await?;
        }
    }

    async fn replicate(
        &self,
        op: FileOp,
        only: Option<SessionId>,
        until: Instant,
    ) -> Result<(Answer, bool), Refusal> {
        let change = self.begin(&op, until).await?;
        let reserved = self.leases.is_own_local(&op);
        loop {
            let ticket = self.session.begin(only, reserved, until).await?;
            let id = ticket.id;
            let ask = Mutate {
                command: command(&ticket, op.clone()),
                closed: change.closed(),
            };
            let (answer, again) = self.link.ask_counted(ask, until).await;
            drop(ticket);
            let Mutated {
                answer,
                proof,
                held,
            } = answer.map_err(unanswered)?;
            match answer {
                Err(Refusal::SessionEnded) => self.go_on_after(id, again, only, until).await?,
                Err(refusal) => {
                    change.refused();
                    return Err(refusal);
                }
                Ok(answer) => {
                    change.done(proof);
                    return Ok((answer, held));
                }
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
        if let Some(attr) = self.make_alone(&create).await {
            let created = true;
            return Ok((Created { attr, created }, true));
        }
        let change = self.begin(&op, until).await?;
        loop {
            let ticket = self
                .session
                .begin(None, false, until)
                .await
                .map_err(fs_error)?;
            let id = ticket.id;
            let asked = CreateFile {
                command: command(&ticket, op.clone()),
                closed: change.closed(),
            };
            let (answer, mut again) = self.link.ask_counted(asked, until).await;
            let FileCreated { outcome, mut proof } = answer.map_err(unanswered)?;
            let created = match outcome {
                Ok(CreateOutcome::Promised { attr, term }) => {
                    if self.take_promise((&create, id), &attr, term) {
                        change.done(proof);
                        let created = true;
                        return Ok((Created { attr, created }, true));
                    }
                    let ask = Mutate {
                        command: command(&ticket, op.clone()),
                        closed: change.closed(),
                    };
                    let answer = self.link.ask(ask, until).await.map_err(unanswered)?;
                    again = true;
                    proof = answer.proof;
                    answer_to::<Create>(answer.answer)
                }
                Ok(CreateOutcome::Replicated(created)) => Ok(created),
                Err(refusal) => Err(refusal),
            };
            drop(ticket);
            match created {
                Err(Refusal::SessionEnded) => {
                    let renewed = self.go_on_after(id, again, None, until).await;
                    renewed.map_err(fs_error)?;
                }
                Err(refusal) => {
                    change.refused();
                    return Err(fs_error(refusal));
                }
                Ok(created) => {
                    change.done(proof);
                    return Ok((created, false));
                }
            }
        }
    }

    /// Has a session that was ended replaced, so that its mutation can be sent again.
    ///
    /// # Errors
    /// [`Refusal::SessionEnded`] if the mutation must not be sent again: it is of that
    /// session only, its time is over, or it was sent more than once, so that it may have been
    /// carried out.
    async fn go_on_after(
        &self,
        ended: SessionId,
        again: bool,
        only: Option<SessionId>,
        until: Instant,
    ) -> Result<(), Refusal> {
        self.renew(ended, until).await?;
        if only.is_some() || again || Instant::now() >= until {
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
        if let Some(answer) = self.leases.find(&query) {
            return answer_to::<A>(answer).map_err(fs_error);
        }
        if let Query::Lookup(Lookup { parent, name }) = &query
            && let Some(ahead) = self.leases.ahead(*parent, name)
        {
            self.look_ahead(*parent, name, ahead, until).await?;
            if let Some(answer) = self.leases.find(&query) {
                return answer_to::<A>(answer).map_err(fs_error);
            }
        }
        self.make_touched_by_query(&query, until).await?;
        let asked = self.leases.ask(&query);
        let wish = Leases::wish(asked, false);
        let StateRead { answer, leased, .. } = self.read(&query, (wish, 0), until).await?;
        if let (Some(asked), Some(leased)) = (asked, leased) {
            self.leases.keep(asked, &query, &answer, &leased);
            if let Some(dir) = self.leases.looked(&query, &answer) {
                self.tasks.spawn(&self.me, move |leader| async move {
                    let _ = tokio::time::timeout(NAMES_TIME, leader.learn_names(dir)).await;
                });
            }
        }
        answer_to::<A>(answer).map_err(fs_error)
    }

    /// Asks for a name together with those that will be looked for next, or waits for whoever
    /// does.
    async fn look_ahead(
        &self,
        parent: Ino,
        name: &[u8],
        ahead: Ahead,
        until: Instant,
    ) -> Result<(), FsError> {
        let is_it = |(_, of): &&(Ino, Arc<[u8]>)| **of == *name;
        let Some(&(ino, _)) = ahead.names.iter().find(is_it) else {
            return Ok(());
        };
        if self.looks.ended(ino).await {
            return Ok(());
        }
        let group = self
            .looks
            .begin(ahead.names.iter().map(|(ino, _)| *ino).collect());
        if !group.inos().contains(&ino) {
            drop(group);
            self.looks.ended(ino).await;
            return Ok(());
        }
        let query = match ahead.sure {
            true => {
                let inos = group.inos().to_vec();
                GetAttrs { inos }.into()
            }
            false => {
                let names = ahead.names.iter();
                let names = names.filter(|(ino, _)| group.inos().contains(ino));
                let names = names.map(|(_, name)| name.to_vec()).collect();
                LookupAll { parent, names }.into()
            }
        };
        let Some(asked) = self.leases.ask(&query) else {
            return Ok(());
        };
        let wish = Leases::wish(Some(asked), false);
        let StateRead { answer, leased, .. } = self.read(&query, (wish, 0), until).await?;
        if let Some(leased) = leased {
            self.leases.keep(asked, &query, &answer, &leased);
        }
        Ok(())
    }

    /// Fetches all names of a directory, if there are not too many, to know what is not there and
    /// in which order the others will be looked for.
    async fn learn_names(&self, dir: Ino) {
        let (mut cookie, mut count, mut listing) = (0, 0, None);
        while count < NAMES_MAX {
            let page = ReadDir {
                ino: dir,
                cookie,
                limit: NAMES_PAGE_LEN,
                attrs: false,
            };
            // Nobody waits for this, or for its errors.
            let Ok((page, Some(next))) = self.list(page, listing.take()).await else {
                return;
            };
            count += page.entries.len();
            cookie = page.entries.last().map_or(u64::MAX, |entry| entry.cookie);
            listing = Some(next);
        }
    }

    /// Reads a page of a directory. A listing that begins with its first page may be
    /// remembered when it has ended; it is returned while it goes on.
    pub async fn list(
        &self,
        ask: ReadDir,
        listing: Option<Listing>,
    ) -> Result<(DirPage, Option<Listing>), FsError> {
        let until = self.deadline();
        let (ino, first) = (ask.ino, ask.cookie == 0);
        let query = ask.into();
        self.make_touched_by_query(&query, until).await?;
        let listing = match listing {
            None if first => self.leases.list(ino),
            listing => listing,
        };
        let of_listing = listing.as_ref().map(Listing::asked);
        let asked = of_listing.or_else(|| self.leases.ask(&query));
        let wish = Leases::wish(asked, first && of_listing.is_some());
        let StateRead { answer, leased, .. } = self.read(&query, (wish, 0), until).await?;
        if let (Some(asked), Some(leased)) = (asked, &leased) {
            self.leases.keep(asked, &query, &answer, leased);
        }
        let page = answer_to::<ReadDir>(answer).map_err(fs_error)?;
        let next = |listing| self.leases.listed(listing, ino, &page, leased.as_ref());
        let listing = listing.and_then(next);
        Ok((page, listing))
    }

    /// Reads linearizably: with the wish to remember the answer, and so many bytes along
    /// with it, at most.
    pub(super) async fn read(
        &self,
        query: &Query,
        (wish, along): (Option<Wish>, u32),
        until: Instant,
    ) -> Result<StateRead, FsError> {
        loop {
            self.make_orphans(until).await?;
            let alone = self.leases.alone_number();
            let session = self.session();
            let ask = ReadState {
                volume: VolumeId::ONLY,
                session,
                query: query.clone(),
                wish,
                along,
            };
            let mut read = self.link.ask(ask, until).await.map_err(unanswered)?;
            let shown = match &mut read.answer {
                Ok(answer) => self.leases.shows(answer, alone),
                Err(_) => true,
            };
            match read.answer {
                Err(Refusal::SessionEnded) if Instant::now() < until => {
                    if self.session() == session {
                        self.renew(session, until).await.map_err(fs_error)?;
                    }
                }
                Ok(_) if !shown && Instant::now() < until => {}
                _ => return Ok(read),
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
