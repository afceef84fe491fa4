//! The mover's edges: what it asks of the metadata and of chunks, and its life:
//! it starts when the cluster has an archive and starts anew when that changes.

use crate::config::Config;
use crate::meta_edge::MetaEdge;
use async_trait::async_trait;
use bytes::Bytes;
use lagan_chunk::{ChunkError, Store};
use lagan_leader::clock::wall_ms;
use lagan_mover::{Mover, MoverError, Options, S3Health};
use lagan_object::S3Store;
use lagan_raft::Raft;
use lagan_replica::reap::Meta as _;
use lagan_replica::{Peers, heal};
use lagan_types::chunk::verify_blocks;
use lagan_types::cluster::{ArchiveConfig, ClusterMap, NodeState};
use lagan_types::limits::BLOCK_LEN;
use lagan_types::message::{ArchiveJob, ChunkReply};
use lagan_types::query::{Object, Query, QueryAnswer};
use lagan_types::{Answer, ChunkId, FsError, Ino, NodeId, Op};
use parking_lot::RwLock;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Between looks at the configuration.
const LOOK: Duration = Duration::from_millis(500);
/// An endpoint that could not be set up is tried again after this.
const RETRY: Duration = Duration::from_secs(10);
/// A mover that ended by a defect is followed by another after this.
const DEFECT_PAUSE: Duration = Duration::from_secs(2);

/// The answer while there is no mover.
const NO_WAY: &str = "this node has no way to the archive";

/// The mover while there is one.
pub struct MoverSlot {
    node: NodeId,
    meta: Arc<MetaEdge>,
    peers: Arc<Peers>,
    store: Arc<Store>,
    current: RwLock<Current>,
}

#[derive(Default)]
struct Current {
    mover: Option<Arc<Mover>>,
    /// Why there is none although the cluster has an archive.
    error: String,
}

impl std::fmt::Debug for MoverSlot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MoverSlot").finish_non_exhaustive()
    }
}

impl MoverSlot {
    /// No mover yet.
    pub fn new(
        node: NodeId,
        meta: Arc<MetaEdge>,
        peers: Arc<Peers>,
        store: Arc<Store>,
    ) -> Arc<Self> {
        Arc::new(MoverSlot {
            node,
            meta,
            peers,
            store,
            current: RwLock::default(),
        })
    }

