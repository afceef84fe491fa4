//! Makes bytes durable as a chunk: on every member of a set, or in another set.
//!
//! Nothing partial is repaired in place: an attempt that failed gave its id up,
//! the next one takes a new id in another set.

use crate::Client;
use crate::leader::ids::IdTicket;
use crate::leader::link::{data_error, left};
use crate::leader::placement::NoSet;
use crate::leader::session::VOLUME;
use bytes::Bytes;
use lagan_types::chunk::{block_crcs, combine_crcs};
use lagan_types::extent::ChunkRef;
use lagan_types::message::{ChunkReply, ChunkRequest};
use lagan_types::{ChunkId, Epoch, FsError, NodeId, SessionId, SetId};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::time::Instant;

/// Silence of a first attempt: a server that takes longer is passed over.
const ATTEMPT: Duration = Duration::from_secs(1);
/// And of later ones, at most: a slow cluster is better than none.
const ATTEMPT_MAX: Duration = Duration::from_secs(10);
/// Slowest transfer that is not taken for silence, bytes per millisecond.
const BYTES_PER_MS: u64 = 2 * 1024 * 1024 / 1000;
/// Waits between attempts, at first and at most; the first retry does not wait.
const PAUSE: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_millis(500);

/// A chunk that is durable on all members of its set and that no commit names yet.
#[derive(Debug)]
pub(crate) struct Stored {
    /// What a commit says of it; `skip` is 0.
    pub refer: ChunkRef,
    ticket: IdTicket,
}

impl Stored {
    /// The session that must commit it.
    pub fn session(&self) -> SessionId {
        self.ticket.session
    }
}

/// A chunk on its way.
struct Writing {
    data: Bytes,
    block_crcs: Vec<u32>,
    crc: u32,
    /// Sets that said that they are full.
    full: Vec<SetId>,
    attempt: u32,
    until: Instant,
}

/// Where an attempt goes.
struct Target {
    set: SetId,
    epoch: Epoch,
    node: NodeId,
    addr: SocketAddr,
}

impl Client {
    /// Writes `data` as one chunk.
    ///
    /// # Errors
    /// [`FsError::NoSpace`] if no set has room, [`FsError::Io`] at the
    /// deadline, and as [`Client::mutate`] for the id.
    pub(crate) async fn store_chunk(
        &self,
        data: &Bytes,
        until: Instant,
    ) -> Result<Stored, FsError> {
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
        let id = ChunkId::new(VOLUME, target.set, ticket.block, ticket.index);
        let request = ChunkRequest::Write {
            id,
            set_epoch: target.epoch,
            block_crcs: writing.block_crcs.clone(),
            forward: true,
        };
        let deadline = writing.attempt_deadline();
        let reply = self
            .leader
            .link()
            .chunk(target.addr, &request, writing.data.clone(), deadline)
            .await;
        match reply {
            Ok((ChunkReply::Written, _)) => {
                self.leader.cluster().trust(target.node);
                return Ok(Some(Stored {
                    refer: writing.chunk_ref(id, target.epoch),
                    ticket,
                }));
            }
            Ok((ChunkReply::MembersFailed(nodes), _)) => {
                for node in nodes {
                    self.leader.cluster().suspect(node);
                }
            }
            Ok((ChunkReply::StaleEpoch, _)) => {
                self.leader
                    .refresh_map(writing.until)
                    .await
                    .map_err(data_error)?;
            }
            Ok((ChunkReply::Full, _)) => writing.full.push(target.set),
            Ok((reply, _)) => {
                tracing::debug!(node = %target.node, ?reply, "chunk write failed");
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
