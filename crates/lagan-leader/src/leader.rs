//! The leader's memory, and its answers to requests that only a leader can answer.

use crate::after::After;
use crate::clock::{Uptime, cluster_ms, median_skew, skew, wall_ms};
use crate::floors::Floors;
use crate::leases::Leases;
use crate::liveness::{Liveness, NODE_SILENCE_MS, SESSION_SILENCE_MS};
use crate::no_answer::NoAnswer;
use crate::open_check::{OpenCheck, Purpose};
use crate::promises::Promises;
use crate::sessions::live_sessions;
use crate::waits::Waits;
use lagan_host::wall::since_1970;
use lagan_meta::DueScan;
use lagan_raft::Raft;
use lagan_types::cluster::NodeInfo;
use lagan_types::message::{
    Joined, NodeHeard, NodeHeartbeat, SessionHeard, SessionHeartbeat, WaitLock,
};
use lagan_types::op::{LockKind, LockRange, RegisterNode, SystemOp};
use lagan_types::{
    Answer, Ask, Command, FsError, Ino, NodeId, Refusal, SessionId, Time, answer_to,
};
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
    /// What mounts may remember.
    pub(crate) leases: Arc<Leases>,
    /// Created names that are not replicated yet.
    pub(crate) promises: Arc<Promises>,
    /// Creates that come late are not promised again.
    pub(crate) floors: Floors,
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

