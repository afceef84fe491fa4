//! The chunk service of one node: it answers mounts and other nodes.
//!
//! The service acknowledges a write with `forward` when the chunk is on disk here and
//! on every other member of its set. If a member fails or is silent, the answer names
//! it, and the writer takes a new id in another set. Nothing is repaired in place:
//! copies that some members have then are garbage that no metadata names.

use crate::heal::{Healer, Suspect};
use crate::metrics::METRICS;
use crate::peers::Peers;
use bytes::Bytes;
use lagan_chunk::{BlockRange, ChunkError, Done, Store};
use lagan_net::Reply;
use lagan_types::cluster::{ClusterMap, ReplicaSet};
use lagan_types::limits::CHUNK_LEN_MAX;
use lagan_types::message::{ChunkHealth, ChunkReply, ChunkRequest};
use lagan_types::{ChunkId, Epoch, NodeId, SetId};
use std::sync::Arc;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

/// Ids in one answer to `List`.
const LIST_MAX: usize = 16_384;
/// Chunks verified in one call: each may be 4 MiB to read.
const VERIFY_MAX: usize = 64;

/// Longest read that is answered at once where that takes no disk: a longer
/// copy would hold up the requests behind it.
const NOW_LEN_MAX: u32 = 128 * 1024;

/// Answers chunk requests of one node, over its store and its peers.
pub struct ChunkService {
    store: Arc<Store>,
    peers: Arc<Peers>,
    healer: Arc<Healer>,
    node: NodeId,
    /// Disk reads run here, so that they never hold up a heartbeat.
    disk: Handle,
}

/// A chunk to be written: here, and on the other members if it is forwarded.
struct Write {
    id: ChunkId,
    set_epoch: Epoch,
    block_crcs: Vec<u32>,
    data: Bytes,
}

impl std::fmt::Debug for ChunkService {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChunkService")
            .field("node", &self.node)
            .finish_non_exhaustive()
    }
}

impl ChunkService {
    /// Makes the service of `node` over its `store`; disk reads run on `disk`.
    pub fn new(
        store: Arc<Store>,
        peers: Arc<Peers>,
        healer: Arc<Healer>,
        node: NodeId,
        disk: Handle,
    ) -> Arc<Self> {
        Arc::new(ChunkService {
            store,
            peers,
            healer,
            node,
            disk,
        })
    }

    /// Answers a request. Never blocks: work that waits goes to the disk runtime.
    /// Refuses `Recall` and questions about objects, which are the mover's.
    pub fn handle(self: &Arc<Self>, request: ChunkRequest, data: Bytes, mut reply: Reply) {
        match request {
            ChunkRequest::Write {
                id,
                set_epoch,
                block_crcs,
                forward,
            } => {
                let write = Write {
                    id,
                    set_epoch,
                    block_crcs,
                    data,
                };
                self.write(write, forward, reply);
            }
            ChunkRequest::Read { id, offset, len } => {
                if len <= NOW_LEN_MAX
                    && let Some(range) = self.store.read_now(id, offset, len)
                {
                    let (head, data) = blocks(range);
                    return reply.send_typed(&head, data);
                }
                reply.reserve(len.min(CHUNK_LEN_MAX) as usize);
                let service = self.clone();
                self.disk.spawn(async move {
                    let (head, data) = service.read(id, offset, len);
                    reply.send_typed(&head, data);
                });
            }
            ChunkRequest::List { set, after, limit } => {
                let service = self.clone();
                self.disk.spawn(async move {
                    reply.send_typed(&service.list(set, after, limit), Bytes::new());
                });
            }
            ChunkRequest::Verify { ids } => {
                let service = self.clone();
                self.disk.spawn(async move {
                    reply.send_typed(&service.verify(&ids), Bytes::new());
                });
            }
            ChunkRequest::ReportBad { id } => {
                self.healer.suspect(Suspect { id, named: None });
                reply.send_typed(&ChunkReply::Done, Bytes::new());
            }
            ChunkRequest::ReportReplica { id, ino, offset } => {
                let named = Some((ino, offset));
                self.healer.suspect(Suspect { id, named });
                reply.send_typed(&ChunkReply::Done, Bytes::new());
            }
            ChunkRequest::Recall { .. }
            | ChunkRequest::CheckObjects { .. }
            | ChunkRequest::ListObjects { .. } => {
                reply.send_typed(&failed("objects are the mover's"), Bytes::new());
            }
        }
    }

