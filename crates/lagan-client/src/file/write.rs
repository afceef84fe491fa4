//! write, flush, fsync.

use crate::Client;
use crate::chunks::piece::Piece;
use crate::file::inode::{Handle, wall_time};
use crate::options::Caller;
use bytes::Bytes;
use lagan_types::FsError;
use lagan_types::limits::{CHUNK_LEN_MAX, FILE_LEN_MAX};
use std::sync::Arc;

impl Client {
    /// Writes; short only for more than [`CHUNK_LEN_MAX`] bytes. The data may
    /// wait in memory until a flush. For a handle opened with `append` the
    /// offset is ignored.
    ///
    /// # Errors
    /// [`FsError::FileTooLarge`]; [`FsError::NoSpace`] if it is known that no set
    /// takes chunks; [`FsError::SessionEnded`] for a handle that
    /// must be opened again; [`FsError::Io`] if there was no room in time;
    /// with `sync` what [`Client::fsync`] says.
    pub async fn write(
        &self,
        caller: Caller,
        fh: u64,
        offset: u64,
        data: Bytes,
    ) -> Result<u32, FsError> {
        let append = self.files.handle(fh)?.options.append;
        let place = if append { None } else { Some(offset) };
        self.write_at(caller, fh, place, data).await
    }

    /// As [`Client::write`], at that place, or without one at the end, however
    /// the handle was opened: F_SETFL changes O_APPEND, and mapped pages may be
    /// written through any handle.
    ///
    /// # Errors
    /// As [`Client::write`].
    pub async fn write_at(
        &self,
        caller: Caller,
        fh: u64,
        place: Option<u64>,
        data: Bytes,
    ) -> Result<u32, FsError> {
        let handle = self.files.handle(fh)?;
        handle.check()?;
        let data = data.slice(..data.len().min(CHUNK_LEN_MAX as usize));
        if data.is_empty() {
            return Ok(0);
        }
        let append = place.is_none();
        let end = place.unwrap_or(0).checked_add(data.len() as u64);
        if end.is_none_or(|e| e > FILE_LEN_MAX) {
            return Err(FsError::FileTooLarge);
        }
        let until = self.leader.deadline();
        self.check_space().await?;
        self.reserve(data.len() as u32, until).await?;
        // Room taken is room to give back, also if this call is dropped here.
        let mut room = Room(self, data.len() as u64);
        self.flush_other_kind(&handle, append, until).await;
        self.flush_scattered(&handle.inode, until).await?;
        let full = self.put(&handle, caller, place, &data, &mut room)?;
        drop(room);
        if append && !handle.is_direct() {
            // The kernel's pages have it where it took the end to be.
            self.pages.lost(handle.inode.ino);
        }
        for piece in full {
            self.chunks.store_soon(piece);
        }
        if handle.options.sync {
            let flushed = self.flush_inode(&handle.inode, until).await;
            handle.take_error().and(flushed)?;
        } else {
            self.flush_if_much(&handle.inode);
        }
        Ok(data.len() as u32)
    }

    /// Appends and positional writes do not wait side by side: their order
    /// would be lost. An error is the handle's that wrote.
    async fn flush_other_kind(&self, handle: &Handle, append: bool, until: tokio::time::Instant) {
        let other = {
            let state = handle.inode.state.lock();
            if append {
                !state.buffer.is_empty()
            } else {
                !state.appends.is_empty()
            }
        };
        if other {
            let _ = self.flush_inode(&handle.inode, until).await;
        }
    }

    fn put(
        &self,
        handle: &Handle,
        caller: Caller,
        place: Option<u64>,
        data: &Bytes,
        room: &mut Room<'_>,
    ) -> Result<Vec<Arc<Piece>>, FsError> {
        let mut state = handle.inode.state.lock();
        // Again, now that a session's end would wait for the lock.
        handle.check()?;
        let before = state.held_bytes();
        let mut full = Vec::new();
        match place {
            None => state.appends.push(data),
            Some(offset) => full = state.buffer.write(offset, data),
        }
        state.wrote(!caller.privileged(), wall_time());
        room.1 = room.1.saturating_sub(state.held_bytes() - before);
        Ok(full)
    }

    /// One descriptor was closed: commits, and drops the owner's fcntl locks.
    ///
    /// # Errors
    /// Why data written through this handle could not be committed, once.
    pub async fn flush(&self, fh: u64, lock_owner: u64) -> Result<(), FsError> {
        let handle = self.files.handle(fh)?;
        let until = self.leader.deadline();
        let flushed = self.flush_inode(&handle.inode, until).await;
        let ino = handle.inode.ino;
        self.drop_locks(ino, lock_owner, until).await;
        self.leader.locks().left(fh, lock_owner);
        handle.check()?;
        handle.take_error().and(flushed)
    }

    /// Commits what was written to the file through any handle of this mount.
    ///
    /// # Errors
    /// As [`Client::flush`].
    pub async fn fsync(&self, fh: u64) -> Result<(), FsError> {
        let handle = self.files.handle(fh)?;
        let flushed = self
            .flush_inode(&handle.inode, self.leader.deadline())
            .await;
        handle.check()?;
        handle.take_error().and(flushed)
    }
}

/// Room for written data that was reserved and is not used (yet).
struct Room<'a>(&'a Client, u64);

impl Drop for Room<'_> {
    fn drop(&mut self) {
        self.0.give_back(self.1);
    }
}
