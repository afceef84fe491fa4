//! Has promised files made: when a call needs them, and those that stay open soon.

use crate::leader::Leader;
use crate::leader::link::fs_error;
use crate::leader::open_files::OpenFiles;
use crate::leader::promises::{MAKE_AFTER, Promise};
use lagan_types::lease::Key;
use lagan_types::op::{Create, CreatePromised, FileOp, NewFile, SetAttr};
use lagan_types::query::Sees;
use lagan_types::{Attr, FsError, Ino, Query, Refusal, SessionId};
use std::pin::Pin;
use std::sync::Arc;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// The making of files. Each of them is a change, and a change may have files made.
type Made<'a> = Pin<Box<dyn Future<Output = Result<(), FsError>> + Send + 'a>>;

/// A file that counts as open while this lives.
struct Held {
    files: Arc<dyn OpenFiles>,
    ino: Ino,
}

impl Held {
    fn new(files: Arc<dyn OpenFiles>, ino: Ino) -> Self {
        files.hold(ino);
        Held { files, ino }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.files.let_go(self.ino);
    }
}

/// Whether the refusal says that the promised name is no longer ours.
fn is_lost(refusal: Refusal) -> bool {
    matches!(
        refusal,
        Refusal::Fs(FsError::Exists | FsError::NotFound | FsError::NotDirectory | FsError::Stale)
    )
}

impl Leader {
    /// The promise of that inode.
    pub fn promise_of(&self, ino: Ino) -> Option<Promise> {
        self.promises.get(ino)
    }

    /// The promise of that inode, to be kept now.
    pub fn promise_to_keep(&self, ino: Ino) -> Option<Promise> {
        self.promises.keep(ino)
    }

    /// Takes what the leader promised; false: the promise came too late.
    pub(super) fn take_promise(
        &self,
        (op, session): (&Create, SessionId),
        attr: &Attr,
        term: u64,
    ) -> bool {
        let added = self.promises.add(Promise {
            file: NewFile::promised(op, attr.ino, attr.btime),
            session,
            attr: attr.clone(),
            term,
            since: Instant::now(),
            told: true,
        });
        if added && self.session() != session {
            // It ended meanwhile, and its promises were cleared before this one was added.
            self.promises.remove(attr.ino);
        }
        if added {
            self.sweep();
        }
        added
    }

    /// Has promised files made soon, if nobody does so yet.
    fn sweep(&self) {
        if self.promises.begin_sweep() {
            // They stay open until the sweep ends, also if the mount is dropped now,
            // without a shutdown.
            let files = self.files.upgrade();
            self.tasks.spawn(&self.me, move |leader| async move {
                leader.make_old().await;
                drop(files);
            });
        }
    }

    /// Makes a regular file here, and promises it to this mount's own programs, if its directory
    /// is this mount's alone. Returns its attributes.
    pub(super) async fn make_alone(&self, create: &Create) -> Option<Attr> {
        while self.session.has_room() {
            let promise = |promise| self.promises.add(promise);
            match self.leases.make(create, promise) {
                Ok(attr) => {
                    attr.iter().for_each(|_| self.sweep());
                    return attr;
                }
                Err(loans) => self.kernel.take_back(&self.leases, loans).await,
            }
        }
        None
    }

    /// Sets attributes of a file that this mount has made for itself, and told nobody of. Returns
    /// all of them; `None`: ask the leader.
    pub async fn set_alone(&self, ino: Ino, set: &SetAttr) -> Option<Attr> {
        while !self.promises.is_empty() {
            let set = |dir: &Attr, now| self.promises.set(ino, dir, set, now);
            match self.leases.set_local(ino, set) {
                Ok(attr) => return attr,
                Err(loans) => self.kernel.take_back(&self.leases, loans).await,
            }
        }
        None
    }

