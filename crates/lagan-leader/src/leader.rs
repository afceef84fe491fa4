//! The leader's memory, and its answers to requests that only a leader can answer.

use crate::clock::{Uptime, cluster_ms, median_skew, skew, wall_ms};
use crate::liveness::{Liveness, NODE_SILENCE_MS, SESSION_SILENCE_MS};
use crate::open_check::{OpenCheck, Purpose};
use crate::promises::Promises;
use crate::waits::Waits;
use lagan_meta::DueScan;
use lagan_meta::kv::StoreError;
use lagan_raft::{Raft, View};
use lagan_types::message::{MetaReply, MetaRequest, NodeHeartbeat};
use lagan_types::op::{LockKind, LockRange, RegisterNode, SystemOp};
use lagan_types::{Answer, Command, FsError, Ino, NodeId, QueryAnswer, SessionId};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use tokio::sync::Notify;

/// Longest gap in this process' run after which it can still judge who was silent.
const PAUSE_MS: u64 = 1_000;
/// Most holders of one range that are looked at when somebody waits for it.
const HOLDERS_MAX: usize = 256;
/// Time for a command of the leader's own.
const PROPOSE_DEADLINE: Duration = Duration::from_secs(5);

/// The leader's part of one node. While another node leads, it answers nothing and decides
/// nothing.
pub struct Leader {
    pub(crate) raft: Arc<Raft>,
    pub(crate) uptime: Uptime,
    pub(crate) state: Mutex<State>,
    /// Created names that are not replicated yet.
    pub(crate) promises: Arc<Promises>,
    /// Set while Raft's members are changed: one change at a time.
    pub(crate) changing_members: AtomicBool,
    /// Wakes requests for uploads.
    pub(crate) due: Notify,
    /// Notified when a session may have answered a check.
    pub(crate) answered: Notify,
    /// Held during a release: one at a time.
    pub(crate) releasing: tokio::sync::Mutex<()>,
}

impl std::fmt::Debug for Leader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Leader").finish_non_exhaustive()
    }
}

/// Everything that a change of term forgets.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) term: u64,
    pub(crate) sessions: Liveness<SessionId>,
    pub(crate) nodes: Liveness<NodeId>,
    pub(crate) heartbeats: BTreeMap<NodeId, NodeHeartbeat>,
    /// Leader's clock less the node's, when the heartbeat came.
    pub(crate) skew_ms: BTreeMap<NodeId, i64>,
    pub(crate) orphans: OpenCheck,
    /// The owners that wait for locks.
    pub(crate) waits: Waits,
    /// The inode at which the next check begins: orphans that stay open for long must
    /// not hide those behind them.
    pub(crate) orphans_from: Ino,
    /// The check of files that are to be released.
    pub(crate) releases: OpenCheck,
    /// The place where a node's next search for uploads continues, if the front of the
    /// queue had too few for it.
    pub(crate) due_from: BTreeMap<NodeId, DueScan>,
    pub(crate) down_since: BTreeMap<NodeId, u64>,
    /// Nodes that are being removed, and when somebody asked for it last.
    pub(crate) leaving: BTreeMap<NodeId, u64>,
    /// When this process last noted that it runs.
    pub(crate) pulse_ms: u64,
}

impl State {
    pub(crate) fn new(term: u64, now_ms: u64) -> Self {
        State {
            term,
            sessions: Liveness::new(SESSION_SILENCE_MS),
            nodes: Liveness::new(NODE_SILENCE_MS),
            heartbeats: BTreeMap::new(),
            skew_ms: BTreeMap::new(),
            orphans: OpenCheck::new(term, Purpose::Reap),
            releases: OpenCheck::new(term, Purpose::Release),
            waits: Waits::default(),
            orphans_from: Ino(0),
            due_from: BTreeMap::new(),
            down_since: BTreeMap::new(),
            leaving: BTreeMap::new(),
            pulse_ms: now_ms,
        }
    }

    fn disks(&self, now_ms: u64) -> Vec<Disk> {
        let heard = |node| self.nodes.silent_ms(node, now_ms).unwrap_or(u64::MAX);
        self.heartbeats
            .iter()
            .filter(|(node, _)| heard(**node) <= NODE_SILENCE_MS)
            .map(|(_, beat)| Disk {
                used_bytes: beat.used_bytes,
                total_bytes: beat.used_bytes.saturating_add(beat.free_bytes),
            })
            .collect()
    }

    /// Notes that a session is over: it has nothing open.
    pub(crate) fn session_ended(&mut self, session: SessionId) {
        self.sessions.forget(session);
        self.orphans.session_ended(session);
        self.releases.session_ended(session);
    }

    /// Notes that the process runs. After a time in which it did not (stopped, or
    /// starved), nobody's silence counts: this process did not listen.
    pub(crate) fn pulse(&mut self, now_ms: u64) {
        let gap_ms = now_ms.saturating_sub(self.pulse_ms);
        self.pulse_ms = now_ms.max(self.pulse_ms);
        if gap_ms > PAUSE_MS {
            tracing::warn!(gap_ms, "this process did not run for a while");
            self.sessions.forgive(now_ms);
            self.nodes.forgive(now_ms);
        }
    }
}

