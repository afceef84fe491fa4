//! Makes bytes durable as a chunk: on every member of a set, or in another set.
//!
//! Nothing partial is repaired in place: an attempt that failed gave its id up, and
//! the next one takes a new id in another set.

use crate::chunks::Chunks;
use crate::chunks::piece::{Piece, Stored};
use crate::leader::link::{data_error, left};
use crate::leader::placement::NoSet;
use bytes::Bytes;
use lagan_types::chunk::{block_crcs, combine_crcs};
use lagan_types::extent::ChunkRef;
use lagan_types::message::{ChunkRefusal, WriteChunk};
use lagan_types::{ChunkId, Epoch, FsError, NodeId, SetId, VolumeId};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// How long a first attempt waits: a server that takes longer is passed over.
const ATTEMPT: Duration = Duration::from_secs(1);
/// How long later ones wait, at most: a slow cluster is better than none.
const ATTEMPT_MAX: Duration = Duration::from_secs(10);
/// Slowest transfer that is not taken for silence, bytes per millisecond.
const BYTES_PER_MS: u64 = 2 * 1024 * 1024 / 1000;
/// Waits between attempts, at first and at most; the first retry does not wait.
const PAUSE: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_millis(500);

/// A chunk on its way.
struct Writing {
    data: Bytes,
    block_crcs: Vec<u32>,
    crc: u32,
    /// Sets that answered that they are full.
    full: Vec<SetId>,
    attempt: u32,
    until: Instant,
}

/// The place to which an attempt goes.
struct Target {
    set: SetId,
    epoch: Epoch,
    node: NodeId,
    addr: SocketAddr,
}

impl Chunks {
    /// Sends pieces that were not sent yet, several at a time.
    ///
    /// # Errors
    /// The first that failed; the others are waited for all the same.
    pub async fn store_all(&self, pieces: &[Arc<Piece>], until: Instant) -> Result<(), FsError> {
        if let [only] = pieces {
            return self.store_piece(only, until).await;
        }
        let me = self.me.upgrade().ok_or(FsError::Io)?;
        let mut tasks = JoinSet::new();
        for piece in pieces.iter().filter(|p| p.stored.get().is_none()) {
            let (chunks, piece) = (me.clone(), piece.clone());
            tasks.spawn(async move {
                // Its result is in the piece.
                let _ = chunks.store_piece(&piece, until).await;
            });
        }
        while tasks.join_next().await.is_some() {}
        pieces.iter().try_for_each(|p| p.stored().map(|_| ()))
    }

    /// Sends one piece, unless that was done or is under way.
    ///
    /// # Errors
    /// Those of [`Chunks::store_chunk`]; [`FsError::Io`] if it had to wait too long for others.
    pub async fn store_piece(&self, piece: &Piece, until: Instant) -> Result<(), FsError> {
        let stored = piece.stored.get_or_init(|| async {
            let permit = tokio::time::timeout_at(until, self.sends.acquire()).await;
            let Ok(Ok(_permit)) = permit else {
                return Err(FsError::Io);
            };
            self.store_chunk(piece.bytes(), until).await.map(Arc::new)
        });
        stored.await.as_ref().map(|_| ()).map_err(|e| *e)
    }

    /// Sends one piece in the background. A flush that commits it finds its error.
    pub fn store_soon(&self, piece: Arc<Piece>) {
        self.tasks.spawn(&self.me, move |chunks| async move {
            let until = chunks.leader.deadline();
            let _ = chunks.store_piece(&piece, until).await;
        });
    }

    /// Keeps the bytes of a piece that is stored for readers.
    pub fn keep(&self, piece: &Piece) {
        if let Ok(stored) = piece.stored() {
            self.blocks.put(stored.refer.id, 0, piece.bytes().clone());
        }
    }

    /// Writes `data` as one chunk.
    ///
    /// # Errors
    /// [`FsError::NoSpace`] if no set has room, [`FsError::Io`] at the
    /// deadline, and those of [`crate::leader::Leader::take_id`].
    async fn store_chunk(&self, data: &Bytes, until: Instant) -> Result<Stored, FsError> {
        let block_crcs = block_crcs(data);
        let crc = combine_crcs(&block_crcs, data.len() as u32).ok_or(FsError::Io)?;
        let mut writing = Writing {
            data: data.clone(),
            block_crcs,
            crc,
            full: Vec::new(),
            attempt: 0,
            until,
        };
        loop {
            let target = self.choose_target(&mut writing).await?;
            if let Some(stored) = self.try_store(&mut writing, target).await? {
                return Ok(stored);
            }
            writing.pause().await?;
        }
    }

