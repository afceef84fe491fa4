//! Bytes that come with a commit: whether they may, and whether every member of their sets has
//! them on disk.
//!
//! A commit is carried out when most voters have it on disk; its bytes must be on the disk of
//! *every* member (INV-1). So the answer waits for the members' own appends, and says if one
//! is down that has not got them: then the mount stores the bytes in an open set before its
//! call returns.

use crate::leader::Leader;
use lagan_meta::kv::StoreError;
use lagan_raft::ProposeError;
use lagan_types::cluster::{NodeState, log_keeps};
use lagan_types::op::Commit;
use lagan_types::{Command, NodeId, Op, Refusal};
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::time::Instant;

/// Bytes in a member's memory, not yet in its chunk store, with which it takes more.
const STAGED_MAX: u64 = 32 << 20;
/// How long members may take that are not known to be down: longer than it takes to know.
const HELD_MAX: Duration = Duration::from_millis(2_500);
/// Time between looks for members that are down.
const LOOK: Duration = Duration::from_millis(50);

impl Leader {
    /// Returns the nodes that must have the bytes that come with a mutation; none if none do.
    ///
    /// # Errors
    /// The inner one: [`Refusal::Malformed`] for bytes that are not those of the chunks;
    /// [`Refusal::NotInline`]. The outer one stops the node.
    pub(crate) fn inline_members(
        &self,
        command: &Command,
    ) -> Result<Result<BTreeSet<NodeId>, Refusal>, StoreError> {
        let commit = match &command.op {
            Op::File(op) => op.inline(),
            Op::System(_) => None,
        };
        match commit {
            Some(commit) if !commit.is_whole() => Ok(Err(Refusal::Malformed)),
            Some(commit) => {
                // Carried out before: since then its chunks may have been freed and deleted, and
                // would come back.
                let (view, seq) = (self.raft.local_view(), command.seq);
                match lagan_meta::is_answered(&view, command.session, seq)? {
                    true => Ok(Err(Refusal::NotInline)),
                    false => self.members_of(commit),
                }
            }
            None => Ok(Ok(BTreeSet::new())),
        }
    }

    fn members_of(&self, commit: &Commit) -> Result<Result<BTreeSet<NodeId>, Refusal>, StoreError> {
        let view = self.raft.local_view();
        let voters = self.raft.voters();
        let mut members = BTreeSet::new();
        for chunk in commit.chunks() {
            let set = lagan_meta::replica_set(&view, chunk.id.set())?;
            let open = set.filter(|set| !set.sealed && set.epoch == chunk.set_epoch);
            let Some(set) = open.filter(|set| log_keeps(&set.nodes, &voters)) else {
                return Ok(Err(Refusal::NotInline));
            };
            members.extend(set.nodes);
        }
        if !members.iter().all(|&m| self.raft.is_near(m)) {
            return Ok(Err(Refusal::NotInline));
        }
        let state = self.state.lock();
        let beats = members.iter().filter_map(|m| state.heartbeats.get(m));
        let mut busy = beats.filter(|beat| beat.full || beat.staged_bytes > STAGED_MAX);
        Ok(match busy.next() {
            Some(_) => Err(Refusal::NotInline),
            None => Ok(members),
        })
    }

    /// Waits until each of the members has appended that entry of that term itself. False: one
    /// that has not is down, or takes too long.
    ///
    /// # Errors
    /// [`ProposeError::Unknown`]: this node does not lead any more.
    pub(crate) async fn wait_held(
        &self,
        (term, index): (u64, u64),
        members: BTreeSet<NodeId>,
    ) -> Result<bool, ProposeError> {
        let members: Vec<NodeId> = members.into_iter().collect();
        let until = Instant::now() + HELD_MAX;
        let held = self.raft.held(term, index, &members);
        tokio::pin!(held);
        loop {
            tokio::select! {
                biased;
                held = &mut held => return held.map(|()| true),
                () = tokio::time::sleep(LOOK) => {}
            }
            let view = self.raft.local_view();
            let lacks = |m: &&NodeId| !self.raft.is_held(term, index, **m);
            let is_down = |m: &NodeId| {
                let row = lagan_meta::node(&view, *m);
                // A state that cannot be read stops the node elsewhere.
                row.is_ok_and(|row| row.is_none_or(|row| row.state == NodeState::Down))
            };
            if Instant::now() >= until || members.iter().filter(lacks).any(is_down) {
                return Ok(false);
            }
        }
    }
}