/// How full a node's disk is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Disk {
    /// Bytes that chunks take.
    pub used_bytes: u64,
    /// These and the bytes that are free for more.
    pub total_bytes: u64,
}

/// A session's heartbeat.
struct SessionBeat {
    session: SessionId,
    check: u64,
    open: Vec<Ino>,
    term: u64,
    promised: u32,
}

impl Leader {
    /// Makes the leader's part of the node that runs `raft`.
    pub fn new(raft: Arc<Raft>) -> Arc<Self> {
        Arc::new(Leader {
            promises: Arc::new(Promises::new(raft.clone())),
            raft,
            uptime: Uptime::default(),
            state: Mutex::new(State::new(0, 0)),
            changing_members: AtomicBool::new(false),
            due: Notify::new(),
            answered: Notify::new(),
            releasing: tokio::sync::Mutex::default(),
        })
    }

    /// Returns the disks of the nodes that were heard of lately; none elsewhere than
    /// on the leader.
    pub(crate) fn disks(&self) -> Vec<Disk> {
        self.state.lock().disks(self.uptime.ms())
    }

    /// Notes that a session was just opened: it is alive and has no promises.
    pub fn session_heard(&self, session: SessionId) {
        let now = self.uptime.ms();
        self.state.lock().sessions.heard(session, now);
        let term = self.raft.term();
        self.promises.session_settled(session, term);
    }

    /// Notes that a session is over.
    pub fn session_ended(&self, session: SessionId) {
        self.state.lock().session_ended(session);
        self.answered.notify_waiters();
        self.promises.session_ended(session);
    }

    /// Answers a request that only the leader can answer; `view` is linearizable.
    pub async fn answer(&self, view: &View, request: MetaRequest) -> MetaReply {
        let answer = match request {
            MetaRequest::SessionHeartbeat {
                session,
                check,
                open,
                map_version: _,
                term,
                promised,
            } => self.session_heartbeat(
                view,
                &SessionBeat {
                    session,
                    check,
                    open,
                    term,
                    promised,
                },
            ),
            MetaRequest::NodeHeartbeat(beat) => self.node_heartbeat(view, beat),
            MetaRequest::Status => self.status(view),
            MetaRequest::Join { info } => self.join(view, info).await,
            MetaRequest::RemoveNode { node, force } => self.remove_node(view, node, force).await,
            MetaRequest::Init { .. } | MetaRequest::JoinVia { .. } => Ok(MetaReply::Refused(
                "this server belongs to a cluster already".into(),
            )),
            MetaRequest::WaitLock { session, ino, lock } => {
                self.wait_lock(view, session, ino, lock)
            }
            MetaRequest::Mutate(_)
            | MetaRequest::Create(_)
            | MetaRequest::Query { .. }
            | MetaRequest::Map { .. }
            | MetaRequest::ArchiveJobs { .. }
            | MetaRequest::Release { .. }
            | MetaRequest::Ping
            | MetaRequest::DropRecallCache => {
                Ok(MetaReply::Refused("not asked of a leader".into()))
            }
        };
        answer.unwrap_or_else(|e| {
            tracing::error!(error = %e, "state store");
            MetaReply::NotLeader {
                leader: None,
                addr: None,
            }
        })
    }

    fn wait_lock(
        &self,
        view: &View,
        session: SessionId,
        ino: Ino,
        lock: LockRange,
    ) -> Result<MetaReply, StoreError> {
        if !lagan_meta::session_exists(view, session)? {
            return Ok(MetaReply::Query(Err(FsError::SessionEnded)));
        }
        let holders_of = |session, ino, lock: &LockRange| {
            lagan_meta::lock_holders(view, session, ino, lock, HOLDERS_MAX)
        };
        let owners = |held: Vec<(SessionId, LockRange)>| {
            held.into_iter()
                .map(|(s, l)| (s, l.owner))
                .collect::<Vec<_>>()
        };
        let held = match lock.kind {
            LockKind::Unlock => Vec::new(),
            _ => holders_of(session, ino, &lock)?,
        };
        let first = held.first().copied();
        let now_ms = self.uptime.ms();
        let mut state = self.state.lock();
        let circle = state.waits.is_circle(
            (session, lock.owner),
            &owners(held),
            now_ms,
            |session, ino, lock| holders_of(session, ino, lock).map(owners),
        )?;
        if first.is_some() && !circle {
            state.waits.begin(session, ino, lock, now_ms);
        } else {
            state.waits.end(session, ino, &lock);
        }
        let answer = match circle {
            true => Err(FsError::Deadlock),
            false => Ok(QueryAnswer::Lock(first)),
        };
        Ok(MetaReply::Query(answer))
    }

