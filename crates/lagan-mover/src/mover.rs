//! The mover itself: its tasks, and its answers to the server.

use crate::attempts::{Active, Down, fail_of_nodes, fail_own};
use crate::gate::Gate;
use crate::health::S3Health;
use crate::inspect::{CHECK_MAX, Inspector};
use crate::metrics::METRICS;
use crate::queue::Queue;
use crate::recall::Recaller;
use crate::upload::Uploader;
use crate::{Chunks, Meta, MoverError, Options, RecallError, RecallFailure, commit, delete};
use bytes::Bytes;
use lagan_object::ObjectStore;
use lagan_types::Ino;
use lagan_types::message::ObjectHealth;
use lagan_types::query::Object;
use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Ends of uploads that wait to be reported, at most.
const ENDS_MAX: usize = 64;
/// Pause between sweeps of lost attempts.
const SWEEP: Duration = Duration::from_secs(60);
/// Pause between sweeps of unfinished multipart uploads.
const UPLOAD_SWEEP: Duration = Duration::from_secs(3600);

/// One node's mover. Runs from [`Mover::start`] until its token is cancelled.
pub struct Mover {
    gate: Arc<Gate>,
    recaller: Arc<Recaller>,
    inspector: Inspector,
    defect: Arc<OnceLock<&'static str>>,
}

impl std::fmt::Debug for Mover {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mover")
            .field("health", &self.health())
            .finish_non_exhaustive()
    }
}

impl Mover {
    /// Starts the mover's tasks on `tasks`; they end soon after `cancel`.
    /// Uploads that are under way then are dropped, their attempts failed at
    /// the next start. Needs a tokio runtime.
    pub fn start(
        options: Options,
        meta: Arc<dyn Meta>,
        chunks: Arc<dyn Chunks>,
        store: Arc<dyn ObjectStore>,
        cancel: CancellationToken,
        tasks: &TaskTracker,
    ) -> Arc<Mover> {
        let gate = Gate::new(store.clone(), meta.clone(), options.breaker);
        let gate = Arc::new(gate);
        let recaller = Recaller::new(
            meta.clone(),
            store.clone(),
            gate.clone(),
            options.clone(),
            (cancel.clone(), tasks.clone()),
        );
        let uploader = Arc::new(Uploader {
            meta: meta.clone(),
            chunks,
            store: store.clone(),
            gate: gate.clone(),
            recall: Arc::new(recaller.clone()),
            large: Semaphore::new(options.large_uploads.max(1)),
            options: options.clone(),
            failures: Default::default(),
        });
        let inspector = Inspector::new(store.clone(), gate.clone());
        let active = Arc::new(Active::default());
        let (ends, ended) = mpsc::channel(ENDS_MAX);
        let queue = Queue::new(uploader, active.clone(), ends);
        let duties = Duties {
            options,
            meta: meta.clone(),
            store,
            gate: gate.clone(),
            active: active.clone(),
        };
        let keeper = gate.clone();
        let crew = Crew {
            tasks: tasks.clone(),
            cancel,
            defect: Arc::default(),
        };
        crew.spawn("gate", async move { keeper.keep().await });
        crew.spawn("uploads", queue.run());
        crew.spawn("reports", commit::run(meta, active, ended));
        crew.spawn("duties", duties.run());
        Arc::new(Mover {
            gate,
            recaller,
            inspector,
            defect: crew.defect,
        })
    }

    /// The name of the task that ended by a defect, if one did; the mover has ended then.
    pub fn defect(&self) -> Option<&'static str> {
        self.defect.get().copied()
    }

    /// The bytes `offset..offset + len` of a file's archived version, verified,
    /// and their CRC-32. `len` is 1 to `CHUNK_LEN_MAX`.
    ///
    /// # Errors
    /// [`RecallError`] says why, and what the reader may do about it.
    ///
    /// # Cancel safety
    /// A fetch that was begun goes on for the next reader.
    pub async fn recall(
        &self,
        ino: Ino,
        version: u64,
        offset: u64,
        len: u32,
    ) -> Result<(Bytes, u32), RecallError> {
        let _held = METRICS.recalling.hold();
        METRICS.recalls.add(1);
        match self.recaller.range(ino, version, offset, len).await {
            Ok(bytes) => {
                METRICS.recall_bytes.add(bytes.len() as u64);
                let crc = crc32fast::hash(&bytes);
                Ok((bytes, crc))
            }
            Err(error) => {
                // one that is not there any more is no failure: the reader looks again
                METRICS
                    .recall_failures
                    .add(u64::from(error.failure != RecallFailure::Gone));
                Err(error)
            }
        }
    }

    /// Looks whether S3 has the first 256 of these objects; answers in their order.
    pub async fn check_objects(&self, mut objects: Vec<Object>) -> Vec<ObjectHealth> {
        objects.truncate(CHECK_MAX);
        self.inspector.check(objects).await
    }

    /// Objects of this life of the cluster that are in S3, in order of key, above `after`:
    /// key and bytes, and whether these were the last. Fewer than `limit` may come.
    ///
    /// # Errors
    /// S3 does not answer, or there is no archive.
    pub async fn list_objects(
        &self,
        after: Option<String>,
        limit: u32,
    ) -> Result<(Vec<(String, u64)>, bool), RecallError> {
        self.inspector.list(after, limit).await
    }

    /// State of the way to S3.
    pub fn health(&self) -> S3Health {
        self.gate.health()
    }

    /// Forgets recalled bytes.
    pub fn drop_cache(&self) {
        self.recaller.clear();
    }
}

