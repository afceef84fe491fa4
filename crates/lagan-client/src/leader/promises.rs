//! Files that were created here and exist by the leader's word only.
//!
//! The leader keeps the name in its memory (no sync); the first commit makes the file,
//! in the same step. What must hold:
//! - A close, an fsync and every call about the file but reads of its attributes
//!   come after it was made; so does an fsync of its directory.
//! - A file that stays open is made soon all the same: what a leader
//!   promised and did not replicate is lost with it.
//! - A leader of a later term is told how many promises of earlier ones are left,
//!   and lets nobody take names until it is none (docs/DESIGN.md "Promises"). A
//!   promise that arrives after that was said is not taken.

use crate::Client;
use crate::calls::open::Pin;
use crate::file::inode::InodeState;
use lagan_types::op::NewFile;
use lagan_types::{Answer, Attr, FsError, Ino, Op, Query, SessionId};
use parking_lot::Mutex;
use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// A file that stays open without a commit is made after this.
const MAKE_AFTER: Duration = Duration::from_millis(100);
/// Directories whose loss of a name waits to be told. Of more, fsync(2) does not
/// tell; the files' own handles do in any case.
const LOST_MAX: usize = 4096;

/// A promised file.
#[derive(Debug, Clone)]
pub(crate) struct Promise {
    /// What is to be made.
    pub file: NewFile,
    /// Whose promise it is.
    pub session: SessionId,
    /// The file as the leader showed it.
    attr: Attr,
    term: u64,
    since: Instant,
}

#[derive(Debug, Default)]
struct Inner {
    promises: HashMap<Ino, Promise>,
    /// The newest leader's term that is known.
    term: u64,
    /// A task makes what waits for long.
    sweeping: bool,
    /// Directories that lost a promised name since they were fsynced.
    lost: BTreeSet<Ino>,
}

impl Inner {
    fn lose(&mut self, parent: Ino) {
        if self.lost.len() < LOST_MAX {
            self.lost.insert(parent);
        }
    }
}

/// The promises of this mount.
#[derive(Debug, Default)]
pub(crate) struct Reserved {
    inner: Mutex<Inner>,
    count: AtomicUsize,
}

impl Reserved {
    fn is_empty(&self) -> bool {
        self.count.load(Ordering::Acquire) == 0
    }

    /// Takes a promise, unless it is of a term that is over.
    fn add(&self, promise: Promise) -> bool {
        let mut inner = self.inner.lock();
        if promise.term < inner.term {
            return false;
        }
        inner.term = promise.term;
        inner.promises.insert(promise.file.ino, promise);
        self.count.store(inner.promises.len(), Ordering::Release);
        true
    }

    /// The promise of that inode.
    pub fn get(&self, ino: Ino) -> Option<Promise> {
        if self.is_empty() {
            return None;
        }
        self.inner.lock().promises.get(&ino).cloned()
    }

    fn remove(&self, ino: Ino) -> Option<Promise> {
        self.take(&mut self.inner.lock(), ino)
    }

    fn take(&self, inner: &mut Inner, ino: Ino) -> Option<Promise> {
        let promise = inner.promises.remove(&ino);
        self.count.store(inner.promises.len(), Ordering::Release);
        promise
    }

    /// The file was not made: its directory lost a name, which is known as soon as
    /// the promise is gone. Returns whether there was one.
    fn lose(&self, ino: Ino) -> bool {
        let mut inner = self.inner.lock();
        let promise = self.take(&mut inner, ino);
        if let Some(promise) = &promise {
            inner.lose(promise.file.parent);
        }
        promise.is_some()
    }

    /// The session is over, and with it all promises; returns where there were some.
    pub fn clear(&self) -> Vec<Ino> {
        let mut inner = self.inner.lock();
        self.count.store(0, Ordering::Release);
        let promises = std::mem::take(&mut inner.promises);
        for promise in promises.values() {
            inner.lose(promise.file.parent);
        }
        promises.into_keys().collect()
    }

    /// Whether the directory lost a name since the last call for it.
    fn take_lost(&self, directory: Ino) -> bool {
        self.inner.lock().lost.remove(&directory)
    }

    /// A leader said its term. Returns the newest one, and how many promises of earlier ones are left.
    pub fn learn_term(&self, term: u64) -> (u64, u32) {
        let mut inner = self.inner.lock();
        inner.term = inner.term.max(term);
        let newest = inner.term;
        let older = inner.promises.values().filter(|p| p.term < newest).count();
        (newest, u32::try_from(older).unwrap_or(u32::MAX))
    }

    fn touched(&self, touches: impl Fn(&NewFile) -> bool) -> Vec<Ino> {
        let inner = self.inner.lock();
        let files = inner.promises.values().map(|p| &p.file);
        files.filter(|f| touches(f)).map(|f| f.ino).collect()
    }

    /// True for the one caller that is to sweep.
    fn begin_sweep(&self) -> bool {
        !std::mem::replace(&mut self.inner.lock().sweeping, true)
    }

