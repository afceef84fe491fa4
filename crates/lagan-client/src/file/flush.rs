//! Commits what files hold: on demand, when there is much of it, and after a while.
//!
//! One flush of an inode runs at a time. Bytes are held until the commit that
//! names their chunk has succeeded. If it fails for good they are dropped, and
//! each handle gets the error once, from its next flush or fsync, as with any
//! file system (fsync(2)).

use crate::chunks::piece::Piece;
use crate::file::Files;
use crate::file::buffer::batches;
use crate::file::commit::{Change, Slice};
use crate::file::inode::Inode;
use crate::file::room::Room;
use crate::leader::link::data_error;
use lagan_types::limits::COMMIT_EDITS_MAX;
use lagan_types::{FsError, Ino, Time};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::Instant;

/// Time between looks for data that waits for long.
pub(crate) const EVERY: Duration = Duration::from_secs(1);
/// Data that waits for this long is committed at the next look: it waits [`EVERY`] longer
/// at most. Data written during a commit begins its wait when that commit ends.
const COMMIT_AFTER: Duration = Duration::from_secs(4);
/// A file has at most this many bytes uncommitted before a commit begins.
const COMMIT_BYTES: u64 = 64 * 1024 * 1024;
/// Runs and pieces that a file has at most before its writer waits: each costs
/// memory beside its bytes.
const SCATTERED_MAX: usize = 4 * COMMIT_EDITS_MAX;
/// Appends are committed when they fill a chunk.
const APPEND_BYTES: u64 = 4 * 1024 * 1024;
/// How long a writer waits for room before it looks again for a file to flush.
const ROOM_WAIT: Duration = Duration::from_millis(200);

impl Files {
    /// Commits everything that was written to the inode before the call, and has the
    /// file made if it is only promised.
    ///
    /// # Errors
    /// Why it could not be committed. The handles get the error as well.
    pub async fn flush_inode(&self, inode: &Arc<Inode>, until: Instant) -> Result<(), FsError> {
        self.flush_parts(inode, true, until).await
    }

    /// Does [`Files::flush_inode`]; without `live`, only for runs that are full.
    async fn flush_parts(
        &self,
        inode: &Arc<Inode>,
        live: bool,
        until: Instant,
    ) -> Result<(), FsError> {
        if !inode.state.lock().is_dirty() {
            return match live {
                true => self
                    .leader
                    .make_promised(inode.ino, until)
                    .await
                    .map_err(data_error),
                false => Ok(()),
            };
        }
        let turn = tokio::time::timeout_at(until, inode.turn.lock());
        let _turn = turn.await.map_err(|_| FsError::Io)?;
        let mut result = self.flush_pieces(inode, live, until).await;
        if live {
            result = result.and(self.flush_appends(inode, until).await);
            // Another flush may have failed to make it.
            let made = self.leader.make_promised(inode.ino, until).await;
            result = result.and(made.map_err(data_error));
        }
        let mut state = inode.state.lock();
        if live || !state.is_dirty() {
            state.dirty_since = state.is_dirty().then(Instant::now);
        }
        drop(state);
        if let Err(error) = result {
            tracing::warn!(ino = %inode.ino, %error, "written data is lost");
        }
        result
    }

    async fn flush_pieces(
        &self,
        inode: &Arc<Inode>,
        live: bool,
        until: Instant,
    ) -> Result<(), FsError> {
        let (pieces, kill_suid, mtime) = {
            let mut state = inode.state.lock();
            if live {
                state.buffer.freeze_all();
            }
            let pieces = state.buffer.pieces().to_vec();
            let kill = !pieces.is_empty() && std::mem::take(&mut state.kill_suid);
            (pieces, kill, state.set_mtime)
        };
        let how = (kill_suid, mtime);
        let result = self.commit_pieces(inode, &pieces, how, until).await;
        if let Err(error) = result {
            self.retire(inode, &pieces, Some(error));
        }
        result
    }

