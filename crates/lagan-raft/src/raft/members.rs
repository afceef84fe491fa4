//! Asks and changes who leads and who votes.

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

/// Time for a new member to catch up.
const CATCH_UP_MAX: Duration = Duration::from_secs(600);
/// Time for a change of voters to be committed.
const CHANGE_MAX: Duration = Duration::from_secs(30);
/// Time for another leader to come up.
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

    /// The leader and its address, if known.
    pub fn leader(&self) -> Option<(NodeId, String)> {
        self.leader.borrow().leader.clone()
    }

    /// Whether this node leads, as far as it knows.
    pub fn is_leader(&self) -> bool {
        self.leader.borrow().is_leader
    }

    /// The term in which this node leads, as far as it knows; `None`: it does not.
    pub fn leading(&self) -> Option<u64> {
        self.leader.borrow().leading()
    }

    /// Returns when this node does not lead in that term, as far as it knows, or has
    /// stopped; at once if so already. It never leads in that term again.
    ///
    /// # Cancel safety
    /// A dropped call has done nothing.
    pub async fn lost(&self, term: u64) {
        let mut leader = self.leader.clone();
        // An error says that nobody writes it any more: the consensus has ended.
        let _ = leader.wait_for(|l| l.leading() != Some(term)).await;
    }

    /// Raft's term.
    pub fn term(&self) -> u64 {
        self.leader.borrow().term
    }

    /// Watches every change of leader and members.
    pub fn watch(&self) -> watch::Receiver<LeaderInfo> {
        self.leader.clone()
    }

    /// The members that vote.
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

    /// Changes the voters, by joint consensus. All must be members already. A voter that
    /// is left out follows without a vote until [`Raft::forget`], so that it learns that
    /// it has none.
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
    /// Fails as [`Raft::set_voters`] does.
    pub async fn set_addrs(&self, addrs: BTreeMap<NodeId, String>) -> Result<(), RaftError> {
        let node = |(id, addr): (NodeId, String)| (id.0, BasicNode { addr });
        let nodes = addrs.into_iter().map(node).collect();
        self.change(ChangeMembers::SetNodes(nodes)).await
    }

    /// Removes members that do not vote.
    ///
    /// # Errors
    /// Fails as [`Raft::set_voters`] does.
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

    /// Sets whether this node may lead: a node whose clock is wrong must not. A leader
    /// lets another node take over; the only voter leads all the same. Returns whether
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
