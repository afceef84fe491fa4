//! Commits: the step that makes durable chunks part of a file, and what this mount learns by it.

use crate::chunks::piece::Piece;
use crate::file::Files;
use crate::file::inode::Inode;
use crate::leader::link::{data_error, fs_error};
use crate::leader::promises::Promise;
use bytes::BytesMut;
use lagan_types::answer::Committed;
use lagan_types::extent::{ChunkRef, Edit};
use lagan_types::op::{Commit, CreateCommit, Inline};
use lagan_types::{Attr, Data, FsError, Ino, Refusal, SessionId, Time};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Wait before a commit is tried again after its sets changed.
const PAUSE: Duration = Duration::from_millis(20);

/// A part of a piece, and where it goes.
#[derive(Debug, Clone)]
pub(crate) struct Slice {
    /// First byte in the file, or after the true end.
    pub offset: u64,
    /// Bytes of the piece before the first one of the slice.
    pub skip: u32,
    /// Its length.
    pub len: u64,
    /// The bytes and their chunk.
    pub piece: Arc<Piece>,
}

impl Slice {
    /// Takes all of a piece.
    pub fn new(offset: u64, piece: Arc<Piece>) -> Self {
        Slice {
            offset,
            skip: 0,
            len: piece.len(),
            piece,
        }
    }

    fn edit(&self, offset: u64) -> Option<Edit> {
        let stored = self.piece.stored().ok()?;
        Some(Edit {
            offset,
            len: self.len,
            content: Some(ChunkRef {
                skip: self.skip,
                ..stored.refer.clone()
            }),
        })
    }
}

/// One commit.
#[derive(Debug)]
pub(crate) struct Change {
    ino: Ino,
    /// The slices, in order of offset; none overlap.
    pub slices: Vec<Slice>,
    /// Ranges (offset, length) that become holes; with them, no slices.
    pub holes: Vec<(u64, u64)>,
    /// Offsets count from the true end.
    pub append: bool,
    /// The size is at least this.
    pub size_min: u64,
    /// The commit is refused at any other data version than this.
    pub expect_version: Option<u64>,
    /// Clear setuid and setgid.
    pub kill_suid: bool,
    /// The time of the content's last change, if it was set after these bytes were written.
    pub mtime: Option<Time>,
    /// The bytes of the slices come with the commit.
    pub inline: bool,
    /// Other chunks have the bytes since it was carried out.
    rehomed: bool,
}

impl Change {
    /// Prepares a commit that puts these slices into the file.
    pub fn new(ino: Ino, slices: Vec<Slice>) -> Self {
        Change {
            ino,
            slices,
            holes: Vec::new(),
            append: false,
            size_min: 0,
            expect_version: None,
            kill_suid: false,
            mtime: None,
            inline: false,
            rehomed: false,
        }
    }

    /// The file.
    pub fn ino(&self) -> Ino {
        self.ino
    }

    fn commit(&self) -> Commit {
        let data = || {
            if let [only] = self.slices.as_slice() {
                return only.piece.bytes().clone();
            }
            let mut all = BytesMut::new();
            let pieces = self.slices.iter().map(|slice| slice.piece.bytes());
            pieces.for_each(|bytes| all.extend_from_slice(bytes));
            all.freeze()
        };
        Commit {
            ino: self.ino,
            edits: self.edits_at(0),
            append: self.append,
            size_min: self.size_min,
            expect_version: self.expect_version,
            kill_suid: self.kill_suid,
            mtime: self.mtime,
            inline: match self.inline {
                true => Inline::Data(Data(data())),
                false => Inline::Stored,
            },
        }
    }

    /// The edits, moved by `base`.
    pub fn edits_at(&self, base: u64) -> Vec<Edit> {
        let holes = self.holes.iter().map(|&(offset, len)| Edit {
            offset,
            len,
            content: None,
        });
        self.slices
            .iter()
            .filter_map(|s| s.edit(base + s.offset))
            .chain(holes)
            .collect()
    }
}

impl Files {
    /// Commits; where sets changed since the chunks were written, these are
    /// written again. All slices must be stored. A promised file is made in the
    /// same step.
    ///
    /// The session may end meanwhile: then this call has it replaced, and the
    /// inode's data is dropped under it (`leader/renew.rs` says what holds then).
    ///
    /// # Errors
    /// Whatever the metadata answers; [`FsError::Io`] at the deadline, with the
    /// outcome unknown.
    pub(super) async fn commit(
        &self,
        change: &mut Change,
        until: Instant,
    ) -> Result<Committed, FsError> {
        let done = self.try_commit(change, until).await;
        done.map_err(|refusal| data_error(fs_error(refusal)))
    }

