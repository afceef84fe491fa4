//! One voter: the consensus with its disk and its peers.

use crate::batcher::{Batcher, Proposal, Proposed};
use crate::error::{Malformed, ProposeError, RaftError};
use crate::holds::Holds;
use crate::leader::{self, LeaderInfo};
use crate::log::{Floor, LogOptions, LogStore};
use crate::network::Network;
use crate::options::Options;
use crate::peer::Transport;
use crate::read::ReadGate;
use crate::restage::restage;
use crate::rpc::{Reply, Request, entries_of};
use crate::snapshot::Receiver;
use crate::staging::Staging;
use crate::state::{StateStore, View};
use crate::stats::Stats;
use crate::types::TypeConfig;
use crate::types::alias::OpenRaft;
use bytes::Bytes;
use lagan_types::NodeId;
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

mod keeper;
mod lag;
mod members;
mod propose;

use keeper::Keeper;
use lag::Lag;

/// A snapshot is sent within this.
const SNAPSHOT_SEND_MAX: Duration = Duration::from_secs(3600);
/// Entries in one message.
const MESSAGE_ENTRIES_MAX: u64 = 256;
/// Time that a follower's disk may take for an entry before its answer is a failure.
const SYNC_MAX: Duration = Duration::from_secs(2);
/// For the consensus to end.
const SHUTDOWN_MAX: Duration = Duration::from_secs(10);

/// One voter. Shared by an `Arc`; [`Raft::shutdown`] ends it.
pub struct Raft {
    options: Options,
    core: OpenRaft,
    log: LogStore,
    state: StateStore,
    receiver: Receiver,
    reads: Arc<ReadGate>,
    /// The entries that followers have appended while this node leads.
    holds: Arc<Holds>,
    /// Holds back commits while this node follows.
    lag: Mutex<Lag>,
    queue: mpsc::Sender<Proposal>,
    leader: watch::Receiver<LeaderInfo>,
    #[cfg(test)]
    in_flight: Arc<Semaphore>,
    stepping_down: AtomicBool,
    /// Callers that wait for the answer to a command or a barrier.
    pending: AtomicUsize,
    proposed: Arc<Proposed>,
    /// False while this machine's clock is wrong.
    may_lead: AtomicBool,
    cancel: CancellationToken,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

fn config(options: &Options) -> Result<openraft::Config, RaftError> {
    openraft::Config {
        cluster_name: "lagan".into(),
        heartbeat_interval: options.heartbeat_ms,
        election_timeout_min: options.election_ms.0,
        election_timeout_max: options.election_ms.1,
        install_snapshot_timeout: SNAPSHOT_SEND_MAX.as_millis() as u64,
        max_payload_entries: MESSAGE_ENTRIES_MAX,
        replication_lag_threshold: options.keep_entries.max(1_000),
        snapshot_policy: openraft::SnapshotPolicy::LogsSinceLast(options.snapshot_every),
        max_in_snapshot_log_to_keep: options.keep_entries,
        purge_batch_size: (options.snapshot_every / 4).max(1),
        ..openraft::Config::default()
    }
    .validate()
    .map_err(|e| RaftError::Refused(e.to_string()))
}

/// Opens state and log, and checks that the log begins no later than the state ends.
fn open_stores(
    options: &Options,
    staging: Arc<dyn Staging>,
) -> Result<(StateStore, LogStore), RaftError> {
    let floor = Arc::new(Floor::new(staging.clone()));
    let state = StateStore::open(
        options.dir.join("state"),
        options.cache_bytes,
        floor.clone(),
    )?;
    let log = LogStore::open(
        LogOptions {
            dir: options.dir.join("log"),
            node: options.node.0,
            segment_bytes: options.segment_bytes,
            cache_bytes: options.log_cache_bytes,
            slow_sync: Duration::from_millis(options.slow_sync_ms),
        },
        floor.clone(),
    )?;
    if log.needs_from() > floor.next() {
        return Err(RaftError::State(format!(
            "it and the chunk store need the log from entry {}, which begins at {}",
            floor.next(),
            log.needs_from()
        )));
    }
    let applied_next = state.applied_next();
    restage(&log, &*staging, &state.view(), floor.next(), applied_next)?;
    Ok((state, log))
}

/// Asks for an election at once if this is the only voter: no other leader can be.
async fn elect_if_alone(core: &OpenRaft, node: NodeId) -> Result<(), RaftError> {
    let membership = core.server_metrics().borrow().membership_config.clone();
    if membership.voter_ids().eq([node.0]) {
        let asked = core.trigger().elect().await;
        asked.map_err(|e| RaftError::Stopped(e.to_string()))?;
    }
    Ok(())
}

impl Raft {
    /// Opens or makes the stores in `options.dir` and starts the consensus. What comes with the
    /// commands goes to `staging`. A
    /// new node serves an empty state until it is initialized or a leader finds it.
    ///
    /// # Errors
    /// [`RaftError`]: the stores do not open, or not together.
    pub async fn start(
        options: Options,
        transport: Arc<dyn Transport>,
        staging: Arc<dyn Staging>,
    ) -> Result<Arc<Raft>, RaftError> {
        let config = Arc::new(config(&options)?);
        let opening = options.clone();
        let (state, log) = tokio::task::spawn_blocking(move || open_stores(&opening, staging))
            .await
            .map_err(|e| RaftError::Stopped(e.to_string()))??;
        let quiet_max = options.quiet_max();
        let holds = Arc::new(Holds::default());
        let network = Network {
            transport,
            log: log.clone(),
            holds: holds.clone(),
            quiet_max,
        };
        let core = OpenRaft::new(options.node.0, config, network, log.clone(), state.clone())
            .await
            .map_err(|e| RaftError::Stopped(e.to_string()))?;
        // The core publishes its state before it answers its first message.
        core.with_raft_state(|_| ())
            .await
            .map_err(|e| RaftError::Stopped(e.to_string()))?;
        elect_if_alone(&core, options.node).await?;
        let cancel = CancellationToken::new();
        let (following, leader) = leader::follow(&core, options.node, cancel.clone());
        let (queue, waiting) = mpsc::channel(options.queue_len_max);
        let in_flight = Arc::new(Semaphore::new(options.entries_in_flight));
        let proposed = Arc::new(Proposed::default());
        let batcher = Batcher::new(
            core.clone(),
            state.clone(),
            waiting,
            leader.clone(),
            in_flight.clone(),
            proposed.clone(),
        );
        let keeper = Keeper {
            core: core.clone(),
            state: state.clone(),
            log: log.clone(),
            options: options.clone(),
        };
        let tasks = vec![
            following,
            tokio::spawn(batcher.run(cancel.clone())),
            tokio::spawn(keeper.run(cancel.clone())),
        ];
        let reads = ReadGate::new(core.clone(), leader.clone(), options.read_proof());
        Ok(Arc::new(Raft {
            options,
            core,
            log,
            state,
            receiver: Receiver::default(),
            reads: Arc::new(reads),
            holds,
            lag: Mutex::new(Lag::new(quiet_max)),
            queue,
            leader,
            #[cfg(test)]
            in_flight,
            stepping_down: AtomicBool::new(false),
            pending: AtomicUsize::new(0),
            proposed,
            may_lead: AtomicBool::new(true),
            cancel,
            tasks: Mutex::new(tasks),
        }))
    }

