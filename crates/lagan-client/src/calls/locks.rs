//! Advisory locks: kept by the leader, so that they hold across mounts.

use crate::Client;
use crate::leader::session::unanswered;
use lagan_types::message::{MetaReply, MetaRequest};
use lagan_types::op::{LockKind, LockRange};
use lagan_types::{FsError, Ino, Op, Query, QueryAnswer};
use parking_lot::Mutex;
use std::collections::{HashMap, HashSet};
use std::time::Duration;

/// Waits between tries for a lock that another holds, at first and at most.
const PAUSE: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_millis(200);

/// What is known of a process that waits for a lock.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Waiter {
    /// It has a signal to handle: its call ends.
    pub interrupted: bool,
    /// It waits in fcntl(F_SETLKW): for a lock of its own, not for one of an open
    /// file. A circle of such waiters is refused.
    pub process_lock: bool,
}

/// Who of this mount may hold locks: who does not need no call at close.
#[derive(Debug, Default)]
pub(crate) struct LockOwners {
    owners: Mutex<HashSet<(Ino, u64)>>,
    /// Who locked through which handle. The kernel says at the end of a process'
    /// lock and of a flock whose it was, but not of a lock that belongs to an open
    /// file description (F_OFD_SETLK): that ends with its handle.
    through: Mutex<HashMap<u64, HashSet<u64>>>,
}

impl LockOwners {
    /// Whether the owner may hold a lock on the inode.
    pub fn has(&self, ino: Ino, owner: u64) -> bool {
        self.owners.lock().contains(&(ino, owner))
    }

    /// The owner holds none on the inode.
    pub fn forget(&self, ino: Ino, owner: u64) {
        self.owners.lock().remove(&(ino, owner));
    }

    /// All locks that a process took through a handle ended: what it locks anew
    /// must not end with that handle.
    pub fn left(&self, fh: u64, owner: u64) {
        let mut through = self.through.lock();
        if let Some(owners) = through.get_mut(&fh) {
            owners.remove(&owner);
            if owners.is_empty() {
                through.remove(&fh);
            }
        }
    }

    /// The handle ends: who locked through it and did not leave.
    pub fn closed(&self, fh: u64) -> HashSet<u64> {
        self.through.lock().remove(&fh).unwrap_or_default()
    }

    fn note_through(&self, fh: u64, owner: u64) {
        self.through.lock().entry(fh).or_default().insert(owner);
    }

    fn note(&self, ino: Ino, owner: u64) {
        self.owners.lock().insert((ino, owner));
    }

    /// All locks are gone; returns where there were some.
    pub fn clear(&self) -> HashSet<Ino> {
        self.through.lock().clear();
        self.owners.lock().drain().map(|(ino, _)| ino).collect()
    }
}

impl Client {
    /// F_GETLK: a lock that stands in the way. One of another mount has pid 0.
    ///
    /// # Errors
    /// As [`Client::getattr`].
    pub async fn getlk(&self, ino: Ino, lock: LockRange) -> Result<Option<LockRange>, FsError> {
        match self.query(Query::GetLock { ino, lock }).await? {
            QueryAnswer::Lock(None) => Ok(None),
            QueryAnswer::Lock(Some((session, found))) => {
                let local = session == self.session();
                Ok(Some(LockRange {
                    pid: if local { found.pid } else { 0 },
                    ..found
                }))
            }
            _ => Err(FsError::Malformed),
        }
    }

    /// As [`Client::setlk`]; the lock ends with the handle, if not before.
    ///
    /// # Errors
    /// As [`Client::setlk`].
    pub async fn setlk_through(
        &self,
        fh: u64,
        ino: Ino,
        lock: LockRange,
        wait: bool,
        ask: impl Fn() -> Waiter + Send + Sync,
    ) -> Result<(), FsError> {
        if lock.kind != LockKind::Unlock {
            self.locks.note_through(fh, lock.owner);
        }
        self.setlk(ino, lock, wait, ask).await
    }

    /// F_SETLK, F_SETLKW and flock(2): takes, changes or drops a lock. With
    /// `wait`, tries until it is free or `ask` says that the waiter is interrupted,
    /// however long another holds it: [`crate::Options::timeout`] is for the
    /// leader's answers.
    ///
    /// # Errors
    /// [`FsError::WouldBlock`], [`FsError::Interrupted`], [`FsError::Deadlock`],
    /// [`FsError::TimedOut`].
    pub async fn setlk(
        &self,
        ino: Ino,
        lock: LockRange,
        wait: bool,
        ask: impl Fn() -> Waiter + Send + Sync,
    ) -> Result<(), FsError> {
        if lock.kind != LockKind::Write
            && let Some(inode) = self.files.inode(ino)
        {
            // Who takes the lock next must see what was written under it. An
            // error is told by the flush of the handle that wrote.
            let _ = self.flush_inode(&inode, self.deadline()).await;
        }
        if lock.kind != LockKind::Unlock {
            // Before the call: its outcome may stay unknown.
            self.locks.note(ino, lock.owner);
        }
        loop {
            match self.mutate(Op::SetLock { ino, lock }).await {
                Err(FsError::WouldBlock) if wait => {}
                Ok(_) => {
                    let all = lock.start == 0 && lock.end == u64::MAX;
                    if all && lock.kind == LockKind::Unlock {
                        self.locks.forget(ino, lock.owner);
                    }
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
            self.wait_until_free(ino, lock, &ask).await?;
        }
    }

    /// Looks, in reads that change nothing, until nothing is in the way.
    async fn wait_until_free(
        &self,
        ino: Ino,
        lock: LockRange,
        ask: &(impl Fn() -> Waiter + Send + Sync),
    ) -> Result<(), FsError> {
        let mut pause = PAUSE;
        let mut known = false;
        loop {
            let waiter = ask();
            if waiter.interrupted {
                if known {
                    // Before the process does anything else.
                    let kind = LockKind::Unlock;
                    let _ = self.is_free(ino, LockRange { kind, ..lock }, true).await;
                }
                return Err(FsError::Interrupted);
            }
            known |= waiter.process_lock;
            if self.is_free(ino, lock, waiter.process_lock).await? {
                return Ok(());
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Whether nothing stands in the way; with `told` the leader learns who waits.
    async fn is_free(&self, ino: Ino, lock: LockRange, told: bool) -> Result<bool, FsError> {
        if !told {
            let held = self.query(Query::GetLock { ino, lock }).await?;
            return Ok(held == QueryAnswer::Lock(None));
        }
        let request = MetaRequest::WaitLock {
            session: self.session(),
            ino,
            lock,
        };
        match self.link.meta(&request, self.deadline()).await {
            Ok(MetaReply::Query(Ok(held))) => Ok(held == QueryAnswer::Lock(None)),
            Ok(MetaReply::Query(Err(error))) => Err(error),
            other => Err(unanswered(other)),
        }
    }

    /// Drops all locks of the owner on the inode, if it may have some.
    pub(crate) async fn drop_locks(&self, ino: Ino, owner: u64, until: tokio::time::Instant) {
        if !self.locks.has(ino, owner) {
            return;
        }
        match self
            .mutate_by(Op::DropLocks { ino, owner }, None, until)
            .await
        {
            Ok(_) => self.locks.forget(ino, owner),
            Err(error) => tracing::warn!(%ino, %error, "drop the locks of a closed file"),
        }
    }
}