    async fn commit_pieces(
        &self,
        inode: &Arc<Inode>,
        pieces: &[Arc<Piece>],
        (kill_suid, mtime): (bool, Option<Time>),
        until: Instant,
    ) -> Result<(), FsError> {
        for batch in batches(pieces) {
            let mut change = self.change_of(inode.ino, &batch, until).await?;
            change.kill_suid = kill_suid;
            change.mtime = mtime;
            let _under_way = inode.begin_commit();
            let done = self.commit(&mut change, until).await?;
            // First the map, then the buffer: a reader in between sees both.
            self.note_commit(inode, &change, &done);
            self.retire(inode, &batch, None);
            self.tidy_after(inode, &change, 0);
        }
        Ok(())
    }

    /// Prepares a commit that puts pieces where they say: their bytes come with it, or are
    /// durable as chunks.
    ///
    /// # Errors
    /// Those of [`crate::chunks::Chunks::store_all`] and [`crate::chunks::Chunks::place`].
    pub(super) async fn change_of(
        &self,
        ino: Ino,
        pieces: &[Arc<Piece>],
        until: Instant,
    ) -> Result<Change, FsError> {
        match self.inline_change(ino, pieces, until).await? {
            Some(change) => Ok(change),
            None => self.stored_change(ino, pieces, until).await,
        }
    }

    /// Prepares such a commit if the bytes may come with it.
    ///
    /// # Errors
    /// Those of [`crate::chunks::Chunks::place`].
    pub(super) async fn inline_change(
        &self,
        ino: Ino,
        pieces: &[Arc<Piece>],
        until: Instant,
    ) -> Result<Option<Change>, FsError> {
        let placed = self.chunks.place(pieces, until).await?;
        Ok(placed.map(|placed| {
            let mut change = Change::new(ino, slices_of(&placed));
            change.inline = true;
            change
        }))
    }

    /// Prepares such a commit after the bytes were stored.
    ///
    /// # Errors
    /// Those of [`crate::chunks::Chunks::store_all`].
    pub(super) async fn stored_change(
        &self,
        ino: Ino,
        pieces: &[Arc<Piece>],
        until: Instant,
    ) -> Result<Change, FsError> {
        self.chunks.store_all(pieces, until).await?;
        Ok(Change::new(ino, slices_of(pieces)))
    }

    /// Forgets pieces that were committed or are lost. An error is noted before the
    /// file looks clean to another flush. Pieces that the session's end dropped
    /// meanwhile are not there any more, and free no room a second time.
    fn retire(&self, inode: &Inode, gone: &[Arc<Piece>], lost: Option<FsError>) {
        let mut state = inode.state.lock();
        let freed = state
            .buffer
            .retire(|p| gone.iter().any(|g| Arc::ptr_eq(g, p)));
        if let Some(error) = lost {
            self.pages.lost(inode.ino);
            state.failed(error);
        }
        drop(state);
        self.room.give_back(freed);
    }

    async fn flush_appends(&self, inode: &Arc<Inode>, until: Instant) -> Result<(), FsError> {
        let (groups, kill_suid) = {
            let mut state = inode.state.lock();
            let groups = state.appends.take();
            let kill = !groups.is_empty() && std::mem::take(&mut state.kill_suid);
            (groups, kill)
        };
        if groups.is_empty() {
            return Ok(());
        }
        let mut placing = Placing {
            room: &self.room,
            inode,
            bytes: groups.iter().map(|g| g.len() as u64).sum(),
            lost: Some(FsError::Io),
        };
        let result = self.place(inode, groups, kill_suid, until).await;
        placing.lost = result.err();
        result
    }