    async fn choose_target(&self, writing: &mut Writing) -> Result<Target, FsError> {
        let mut asked = false;
        loop {
            let placement = self.leader.cluster().current();
            let suspects = self.leader.cluster().suspects();
            let draw = self.leader.cluster().draw();
            match placement.choose(|n| suspects.contains(&n), &writing.full, draw) {
                Ok(set) => {
                    let target = placement
                        .order(set.id, |n| suspects.contains(&n), draw)
                        .into_iter()
                        .find_map(|node| {
                            let addr = placement.addr(node)?.parse().ok()?;
                            Some(Target {
                                set: set.id,
                                epoch: set.epoch,
                                node,
                                addr,
                            })
                        });
                    return target.ok_or(FsError::Io);
                }
                Err(NoSet::Full) if asked => return Err(FsError::NoSpace),
                Err(NoSet::Full) => {}
                Err(NoSet::None) => writing.pause().await?,
            }
            asked = true;
            self.leader
                .refresh_map(writing.until)
                .await
                .map_err(data_error)?;
        }
    }

    async fn try_store(
        &self,
        writing: &mut Writing,
        target: Target,
    ) -> Result<Option<Stored>, FsError> {
        let ticket = self
            .leader
            .take_id(writing.until)
            .await
            .map_err(data_error)?;
        let id = ChunkId::new(VolumeId::ONLY, target.set, ticket.block, ticket.index);
        let request = WriteChunk {
            id,
            set_epoch: target.epoch,
            block_crcs: writing.block_crcs.clone(),
            forward: true,
        };
        let deadline = writing.attempt_deadline();
        let link = self.leader.link();
        let asked = link.ask_at(target.addr, request, writing.data.clone(), deadline);
        match asked.await {
            Ok((Ok(()), _)) => {
                self.leader.cluster().trust(target.node);
                return Ok(Some(Stored {
                    refer: writing.chunk_ref(id, target.epoch),
                    ticket,
                }));
            }
            Ok((Err(ChunkRefusal::MembersFailed(nodes)), _)) => {
                for node in nodes {
                    self.leader.cluster().suspect(node);
                }
            }
            Ok((Err(ChunkRefusal::StaleEpoch), _)) => {
                self.leader
                    .refresh_map(writing.until)
                    .await
                    .map_err(data_error)?;
            }
            Ok((Err(ChunkRefusal::Full), _)) => writing.full.push(target.set),
            Ok((Err(refusal), _)) => {
                tracing::debug!(node = %target.node, %refusal, "chunk write failed");
                self.leader.cluster().suspect(target.node);
            }
            Err(error) => {
                tracing::debug!(node = %target.node, %error, "chunk write failed");
                self.leader.cluster().suspect(target.node);
            }
        }
        Ok(None)
    }
}

impl Writing {
    fn chunk_ref(&self, id: ChunkId, set_epoch: Epoch) -> ChunkRef {
        ChunkRef {
            id,
            set_epoch,
            skip: 0,
            chunk_len: self.data.len() as u32,
            chunk_crc: self.crc,
        }
    }

    fn attempt_deadline(&self) -> Duration {
        let patience = (ATTEMPT * 2u32.pow(self.attempt.min(4))).min(ATTEMPT_MAX);
        let transfer = Duration::from_millis(self.data.len() as u64 / BYTES_PER_MS);
        (patience + transfer).min(left(self.until))
    }

    /// Waits a little before another attempt, longer each time.
    async fn pause(&mut self) -> Result<(), FsError> {
        if Instant::now() >= self.until {
            return Err(FsError::Io);
        }
        if self.attempt > 0 {
            let pause = (PAUSE * 2u32.pow(self.attempt.min(8))).min(PAUSE_MAX);
            tokio::time::sleep(pause.min(left(self.until))).await;
        }
        self.attempt += 1;
        Ok(())
    }
}