/// Runs the mover's own tasks: they end with the token, and all of them when one
/// ends by a panic.
struct Crew {
    tasks: TaskTracker,
    cancel: CancellationToken,
    defect: Arc<OnceLock<&'static str>>,
}

impl Crew {
    fn spawn<F>(&self, name: &'static str, work: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (cancel, defect) = (self.cancel.clone(), self.defect.clone());
        let stop = cancel.clone();
        let work = tokio::spawn(async move {
            stop.run_until_cancelled(work).await;
        });
        self.tasks.spawn(async move {
            if work.await.is_err_and(|e| e.is_panic()) {
                tracing::error!(task = name, "the mover ended by a defect");
                METRICS.defects.add(1);
                // the first one counts
                let _ = defect.set(name);
                cancel.cancel();
            }
        });
    }
}

/// Work that is done from time to time: sweeps, and the leader's duties.
struct Duties {
    options: Options,
    meta: Arc<dyn Meta>,
    store: Arc<dyn ObjectStore>,
    gate: Arc<Gate>,
    active: Arc<Active>,
}

impl Duties {
    async fn run(self) {
        let mut down = Down::default();
        let mut said = HashMap::new();
        let (mut sweep_at, mut uploads_at) = (Instant::now() + SWEEP, Instant::now());
        loop {
            tokio::time::sleep(self.options.duty).await;
            let now = Instant::now();
            down.see(&self.meta.map(), now);
            if now >= sweep_at {
                sweep_at = now + SWEEP;
                let own = fail_own(&*self.meta, &self.active, self.options.lost_attempt).await;
                note(&mut said, "fail lost attempts", own);
            }
            if !self.meta.is_leader() {
                continue;
            }
            let gone = down.longer_than(self.options.down_node, now);
            note(
                &mut said,
                "fail attempts of nodes that are down",
                fail_of_nodes(&*self.meta, &gone).await,
            );
            if self.gate.is_open() {
                note(&mut said, "delete objects", self.delete().await);
                if now >= uploads_at {
                    uploads_at = now + UPLOAD_SWEEP;
                    note(
                        &mut said,
                        "abort unfinished uploads",
                        self.abort_uploads().await,
                    );
                }
            }
        }
    }

    /// Deletes all that is ready, batch after batch.
    async fn delete(&self) -> Result<usize, MoverError> {
        let mut all = 0;
        loop {
            let count = delete::delete_batch(&*self.meta, &*self.store, &self.gate).await?;
            all += count;
            if count == 0 || !self.meta.is_leader() {
                return Ok(all);
            }
        }
    }

    async fn abort_uploads(&self) -> Result<usize, MoverError> {
        let Some((prefix, _)) = self.gate.ours() else {
            return Ok(0);
        };
        let age = self.options.stale_upload;
        delete::abort_stale_uploads(&*self.meta, &*self.store, &prefix, age).await
    }
}

/// Logs what a duty did, and a failure once until it changes.
fn note(
    said: &mut HashMap<&'static str, String>,
    duty: &'static str,
    result: Result<usize, MoverError>,
) {
    match result {
        Ok(count) => {
            if count > 0 {
                tracing::info!(count, "{duty}");
            }
            said.remove(duty);
        }
        Err(error) => {
            let text = error.to_string();
            if said.get(duty) != Some(&text) {
                tracing::warn!(%error, "{duty}");
                said.insert(duty, text);
            }
        }
    }
}
