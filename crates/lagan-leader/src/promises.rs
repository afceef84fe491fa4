//! Creates that are answered before they are replicated: the leader's promises.
//!
//! `names` holds the promises; it is pure. This file proposes their commands and makes
//! other calls wait for them. Each change first claims what mounts may remember of what it
//! changes (`leases`), and a promise is a change: from its answer on every mount is shown
//! the name, and the directory's times that go with it. After a change of leader all
//! changes are held until the mounts have made what the leader before had promised.

mod changes;
mod names;

use crate::leases::{Claimed, Leases};
pub use changes::Changed;
use lagan_host::wall::since_1970;
use lagan_lease::{Author, Turn};
use lagan_meta::kv::StoreError;
use lagan_raft::{ProposeError, Raft, View};
use lagan_types::lease::{Closed, EXCLUSIVE_INOS_MAX, Exclusive, Fact, Found, Key, Name, Proof};
use lagan_types::op::{FileOp, GrantInos, MakePromised, NewFile, Op, SystemOp};
use lagan_types::query::{GetAttr, Lookup, ReadDir};
use lagan_types::{
    Answer, Ask, Attr, Command, FsError, Ino, Kind, Query, QueryAnswer, Refusal, SessionId, Time,
    answer_to,
};
use names::{Claim, End, INOS_GRANT, Names, Touch, Wish};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

/// Time to make a promised file.
const MAKE_DEADLINE: Duration = Duration::from_secs(5);

/// Time until nobody remembers any more what a change changes: two waits for a mount that
/// forgets nothing, one for the names and one for what they lead to.
const CLAIM_MAX: Duration = Duration::from_secs(4);

type Outcome<T> = Result<Result<T, Refusal>, ProposeError>;

