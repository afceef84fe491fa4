//! flush, fsync, release: what a program waits for when it closes a file.

use crate::Client;
use lagan_types::FsError;

impl Client {
    /// One descriptor was closed: commits, and drops the owner's fcntl locks.
    ///
    /// # Errors
    /// Why data written through this handle could not be committed, once.
    pub async fn flush(&self, fh: u64, lock_owner: u64) -> Result<(), FsError> {
        let handle = self.files.table().handle(fh)?;
        let until = self.leader.deadline();
        let flushed = self.files.flush_inode(handle.inode(), until).await;
        let ino = handle.inode().ino;
        self.drop_locks(ino, lock_owner, until).await;
        self.leader.locks().left(fh, lock_owner);
        handle.check()?;
        handle.take_error().and(flushed)
    }

    /// Commits what was written to the file through any handle of this mount.
    ///
    /// # Errors
    /// Those of [`Client::flush`].
    pub async fn fsync(&self, fh: u64) -> Result<(), FsError> {
        let handle = self.files.table().handle(fh)?;
        let until = self.leader.deadline();
        let flushed = self.files.flush_inode(handle.inode(), until).await;
        handle.check()?;
        handle.take_error().and(flushed)
    }

    /// The last descriptor of a handle is gone. Commits what a mapping wrote after
    /// the last flush; drops the flock(2) lock of that owner, and locks that belong
    /// to the open file description.
    pub async fn release(&self, fh: u64, flock_owner: Option<u64>) {
        let Some(handle) = self.files.table().remove(fh) else {
            return;
        };
        let ino = handle.inode().ino;
        let until = self.leader.deadline();
        if let Err(error) = self.files.flush_inode(handle.inode(), until).await {
            tracing::warn!(%ino, fh, %error, "data written after the last flush is lost");
        }
        let mut owners = self.leader.locks().closed(fh);
        owners.extend(flock_owner);
        for owner in owners {
            self.drop_locks(ino, owner, until).await;
        }
        self.files.unpin(ino);
    }
}
