//! The leader's duties, eight times a second: it ends silent sessions, marks nodes that
//! are down, reaps orphans, changes sets and voters.
//!
//! One look at one state finds what is to be done; each finding becomes a command that the
//! state machine checks again.

use crate::leader::{Leader, State};
use crate::liveness::NODE_SILENT_AT_TERM_MS;
use crate::membership::{Change, next_change};
use crate::open_check::{CHECK_INOS_MAX, next_from};
use crate::removal::Uses;
use crate::sessions::live_sessions;
use crate::sets::{Circumstances, plan};
use lagan_meta::kv::StoreError;
use lagan_raft::View;
use lagan_types::cluster::{ClusterMap, NodeInfo, NodeState};
use lagan_types::op::{ChangeSets, EndSession, ReapOrphans, SetNodeState, SetVoter, SystemOp};
use lagan_types::query::Orphans;
use lagan_types::{Ino, NodeId, SessionId};
use std::cell::OnceCell;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

const INTERVAL: Duration = Duration::from_millis(125);
/// Time for a new voter to catch up; after it the leader looks which voters it wants now.
const CATCH_UP: Duration = Duration::from_secs(20);
/// Rounds between looks for orphans.
const ORPHAN_ROUNDS: u64 = 8;

/// Carries out the duties until `cancel`; does nothing while another node leads.
pub async fn run(leader: Arc<Leader>, cancel: CancellationToken) {
    let work = async { tokio::join!(ticks(&leader), pulses(&leader)) };
    cancel.run_until_cancelled(work).await;
}

/// Notes that the process runs, beside the ticks, which may take longer than a pause.
async fn pulses(leader: &Leader) {
    loop {
        leader.state.lock().pulse(leader.uptime.ms());
        tokio::time::sleep(INTERVAL).await;
    }
}

async fn ticks(leader: &Arc<Leader>) {
    let mut round = 0u64;
    loop {
        tokio::time::sleep(INTERVAL).await;
        round += 1;
        leader.state.lock().pulse(leader.uptime.ms());
        if leader.raft.is_leader() {
            leader.tick(round).await;
        }
    }
}

impl Leader {
    async fn tick(self: &Arc<Self>, round: u64) {
        let term = self.raft.leading();
        let Ok(view) = self.raft.read().await else {
            return;
        };
        let Some(term) = self.raft.leading().filter(|now| Some(*now) == term) else {
            return;
        };
        let wanted = match self.look(&view, term, round) {
            Ok(wanted) => wanted,
            Err(e) => return tracing::error!(error = %e, "state store"),
        };
        drop(view);
        for op in wanted.ops {
            match op {
                // They may wait for leases to end, and silent nodes must not.
                SystemOp::EndSession(_) | SystemOp::ReapOrphans(_) => {
                    let leader = self.clone();
                    tokio::spawn(async move { leader.propose_wanted(op).await });
                }
                op => self.propose_wanted(op).await,
            }
        }
        if let Some((change, map)) = wanted.members {
            self.change_members_aside(change, map);
        }
    }

    async fn propose_wanted(&self, op: SystemOp) {
        let ended = match op {
            SystemOp::EndSession(EndSession { session }) => Some(session),
            _ => None,
        };
        if let (Some(Ok(_)), Some(session)) = (self.propose_any(op).await, ended) {
            self.promises.session_ended(session);
            self.leases.session_ended(session);
        }
    }

    /// Changes Raft's members on a task of its own: a new voter takes as long as its copy
    /// of the state, and meanwhile nodes and sessions are looked after as ever.
    fn change_members_aside(self: &Arc<Self>, change: Change, map: ClusterMap) {
        if self.changing_members.swap(true, Ordering::AcqRel) {
            return;
        }
        let leader = self.clone();
        tokio::spawn(async move {
            let _done = Changing(&leader.changing_members);
            leader.change_members(change, &map).await;
        });
    }

    /// Finds what is to be done now, judged on one state.
    fn look(&self, view: &View, term: u64, round: u64) -> Result<Wanted, StoreError> {
        let Some(map) = lagan_meta::cluster_map(view)? else {
            return Ok(Wanted::default());
        };
        let now = self.uptime.ms();
        let sessions = live_sessions(view)?;
        self.leases.keep_sessions(&sessions, term);
        let orphans = if round.is_multiple_of(ORPHAN_ROUNDS) {
            orphans(view, self.state.lock().orphans_from)?
        } else {
            Vec::new()
        };
        let mut guard = self.state.lock();
        let state = &mut *guard;
        self.begin_term(state, &map, &sessions, now);
        state.sessions.retain_or_add(sessions.iter().copied(), now);
        state.orphans.keep_sessions(&sessions);
        state.releases.keep_sessions(&sessions);
        state
            .nodes
            .retain_or_add(map.nodes.iter().map(|n| n.id), now);
        let mut ops = node_changes(state, &map, now);
        ops.extend(silent_sessions(state, now));
        if !state.orphans.is_running() && round.is_multiple_of(ORPHAN_ROUNDS) {
            state.orphans_from = next_from(&orphans);
            state.orphans.begin(orphans, sessions);
        }
        if let Some(inos) = state.orphans.finished().filter(|i| !i.is_empty()) {
            ops.push(ReapOrphans { inos }.into());
        }
        let circumstances = state.circumstances(now);
        drop(guard);
        ops.extend(set_changes(view, &map, &circumstances)?);
        let voters = self.raft.voters();
        if !self.changing_members.load(Ordering::Acquire) {
            ops.extend(vote_changes(&map, &voters));
        }
        let leaving = circumstances.leaving.iter().copied().collect();
        let change = next_change(&map.nodes, &leaving, &self.raft.members(), &voters);
        let members = change.map(|change| (change, map));
        Ok(Wanted { ops, members })
    }