/// The promises of the node that runs `raft`, while it leads.
pub struct Promises {
    raft: Arc<Raft>,
    leases: Arc<Leases>,
    names: Mutex<Names>,
    /// Notified when a promise ended or can be claimed again.
    changed: Notify,
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
    /// Makes the promises of the node that runs `raft` and gives these leases.
    pub fn new(raft: Arc<Raft>, leases: Arc<Leases>) -> Self {
        Promises {
            raft,
            leases,
            names: Mutex::default(),
            changed: Notify::new(),
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

    /// Gives up the promises of a session that is over.
    pub fn session_ended(&self, session: SessionId) {
        let directories = self.names().session_ended(session);
        self.changed.notify_waiters();
        // Their times go back to what they were.
        let keys: Vec<Key> = directories.into_iter().map(Key::Inode).collect();
        self.leases.recall_quietly(&keys);
    }

    // -- creates --------------------------------------------------------------

    /// Promises the name that a create wants, if it can, and returns the file's attributes,
    /// the term, and what is there then for the mount that asked; `None`: replicate the
    /// create.
    ///
    /// # Errors
    /// Those of [`Raft::read`], and [`ProposeError::Busy`] if it takes too long until nobody
    /// else remembers the name.
    pub async fn create(
        self: &Arc<Self>,
        command: &Command,
        closed: Option<&Closed>,
    ) -> Result<Option<Promised>, ProposeError> {
        if regular_file(&command.op).is_none() {
            return Ok(None);
        }
        let Some(term) = self.raft.leading() else {
            return Ok(None);
        };
        let author = author(command.session, closed);
        let keys = command.op.touches();
        let mut claimed = self.leases.claim(term, author, &keys, Turn::InOrder)?;
        claimed.ready(Instant::now() + CLAIM_MAX).await?;
        // Its time is of now, not of before the wait.
        let Some(file) = regular_file(&command.op) else {
            return Ok(None);
        };
        let name = Name::new(file.parent, &file.name);
        let wish = {
            let mut names = self.names();
            if names.term() != term {
                return Ok(None);
            }
            if names.wants_inos() {
                self.grant_inos();
            }
            names.wish((command.session, command.seq), file)
        };
        let attr = match wish {
            Wish::Not => None,
            Wish::Again(attr) => self.raft.read().await.map(|_| Some(attr))?,
            Wish::Look(file) => self.promise(command, file).await?,
        };
        let Some(attr) = attr else {
            return Ok(None);
        };
        claimed.done();
        let wish = closed.and_then(|closed| closed.exclusive);
        let new = New {
            attr: &attr,
            name,
            wish,
        };
        let proof = self.prove(claimed, Some(new))?;
        Ok(Some(Promised { attr, term, proof }))
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
        let mut file = file;
        // Whoever looks at the directory's times sees that there is something new in it.
        if let Some(shown) = self.shown_time(&view, file.parent).map_err(stopped)? {
            file.time = file.time.max(shown.succ());
        }
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

    /// Returns the last change of a directory as reads show it.
    fn shown_time(&self, view: &View, directory: Ino) -> Result<Option<Time>, StoreError> {
        let promised = self.names().time_of(directory);
        let attr = lagan_meta::read(view, GetAttr { ino: directory })?;
        Ok(attr
            .ok()
            .map(|attr| promised.map_or(attr.ctime, |time| time.max(attr.ctime))))
    }

    /// Reads what is there after a change, then ends its claim. What the mount may keep is
    /// what nobody else has claimed before the end: that is so still. `new` is what it
    /// made.
    fn prove(
        self: &Arc<Self>,
        claimed: Claimed,
        new: Option<New<'_>>,
    ) -> Result<Option<Proof>, ProposeError> {
        let Some(author) = claimed.author().cloned() else {
            return Ok(None);
        };
        let term = claimed.term();
        // Nobody could claim a number that was not there. As for a query, the interest is
        // registered before the state is read.
        let mut keep = Vec::new();
        if let Some(new) = &new {
            let mut keys = vec![Key::Inode(new.attr.ino)];
            if new.attr.kind == Kind::Directory {
                keys.push(Key::Directory(new.attr.ino));
            }
            let registered = self
                .leases
                .register(author.session, term, author.began, &keys);
            let registered = keys.into_iter().zip(registered);
            keep.extend(registered.filter(|(_, leased)| *leased).map(|(key, _)| key));
        }
        let mine = |key: &&Key| author.closed.contains(key);
        let keys = claimed.keys().iter().filter(mine).chain(&keep);
        let keys: Vec<(&Key, Shown)> = {
            // First the promises, then the state: a file made in between is in the state.
            let names = self.names();
            keys.map(|key| (key, Shown::of(&names, key, new.as_ref())))
                .collect()
        };
        let view = self.raft.local_view();
        let mut facts = Vec::new();
        for (key, shown) in keys {
            let is_new = new
                .as_ref()
                .is_some_and(|new| Key::Directory(new.attr.ino) == *key);
            facts.extend(fact(&view, key, shown, is_new).map_err(stopped)?);
        }
        let wish = new.as_ref().and_then(New::wish);
        let (leased, is_alone) = claimed.end(wish.map(|(dir, _)| dir));
        let exclusive = wish.filter(|_| is_alone);
        let exclusive = exclusive.map(|(dir, inos)| self.exclusive(dir, inos));
        let listed = leased.iter().filter_map(|key| match key {
            Key::Directory(dir) => Some(*dir),
            Key::Inode(_) | Key::Name(_) | Key::Exclusive(_) => None,
        });
        let listed = listed.collect();
        keep.extend(leased);
        // Names in a directory that the mount knows as a whole are of use in any case.
        let facts = facts.into_iter().map(|fact| {
            let kept = keep.contains(&fact.key());
            (fact, kept)
        });
        let facts = facts.filter(|(fact, kept)| *kept || matches!(fact, Fact::Name(..)));
        Ok(Some(Proof {
            term,
            facts: facts.collect(),
            listed,
            exclusive,
        }))
    }

    /// Returns what a mount needs that uses a directory alone.
    fn exclusive(self: &Arc<Self>, dir: Ino, inos: u32) -> Exclusive {
        let mut names = self.names();
        let (first, count) = names.take_inos(inos.min(EXCLUSIVE_INOS_MAX));
        if names.wants_inos() {
            self.grant_inos();
        }
        Exclusive {
            dir,
            first,
            count,
            now: Time::after_1970(since_1970()),
        }
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
        let changed = self.system(command, MAKE_DEADLINE).await?;
        Ok(answer_to::<A>(changed))
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
                    let keys = shown_keys(&file);
                    let shown = self.names().promised(ino).cloned();
                    let made = self.propose(MakePromised { file, asked }).await;
                    let end = end_of(&made);
                    self.names().made(ino, end);
                    self.changed.notify_waiters();
                    match &made {
                        Ok(Ok(made)) if shown.as_ref() == Some(&made.attr) => {}
                        // The clock was set back since: it has an earlier time.
                        Ok(Ok(_)) => {
                            let [_, directory] = keys;
                            self.leases.recall_quietly(&[Key::Inode(ino), directory]);
                        }
                        Ok(Err(_)) => {
                            tracing::error!(%ino, answer = ?made, "a promised name is lost");
                            // Its owner was told that it is there.
                            self.leases.recall_quietly(&keys);
                        }
                        Err(_) => {}
                    }
                    return made.map(|_| ());
                }
            }
        }
    }

    // -- reads ------------------------------------------------------------------

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

    /// Returns a number that rises when what reads are shown of promises changes.
    pub fn version(&self) -> (u64, u64) {
        let names = self.names();
        (names.term(), names.version())
    }

