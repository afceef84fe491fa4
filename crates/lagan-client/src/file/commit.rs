//! Commits: the step that makes durable chunks part of a file.

use crate::Client;
use crate::chunks::store::Stored;
use crate::file::buffer::Placed;
use crate::file::inode::{Piece, one_session};
use crate::leader::link::data_error;
use crate::leader::promises::Promise;
use lagan_types::extent::{ChunkRef, Edit};
use lagan_types::op::Commit;
use lagan_types::{Answer, Attr, FsError, Ino, Op};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Wait before a commit is tried again after its sets changed.
const PAUSE: Duration = Duration::from_millis(20);

/// A part of a piece, and where it goes.
#[derive(Debug, Clone)]
pub(crate) struct Slice {
    /// First byte in the file, or after the true end.
    pub offset: u64,
    /// Bytes of the piece before the first.
    pub skip: u32,
    /// Bytes.
    pub len: u64,
    /// The bytes and their chunk.
    pub piece: Arc<Piece>,
}

impl Slice {
    /// All of a piece.
    pub fn new(offset: u64, piece: Arc<Piece>) -> Self {
        Slice {
            offset,
            skip: 0,
            len: piece.data().len() as u64,
            piece,
        }
    }

    fn stored(&self) -> Result<&Arc<Stored>, FsError> {
        match self.piece.stored.get() {
            Some(Ok(stored)) => Ok(stored),
            Some(Err(error)) => Err(*error),
            None => Err(FsError::Io),
        }
    }

    fn edit(&self, offset: u64) -> Option<Edit> {
        let stored = self.stored().ok()?;
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
    /// In order of offset, no overlap.
    pub slices: Vec<Slice>,
    /// Ranges (offset, length) that become holes; with them, no slices.
    pub holes: Vec<(u64, u64)>,
    /// Offsets count from the true end.
    pub append: bool,
    /// The size is at least this.
    pub size_min: u64,
    /// Only at this data version.
    pub expect_version: Option<u64>,
    /// Clear setuid and setgid.
    pub kill_suid: bool,
}

/// What a commit did.
#[derive(Debug)]
pub(crate) struct Committed {
    /// The data version before it.
    pub before: u64,
    /// Where an append was placed, otherwise 0.
    pub appended_at: u64,
    /// The inode after it.
    pub attr: Attr,
}

impl Change {
    /// Puts these slices into the file.
    pub fn new(ino: Ino, slices: Vec<Slice>) -> Self {
        Change {
            ino,
            slices,
            holes: Vec::new(),
            append: false,
            size_min: 0,
            expect_version: None,
            kill_suid: false,
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

impl Client {
    /// Sends pieces that were not sent yet, several at a time.
    ///
    /// # Errors
    /// The first that failed; the others are waited for all the same.
    pub(crate) async fn store_all(&self, slices: &[Slice], until: Instant) -> Result<(), FsError> {
        if let [only] = slices {
            return self.store_piece(&only.piece, until).await;
        }
        let Some(me) = self.me.upgrade() else {
            return Err(FsError::Io);
        };
        let mut tasks = JoinSet::new();
        for slice in slices.iter().filter(|s| s.piece.stored.get().is_none()) {
            let (client, piece) = (me.clone(), slice.piece.clone());
            tasks.spawn(async move {
                // Its result is in the piece.
                let _ = client.store_piece(&piece, until).await;
            });
        }
        while tasks.join_next().await.is_some() {}
        slices.iter().try_for_each(|s| s.stored().map(|_| ()))
    }

    /// Sends one piece, unless that was done or is under way.
    pub(crate) async fn store_piece(&self, piece: &Piece, until: Instant) -> Result<(), FsError> {
        let stored = piece.stored.get_or_init(|| async {
            let permit = tokio::time::timeout_at(until, self.sends.acquire()).await;
            let Ok(Ok(_permit)) = permit else {
                return Err(FsError::Io);
            };
            self.store_chunk(piece.bytes(), until).await.map(Arc::new)
        });
        stored.await.as_ref().map(|_| ()).map_err(|e| *e)
    }

    /// Commits; where sets changed since the chunks were written, these are
    /// written again. All slices must be stored.
    ///
    /// # Errors
    /// As the metadata answers; [`FsError::Io`] at the deadline, outcome unknown.
    pub(crate) async fn commit(
        &self,
        change: &mut Change,
        until: Instant,
    ) -> Result<Committed, FsError> {
        loop {
            let mut sessions = Vec::with_capacity(change.slices.len());
            for slice in &change.slices {
                sessions.push(slice.stored()?.session());
            }
            let session = one_session(sessions.into_iter())?;
            let promise = self.leader.promise_of(change.ino);
            let session = session.or(promise.as_ref().map(|p| p.session));
            let commit = Commit {
                ino: change.ino,
                edits: change.edits_at(0),
                append: change.append,
                size_min: change.size_min,
                expect_version: change.expect_version,
                kill_suid: change.kill_suid,
            };
            let promised = promise.is_some();
            let op = match promise {
                Some(Promise { file, .. }) => Op::CreateCommit { file, commit },
                None => Op::Commit(commit),
            };
            match self.leader.mutate_now(op, session, until).await {
                Ok(Answer::Committed {
                    before,
                    appended_at,
                    attr,
                }) => {
                    if promised {
                        self.leader.promise_kept(&attr);
                    }
                    return Ok(Committed {
                        before,
                        appended_at,
                        attr,
                    });
                }
                Ok(_) => return Err(FsError::Malformed),
                Err(FsError::StaleEpoch) if Instant::now() < until => {
                    self.store_again(change, until).await?;
                }
                Err(FsError::StaleEpoch) => return Err(FsError::Io),
                Err(error) if promised => {
                    return Err(data_error(self.leader.promise_refused(change.ino, error)));
                }
                Err(error) => return Err(data_error(error)),
            }
        }
    }

    /// Writes the chunks again whose sets have changed; if by our map none
    /// has, the leader knows better: all of them.
    async fn store_again(&self, change: &mut Change, until: Instant) -> Result<(), FsError> {
        self.leader.refresh_map(until).await.map_err(data_error)?;
        let placement = self.leader.cluster().current();
        let is_stale = |s: &Slice| {
            let Ok(stored) = s.stored() else {
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
        self.store_all(&change.slices, until).await
    }
}
