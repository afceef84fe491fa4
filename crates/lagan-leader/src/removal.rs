//! Taking a node out of the cluster (`lagan remove`).
//!
//! The command asks again and again. As long as it does, the leader gives the node's places
//! in sets to others, as if it had been down for long, and its vote too. When no set
//! needs the node any more and it does not vote, its rows go in one command. The leader
//! remembers only what was done: a command that is broken off, or a
//! change of leader, leaves a cluster with a dead node in fewer sets.

use crate::leader::{Leader, State};
use crate::no_answer::NoAnswer;
use crate::sets::{Circumstances, Verdict, judge};
use lagan_meta::kv::StoreError;
use lagan_raft::View;
use lagan_types::message::Removal;
use lagan_types::op::{ChunksReaped, RemoveNode};
use lagan_types::query::{ChunkReap, SetUses};
use lagan_types::{FsError, NodeId, Refusal, SetId};
use std::collections::BTreeMap;

/// Time after which a removal is given up, if nobody asks for it again.
const ASKED_MS: u64 = 5_000;
/// Most reap rows that one command removes.
const ROWS: u32 = 1_024;
/// Most such commands in one request, so that it is answered in time.
const ROUNDS: u32 = 64;

/// The sets that files use; `None`: not counted yet, so every set may be used.
pub(crate) struct Uses(Option<BTreeMap<SetId, u64>>);

impl Uses {
    /// Reads them from that state.
    pub fn of(view: &View) -> Result<Self, StoreError> {
        let counts = lagan_meta::read(view, SetUses)?.unwrap_or_default();
        Ok(Uses(counts.map(|counts| counts.into_iter().collect())))
    }

    /// Whether files name, or may name, chunks of the set.
    pub fn is_used(&self, set: SetId) -> bool {
        self.0.as_ref().is_none_or(|sets| sets.contains_key(&set))
    }
}

impl State {
    /// Returns what the plan for the sets needs beside the map.
    pub(crate) fn circumstances(&mut self, now_ms: u64) -> Circumstances {
        self.leaving
            .retain(|_, asked_ms| now_ms.saturating_sub(*asked_ms) <= ASKED_MS);
        let down = self.down_since.iter();
        Circumstances {
            down_for: down
                .map(|(&n, &at)| (n, now_ms.saturating_sub(at)))
                .collect(),
            leaving: self.leaving.keys().copied().collect(),
        }
    }

    fn forget_node(&mut self, node: NodeId) {
        self.leaving.remove(&node);
        self.heartbeats.remove(&node);
        self.skew_ms.remove(&node);
        self.down_since.remove(&node);
        self.nodes.forget(node);
    }
}

impl Leader {
    /// Carries out one step of a removal.
    pub(crate) async fn remove_node(&self, node: NodeId, force: bool) -> Result<Removal, NoAnswer> {
        let view = self.raft.read().await?;
        let votes = self.raft.voters().contains(&node);
        let map = lagan_meta::cluster_map(&view)?.ok_or_else(NoAnswer::not_initialised)?;
        if map.node(node).is_none() {
            return Ok(match votes {
                true => Removal::Removing { sets: 0, votes },
                false => Removal::Removed,
            });
        }
        let uses = Uses::of(&view)?;
        drop(view);
        match judge(&map, node, force, |set| uses.is_used(set)) {
            Verdict::Refused(reason) => Err(NoAnswer::Refused(reason)),
            Verdict::Wait(sets) => Ok(self.leaves(node, sets, votes)),
            // A node that finds itself removed stops: its vote must count no more then.
            Verdict::Ready if votes => Ok(self.leaves(node, 0, votes)),
            Verdict::Ready => self.remove_rows(node, force).await,
        }
    }

    /// Notes that the node leaves: its places in sets and among the voters go to others.
    fn leaves(&self, node: NodeId, sets: u64, votes: bool) -> Removal {
        let now_ms = self.uptime.ms();
        self.state.lock().leaving.insert(node, now_ms);
        Removal::Removing { sets, votes }
    }

    async fn remove_rows(&self, node: NodeId, force: bool) -> Result<Removal, NoAnswer> {
        let again = Removal::Removing {
            sets: 0,
            votes: false,
        };
        let mut rounds = 0..ROUNDS;
        while rounds.next().is_some() {
            match self.reap_some(node).await {
                Some(true) => {}
                Some(false) => break,
                None => return Err(NoAnswer::Unknown),
            }
        }
        if rounds.is_empty() {
            return Ok(again);
        }
        match self.propose(RemoveNode { node, force }).await {
            Some(Ok(())) => {
                tracing::info!(%node, force, "node removed");
                self.state.lock().forget_node(node);
                Ok(Removal::Removed)
            }
            Some(Err(Refusal::Fs(FsError::NotFound))) => Ok(Removal::Removed),
            // A set came into use, or the node came back: judge again.
            Some(Err(Refusal::Fs(FsError::Busy))) => Ok(again),
            Some(Err(other)) => Err(NoAnswer::Refused(format!("not removed: {other}"))),
            None => Err(NoAnswer::Unknown),
        }
    }

    /// Removes some of the node's reap rows; false: there are none; `None`: ask again later.
    async fn reap_some(&self, node: NodeId) -> Option<bool> {
        let view = self.raft.read().await.ok()?;
        let query = ChunkReap {
            node,
            from: 0,
            now_ms: u64::MAX,
            limit: ROWS,
        };
        let rows = lagan_meta::read(&view, query).ok()?.ok()?;
        let Some((through, _)) = rows.last() else {
            return Some(false);
        };
        let through = *through;
        self.propose(ChunksReaped { node, through }).await?.ok()?;
        Some(true)
    }
}