    fn write(self: &Arc<Self>, write: Write, forward: bool, reply: Reply) {
        if let Err(refusal) = self.check(&write, forward) {
            reply.send_typed(&refusal, Bytes::new());
        } else if forward {
            let service = self.clone();
            tokio::spawn(async move {
                let answer = service.write_all(write).await;
                reply.send_typed(&answer, Bytes::new());
            });
        } else {
            let done = Box::new(move |result: Result<(), ChunkError>| {
                let answer = result.map_or_else(|e| refusal(&e), |()| ChunkReply::Written);
                reply.send_typed(&answer, Bytes::new());
            });
            self.store_here(write.id, write.data, write.block_crcs, done);
        }
    }

    /// Gives a chunk to the store without waiting: while its queue is full, a
    /// thread waits, not the network, which also carries the consensus.
    fn store_here(&self, id: ChunkId, data: Bytes, crcs: Vec<u32>, done: Done) {
        if self.store.has_room(data.len()) {
            self.store.write(id, data, &crcs, done);
        } else {
            let store = self.store.clone();
            self.disk
                .spawn_blocking(move || store.write(id, data, &crcs, done));
        }
    }

    /// Refuses what can be refused before a byte is written. The store checks the CRCs.
    fn check(&self, write: &Write, forward: bool) -> Result<(), ChunkReply> {
        let len = write.data.len();
        if len == 0 || len > CHUNK_LEN_MAX as usize {
            return Err(failed("a chunk has 1 byte to 4 MiB"));
        }
        let map = self.peers.map();
        match set_state(&map, write.id.set(), write.set_epoch) {
            SetState::Current(set) if forward && !set.nodes.contains(&self.node) => {
                Err(ChunkReply::StaleEpoch)
            }
            SetState::Current(_) => Ok(()),
            SetState::Older => Err(ChunkReply::StaleEpoch),
            SetState::Newer => {
                self.peers.map_cell().want_newer();
                // A member stores what it is sent: a commit of a wrong epoch is refused
                // anyway. A node that forwards must know the members.
                if forward {
                    Err(ChunkReply::StaleEpoch)
                } else {
                    Ok(())
                }
            }
        }
    }

    /// Writes the chunk here and on all other members at the same time.
    async fn write_all(&self, write: Write) -> ChunkReply {
        let map = self.peers.map();
        let Some(set) = map.set(write.id.set()) else {
            return ChunkReply::StaleEpoch;
        };
        let (done, local) = oneshot::channel();
        self.store_here(
            write.id,
            write.data.clone(),
            write.block_crcs.clone(),
            Box::new(move |result| {
                let _ = done.send(result);
            }),
        );
        let others = self.forward(set, &write).await;
        match local.await {
            Ok(Ok(())) => {}
            Ok(Err(e)) => return refusal(&e),
            Err(_) => return failed("the store stopped"),
        }
        if !others.is_empty() {
            METRICS.write_member_failures.add(others.len() as u64);
            return ChunkReply::MembersFailed(others);
        }
        METRICS.writes.inc();
        METRICS.write_bytes.add(write.data.len() as u64);
        ChunkReply::Written
    }

    /// Writes the chunk on the other members; returns those that did not confirm it.
    async fn forward(&self, set: &ReplicaSet, write: &Write) -> Vec<NodeId> {
        let mut others = set.nodes.iter().copied().filter(|&n| n != self.node);
        let request = ChunkRequest::Write {
            id: write.id,
            set_epoch: write.set_epoch,
            block_crcs: write.block_crcs.clone(),
            forward: false,
        };
        let (first, rest) = (others.next(), others.collect::<Vec<_>>());
        match (first, rest.as_slice()) {
            (None, _) => Vec::new(),
            (Some(a), []) => {
                let ok = stored(&self.peers, a, &request, &write.data).await;
                if ok { Vec::new() } else { vec![a] }
            }
            (Some(a), [b]) => {
                let (on_a, on_b) = tokio::join!(
                    stored(&self.peers, a, &request, &write.data),
                    stored(&self.peers, *b, &request, &write.data)
                );
                [(a, on_a), (*b, on_b)]
                    .into_iter()
                    .filter_map(|(n, ok)| (!ok).then_some(n))
                    .collect()
            }
            (Some(a), rest) => self.forward_to_many(a, rest, request, &write.data).await,
        }
    }