    /// Makes the disk of the log stand still, or go on.
    #[cfg(test)]
    pub(crate) fn set_disk_still(&self, still: bool) {
        self.log.set_still(still);
    }

    /// Lets no proposal into the log as long as the permit lives.
    #[cfg(test)]
    pub(crate) async fn hold_entries(&self) -> tokio::sync::OwnedSemaphorePermit {
        let all = self.options.entries_in_flight as u32;
        let held = self.in_flight.clone().acquire_many_owned(all).await;
        held.expect("nobody closes it")
    }

    /// Gives the consensus a batch, whatever term it is for, and returns its answer.
    #[cfg(test)]
    pub(crate) async fn write_batch(&self, batch: crate::Batch) -> crate::BatchAnswer {
        self.core.client_write(batch).await.expect("it leads").data
    }

    /// A view that shows everything answered before this call began, anywhere.
    ///
    /// # Errors
    /// Fails as [`Raft::propose`] does, but never with `Unknown`.
    pub async fn read(&self) -> Result<View, ProposeError> {
        if let Some(view) = self.try_read() {
            return Ok(view);
        }
        if self.hands_over(&self.leader.borrow()) {
            // A round to the others would keep them from taking over.
            return Err(ProposeError::NotLeader { leader: None });
        }
        self.reads.pass().await?;
        Ok(self.local_view())
    }

    /// Asks a quorum whether this node still leads, in a round that begins after this call
    /// does, and returns the term in which it led then. Is never answered from the proof
    /// that lets reads through, but makes a new one. Callers that come while a round is
    /// under way share the next one.
    ///
    /// # Errors
    /// Fails as [`Raft::read`] does: nothing is known.
    ///
    /// # Cancel safety
    /// A dropped call has done nothing.
    pub async fn confirm(&self) -> Result<u64, ProposeError> {
        let hands_over = || self.hands_over(&self.leader.borrow());
        self.reads.confirm(hands_over).await
    }

    /// Does what [`Raft::read`] does if that need not wait, since this node is known to
    /// lead; else `None`. Must be called in a runtime.
    pub fn try_read(&self) -> Option<View> {
        let (open, renew) = self.reads.open();
        if renew && !self.hands_over(&self.leader.borrow()) {
            let reads = self.reads.clone();
            tokio::spawn(async move { reads.renew().await });
        }
        if !open {
            return None;
        }
        Some(self.local_view())
    }

    /// The state of this node, which may be behind the leader's.
    pub fn local_view(&self) -> View {
        self.state.view()
    }

