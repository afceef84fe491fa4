//! Advisory locks: kept by the leader, so that they hold across mounts.

use crate::Client;
use crate::leader::link::{fs_error, unanswered};
use lagan_types::message::WaitLock;
use lagan_types::op::{DropLocks, LockKind, LockRange, SetLock};
use lagan_types::query::GetLock;
use lagan_types::{FsError, Ino};
use std::time::Duration;

/// Waits between tries for a lock that another holds, at first and at most.
const PAUSE: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_millis(200);

/// A process that waits for a lock, as the kernel knows it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Waiter {
    /// It has a signal to handle: its call ends.
    pub interrupted: bool,
    /// It waits in fcntl(F_SETLKW): for a lock of its own, not for one of an open
    /// file. A circle of such waiters is refused.
    pub process_lock: bool,
}

impl Client {
    /// F_GETLK: finds a lock that stands in the way. One of another mount has pid 0.
    ///
    /// # Errors
    /// Those of [`Client::getattr`].
    pub async fn getlk(&self, ino: Ino, lock: LockRange) -> Result<Option<LockRange>, FsError> {
        let held = self.leader.query(GetLock { ino, lock }).await?;
        Ok(held.map(|(session, found)| {
            let local = session == self.leader.session();
            LockRange {
                pid: if local { found.pid } else { 0 },
                ..found
            }
        }))
    }

    /// Does [`Client::setlk`]; the lock ends with the handle, if not before.
    ///
    /// # Errors
    /// Those of [`Client::setlk`].
    pub async fn setlk_through(
        &self,
        fh: u64,
        ino: Ino,
        lock: LockRange,
        wait: bool,
        ask: impl Fn() -> Waiter + Send + Sync,
    ) -> Result<(), FsError> {
        if lock.kind == LockKind::Unlock {
            return self.setlk(ino, lock, wait, ask).await;
        }
        self.leader.locks().note_through(fh, lock.owner);
        self.setlk(ino, lock, wait, ask).await?;
        // Again, as in `setlk`.
        self.leader.locks().note_through(fh, lock.owner);
        Ok(())
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
            && let Some(inode) = self.files.table().inode(ino)
        {
            // The next holder of the lock must see what was written under it. An
            // error is told by the flush of the handle that wrote.
            let _ = self.files.flush_inode(&inode, self.leader.deadline()).await;
        }
        if lock.kind != LockKind::Unlock {
            // Before the call: its outcome may stay unknown.
            self.leader.locks().note(ino, lock.owner);
        }
        loop {
            match self.leader.mutate(SetLock { ino, lock }).await {
                Err(FsError::WouldBlock) if wait => {}
                Ok(_) => {
                    let all = lock.start == 0 && lock.end == u64::MAX;
                    if lock.kind != LockKind::Unlock {
                        // Again: if the session was replaced meanwhile, the note went with
                        // the old one, and the lock is of the new one.
                        self.leader.locks().note(ino, lock.owner);
                    } else if all {
                        self.leader.locks().forget(ino, lock.owner);
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
            let held = self.leader.query(GetLock { ino, lock }).await?;
            return Ok(held.is_none());
        }
        let request = WaitLock {
            session: self.leader.session(),
            ino,
            lock,
        };
        let until = self.leader.deadline();
        let held = self.leader.link().ask(request, until).await;
        Ok(held.map_err(unanswered)?.map_err(fs_error)?.is_none())
    }

    /// Drops all locks of the owner on the inode, if it may have some.
    pub(super) async fn drop_locks(&self, ino: Ino, owner: u64, until: tokio::time::Instant) {
        if !self.leader.locks().has(ino, owner) {
            return;
        }
        match self
            .leader
            .mutate_by(DropLocks { ino, owner }, None, until)
            .await
        {
            Ok(_) => self.leader.locks().forget(ino, owner),
            Err(error) => tracing::warn!(%ino, %error, "drop the locks of a closed file"),
        }
    }
}