    /// What waits for long; `None`: nothing waits, the sweep is over.
    fn sweep(&self) -> Option<Vec<Ino>> {
        let mut inner = self.inner.lock();
        if inner.promises.is_empty() {
            inner.sweeping = false;
            return None;
        }
        let old = inner
            .promises
            .values()
            .filter(|p| p.since.elapsed() >= MAKE_AFTER);
        Some(old.map(|p| p.file.ino).collect())
    }
}

/// Whether the error says that the promised name is no longer ours.
fn is_lost(error: FsError) -> bool {
    matches!(
        error,
        FsError::Exists | FsError::NotFound | FsError::NotDirectory
    )
}

impl Client {
    /// Remembers what the leader promised; false: the promise came too late.
    pub(crate) fn promised(&self, (op, session): (&Op, SessionId), attr: &Attr, term: u64) -> bool {
        let Op::Create {
            parent,
            name,
            mode,
            uid,
            gid,
            ..
        } = op
        else {
            return false;
        };
        let added = self.reserved.add(Promise {
            file: NewFile {
                ino: attr.ino,
                parent: *parent,
                name: name.clone(),
                mode: *mode,
                uid: *uid,
                gid: *gid,
                time: attr.btime,
            },
            session,
            attr: attr.clone(),
            term,
            since: Instant::now(),
        });
        if added && self.session() != session {
            // It ended meanwhile: what its promises were was asked for before this one.
            self.reserved.remove(attr.ino);
        }
        if added && self.reserved.begin_sweep() {
            self.spawn(|client| async move { client.make_old().await });
        }
        added
    }

    /// Nobody has the file open any more: what could not be made is lost.
    pub(crate) fn give_up_reserved(&self, ino: Ino) {
        if self.reserved.lose(ino) {
            tracing::warn!(%ino, "a created file could not be made before it was closed");
        }
    }

    async fn make_old(&self) {
        loop {
            tokio::time::sleep(MAKE_AFTER / 2).await;
            let Some(old) = self.reserved.sweep() else {
                return;
            };
            // An error is the handle's, or the next try's.
            let _ = self.make_each(old, self.deadline()).await;
        }
    }

    /// Makes promised files, all at the same time; after all have ended, one of the
    /// errors.
    async fn make_each(&self, inos: Vec<Ino>, until: Instant) -> Result<(), FsError> {
        let mut tasks = JoinSet::new();
        for ino in inos {
            let me = self.me.upgrade().ok_or(FsError::Io)?;
            tasks.spawn(async move { me.make_reserved(ino, until).await });
        }
        let mut result = Ok(());
        while let Some(made) = tasks.join_next().await {
            result = result.and(made.unwrap_or(Err(FsError::Io)));
        }
        result
    }

    /// Has every file made that is only promised in that directory.
    ///
    /// # Errors
    /// Those of [`Client::make_reserved`]; [`FsError::Io`], once, if a promised
    /// name in it was lost since the last call.
    pub(crate) async fn make_all_in(&self, directory: Ino, until: Instant) -> Result<(), FsError> {
        let promised = self.reserved.touched(|f| f.parent == directory);
        let made = self.make_each(promised, until).await;
        // Also what another task found to be lost.
        match self.reserved.take_lost(directory) {
            true => Err(FsError::Io),
            false => made,
        }
    }

    /// Has the file made if it is only promised.
    ///
    /// # Errors
    /// [`FsError::Io`] if the name is lost, [`FsError::SessionEnded`], [`FsError::TimedOut`].
    pub(crate) async fn make_reserved(&self, ino: Ino, until: Instant) -> Result<(), FsError> {
        let Some(promise) = self.reserved.get(ino) else {
            return Ok(());
        };
        // Until the outcome is known the file is open: nobody reaps it, or this
        // call would make it anew.
        let _open = Pin::new(self, ino);
        let op = Op::CreateReserved {
            file: promise.file,
            asked: None,
        };
        match self.mutate_now(op, Some(promise.session), until).await {
            Ok(Answer::Created { attr, .. }) => {
                self.reserved_made(&attr);
                Ok(())
            }
            Ok(_) => Err(FsError::Malformed),
            Err(error) => Err(self.reserved_failed(ino, error)),
        }
    }

    /// The file is part of the replicated state.
    pub(crate) fn reserved_made(&self, attr: &Attr) {
        let Some(promise) = self.reserved.remove(attr.ino) else {
            return;
        };
        if let Some(inode) = self.files.inode(attr.ino) {
            inode.state.lock().replace_attr(&promise.attr, attr);
        }
    }

    /// Making it was refused. If the name is lost, so is the file.
    pub(crate) fn reserved_failed(&self, ino: Ino, error: FsError) -> FsError {
        if !is_lost(error) {
            return error;
        }
        if self.reserved.lose(ino) {
            tracing::error!(%ino, %error, "created file is lost: its name was taken after the leader was");
            self.files.end_handles(ino);
            self.pages.lost(ino);
            let freed = self.files.inode(ino).map(|inode| {
                let mut state = inode.state.lock();
                state.failed(FsError::Io);
                state.discard()
            });
            self.give_back(freed.unwrap_or(0));
        }
        FsError::Io
    }