    /// Takes a peer's message and returns the answer, head and data.
    ///
    /// # Errors
    /// The bytes are no message of a peer.
    pub async fn handle(&self, head: Bytes, data: Bytes) -> Result<(Vec<u8>, Bytes), Malformed> {
        let request = Request::decode(&head).map_err(Malformed)?;
        let reply = self.answer(request, data).await?;
        Ok((reply.encode(), Bytes::new()))
    }

    async fn answer(&self, request: Request, data: Bytes) -> Result<Reply, Malformed> {
        Ok(match request {
            Request::Append {
                vote,
                previous,
                committed,
                entries,
            } => {
                let bytes = data.len();
                let entries = entries_of(entries, data).map_err(Malformed)?;
                let now = std::time::Instant::now();
                let leader_commit = self.lag.lock().pass(committed, entries.len(), bytes, now);
                self.append(AppendEntriesRequest {
                    vote,
                    prev_log_id: previous,
                    leader_commit,
                    entries,
                })
                .await
            }
            Request::Vote(request) => match self.core.vote(request).await {
                Ok(answer) => Reply::Vote(answer),
                Err(e) => Reply::Failed(e.to_string()),
            },
            Request::Piece(head) => {
                self.receiver
                    .take(&self.core, &self.state, head, data)
                    .await
            }
        })
    }

    /// Appends as a follower; the answer goes out once the disk has what it claims.
    async fn append(&self, request: AppendEntriesRequest<TypeConfig>) -> Reply {
        let last = request.entries.last().map(|e| e.log_id);
        let last = last.or(request.prev_log_id);
        let answer = match self.core.append_entries(request).await {
            Ok(answer) => answer,
            Err(e) => return Reply::Failed(e.to_string()),
        };
        let claimed = match &answer {
            AppendEntriesResponse::Success => last,
            AppendEntriesResponse::PartialSuccess(matching) => *matching,
            AppendEntriesResponse::Conflict | AppendEntriesResponse::HigherVote(_) => None,
        };
        if let Some(id) = claimed
            && let Err(e) = self.log.syncs().wait_at_most(id.index, SYNC_MAX).await
        {
            return Reply::Failed(e.to_string());
        }
        Reply::Append(answer)
    }

    /// The figures of this moment.
    pub fn stats(&self) -> Stats {
        let mut stats = Stats::default();
        self.log.stats().fill(&mut stats);
        let metrics = self.core.metrics();
        let metrics = metrics.borrow();
        stats.term = metrics.current_term;
        stats.last_log = metrics.last_log_index.unwrap_or(0);
        stats.quorum_ack_ms = metrics.millis_since_quorum_ack;
        stats.applied = self.state.applied_index();
        stats.durable = self.state.durable_index();
        stats.purged = self.log.purged();
        stats.snapshot = self.state.snapshot_index();
        stats.pending = self.pending.load(Ordering::Relaxed);
        stats.proposed_entries = self.proposed.entries.load(Ordering::Relaxed);
        stats.proposed_commands = self.proposed.commands.load(Ordering::Relaxed);
        stats.queued = self.queue.max_capacity() - self.queue.capacity();
        stats
    }

    /// Returns when all that this node has carried out so far is durable here, with what came
    /// with it: a crash never makes it carry it out again.
    ///
    /// # Errors
    /// [`RaftError::State`]: the disk, or it takes too long.
    pub async fn settle(&self) -> Result<(), RaftError> {
        let next = self.state.applied_next();
        let durable = self.state.make_durable().await;
        durable.map_err(|e| RaftError::State(e.to_string()))?;
        match self.state.is_settled(next) {
            true => Ok(()),
            false => Err(RaftError::State("chunks are not on disk yet".into())),
        }
    }

    /// Ends the consensus in order: nothing is proposed any more, the state is
    /// made durable, the log is closed.
    pub async fn shutdown(&self) {
        self.stop_tasks().await;
        if let Err(e) = self.state.make_durable().await {
            tracing::error!(error = %e, "make state durable");
        }
        self.close_log().await;
    }

    /// Ends it as a crash would, as far as a living process can: nothing is
    /// made durable that is not so already.
    #[cfg(test)]
    pub(crate) async fn halt(&self) {
        self.stop_tasks().await;
        self.close_log().await;
    }

    async fn stop_tasks(&self) {
        self.cancel.cancel();
        match tokio::time::timeout(SHUTDOWN_MAX, self.core.shutdown()).await {
            Ok(Ok(())) => {}
            Ok(Err(e)) => tracing::error!(error = %e, "stop consensus"),
            Err(_) => tracing::warn!("consensus does not stop in time, left as it is"),
        }
        let tasks = std::mem::take(&mut *self.tasks.lock());
        for mut task in tasks {
            if tokio::time::timeout(SHUTDOWN_MAX, &mut task).await.is_err() {
                task.abort();
            }
        }
    }

    async fn close_log(&self) {
        let log = self.log.clone();
        if let Err(e) = tokio::task::spawn_blocking(move || log.stop()).await {
            tracing::error!(error = %e, "close log");
        }
    }
}
