//! A server's birth into a cluster: `lagan init` and `lagan join`, and what a crash in
//! the middle leaves.
//!
//! The identity names the cluster before Raft does, Raft before there is a
//! configuration, the configuration before the first node: a crash in between
//! leaves a member that waits; the same `lagan init` again completes it. A
//! server that joined notes where it did before it belongs to the cluster, so
//! that it finds the leader after a crash too.

use crate::hints;
use crate::identity::Membership;
use crate::member::Member;
use crate::node::Node;
use anyhow::{Context, Result, bail};
use lagan_leader::clock::wall_ms;
use lagan_net::{LeaderClient, NetError};
use lagan_types::cluster::Config as ClusterConfig;
use lagan_types::message::{Join, Joined};
use lagan_types::op::{Init, RegisterNode};
use lagan_types::{Command, FsError, NodeId, Refusal};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// Time for the first leader election and the first commands of a cluster.
pub(crate) const BIRTH_DEADLINE: Duration = Duration::from_secs(20);
/// Time between looks whether a cluster's birth is complete.
pub(crate) const COMPLETION_LOOK: Duration = Duration::from_millis(200);
/// Looks after which a birth that is not complete counts as cut off.
const COMPLETION_LOOKS: u32 = 15;
/// The number of the first node of a cluster.
pub(crate) const FIRST: NodeId = NodeId(1);

/// Starts a member that was one before: opens its stores and registers this start.
///
/// # Errors
/// A store does not open.
pub(crate) async fn revive(node: &Arc<Node>, membership: Membership) -> Result<()> {
    let member = node.start_member(membership).await?;
    if membership.node == FIRST && !is_complete(&member)? {
        let (cancel, parts) = (node.parts.cancel.clone(), node.parts.clone());
        let node = node.clone();
        parts.spawn("birth", async move {
            cancel
                .run_until_cancelled(await_completion(node, member))
                .await;
        });
        return Ok(());
    }
    node.register_in_background(member);
    Ok(())
}

/// Whether the cluster has its configuration and its first node, as far as this server's
/// own state shows it.
fn is_complete(member: &Member) -> Result<bool> {
    if !member.raft.is_initialized() {
        return Ok(false);
    }
    let view = member.raft.local_view();
    let map = lagan_meta::cluster_map(&view).context("read the metadata")?;
    Ok(map.is_some_and(|map| map.node(FIRST).is_some()))
}

/// Waits until the cluster is complete. Either the first server's state only lags behind
/// its log, or its `lagan init` was cut off and another one will complete it.
async fn await_completion(node: Arc<Node>, member: Arc<Member>) {
    let mut looks = 0u32;
    loop {
        match is_complete(&member) {
            Ok(true) => return node.register_in_background(member),
            Ok(false) if looks == COMPLETION_LOOKS => {
                tracing::warn!("the cluster was not completed: run `lagan init` again");
            }
            Ok(false) => {}
            Err(e) => return node.parts.fail(format!("{e:#}")),
        }
        looks = looks.saturating_add(1);
        tokio::time::sleep(COMPLETION_LOOK).await;
    }
}

/// Carries out `lagan init`.
///
/// # Errors
/// The reason why not, in words for the person who asked.
pub(crate) async fn init(node: &Arc<Node>, mut config: ClusterConfig) -> Result<Joined> {
    let _one_at_a_time = node.birth.lock().await;
    config.check().map_err(anyhow::Error::msg)?;
    let known = node.data.lock().identity().membership;
    let membership = known.unwrap_or(Membership {
        cluster: config.cluster,
        incarnation: config.incarnation,
        node: FIRST,
    });
    // An init that was cut off goes on under the identity it had drawn.
    config.cluster = membership.cluster;
    config.incarnation = membership.incarnation;
    let member = match node.member.get() {
        Some(member) if is_complete(member)? => {
            bail!(
                "this server belongs to cluster {} already",
                membership.cluster
            )
        }
        Some(member) => member.clone(),
        None => {
            node.data.lock().join(membership)?;
            node.start_member(membership).await?
        }
    };
    if !member.raft.is_initialized() {
        let peer_addr = node.parts.config.peer_listen.to_string();
        member.raft.initialize(peer_addr).await?;
    }
    first_commands(&member, config).await?;
    node.register_in_background(member);
    Ok(joined(membership))
}

/// Proposes the configuration and the first node, once this node leads.
async fn first_commands(member: &Member, config: ClusterConfig) -> Result<()> {
    let until = wall_ms() + BIRTH_DEADLINE.as_millis() as u64;
    let info = lagan_types::cluster::NodeInfo {
        id: NodeId(0),
        ..member.info()
    };
    let init = Command::system(Init { config });
    let register = Command::system(RegisterNode { info });
    for command in [init, register] {
        loop {
            match member.raft.propose(command.clone(), BIRTH_DEADLINE).await {
                Ok(Ok(_) | Err(Refusal::Fs(FsError::Exists))) => break,
                Ok(Err(e)) => bail!("first command of the cluster: {e}"),
                Err(e) if wall_ms() > until => bail!("first command of the cluster: {e}"),
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }
    Ok(())
}

/// Carries out `lagan join`.
///
/// # Errors
/// The reason why not, in words for the person who asked.
pub(crate) async fn join(node: &Arc<Node>, via: &str) -> Result<Joined> {
    let _one_at_a_time = node.birth.lock().await;
    let known = node.data.lock().identity().membership;
    if let Some(membership) = known {
        bail!(
            "this server belongs to cluster {} already",
            membership.cluster
        );
    }
    let via: SocketAddr = via
        .parse()
        .map_err(|_| anyhow::anyhow!("{via:?} is no ip:port of a server"))?;
    let client = LeaderClient::new(node.parts.pool.clone(), vec![via]);
    let info = node.parts.node_info(NodeId(0));
    let membership = match client.ask(Join { info }, BIRTH_DEADLINE).await {
        Ok(joined) => Membership {
            cluster: joined.cluster,
            incarnation: joined.incarnation,
            node: joined.node,
        },
        Err(NetError::Declined(reason)) => bail!("{reason}"),
        Err(e) => return Err(e).with_context(|| format!("join via {via}")),
    };
    // Written first, so that a server that belongs to a cluster always knows where it is.
    hints::keep_first(&node.parts.config.data, via)?;
    node.data.lock().join(membership)?;
    let member = node.start_member(membership).await?;
    member.leader_client.set_nodes([(NodeId(0), via)]);
    node.register_in_background(member);
    Ok(joined(membership))
}

fn joined(membership: Membership) -> Joined {
    Joined {
        node: membership.node,
        cluster: membership.cluster,
        incarnation: membership.incarnation,
    }
}