    /// Has promised files made that a mutation touches.
    pub(crate) async fn make_touched_by_op(&self, op: &Op, until: Instant) -> Result<(), FsError> {
        if self.reserved.is_empty() {
            return Ok(());
        }
        let (names, inodes) = (op.names(), op.inodes());
        self.make_touched(
            |f| inodes.contains(&f.ino) || names.contains(&(f.parent, f.name.as_slice())),
            until,
        )
        .await
    }

    /// Has promised files made that a read needs in the replicated state.
    pub(crate) async fn make_touched_by_query(
        &self,
        query: &Query,
        until: Instant,
    ) -> Result<(), FsError> {
        let all = matches!(query, Query::ReadDir { .. });
        let Some(ino) = query.inode().filter(|_| !self.reserved.is_empty()) else {
            return Ok(());
        };
        if matches!(query, Query::GetAttr { .. }) {
            return Ok(());
        }
        self.make_touched(|f| ino == f.ino || (all && ino == f.parent), until)
            .await
    }

    /// The leader does not know the file: perhaps another one promised it.
    /// Returns whether to ask again.
    pub(crate) async fn make_unknown(
        &self,
        error: FsError,
        touches: impl Fn(&NewFile) -> bool,
        until: Instant,
    ) -> bool {
        let unknown = matches!(error, FsError::NotFound | FsError::Stale);
        let touched = unknown && !self.reserved.touched(&touches).is_empty();
        touched && self.make_touched(touches, until).await.is_ok()
    }

    async fn make_touched(
        &self,
        touches: impl Fn(&NewFile) -> bool,
        until: Instant,
    ) -> Result<(), FsError> {
        for ino in self.reserved.touched(touches) {
            self.make_reserved(ino, until).await?;
        }
        Ok(())
    }
}

impl InodeState {
    /// The file was made: what the leader showed before does not count any more,
    /// whatever its clock said.
    fn replace_attr(&mut self, promised: &Attr, made: &Attr) {
        if self.attr.as_ref() == Some(promised) {
            self.attr = None;
        }
        self.learn(made);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lagan_types::attr::ArchiveState;
    use lagan_types::{Kind, Time};

    fn promise(ino: u64, term: u64) -> Promise {
        let time = Time::default();
        let attr = Attr {
            ino: Ino(ino),
            kind: Kind::File,
            mode: 0o644,
            uid: 0,
            gid: 0,
            nlink: 1,
            size: 0,
            allocated: 0,
            rdev: 0,
            atime: time,
            mtime: time,
            ctime: time,
            btime: time,
            version: 1,
            archive: ArchiveState::Local,
        };
        Promise {
            file: NewFile {
                ino: Ino(ino),
                parent: Ino(1),
                name: ino.to_string().into_bytes(),
                mode: 0o644,
                uid: 0,
                gid: 0,
                time,
            },
            session: SessionId(1),
            attr,
            term,
            since: Instant::now(),
        }
    }

    #[test]
    fn promise_of_a_leader_that_is_over_is_not_taken() {
        let reserved = Reserved::default();
        assert!(reserved.add(promise(5, 3)));
        assert_eq!(reserved.learn_term(3), (3, 0));
        assert_eq!(reserved.learn_term(4), (4, 1));
        assert!(!reserved.add(promise(6, 3)));
        assert!(reserved.add(promise(7, 4)));
        reserved.remove(Ino(5));
        assert_eq!(reserved.learn_term(0), (4, 0));
        assert!(reserved.get(Ino(7)).is_some());
    }

    #[test]
    fn directory_hears_once_of_each_way_to_lose_a_name() {
        let reserved = Reserved::default();
        assert!(!reserved.take_lost(Ino(1)));
        reserved.add(promise(5, 3));
        reserved.remove(Ino(5));
        assert!(!reserved.take_lost(Ino(1)), "it was made");
        reserved.add(promise(6, 3));
        assert!(reserved.lose(Ino(6)) && !reserved.lose(Ino(6)));
        assert!(!reserved.take_lost(Ino(2)), "another directory");
        assert!(reserved.take_lost(Ino(1)) && !reserved.take_lost(Ino(1)));
        reserved.add(promise(7, 3));
        assert_eq!(reserved.clear(), [Ino(7)]);
        assert!(reserved.take_lost(Ino(1)) && !reserved.take_lost(Ino(1)));
    }

    #[test]
    fn sweep_ends_when_nothing_is_promised() {
        let reserved = Reserved::default();
        reserved.add(promise(5, 3));
        assert!(reserved.begin_sweep());
        assert!(!reserved.begin_sweep());
        assert_eq!(reserved.sweep(), Some(vec![]));
        reserved.remove(Ino(5));
        assert_eq!(reserved.sweep(), None);
        assert!(reserved.begin_sweep());
    }
}