    /// Begins a new term, if there is one, with everybody heard of lately.
    fn begin_term(&self, state: &mut State, map: &ClusterMap, sessions: &[SessionId], now: u64) {
        let term = self.raft.term();
        if state.term != term {
            *state = State::new(term, now);
            state.sessions.retain_or_add(sessions.iter().copied(), now);
            let heard = now.saturating_sub(NODE_SILENT_AT_TERM_MS);
            let nodes = map.nodes.iter().map(|n| n.id);
            state.nodes.retain_or_add(nodes, heard);
        }
    }

    async fn change_members(&self, change: Change, map: &ClusterMap) {
        let done = match change.clone() {
            Change::Addrs(addrs) => self.raft.set_addrs(addrs).await,
            Change::Voters(voters) => {
                if !self.bring_up_to_date(&voters, map).await {
                    return;
                }
                self.raft.set_voters(voters).await
            }
            Change::Forget(members) => self.raft.forget(members).await,
        };
        match done {
            Ok(()) => tracing::info!(?change, "members changed"),
            Err(e) => tracing::warn!(?change, error = %e, "members not changed"),
        }
    }

    /// Makes nodes that are to vote follow the log first; false: not all do yet.
    async fn bring_up_to_date(&self, voters: &BTreeSet<NodeId>, map: &ClusterMap) -> bool {
        for node in voters.difference(&self.raft.voters()) {
            let Some(info) = map.node(*node) else {
                return false;
            };
            // It goes on to catch up when this gives up; the next round asks again, or
            // for another node.
            let adding = self.raft.add_learner(*node, info.peer_addr.clone());
            match tokio::time::timeout(CATCH_UP, adding).await {
                Ok(Ok(())) => {}
                Ok(Err(e)) => {
                    tracing::debug!(%node, error = %e, "node does not follow yet");
                    return false;
                }
                Err(_) => {
                    tracing::debug!(%node, "node does not follow yet");
                    return false;
                }
            }
        }
        true
    }
}

/// Clears the flag, however the change ended.
struct Changing<'a>(&'a AtomicBool);

impl Drop for Changing<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

/// Commands and changes that one look found to do.
#[derive(Default)]
struct Wanted {
    ops: Vec<SystemOp>,
    members: Option<(Change, ClusterMap)>,
}

/// Plans the sets whose filling begins or is given up.
fn set_changes(
    view: &View,
    map: &ClusterMap,
    now: &Circumstances,
) -> Result<Option<SystemOp>, StoreError> {
    let uses = OnceCell::new();
    let mut problem = None;
    let mut used = |set| match uses.get_or_init(|| Uses::of(view)) {
        Ok(uses) => uses.is_used(set),
        Err(e) => {
            problem = Some(e.to_string());
            false
        }
    };
    let changes = plan(map, now, &mut used);
    match problem {
        Some(e) => Err(StoreError::Io(e)),
        None => Ok((!changes.is_empty()).then(|| ChangeSets { changes }.into())),
    }
}

/// Corrects the node table, which says who votes, for people and for `lagan up`.
fn vote_changes(map: &ClusterMap, voters: &BTreeSet<NodeId>) -> Vec<SystemOp> {
    let wrong = map
        .nodes
        .iter()
        .filter(|n| n.voter != voters.contains(&n.id));
    let right = |n: &NodeInfo| {
        SystemOp::SetVoter(SetVoter {
            node: n.id,
            voter: !n.voter,
        })
    };
    wrong.map(right).collect()
}

fn orphans(view: &View, from: Ino) -> Result<Vec<Ino>, StoreError> {
    let query = Orphans {
        from,
        limit: CHECK_INOS_MAX as u32,
    };
    Ok(lagan_meta::read(view, query)?.unwrap_or_default())
}

/// Finds the nodes that fell silent, came back, filled up or have space again.
fn node_changes(state: &mut State, map: &ClusterMap, now: u64) -> Vec<SystemOp> {
    let silent: BTreeSet<NodeId> = state.nodes.silent(now).into_iter().collect();
    let mut ops = Vec::new();
    for info in &map.nodes {
        let seen = if silent.contains(&info.id) {
            NodeState::Down
        } else {
            match state.heartbeats.get(&info.id) {
                Some(beat) if beat.full => NodeState::Full,
                Some(_) => NodeState::Up,
                // Not heard in this term yet: no news.
                None => info.state,
            }
        };
        if seen == NodeState::Down {
            state.down_since.entry(info.id).or_insert(now);
        } else {
            state.down_since.remove(&info.id);
        }
        if seen != info.state {
            tracing::info!(node = %info.id, name = %info.name, from = ?info.state, to = ?seen, "node state");
            let (node, state) = (info.id, seen);
            ops.push(SetNodeState { node, state }.into());
        }
    }
    ops
}

fn silent_sessions(state: &mut State, now: u64) -> Vec<SystemOp> {
    let silent = state.sessions.silent(now);
    for &session in &silent {
        tracing::info!(%session, "session was silent for too long, ended");
        state.session_ended(session);
    }
    let end = |session| EndSession { session }.into();
    silent.into_iter().map(end).collect()
}