    /// Starts a flush in the background if there is much to commit.
    pub(super) fn flush_if_much(&self, inode: &Arc<Inode>) {
        let (much, live) = {
            let state = inode.state.lock();
            let runs = state.buffer.runs() >= COMMIT_EDITS_MAX;
            let appends = state.appends.held_bytes() >= APPEND_BYTES;
            let limit = COMMIT_BYTES.min(self.room.all_bytes() / 2);
            let live = runs || appends;
            (live || state.held_bytes() >= limit, live)
        };
        if much {
            self.flush_soon(inode, live);
        }
    }

    /// Waits until the file's writes are in few enough places for another.
    ///
    /// # Errors
    /// [`FsError::Io`] at the deadline.
    pub(super) async fn flush_scattered(
        &self,
        inode: &Arc<Inode>,
        until: Instant,
    ) -> Result<(), FsError> {
        while inode.state.lock().buffer.places() >= SCATTERED_MAX {
            if Instant::now() >= until {
                return Err(FsError::Io);
            }
            // Its error is recorded for the handles.
            let _ = self.flush_inode(inode, until).await;
        }
        Ok(())
    }

    /// Starts a flush in the background unless one is under way.
    fn flush_soon(&self, inode: &Arc<Inode>, live: bool) {
        if inode.flushing.swap(true, Ordering::AcqRel) {
            return;
        }
        let inode = inode.clone();
        self.tasks.spawn(&self.me, move |files| async move {
            let until = files.leader.deadline();
            // Its error is recorded for the handles.
            let _ = files.flush_parts(&inode, live, until).await;
            inode.flushing.store(false, Ordering::Release);
        });
    }

    /// Starts flushes of files that hold data for long; called every [`EVERY`].
    pub fn flush_old(&self) {
        for inode in self.table.inodes() {
            let since = inode.state.lock().dirty_since;
            if since.is_some_and(|s| s.elapsed() >= COMMIT_AFTER) {
                self.flush_soon(&inode, true);
            }
        }
    }

    /// Takes room for `bytes` of written data; waits while there is none, and
    /// has the file flushed that holds most.
    ///
    /// # Errors
    /// [`FsError::Io`] at the deadline.
    pub(super) async fn take_room(&self, bytes: u32, until: Instant) -> Result<(), FsError> {
        loop {
            if self.room.try_take(bytes) {
                return Ok(());
            }
            self.flush_largest();
            let wait = until.min(Instant::now() + ROOM_WAIT);
            if self.room.take(bytes, wait).await {
                return Ok(());
            }
            if Instant::now() >= until {
                return Err(FsError::Io);
            }
        }
    }

    fn flush_largest(&self) {
        let inodes = self.table.inodes().into_iter();
        let largest = inodes
            .map(|inode| {
                let held = inode.state.lock().held_bytes();
                (held, inode)
            })
            .max_by_key(|(held, _)| *held);
        if let Some((held, inode)) = largest
            && held > 0
        {
            self.flush_soon(&inode, true);
        }
    }

    /// Flushes every file.
    ///
    /// # Errors
    /// The first error; the others are flushed all the same.
    pub async fn flush_all(&self, until: Instant) -> Result<(), FsError> {
        let mut result = Ok(());
        for inode in self.table.inodes() {
            result = result.and(self.flush_inode(&inode, until).await);
        }
        result
    }
}

fn slices_of(pieces: &[Arc<Piece>]) -> Vec<Slice> {
    let slices = pieces.iter().map(|p| Slice::new(p.offset(), p.clone()));
    slices.collect()
}

/// Appends that a commit is placing. If the call is dropped half-way, whether
/// they are in the file is unknown: an error for the handles.
struct Placing<'a> {
    room: &'a Room,
    inode: &'a Inode,
    bytes: u64,
    /// The error that the handles get when this is dropped.
    lost: Option<FsError>,
}

impl Drop for Placing<'_> {
    fn drop(&mut self) {
        let mut state = self.inode.state.lock();
        let freed = state.appends.placed(self.bytes);
        if let Some(error) = self.lost {
            state.failed(error);
        }
        drop(state);
        self.room.give_back(freed);
    }
}