    /// Does the same as [`Files::commit`] for a change that expects a version.
    ///
    /// # Errors
    /// [`Refusal::VersionChanged`] if the file has another one, and those of
    /// [`Files::commit`].
    pub(super) async fn try_commit(
        &self,
        change: &mut Change,
        until: Instant,
    ) -> Result<Committed, Refusal> {
        loop {
            let mut sessions = Vec::with_capacity(change.slices.len());
            for slice in &change.slices {
                sessions.push(slice.piece.stored()?.session());
            }
            let session = one_session(sessions.into_iter())?;
            let promise = self.leader.promise_to_keep(change.ino);
            let session = session.or(promise.as_ref().map(|p| p.session));
            let commit = change.commit();
            let promised = promise.is_some();
            let done = match promise {
                Some(Promise { file, .. }) => {
                    let op = CreateCommit { file, commit };
                    self.leader.mutate_held(op, session, until).await
                }
                None => self.leader.mutate_held(commit, session, until).await,
            };
            match done {
                Ok((done, held)) => {
                    if promised {
                        self.leader.promise_kept(&done.attr);
                    }
                    if change.inline && !held {
                        self.chunks.pause_inline();
                        self.rehome(change, done.appended_at, until).await?;
                        change.rehomed = true;
                    }
                    return Ok(done);
                }
                Err(Refusal::NotInline) if change.inline => {
                    self.chunks.pause_inline();
                    self.store_again(change, until).await?;
                }
                Err(Refusal::StaleEpoch) if Instant::now() < until => {
                    self.store_again(change, until).await?;
                }
                Err(Refusal::StaleEpoch) => return Err(FsError::Io.into()),
                Err(refusal) if promised => {
                    return Err(self.leader.promise_refused(change.ino, refusal));
                }
                Err(refusal) => return Err(refusal),
            }
        }
    }

    /// Writes the chunks again whose sets have changed. If by our map none has, the
    /// leader knows better: all are written again. So are those that came with the commit.
    async fn store_again(&self, change: &mut Change, until: Instant) -> Result<(), FsError> {
        if std::mem::take(&mut change.inline) {
            for slice in &mut change.slices {
                slice.piece = Piece::new(slice.piece.offset(), slice.piece.bytes().clone());
            }
            self.leader.refresh_map(until).await.map_err(data_error)?;
            let pieces: Vec<_> = change.slices.iter().map(|s| s.piece.clone()).collect();
            return self.chunks.store_all(&pieces, until).await;
        }
        self.leader.refresh_map(until).await.map_err(data_error)?;
        let placement = self.leader.cluster().current();
        let is_stale = |s: &Slice| {
            let Ok(stored) = s.piece.stored() else {
                return false;
            };
            let set = placement.map.set(stored.refer.id.set());
            set.is_none_or(|set| set.sealed || set.epoch != stored.refer.set_epoch)
        };
        let any = change.slices.iter().any(is_stale);
        if !any {
            tokio::time::sleep(PAUSE).await;
        }
        for slice in change.slices.iter_mut().filter(|s| !any || is_stale(s)) {
            slice.piece = Piece::new(slice.piece.offset(), slice.piece.bytes().clone());
        }
        let pieces: Vec<_> = change.slices.iter().map(|s| s.piece.clone()).collect();
        self.chunks.store_all(&pieces, until).await
    }

    /// Follows a commit with the map, the attributes and the kernel's pages of the inode.
    pub(super) fn note_commit(&self, inode: &Inode, change: &Change, done: &Committed) {
        let edits = change.edits_at(done.appended_at);
        let mut state = inode.state.lock();
        let followed = match &mut state.map {
            Some(map) if map.version() == done.before && !change.rehomed => {
                map.follow(&edits, done.attr.version, done.attr.size)
            }
            _ => false,
        };
        if !followed {
            state.map = None;
        }
        state.learn(&done.attr);
        drop(state);
        if !change.append && change.expect_version.is_none() {
            self.pages
                .committed(inode.ino, done.before, done.attr.version);
        }
    }

    /// Follows a copy into the file, which the servers made: the kernel drops the
    /// pages of the range by itself.
    pub fn note_copied(&self, inode: &Inode, before: u64, attr: &Attr) {
        let mut state = inode.state.lock();
        state.map = None;
        state.learn(attr);
        drop(state);
        self.pages.committed(inode.ino, before, attr.version);
    }
}

/// The session that a commit belongs to: that of all its ids, or none without any.
///
/// # Errors
/// [`Refusal::SessionEnded`] if they are of several sessions.
fn one_session(ids: impl Iterator<Item = SessionId>) -> Result<Option<SessionId>, Refusal> {
    let mut found = None;
    for id in ids {
        if found.is_some_and(|f| f != id) {
            return Err(Refusal::SessionEnded);
        }
        found = Some(id);
    }
    Ok(found)
}
