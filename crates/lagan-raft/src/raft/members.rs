//! Who leads and who votes: asking and changing.

use super::Raft;
use crate::error::RaftError;
use crate::leader::LeaderInfo;
use lagan_types::NodeId;
use openraft::error::{ClientWriteError, InitializeError, RaftError as CoreError};
use openraft::{BasicNode, ChangeMembers};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::watch;

/// For a new member to catch up.
const CATCH_UP_MAX: Duration = Duration::from_secs(600);
/// For a change of voters to be committed.
const CHANGE_MAX: Duration = Duration::from_secs(30);
/// For another leader to come up.
const STEP_DOWN_MAX: Duration = Duration::from_secs(5);

fn refused(e: CoreError<u64, ClientWriteError<u64, BasicNode>>) -> RaftError {
    match e {
        CoreError::APIError(ClientWriteError::ForwardToLeader(to)) => {
            let leader = to.leader_id.zip(to.leader_node);
            RaftError::NotLeader {
                leader: leader.map(|(id, node)| (NodeId(id), node.addr)),
            }
        }
        CoreError::APIError(ClientWriteError::ChangeMembershipError(e)) => {
            RaftError::Refused(e.to_string())
        }
        CoreError::Fatal(e) => RaftError::Stopped(e.to_string()),
    }
}

impl Raft {
    /// Whether the node is part of a cluster.
    pub fn is_initialized(&self) -> bool {
        !self.leader.borrow().members.is_empty()
    }

    /// Makes a cluster with this node as its only voter, reachable at `addr`;
    /// returns when it leads.
    ///
    /// # Errors
    /// [`RaftError::Initialized`] if it is part of one.
    pub async fn initialize(&self, addr: String) -> Result<(), RaftError> {
        let members = BTreeMap::from([(self.options.node.0, BasicNode { addr })]);
        match self.core.initialize(members).await {
            Ok(()) => {}
            Err(CoreError::APIError(InitializeError::NotAllowed(_))) => {
                return Err(RaftError::Initialized);
            }
            Err(CoreError::APIError(e)) => return Err(RaftError::Refused(e.to_string())),
            Err(CoreError::Fatal(e)) => return Err(RaftError::Stopped(e.to_string())),
        }
        let mut leader = self.leader.clone();
        let leads = leader.wait_for(|l| l.is_leader || l.stopped);
        match tokio::time::timeout(CHANGE_MAX, leads).await {
            Ok(Ok(leader)) if leader.is_leader => Ok(()),
            Ok(_) => Err(RaftError::Stopped("while it was initialized".into())),
            Err(_) => Err(RaftError::TimedOut("become leader")),
        }
    }

    /// Who leads, and where.
    pub fn leader(&self) -> Option<(NodeId, String)> {
        self.leader.borrow().leader.clone()
    }

    /// Whether this node leads, as far as it knows.
    pub fn is_leader(&self) -> bool {
        self.leader.borrow().is_leader
    }

    /// Raft's term.
    pub fn term(&self) -> u64 {
        self.leader.borrow().term
    }

    /// Tells of every change.
    pub fn watch(&self) -> watch::Receiver<LeaderInfo> {
        self.leader.clone()
    }

    /// Those that vote.
    pub fn voters(&self) -> BTreeSet<NodeId> {
        self.leader.borrow().voters.clone()
    }

    /// All members, learners too, with their addresses.
    pub fn members(&self) -> BTreeMap<NodeId, String> {
        self.leader.borrow().members.clone()
    }

    /// Adds a member that does not vote (one that is there keeps its address);
    /// returns when it has nearly all entries.
    ///
    /// # Errors
    /// [`RaftError::NotLeader`]; [`RaftError::TimedOut`]: it is a member, but not there yet.
    pub async fn add_learner(&self, node: NodeId, addr: String) -> Result<(), RaftError> {
        let adding = self.core.add_learner(node.0, BasicNode { addr }, true);
        match tokio::time::timeout(CATCH_UP_MAX, adding).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(e)) => Err(refused(e)),
            Err(_) => Err(RaftError::TimedOut("bring a new member up to date")),
        }
    }

    /// Changes who votes, by joint consensus. All must be members already; those
    /// that are left out follow without a vote, so that they know that they have
    /// none, until [`Raft::forget`].
    ///
    /// # Errors
    /// [`RaftError::NotLeader`], [`RaftError::Refused`], [`RaftError::TimedOut`]
    /// (it may still happen).
    pub async fn set_voters(&self, voters: BTreeSet<NodeId>) -> Result<(), RaftError> {
        let voters = voters.into_iter().map(|id| id.0).collect();
        self.change(ChangeMembers::ReplaceAllVoters(voters)).await
    }

    /// Gives members new addresses. Each must lead to the same store as the old
    /// one did.
    ///
    /// # Errors
    /// As [`Raft::set_voters`].
    pub async fn set_addrs(&self, addrs: BTreeMap<NodeId, String>) -> Result<(), RaftError> {
        let node = |(id, addr): (NodeId, String)| (id.0, BasicNode { addr });
        let nodes = addrs.into_iter().map(node).collect();
        self.change(ChangeMembers::SetNodes(nodes)).await
    }

    /// Removes members that do not vote.
    ///
    /// # Errors
    /// As [`Raft::set_voters`].
    pub async fn forget(&self, members: BTreeSet<NodeId>) -> Result<(), RaftError> {
        let members = members.into_iter().map(|id| id.0).collect();
        self.change(ChangeMembers::RemoveNodes(members)).await
    }

    async fn change(&self, change: ChangeMembers<u64, BasicNode>) -> Result<(), RaftError> {
        let changing = self.core.change_membership(change, true);
        match tokio::time::timeout(CHANGE_MAX, changing).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(e)) => Err(refused(e)),
            Err(_) => Err(RaftError::TimedOut("change the members")),
        }
    }

    /// Lets another voter take over: stops proposing and sending heartbeats
    /// until one has, or a few seconds have passed. Does nothing elsewhere
    /// than on a leader with followers.
    pub async fn step_down(&self) {
        {
            let leader = self.leader.borrow();
            if !leader.is_leader || leader.voters.len() < 2 {
                return;
            }
        }
        self.stepping_down.store(true, Ordering::Relaxed);
        self.core.runtime_config().heartbeat(false);
        self.core.runtime_config().elect(false);
        let mut leader = self.leader.clone();
        let gone = leader.wait_for(|l| !l.is_leader);
        // Nobody took over: this node goes on.
        let _ = tokio::time::timeout(STEP_DOWN_MAX, gone).await;
        let may = self.may_lead.load(Ordering::Relaxed);
        self.core.runtime_config().heartbeat(may);
        self.core.runtime_config().elect(may);
        self.stepping_down.store(!may, Ordering::Relaxed);
    }

    /// Whether this node may lead: a node whose clock is wrong must not. One that
    /// leads lets another take over; the only voter leads all the same. True if
    /// that is a change.
    pub fn set_may_lead(&self, may: bool) -> bool {
        let changed = self.may_lead.swap(may, Ordering::Relaxed) != may;
        if changed {
            self.stepping_down.store(!may, Ordering::Relaxed);
            self.core.runtime_config().heartbeat(may);
            self.core.runtime_config().elect(may);
        }
        changed
    }
}