    /// Has the files made that this mount has made for itself in directories that are not its
    /// alone any more. Call it before the leader is asked for anything: it does not know them.
    pub(super) async fn make_orphans(&self, until: Instant) -> Result<(), FsError> {
        let mut before = Vec::new();
        loop {
            let mut orphans = self.leases.orphans();
            if orphans.is_empty() {
                return Ok(());
            }
            orphans.sort_unstable();
            // One that is lost is none any more; whoever has it open hears of it.
            let made = self.make_each(orphans.clone(), until).await;
            if before == orphans {
                return made;
            }
            before = orphans;
        }
    }

    /// Gives a promise up: nobody has the file open any more, and it could not be made.
    pub fn give_up_promise(&self, ino: Ino) {
        self.leases.give_up(ino);
        if self.lose_promise(ino) {
            tracing::warn!(%ino, "a created file could not be made before it was closed");
        }
    }

    /// Forgets that the name of a file was shown that was not made, and removes its promise:
    /// whoever finds none must not find the file remembered.
    fn lose_promise(&self, ino: Ino) -> bool {
        if let Some(Promise { file, .. }) = self.promises.get(ino) {
            let name = Key::name(file.parent, &file.name);
            let keys = vec![name, Key::Inode(file.parent), Key::Inode(ino)];
            let loans = self.leases.forget(keys);
            if !loans.is_empty() {
                self.tasks.spawn(&self.me, move |leader| async move {
                    leader.kernel.take_back(&leader.leases, loans).await;
                });
            }
        }
        self.promises.lose(ino)
    }

    /// Has the files made that wait for long, until nothing is promised.
    async fn make_old(&self) {
        loop {
            tokio::time::sleep(MAKE_AFTER / 2).await;
            let Some(old) = self.promises.sweep() else {
                return;
            };
            // One that is stuck holds up no other one.
            for ino in old.into_iter().filter(|ino| !self.making.has(*ino)) {
                self.tasks.spawn(&self.me, move |leader| async move {
                    // An error is told by the handle, or by the next try.
                    let _ = leader.make_promised(ino, leader.deadline()).await;
                });
            }
        }
    }