    async fn forward_to_many(
        &self,
        first: NodeId,
        rest: &[NodeId],
        request: ChunkRequest,
        data: &Bytes,
    ) -> Vec<NodeId> {
        let request = Arc::new(request);
        let mut calls = JoinSet::new();
        for node in std::iter::once(first).chain(rest.iter().copied()) {
            let (peers, request, data) = (self.peers.clone(), request.clone(), data.clone());
            calls.spawn(async move {
                let ok = stored(&peers, node, &request, &data).await;
                (!ok).then_some(node)
            });
        }
        calls.join_all().await.into_iter().flatten().collect()
    }

    fn read(&self, id: ChunkId, offset: u32, len: u32) -> (ChunkReply, Bytes) {
        match self.store.read(id, offset, len) {
            Ok(range) => blocks(range),
            Err(e) => {
                if matches!(e, ChunkError::Corrupt(_)) {
                    self.healer.suspect(Suspect { id, named: None });
                }
                (refusal(&e), Bytes::new())
            }
        }
    }

    fn list(&self, set: Option<SetId>, after: Option<ChunkId>, limit: u32) -> ChunkReply {
        match self.store.list(set, after, (limit as usize).min(LIST_MAX)) {
            Ok(ids) => ChunkReply::Ids(ids),
            Err(e) => refusal(&e),
        }
    }

    fn verify(&self, ids: &[ChunkId]) -> ChunkReply {
        let health = ids.iter().take(VERIFY_MAX).map(|&id| self.health(id));
        ChunkReply::Verified(health.collect())
    }

    fn health(&self, id: ChunkId) -> ChunkHealth {
        match self.store.verify(id) {
            Ok(()) => match self.store.chunk_len(id) {
                Ok(Some((len, crc))) => ChunkHealth::Healthy { len, crc },
                Ok(None) => ChunkHealth::Missing,
                Err(_) => ChunkHealth::Damaged,
            },
            Err(ChunkError::NotFound(_)) => ChunkHealth::Missing,
            Err(_) => {
                self.healer.suspect(Suspect { id, named: None });
                ChunkHealth::Damaged
            }
        }
    }
}

async fn stored(peers: &Peers, node: NodeId, request: &ChunkRequest, data: &Bytes) -> bool {
    match peers.call(node, request, data.clone(), 0).await {
        Ok((ChunkReply::Written, _)) => true,
        Ok((other, _)) => {
            tracing::warn!(%node, answer = ?other, "member did not store a chunk");
            false
        }
        Err(e) => {
            tracing::warn!(error = %e, "member did not answer a chunk write");
            false
        }
    }
}

/// Builds the answer to a read.
fn blocks(range: BlockRange) -> (ChunkReply, Bytes) {
    METRICS.reads.inc();
    METRICS.read_bytes.add(range.data.len() as u64);
    let head = ChunkReply::Blocks {
        chunk_len: range.chunk_len,
        first_block: range.first_block,
        crcs: range.crcs,
    };
    (head, range.data)
}

enum SetState<'a> {
    Current(&'a ReplicaSet),
    /// The writer's row is older than ours, or sealed.
    Older,
    /// The writer knows more than we do.
    Newer,
}

fn set_state(map: &ClusterMap, set: SetId, epoch: Epoch) -> SetState<'_> {
    match map.set(set) {
        Some(row) if epoch < row.epoch || (epoch == row.epoch && row.sealed) => SetState::Older,
        Some(row) if epoch == row.epoch => SetState::Current(row),
        _ => SetState::Newer,
    }
}

fn failed(reason: &str) -> ChunkReply {
    ChunkReply::Failed(reason.to_owned())
}

fn refusal(error: &ChunkError) -> ChunkReply {
    match error {
        ChunkError::NotFound(_) => ChunkReply::NotFound,
        ChunkError::Corrupt(_) | ChunkError::Io { .. } | ChunkError::Index(_) => {
            tracing::error!(%error, "chunk store");
            ChunkReply::Damaged
        }
        ChunkError::NoSpace => ChunkReply::Full,
        ChunkError::Conflict(_)
        | ChunkError::WrongCrc(_)
        | ChunkError::Invalid(_)
        | ChunkError::Busy
        | ChunkError::Failed(_)
        | ChunkError::Closed
        | ChunkError::Format { .. } => failed(&error.to_string()),
    }
}
