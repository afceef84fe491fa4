//! Writes: bytes go into an inode's buffer, or among its appends.

use crate::chunks::piece::Piece;
use crate::file::Files;
use crate::file::handle::Handle;
use crate::file::room::Taken;
use crate::options::Caller;
use crate::wall::wall_time;
use bytes::Bytes;
use lagan_types::limits::{CHUNK_LEN_MAX, FILE_LEN_MAX};
use lagan_types::op::SetAttr;
use lagan_types::{Attr, FsError, Ino};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How long a write waits for a newer map when the present one says "full".
const FULL_ASK: Duration = Duration::from_secs(1);

impl Files {
    /// Writes at `place`, or without one at the end. Fewer bytes are written only
    /// if there are more than [`CHUNK_LEN_MAX`].
    ///
    /// # Errors
    /// [`FsError::FileTooLarge`]; [`FsError::NoSpace`] if it is known that no set
    /// takes chunks; [`FsError::Io`] for a handle that must be opened
    /// again; [`FsError::Io`] if there was no room in time; with O_SYNC those of a flush.
    pub async fn write(
        &self,
        handle: &Handle,
        caller: Caller,
        place: Option<u64>,
        data: Bytes,
    ) -> Result<u32, FsError> {
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
        self.take_room(data.len() as u32, until).await?;
        // What is not used is given back, also if this call is dropped here.
        let mut taken = Taken::new(&self.room, data.len() as u64);
        self.flush_other_kind(handle, append, until).await;
        self.flush_scattered(&handle.inode, until).await?;
        let full = self.put(handle, caller, place, &data, &mut taken)?;
        drop(taken);
        if append && !handle.is_direct() {
            // The kernel's pages have the bytes where it took the end to be.
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

    /// Sets attributes of an open file that only this mount knows, also after bytes were written to
    /// it: they are made part of it together. Returns all attributes; `None`: ask the leader, after
    /// a flush.
    pub async fn set_alone(&self, ino: Ino, set: &SetAttr) -> Option<Attr> {
        let inode = self.table.inode(ino)?;
        // A commit under way would give the content the time at which it is carried out.
        let _turn = inode.turn.try_lock().ok()?;
        // Where appended bytes go, and so the size, is known after the flush.
        if inode.has_appends() {
            return None;
        }
        let attr = self.leader.set_alone(ino, set).await?;
        let mut state = inode.state.lock();
        if set.mtime.is_some() {
            state.set_mtime = Some(attr.mtime);
        }
        state.learn(&attr);
        Some(attr)
    }

    /// Flushes appends before a positional write, and the other way round: side by side
    /// their order would be lost. An error is told through the handle that wrote.
    async fn flush_other_kind(&self, handle: &Handle, append: bool, until: Instant) {
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

    /// Puts the bytes where a flush finds them; returns pieces that are full. The
    /// handle is looked at under the same lock, which the end of a session needs to
    /// drop the bytes: they are dropped with it, or refused here.
    pub(super) fn put(
        &self,
        handle: &Handle,
        caller: Caller,
        place: Option<u64>,
        data: &Bytes,
        taken: &mut Taken<'_>,
    ) -> Result<Vec<Arc<Piece>>, FsError> {
        let mut state = handle.inode.state.lock();
        handle.check()?;
        let before = state.held_bytes();
        let mut full = Vec::new();
        match place {
            None => state.appends.push(data),
            Some(offset) => full = state.buffer.write(offset, data),
        }
        state.wrote(!caller.privileged(), wall_time());
        taken.used(state.held_bytes() - before);
        Ok(full)
    }

    /// Looks whether written bytes could become chunks, as far as the map tells.
    /// Before it says no, it asks whether there is a newer map.
    ///
    /// # Errors
    /// [`FsError::NoSpace`] if no set takes chunks because servers are full.
    async fn check_space(&self) -> Result<(), FsError> {
        if !self.leader.cluster().current().full() {
            return Ok(());
        }
        // Without a leader nothing is known: the flush will tell.
        self.leader
            .refresh_map(Instant::now() + FULL_ASK)
            .await
            .map_or(Ok(()), |()| match self.leader.cluster().current().full() {
                true => Err(FsError::NoSpace),
                false => Ok(()),
            })
    }
}