impl Leader {
    /// Makes the leader's part of the node that runs `raft`.
    pub fn new(raft: Arc<Raft>) -> Arc<Self> {
        let leases = Arc::new(Leases::new(raft.clone()));
        Arc::new(Leader {
            promises: Arc::new(Promises::new(raft.clone(), leases.clone())),
            floors: Floors::default(),
            leases,
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

    /// Notes that a session was just opened: it is alive. (That it holds nothing of an earlier
    /// term it says itself: this may be a late answer.)
    pub fn session_heard(&self, session: SessionId) {
        let now = self.uptime.ms();
        self.state.lock().sessions.heard(session, now);
    }

    /// Notes that a session is over.
    pub fn session_ended(&self, session: SessionId) {
        self.state.lock().session_ended(session);
        self.answered.notify_waiters();
        self.promises.session_ended(session);
        self.floors.session_ended(session);
        self.leases.session_ended(session);
    }

    /// Notes what a command that was carried out means to the leader.
    pub(crate) fn note(&self, after: After, answer: &Result<Answer, Refusal>) {
        match (after, answer) {
            (After::FilesDue, _) => self.files_became_due(),
            (After::Nothing, _) | (_, Err(_)) => {}
            (After::SessionEnded(session), Ok(_)) => self.session_ended(session),
            (After::SessionOpened { predecessor }, Ok(answer)) => {
                // One of another mount point was left as it is.
                let view = self.raft.local_view();
                let lives = |session| lagan_meta::session_exists(&view, session);
                let is_gone = |session| lives(session).is_ok_and(|lives| !lives);
                if let Some(session) = predecessor.filter(|session| is_gone(*session)) {
                    self.session_ended(session);
                }
                if let Answer::Session(new) = answer {
                    self.session_heard(new.session);
                }
            }
            (After::LockTaken(session, ino, lock), Ok(_)) => {
                self.state.lock().waits.end(session, ino, &lock);
            }
        }
    }

    /// Notes that a process waits for a lock, and answers with the lock in its way.
    pub(crate) async fn wait_lock(
        &self,
        ask: &WaitLock,
    ) -> Result<Result<Option<(SessionId, LockRange)>, Refusal>, NoAnswer> {
        let view = &self.raft.read().await?;
        let &WaitLock { session, ino, lock } = ask;
        if !lagan_meta::session_exists(view, session)? {
            return Ok(Err(Refusal::SessionEnded));
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
        Ok(match circle {
            true => Err(FsError::Deadlock.into()),
            false => Ok(first),
        })
    }

    /// Notes that a mount is alive, and renews its lease.
    pub(crate) async fn session_heartbeat(
        &self,
        beat: &SessionHeartbeat,
    ) -> Result<SessionHeard, NoAnswer> {
        // No other leader's hold had begun before the heartbeat came, whatever this node
        // knew then: a round that begins later says so.
        let received_ms = self.leases.now_ms();
        let term = self.raft.confirm().await?;
        let view = self.raft.local_view();
        let alive = lagan_meta::session_exists(&view, beat.session)?;
        let map_version = lagan_meta::map_version(&view)?;
        if alive && beat.term == term && self.leases.holds(term) {
            match beat.promised {
                0 => self.leases.settle(beat.session, term),
                _ => self.leases.knows(beat.session, term),
            }
            self.leases
                .end_hold_if_settled(&live_sessions(&view)?, term);
        }
        drop(view);
        let renews = alive && beat.renews;
        let leased = renews && self.leases.renew(beat.session, term, received_ms);
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
        Ok(SessionHeard {
            alive,
            map_version,
            check,
            orphans,
            term,
            leased,
            now: Time::after_1970(since_1970()),
        })
    }

    /// Notes that a node is alive, and what it says of itself.
    pub(crate) async fn node_heartbeat(&self, beat: NodeHeartbeat) -> Result<NodeHeard, NoAnswer> {
        let view = self.raft.read().await?;
        let map_version = lagan_meta::map_version(&view)?;
        let now = wall_ms();
        let known = lagan_meta::node_boot(&view, beat.node)? == Some(beat.boot);
        drop(view);
        let mut state = self.state.lock();
        if known {
            state.nodes.heard(beat.node, self.uptime.ms());
            state.skew_ms.insert(beat.node, skew(now, beat.time_ms));
            state.heartbeats.insert(beat.node, beat);
        }
        let skews = state.skew_ms.values().copied().collect();
        Ok(NodeHeard {
            map_version,
            known,
            time_ms: cluster_ms(now, median_skew(skews)),
        })
    }

    /// Registers a new server, unless another one has its name or address.
    pub(crate) async fn join(&self, info: NodeInfo) -> Result<Joined, NoAnswer> {
        let map = lagan_meta::cluster_map(&self.raft.read().await?)?;
        let map = map.ok_or_else(NoAnswer::not_initialised)?;
        if let Some(other) = map
            .nodes
            .iter()
            .find(|n| n.store != info.store && (n.name == info.name || n.addr == info.addr))
        {
            return Err(NoAnswer::Refused(format!(
                "node {} of this cluster already has the name {:?} at {}: a server with an \
                 empty data directory joins under another name and address",
                other.id.0, other.name, other.addr
            )));
        }
        match self.propose(RegisterNode { info }).await {
            Some(Ok(node)) => Ok(Joined {
                node,
                cluster: map.config.cluster,
                incarnation: map.config.incarnation,
            }),
            Some(Err(Refusal::Fs(FsError::Stale))) => Err(NoAnswer::Refused(
                "the store is older than the one registered under this name".into(),
            )),
            Some(Err(other)) => Err(NoAnswer::Refused(format!("not registered: {other}"))),
            None => Err(NoAnswer::Unknown),
        }
    }

    /// Proposes a command of the cluster's own; `None`: ask again later.
    pub(crate) async fn propose<A>(&self, op: A) -> Option<Result<A::Answer, Refusal>>
    where
        A: Ask<Request = SystemOp, Reply = Answer>,
    {
        self.propose_any(op.into()).await.map(answer_to::<A>)
    }

    /// Proposes one of several kinds of commands, as [`Leader::propose`] does.
    pub(crate) async fn propose_any(&self, op: SystemOp) -> Option<Result<Answer, Refusal>> {
        let proposed = self
            .promises
            .mutate(Command::system(op), None, PROPOSE_DEADLINE);
        match proposed.await {
            Ok(changed) => Some(changed.answer),
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
            staged_bytes: 0,
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