    /// Follows the configuration until `cancel`.
    pub async fn run(
        self: Arc<Self>,
        config: &Config,
        raft: &Arc<Raft>,
        cancel: CancellationToken,
        tasks: &TaskTracker,
    ) {
        let mut running: Option<(ArchiveConfig, CancellationToken)> = None;
        loop {
            let map = self.peers.map();
            // Version 0: no map yet, so nothing is known of the archive.
            let wanted = map.config.archive.clone().filter(|_| map.version > 0);
            let changed = running.as_ref().map(|(archive, _)| archive) != wanted.as_ref();
            let mut pause = LOOK;
            if let Some(task) = self.mover().and_then(|m| m.defect()) {
                let error = format!("the mover's task {task:?} ended by a defect, it starts again");
                self.replace(&mut running, None, error);
                pause = DEFECT_PAUSE;
            } else if changed && map.version > 0 {
                self.replace(&mut running, None, String::new());
                if let Some(archive) = wanted {
                    let stop = cancel.child_token();
                    match self.start(config, raft, &archive, &stop, tasks).await {
                        Ok(mover) => {
                            self.replace(&mut running, Some(mover), String::new());
                            running = Some((archive, stop));
                        }
                        Err(e) => {
                            tracing::error!(error = %e, "set up the archive");
                            self.replace(&mut running, None, e);
                            pause = RETRY;
                        }
                    }
                }
            }
            tokio::select! {
                () = cancel.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Ends the mover that runs, if one does, and shows what is there now.
    fn replace(
        &self,
        running: &mut Option<(ArchiveConfig, CancellationToken)>,
        mover: Option<Arc<Mover>>,
        error: String,
    ) {
        if let Some((_, stop)) = running.take() {
            stop.cancel();
        }
        *self.current.write() = Current { mover, error };
    }

    async fn start(
        self: &Arc<Self>,
        config: &Config,
        raft: &Arc<Raft>,
        archive: &ArchiveConfig,
        stop: &CancellationToken,
        tasks: &TaskTracker,
    ) -> Result<Arc<Mover>, String> {
        let s3 = config.s3.join(archive);
        s3.check()?;
        let store = S3Store::open(&s3).await.map_err(|e| e.to_string())?;
        let options = Options {
            uploads: config.uploads,
            cache_dir: config.data.join("recall"),
            cache_bytes: config.recall_cache.0,
            ..Options::default()
        };
        let meta = Arc::new(MetaSide {
            slot: self.clone(),
            raft: raft.clone(),
        });
        Ok(Mover::start(
            options,
            meta,
            Arc::new(ChunkSide { slot: self.clone() }),
            Arc::new(store),
            stop.clone(),
            tasks,
        ))
    }

    fn mover(&self) -> Option<Arc<Mover>> {
        self.current.read().mover.clone()
    }

    /// State of this node's way to S3; no error where there is no archive.
    pub fn health(&self) -> S3Health {
        let current = self.current.read();
        match &current.mover {
            Some(mover) => mover.health(),
            None => S3Health {
                error: current.error.clone(),
                permanent: !current.error.is_empty(),
                ready: false,
            },
        }
    }

    /// Forgets recalled bytes.
    pub fn drop_cache(&self) {
        if let Some(mover) = self.mover() {
            mover.drop_cache();
        }
    }

    /// Answers whether S3 has objects as the metadata says.
    pub async fn check_objects(&self, objects: Vec<Object>) -> ChunkReply {
        match self.mover() {
            Some(mover) => ChunkReply::Objects(mover.check_objects(objects).await),
            None => ChunkReply::Failed(NO_WAY.into()),
        }
    }

    /// Answers which objects there are in S3.
    pub async fn list_objects(&self, after: Option<String>, limit: u32) -> ChunkReply {
        let Some(mover) = self.mover() else {
            return ChunkReply::Failed(NO_WAY.into());
        };
        match mover.list_objects(after, limit).await {
            Ok((objects, last)) => ChunkReply::ObjectList { objects, last },
            Err(e) => ChunkReply::Failed(e.reason),
        }
    }

    /// Answers a reader that found an object extent.
    pub async fn recall(
        &self,
        ino: Ino,
        version: u64,
        offset: u64,
        len: u32,
    ) -> (ChunkReply, Bytes) {
        let Some(mover) = self.mover() else {
            let reply = ChunkReply::RecallFailed {
                reason: NO_WAY.into(),
                transient: true,
            };
            return (reply, Bytes::new());
        };
        match mover.recall(ino, version, offset, len).await {
            Ok((data, crc)) => (ChunkReply::Recalled { crc }, data),
            Err(e) if e.not_found => (ChunkReply::NotFound, Bytes::new()),
            Err(e) => {
                tracing::warn!(%ino, version, reason = %e.reason, "recall failed");
                let reply = ChunkReply::RecallFailed {
                    reason: e.reason,
                    transient: e.transient,
                };
                (reply, Bytes::new())
            }
        }
    }
}

struct MetaSide {
    slot: Arc<MoverSlot>,
    raft: Arc<Raft>,
}

#[async_trait]
impl lagan_mover::Meta for MetaSide {
    async fn mutate(&self, op: Op) -> Result<Answer, MoverError> {
        self.slot.meta.mutate(op).await.map_err(meta_error)
    }

    async fn query(&self, query: Query) -> Result<QueryAnswer, MoverError> {
        self.slot.meta.query(query).await.map_err(meta_error)
    }

    async fn jobs(&self, slots: u32) -> Result<Vec<ArchiveJob>, MoverError> {
        let jobs = self.slot.meta.jobs(self.slot.node, slots).await;
        jobs.map_err(MoverError::Meta)
    }

    fn is_leader(&self) -> bool {
        self.raft.is_leader()
    }

    fn map(&self) -> Arc<ClusterMap> {
        self.slot.peers.map()
    }

    fn node(&self) -> NodeId {
        self.slot.node
    }

    fn now_ms(&self) -> u64 {
        wall_ms()
    }
}

fn meta_error(e: FsError) -> MoverError {
    MoverError::Fs(e)
}

struct ChunkSide {
    slot: Arc<MoverSlot>,
}

#[async_trait]
impl lagan_mover::Chunks for ChunkSide {
    async fn read(&self, id: ChunkId, offset: u32, len: u32) -> Result<Bytes, MoverError> {
        let store = self.slot.store.clone();
        let local = tokio::task::spawn_blocking(move || store.read(id, offset, len)).await;
        match local {
            Ok(Ok(range)) if verify_blocks(&range.data, &range.crcs) => {
                let skip = (offset - range.first_block * BLOCK_LEN) as usize;
                return cut(&range.data, skip, len);
            }
            Ok(Ok(_)) => tracing::warn!(chunk = %id, "damaged here, read from a peer"),
            Ok(Err(ChunkError::NotFound(_))) => {}
            Ok(Err(e)) => tracing::warn!(chunk = %id, error = %e, "read from a peer instead"),
            Err(e) => return Err(MoverError::Chunk(e.to_string())),
        }
        self.read_at_peers(id, offset, len).await
    }
}

impl ChunkSide {
    async fn read_at_peers(&self, id: ChunkId, offset: u32, len: u32) -> Result<Bytes, MoverError> {
        let map = self.slot.peers.map();
        let nodes = map
            .set(id.set())
            .map(|s| s.nodes.clone())
            .unwrap_or_default();
        let up = |n: &NodeId| map.node(*n).is_some_and(|n| n.state != NodeState::Down);
        let mut reason = format!("chunk {id} is on no node that is up");
        for node in nodes
            .into_iter()
            .filter(|n| *n != self.slot.node)
            .filter(up)
        {
            match heal::fetch(&self.slot.peers, node, id).await {
                Ok(Some(whole)) => return cut(&whole.data, offset as usize, len),
                Ok(None) => reason = format!("chunk {id} is not there any more"),
                Err(e) => reason = format!("chunk {id} from node {}: {e}", node.0),
            }
        }
        Err(MoverError::Chunk(reason))
    }
}

fn cut(data: &Bytes, skip: usize, len: u32) -> Result<Bytes, MoverError> {
    let end = skip + len as usize;
    if end > data.len() {
        return Err(MoverError::Chunk(format!(
            "{} bytes where {end} were expected",
            data.len()
        )));
    }
    Ok(data.slice(skip..end))
}
