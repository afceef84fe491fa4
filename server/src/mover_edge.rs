//! The mover of this node: it starts when the cluster has an archive, and anew when the
//! archive changes. Its traits for metadata and chunks are implemented here.

use crate::config::Config;
use crate::meta_edge::MetaEdge;
use async_trait::async_trait;
use bytes::Bytes;
use lagan_leader::clock::wall_ms;
use lagan_mover::{Mover, MoverError, Options, RecallFailure, S3Health};
use lagan_net::Reply;
use lagan_object::S3Store;
use lagan_raft::Raft;
use lagan_replica::{Meta as _, Work};
use lagan_types::cluster::{ArchiveConfig, ClusterMap};
use lagan_types::limits::CHUNK_LEN_MAX;
use lagan_types::message::{
    ArchiveJob, ArchiveRefusal, ArchiveRequest, CheckObjects, GetJobs, ListObjects, ObjectHealth,
    ObjectList, Recall, Recalled,
};
use lagan_types::query::{Object, Query, QueryAnswer};
use lagan_types::{Answer, ChunkId, NodeId, SystemOp};
use parking_lot::RwLock;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Time between looks at the configuration.
const LOOK: Duration = Duration::from_millis(500);
/// Time after which an endpoint that could not be set up is tried again.
const RETRY: Duration = Duration::from_secs(10);
/// Time after which a mover that ended by a defect is followed by another.
const DEFECT_PAUSE: Duration = Duration::from_secs(2);

/// The answer while there is no mover.
const NO_WAY: &str = "this node has no way to the archive";

/// The mover while there is one.
pub(crate) struct MoverSlot {
    meta: Arc<MetaEdge>,
    work: Work,
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
    /// Makes the slot, without a mover yet.
    pub(crate) fn new(meta: Arc<MetaEdge>, work: Work) -> Arc<Self> {
        Arc::new(MoverSlot {
            meta,
            work,
            current: RwLock::default(),
        })
    }

    /// Follows the configuration until `cancel`.
    pub(crate) async fn run(
        self: Arc<Self>,
        config: &Config,
        raft: &Arc<Raft>,
        cancel: CancellationToken,
        tasks: &TaskTracker,
    ) {
        let mut running: Option<(ArchiveConfig, CancellationToken)> = None;
        loop {
            let map = self.work.peers.map();
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

    /// Ends the mover that runs, if one does, and puts another, or the reason why there is
    /// none, in its place.
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
            Arc::new(ChunkSide {
                work: self.work.clone(),
            }),
            Arc::new(store),
            stop.clone(),
            tasks,
        ))
    }

    fn mover(&self) -> Option<Arc<Mover>> {
        self.current.read().mover.clone()
    }

    /// Returns the state of this node's way to S3; no error where there is no archive.
    pub(crate) fn health(&self) -> S3Health {
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
    pub(crate) fn drop_cache(&self) {
        if let Some(mover) = self.mover() {
            mover.drop_cache();
        }
    }

    /// Answers a request, on a task of its own.
    pub(crate) fn handle(self: &Arc<Self>, request: ArchiveRequest, mut reply: Reply) {
        let slot = self.clone();
        match request {
            ArchiveRequest::Recall(ask) => {
                reply.reserve(ask.len.min(CHUNK_LEN_MAX) as usize);
                tokio::spawn(async move {
                    let (answer, data) = match slot.recall(&ask).await {
                        Ok((recalled, data)) => (Ok(recalled), data),
                        Err(refusal) => (Err(refusal), Bytes::new()),
                    };
                    reply.answer::<Recall>(answer, data);
                });
            }
            ArchiveRequest::CheckObjects(ask) => {
                tokio::spawn(async move {
                    let answer = slot.check_objects(ask.objects).await;
                    reply.answer::<CheckObjects>(answer, Bytes::new());
                });
            }
            ArchiveRequest::ListObjects(ask) => {
                tokio::spawn(async move {
                    let answer = slot.list_objects(ask.after, ask.limit).await;
                    reply.answer::<ListObjects>(answer, Bytes::new());
                });
            }
        }
    }

    /// Looks whether S3 has objects as the metadata says.
    async fn check_objects(
        &self,
        objects: Vec<Object>,
    ) -> Result<Vec<ObjectHealth>, ArchiveRefusal> {
        let mover = self.mover().ok_or_else(no_way)?;
        Ok(mover.check_objects(objects).await)
    }

    /// Lists the objects that there are in S3.
    async fn list_objects(
        &self,
        after: Option<String>,
        limit: u32,
    ) -> Result<ObjectList, ArchiveRefusal> {
        let mover = self.mover().ok_or_else(no_way)?;
        match mover.list_objects(after, limit).await {
            Ok((objects, last)) => Ok(ObjectList { objects, last }),
            Err(e) => Err(ArchiveRefusal::Failed(e.reason)),
        }
    }

    /// Fetches bytes of a file's archived version for a reader that found an object extent.
    async fn recall(&self, ask: &Recall) -> Result<(Recalled, Bytes), ArchiveRefusal> {
        let Some(mover) = self.mover() else {
            return Err(ArchiveRefusal::Transient(NO_WAY.into()));
        };
        let (ino, version) = (ask.ino, ask.version);
        match mover.recall(ino, version, ask.offset, ask.len).await {
            Ok((data, crc)) => Ok((Recalled { crc }, data)),
            Err(e) => {
                if e.failure != RecallFailure::Gone {
                    tracing::warn!(%ino, version, reason = %e.reason, "recall failed");
                }
                Err(match e.failure {
                    RecallFailure::Gone => ArchiveRefusal::Gone,
                    RecallFailure::Transient => ArchiveRefusal::Transient(e.reason),
                    RecallFailure::Permanent => ArchiveRefusal::Failed(e.reason),
                })
            }
        }
    }
}

fn no_way() -> ArchiveRefusal {
    ArchiveRefusal::Failed(NO_WAY.into())
}

struct MetaSide {
    slot: Arc<MoverSlot>,
    raft: Arc<Raft>,
}

#[async_trait]
impl lagan_mover::Meta for MetaSide {
    async fn mutate(&self, op: SystemOp) -> Result<Answer, MoverError> {
        Ok(self.slot.meta.mutate(op).await?)
    }

    async fn query(&self, query: Query) -> Result<QueryAnswer, MoverError> {
        Ok(self.slot.meta.query(query).await?)
    }

    async fn jobs(&self, slots: u32) -> Result<Vec<ArchiveJob>, MoverError> {
        let node = self.slot.work.node;
        let jobs = self.slot.meta.ask(GetJobs { node, slots }).await;
        jobs.map_err(|e| MoverError::NoLeader(e.to_string()))
    }

    fn is_leader(&self) -> bool {
        self.raft.is_leader()
    }

    fn map(&self) -> Arc<ClusterMap> {
        self.slot.work.peers.map()
    }

    fn node(&self) -> NodeId {
        self.slot.work.node
    }

    fn now_ms(&self) -> u64 {
        wall_ms()
    }
}

struct ChunkSide {
    work: Work,
}

#[async_trait]
impl lagan_mover::Chunks for ChunkSide {
    async fn read(&self, id: ChunkId, offset: u32, len: u32) -> Result<Bytes, MoverError> {
        let read = lagan_replica::read(&self.work, id, offset, len);
        read.await.map_err(|e| MoverError::Chunk(e.to_string()))
    }
}
