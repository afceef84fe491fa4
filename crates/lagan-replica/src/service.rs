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
use lagan_types::message::{
    Blocks, ChunkHealth, ChunkRefusal, ChunkRequest, ListChunks, ReadChunk, ReportBad,
    ReportReplica, VerifyChunks, WriteChunk,
};
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
    pub fn handle(self: &Arc<Self>, request: ChunkRequest, data: Bytes, mut reply: Reply) {
        match request {
            ChunkRequest::WriteChunk(ask) => self.write(ask, data, reply),
            ChunkRequest::ReadChunk(ReadChunk { id, offset, len }) => {
                if len <= NOW_LEN_MAX
                    && let Some(range) = self.store.read_now(id, offset, len)
                {
                    let (head, data) = blocks(range);
                    return reply.answer::<ReadChunk>(Ok(head), data);
                }
                reply.reserve(len.min(CHUNK_LEN_MAX) as usize);
                let service = self.clone();
                self.disk.spawn(async move {
                    let (head, data) = service.read(id, offset, len);
                    reply.answer::<ReadChunk>(head, data);
                });
            }
            ChunkRequest::ListChunks(ask) => {
                let service = self.clone();
                self.disk.spawn(async move {
                    reply.answer::<ListChunks>(service.list(&ask), Bytes::new());
                });
            }
            ChunkRequest::VerifyChunks(ask) => {
                let service = self.clone();
                self.disk.spawn(async move {
                    reply.answer::<VerifyChunks>(Ok(service.verify(&ask.ids)), Bytes::new());
                });
            }
            ChunkRequest::ReportBad(ReportBad { id }) => {
                self.healer.suspect(Suspect { id, named: None });
                reply.answer::<ReportBad>(Ok(()), Bytes::new());
            }
            ChunkRequest::ReportReplica(ReportReplica { id, ino, offset }) => {
                let named = Some((ino, offset));
                self.healer.suspect(Suspect { id, named });
                reply.answer::<ReportReplica>(Ok(()), Bytes::new());
            }
        }
    }

    fn write(self: &Arc<Self>, ask: WriteChunk, data: Bytes, reply: Reply) {
        if let Err(refusal) = self.check(&ask, data.len()) {
            reply.answer::<WriteChunk>(Err(refusal), Bytes::new());
        } else if ask.forward {
            let service = self.clone();
            tokio::spawn(async move {
                let answer = service.write_all(ask, data).await;
                reply.answer::<WriteChunk>(answer, Bytes::new());
            });
        } else {
            let done = Box::new(move |result: Result<(), ChunkError>| {
                let answer = result.map_err(|e| refusal(&e));
                reply.answer::<WriteChunk>(answer, Bytes::new());
            });
            self.store_here(ask.id, data, ask.block_crcs, done);
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
    fn check(&self, ask: &WriteChunk, len: usize) -> Result<(), ChunkRefusal> {
        if len == 0 || len > CHUNK_LEN_MAX as usize {
            return Err(failed("a chunk has 1 byte to 4 MiB"));
        }
        let map = self.peers.map();
        match set_state(&map, ask.id.set(), ask.set_epoch) {
            SetState::Current(set) if ask.forward && !set.nodes.contains(&self.node) => {
                Err(ChunkRefusal::StaleEpoch)
            }
            SetState::Current(_) => Ok(()),
            SetState::Older => Err(ChunkRefusal::StaleEpoch),
            SetState::Newer => {
                self.peers.map_cell().want_newer();
                // A member stores what it is sent: a commit of a wrong epoch is refused
                // anyway. A node that forwards must know the members.
                if ask.forward {
                    Err(ChunkRefusal::StaleEpoch)
                } else {
                    Ok(())
                }
            }
        }
    }

    /// Writes the chunk here and on all other members at the same time.
    async fn write_all(&self, ask: WriteChunk, data: Bytes) -> Result<(), ChunkRefusal> {
        let map = self.peers.map();
        let Some(set) = map.set(ask.id.set()) else {
            return Err(ChunkRefusal::StaleEpoch);
        };
        let len = data.len() as u64;
        let (done, local) = oneshot::channel();
        self.store_here(
            ask.id,
            data.clone(),
            ask.block_crcs.clone(),
            Box::new(move |result| {
                let _ = done.send(result);
            }),
        );
        let others = self.forward(set, ask, &data).await;
        match local.await {
            Ok(Ok(())) => {}
            Ok(Err(e)) => return Err(refusal(&e)),
            Err(_) => return Err(failed("the store stopped")),
        }
        if !others.is_empty() {
            METRICS.write_member_failures.add(others.len() as u64);
            return Err(ChunkRefusal::MembersFailed(others));
        }
        METRICS.writes.inc();
        METRICS.write_bytes.add(len);
        Ok(())
    }

    /// Writes the chunk on the other members; returns those that did not confirm it.
    async fn forward(&self, set: &ReplicaSet, ask: WriteChunk, data: &Bytes) -> Vec<NodeId> {
        let mut others = set.nodes.iter().copied().filter(|&n| n != self.node);
        let ask = WriteChunk {
            forward: false,
            ..ask
        };
        let (first, rest) = (others.next(), others.collect::<Vec<_>>());
        match (first, rest.as_slice()) {
            (None, _) => Vec::new(),
            (Some(a), []) => {
                let ok = stored(&self.peers, a, ask, data).await;
                if ok { Vec::new() } else { vec![a] }
            }
            (Some(a), [b]) => {
                let (on_a, on_b) = tokio::join!(
                    stored(&self.peers, a, ask.clone(), data),
                    stored(&self.peers, *b, ask, data)
                );
                [(a, on_a), (*b, on_b)]
                    .into_iter()
                    .filter_map(|(n, ok)| (!ok).then_some(n))
                    .collect()
            }
            (Some(a), rest) => self.forward_to_many(a, rest, &ask, data).await,
        }
    }

    async fn forward_to_many(
        &self,
        first: NodeId,
        rest: &[NodeId],
        ask: &WriteChunk,
        data: &Bytes,
    ) -> Vec<NodeId> {
        let mut calls = JoinSet::new();
        for node in std::iter::once(first).chain(rest.iter().copied()) {
            let (peers, ask, data) = (self.peers.clone(), ask.clone(), data.clone());
            calls.spawn(async move {
                let ok = stored(&peers, node, ask, &data).await;
                (!ok).then_some(node)
            });
        }
        calls.join_all().await.into_iter().flatten().collect()
    }

    fn read(&self, id: ChunkId, offset: u32, len: u32) -> (Result<Blocks, ChunkRefusal>, Bytes) {
        match self.store.read(id, offset, len) {
            Ok(range) => {
                let (head, data) = blocks(range);
                (Ok(head), data)
            }
            Err(e) => {
                if matches!(e, ChunkError::Corrupt(_)) {
                    self.healer.suspect(Suspect { id, named: None });
                }
                (Err(refusal(&e)), Bytes::new())
            }
        }
    }

    fn list(&self, ask: &ListChunks) -> Result<Vec<(ChunkId, u32)>, ChunkRefusal> {
        let limit = (ask.limit as usize).min(LIST_MAX);
        let ids = self.store.list(ask.set, ask.after, limit);
        ids.map_err(|e| refusal(&e))
    }

    fn verify(&self, ids: &[ChunkId]) -> Vec<ChunkHealth> {
        let health = ids.iter().take(VERIFY_MAX).map(|&id| self.health(id));
        health.collect()
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

async fn stored(peers: &Peers, node: NodeId, ask: WriteChunk, data: &Bytes) -> bool {
    match peers.ask(node, ask, data.clone(), 0).await {
        Ok((Ok(()), _)) => true,
        Ok((Err(refusal), _)) => {
            tracing::warn!(%node, %refusal, "member did not store a chunk");
            false
        }
        Err(e) => {
            tracing::warn!(error = %e, "member did not answer a chunk write");
            false
        }
    }
}

/// Builds the answer to a read.
fn blocks(range: BlockRange) -> (Blocks, Bytes) {
    METRICS.reads.inc();
    METRICS.read_bytes.add(range.data.len() as u64);
    let head = Blocks {
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

fn failed(reason: &str) -> ChunkRefusal {
    ChunkRefusal::Failed(reason.to_owned())
}

fn refusal(error: &ChunkError) -> ChunkRefusal {
    match error {
        ChunkError::NotFound(_) => ChunkRefusal::NotFound,
        ChunkError::Corrupt(_) | ChunkError::Io { .. } | ChunkError::Index(_) => {
            tracing::error!(%error, "chunk store");
            ChunkRefusal::Damaged
        }
        ChunkError::NoSpace => ChunkRefusal::Full,
        ChunkError::Conflict(_)
        | ChunkError::WrongCrc(_)
        | ChunkError::Invalid(_)
        | ChunkError::Busy
        | ChunkError::Failed(_)
        | ChunkError::Closed
        | ChunkError::Format { .. } => failed(&error.to_string()),
    }
}