    /// Notes that a process got the lock: it no longer waits for it.
    pub fn lock_taken(&self, session: SessionId, ino: Ino, lock: &LockRange) {
        self.state.lock().waits.end(session, ino, lock);
    }

    fn session_heartbeat(&self, view: &View, beat: &SessionBeat) -> Result<MetaReply, StoreError> {
        let alive = lagan_meta::session_exists(view, beat.session)?;
        let map_version = lagan_meta::map_version(view)?;
        if alive && beat.promised == 0 {
            self.promises.session_settled(beat.session, beat.term);
        }
        let mut state = self.state.lock();
        let mut question = None;
        if alive {
            state.sessions.heard(beat.session, self.uptime.ms());
            state.orphans.answer(beat.session, beat.check, &beat.open);
            state.releases.answer(beat.session, beat.check, &beat.open);
            let orphans = state.orphans.question(beat.session);
            question = orphans.or_else(|| state.releases.question(beat.session));
        }
        drop(state);
        self.answered.notify_waiters();
        let (check, orphans) = question.unwrap_or_default();
        Ok(MetaReply::Heartbeat {
            alive,
            map_version,
            check,
            orphans,
            term: self.raft.term(),
        })
    }

    fn node_heartbeat(&self, view: &View, beat: NodeHeartbeat) -> Result<MetaReply, StoreError> {
        let map_version = lagan_meta::map_version(view)?;
        let now = wall_ms();
        let known = lagan_meta::node_boot(view, beat.node)? == Some(beat.boot);
        let mut state = self.state.lock();
        if known {
            state.nodes.heard(beat.node, self.uptime.ms());
            state.skew_ms.insert(beat.node, skew(now, beat.time_ms));
            state.heartbeats.insert(beat.node, beat);
        }
        let skews = state.skew_ms.values().copied().collect();
        Ok(MetaReply::NodeHeartbeat {
            map_version,
            known,
            time_ms: cluster_ms(now, median_skew(skews)),
        })
    }

    async fn join(
        &self,
        view: &View,
        info: lagan_types::cluster::NodeInfo,
    ) -> Result<MetaReply, StoreError> {
        let Some(map) = lagan_meta::cluster_map(view)? else {
            return Ok(MetaReply::Refused("the cluster is not initialised".into()));
        };
        if let Some(other) = map
            .nodes
            .iter()
            .find(|n| n.store != info.store && (n.name == info.name || n.addr == info.addr))
        {
            return Ok(MetaReply::Refused(format!(
                "node {} of this cluster already has the name {:?} at {}: a server with an \
                 empty data directory joins under another name and address",
                other.id.0, other.name, other.addr
            )));
        }
        Ok(match self.propose(RegisterNode { info }).await {
            Some(Ok(Answer::Node { node })) => MetaReply::Joined {
                node,
                cluster: map.config.cluster,
                incarnation: map.config.incarnation,
            },
            Some(Err(FsError::Stale)) => MetaReply::Refused(
                "the store is older than the one registered under this name".into(),
            ),
            Some(other) => MetaReply::Refused(format!("not registered: {other:?}")),
            None => MetaReply::NotLeader {
                leader: None,
                addr: None,
            },
        })
    }

    /// Proposes a command of the cluster's own; `None`: ask again later.
    pub(crate) async fn propose(&self, op: impl Into<SystemOp>) -> Option<Result<Answer, FsError>> {
        let command = Command::system(op);
        match self.raft.propose(command, PROPOSE_DEADLINE).await {
            Ok(answer) => Some(answer),
            Err(e) => {
                tracing::debug!(error = %e, "own command");
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn beat(node: u64, used_bytes: u64, free_bytes: u64) -> NodeHeartbeat {
        NodeHeartbeat {
            node: NodeId(node),
            boot: 1,
            time_ms: 0,
            used_bytes,
            free_bytes,
            full: false,
            set_chunks: Vec::new(),
            s3_error: String::new(),
            s3_permanent: false,
            s3_ready: false,
            damaged_chunks: 0,
        }
    }

    #[test]
    fn disks_are_those_of_all_nodes_that_were_heard_of_lately() {
        let mut state = State::new(1, 0);
        for (node, heard_ms) in [(1, 5_000), (2, 5_100), (3, 0)] {
            state.nodes.heard(NodeId(node), heard_ms);
            let beat = beat(node, node * 10, u64::MAX * (node / 2));
            state.heartbeats.insert(NodeId(node), beat);
        }
        let disk = |used_bytes, total_bytes| Disk {
            used_bytes,
            total_bytes,
        };
        assert_eq!(state.disks(5_200), [disk(10, 10), disk(20, u64::MAX)]);
    }

    #[test]
    fn leader_that_was_stopped_ends_nobody_for_its_own_silence() {
        let mut state = State::new(1, 0);
        state.sessions.heard(SessionId(4), 0);
        state.nodes.heard(NodeId(2), 0);
        state.pulse(250);
        state.pulse(60_000);
        assert_eq!(state.sessions.silent(60_001), []);
        assert_eq!(state.nodes.silent(60_001), []);
    }
}