    /// Answers a read of the state with what promises show beside it, although some may stand
    /// in its way; `None`: this is not the term. What is not promised any more is in a state
    /// that is read while nothing is promised or made.
    pub fn look_over<E>(
        &self,
        term: u64,
        session: SessionId,
        query: &Query,
        state: impl FnOnce() -> Result<Result<QueryAnswer, Refusal>, E>,
    ) -> Option<Result<Result<QueryAnswer, Refusal>, E>> {
        let names = self.names();
        if names.term() != term {
            return None;
        }
        if let Touch::Own(attr) = names.touched(session, query) {
            return Some(Ok(Ok(QueryAnswer::Attr(attr))));
        }
        Some(state().map(|mut answer| {
            if let Ok(answer) = &mut answer {
                names.show(answer);
            }
            answer
        }))
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

/// A promise that was given.
#[derive(Debug)]
pub struct Promised {
    /// The file as it will be.
    pub attr: Attr,
    /// The term.
    pub term: u64,
    /// What is there then, for the mount that asked.
    pub proof: Option<Proof>,
}

/// What a create made, or found.
struct New<'a> {
    attr: &'a Attr,
    name: Name,
    /// Its mount wants to use a directory alone, with so many inode numbers.
    wish: Option<u32>,
}

impl New<'_> {
    /// The directory that its mount wants to use alone, and how many numbers.
    fn wish(&self) -> Option<(Ino, u32)> {
        let dir = match self.attr.kind {
            Kind::File => self.name.dir,
            Kind::Directory => self.attr.ino,
            _ => return None,
        };
        Some((dir, self.wish?))
    }
}

/// What promises show of a key.
enum Shown {
    /// Nothing: the state does.
    Nothing,
    /// This inode, or this name.
    This(Fact),
    /// A directory in which files are promised, the last one at that time.
    Directory(Time),
}

impl Shown {
    fn of(names: &Names, key: &Key, new: Option<&New<'_>>) -> Self {
        match key {
            Key::Inode(ino) => match (names.promised(*ino), names.time_of(*ino)) {
                (Some(attr), _) => Shown::This(Fact::Inode(attr.clone())),
                (None, Some(time)) => Shown::Directory(time),
                (None, None) => Shown::Nothing,
            },
            Key::Name(name) => {
                let made = new.filter(|new| new.name == *name).map(|new| new.attr.ino);
                match made.filter(|ino| names.promised(*ino).is_some()) {
                    Some(ino) => Shown::This(Fact::Name(name.clone(), Found::Inode(ino))),
                    None => Shown::Nothing,
                }
            }
            Key::Directory(ino) => match names.time_of(*ino) {
                Some(time) => Shown::Directory(time),
                None => Shown::Nothing,
            },
            Key::Exclusive(_) => Shown::Nothing,
        }
    }
}

/// Returns what is there, in the state and, as they were before it, in the promises.
fn fact(view: &View, key: &Key, shown: Shown, is_new: bool) -> Result<Option<Fact>, StoreError> {
    Ok(match (key, shown) {
        (_, Shown::This(fact)) => Some(fact),
        (Key::Inode(ino), shown) => {
            let attr = lagan_meta::read(view, GetAttr { ino: *ino })?;
            attr.ok().map(|mut attr| {
                if let Shown::Directory(time) = shown {
                    attr.entry_made(time);
                }
                Fact::Inode(attr)
            })
        }
        (Key::Name(name), _) => {
            let found = found(view, name)?;
            found.map(|found| Fact::Name(name.clone(), found))
        }
        (Key::Exclusive(_), _) | (Key::Directory(_), Shown::Directory(_)) => None,
        (Key::Directory(ino), Shown::Nothing) => {
            let first = ReadDir {
                ino: *ino,
                cookie: 0,
                limit: 1,
                attrs: false,
            };
            let page = lagan_meta::read(view, first)?;
            let empty = is_new && page.is_ok_and(|page| page.entries.is_empty());
            empty.then_some(Fact::Empty(*ino))
        }
    })
}

fn author(session: SessionId, closed: Option<&Closed>) -> Option<Author> {
    closed.map(|closed| Author {
        session,
        began: closed.began,
        closed: closed.keys.clone(),
    })
}

/// What a mount may remember of a file that is only promised, beside the file.
fn shown_keys(file: &NewFile) -> [Key; 2] {
    [Key::name(file.parent, &file.name), Key::Inode(file.parent)]
}

/// Returns what a name leads to in the state; `None`: it cannot be there.
fn found(view: &View, name: &Name) -> Result<Option<Found>, StoreError> {
    let (parent, bytes) = (name.dir, name.name.to_vec());
    let found = lagan_meta::read(
        view,
        Lookup {
            parent,
            name: bytes,
        },
    )?;
    Ok(match found {
        Ok(attr) => Some(Found::Inode(attr.ino)),
        Err(Refusal::Fs(FsError::NotFound)) => Some(Found::Absent),
        Err(_) => None,
    })
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

pub(crate) fn stopped(error: StoreError) -> ProposeError {
    tracing::error!(%error, "state store");
    ProposeError::Stopped
}