    /// Has promised files made, all at the same time.
    ///
    /// # Errors
    /// One of the errors, after all have ended.
    fn make_each(&self, inos: Vec<Ino>, until: Instant) -> Made<'_> {
        Box::pin(async move {
            let mut tasks = JoinSet::new();
            for ino in inos {
                let me = self.me.upgrade().ok_or(FsError::Io)?;
                tasks.spawn(async move { me.make_promised(ino, until).await });
            }
            let mut result = Ok(());
            while let Some(made) = tasks.join_next().await {
                result = result.and(made.unwrap_or(Err(FsError::Io)));
            }
            result
        })
    }

    /// Has every file made that is only promised in that directory.
    ///
    /// # Errors
    /// Those of [`Leader::make_promised`]; [`FsError::Io`], once, if a promised
    /// name in it was lost since the last call.
    pub async fn make_all_in(&self, directory: Ino, until: Instant) -> Result<(), FsError> {
        let promised = self.promises.touched(|f| f.parent == directory);
        let made = self.make_each(promised, until).await;
        // That includes names that another task found to be lost.
        match self.promises.take_lost(directory) {
            true => Err(FsError::Io),
            false => made,
        }
    }

    /// Has the file made if it is only promised.
    ///
    /// # Errors
    /// [`FsError::Io`] if the name is lost or the session has ended, [`FsError::TimedOut`].
    pub async fn make_promised(&self, ino: Ino, until: Instant) -> Result<(), FsError> {
        // However many want it, it is asked for once at a time.
        let _making = loop {
            let making = self.making.begin(vec![ino]);
            if !making.inos().is_empty() {
                break making;
            }
            drop(making);
            let ended = tokio::time::timeout_at(until, self.making.ended(ino)).await;
            ended.map_err(|_| FsError::TimedOut)?;
        };
        let Some(promise) = self.promises.keep(ino) else {
            return Ok(());
        };
        // Until the outcome is known the file is open: nobody reaps it, or this
        // call would make it anew.
        let files = self.files.upgrade();
        let _open = files.map(|files| Held::new(files, ino));
        let op = CreatePromised { file: promise.file };
        match self.mutate_now(op, Some(promise.session), until).await {
            Ok(created) => {
                self.promise_kept(&created.attr);
                Ok(())
            }
            Err(refusal) => Err(fs_error(self.promise_refused(ino, refusal))),
        }
    }

    /// Notes that a promised file became part of the replicated state.
    pub fn promise_kept(&self, attr: &Attr) {
        let promise = self.promises.remove(attr.ino);
        self.leases.made(attr.ino);
        let Some(promise) = promise else {
            return;
        };
        if let Some(files) = self.files.upgrade() {
            files.promise_made(&promise.attr, attr);
        }
    }

    /// Notes that the making of a promised file was refused. If the name is lost, so
    /// is the file. Returns what to tell the caller.
    pub fn promise_refused(&self, ino: Ino, refusal: Refusal) -> Refusal {
        if !is_lost(refusal) {
            return refusal;
        }
        self.leases.made(ino);
        if self.lose_promise(ino) {
            tracing::error!(%ino, %refusal, "created file is lost: its name was taken after the leader was");
            if let Some(files) = self.files.upgrade() {
                files.promise_lost(ino);
            }
        }
        FsError::Io.into()
    }

    /// Has promised files made that a mutation touches.
    pub(super) async fn make_touched_by_op(
        &self,
        op: &FileOp,
        until: Instant,
    ) -> Result<(), FsError> {
        if self.promises.is_empty() {
            return Ok(());
        }
        self.make_orphans(until).await?;
        let (names, inodes) = (op.names(), op.inodes());
        self.make_touched(
            |f| inodes.contains(&f.ino) || names.contains(&(f.parent, f.name.as_slice())),
            until,
        )
        .await
    }

    /// Has promised files made that a read needs in the replicated state.
    pub(super) async fn make_touched_by_query(
        &self,
        query: &Query,
        until: Instant,
    ) -> Result<(), FsError> {
        if self.promises.is_empty() {
            return Ok(());
        }
        match query.sees() {
            Sees::Nothing => Ok(()),
            Sees::Name(parent, name) => {
                let is_it = |f: &NewFile| f.parent == parent && f.name == name;
                self.make_local(is_it, until).await
            }
            Sees::Attr(ino) => self.make_local(|f| f.ino == ino, until).await,
            Sees::Inode(ino) => self.make_touched(|f| f.ino == ino, until).await,
            Sees::Entries(ino) => {
                self.make_touched(|f| f.ino == ino || f.parent == ino, until)
                    .await
            }
        }
    }

    /// Has promised files made that the leader does not know: perhaps another leader
    /// promised them. Returns whether to ask again.
    pub async fn make_unknown(
        &self,
        error: FsError,
        touches: impl Fn(&NewFile) -> bool,
        until: Instant,
    ) -> bool {
        let unknown = matches!(error, FsError::NotFound | FsError::Stale);
        let touched = unknown && !self.promises.touched(&touches).is_empty();
        touched && self.make_touched(touches, until).await.is_ok()
    }

    /// Has files made that this mount has made for itself. The leader shows the others from its
    /// own promise.
    async fn make_local(
        &self,
        touches: impl Fn(&NewFile) -> bool,
        until: Instant,
    ) -> Result<(), FsError> {
        for ino in self.promises.touched(touches) {
            if self.leases.is_local(ino) {
                self.make_promised(ino, until).await?;
            }
        }
        Ok(())
    }

    async fn make_touched(
        &self,
        touches: impl Fn(&NewFile) -> bool,
        until: Instant,
    ) -> Result<(), FsError> {
        match self.promises.touched(touches) {
            none if none.is_empty() => Ok(()),
            touched => self.make_each(touched, until).await,
        }
    }
}
