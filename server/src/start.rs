//! From configuration to serving, and a server's birth into a cluster.
//!
//! Order: data directory (lock, identity, boot counter), listeners, then, if the
//! store belongs to a cluster, the member's parts and its registration. A
//! store without a cluster waits for `lagan init` or `lagan join`.
//!
//! # Birth
//! The identity names the cluster before Raft does, Raft before there is a
//! configuration, the configuration before the first node: a crash in between
//! leaves a member that waits; the same `lagan init` again completes it. A
//! server that joined notes where it did before it belongs to the cluster, so
//! that it finds the leader after a crash too.

use crate::config::Config;
use crate::handler::{Door, Node};
use crate::http;
use crate::identity::{DataDir, Membership};
use crate::member::{Member, Parts, keep_first_hint};
use crate::shutdown;
use anyhow::{Context, Result, bail};
use lagan_host::port::listen_within;
use lagan_host::process::LEAVING_PATIENCE;
use lagan_leader::clock::wall_ms;
use lagan_net::{Hello, LeaderClient, Pool, PoolOptions, Role, Server, ServerLimits, Service};
use lagan_types::cluster::Config as ClusterConfig;
use lagan_types::message::{MetaReply, MetaRequest};
use lagan_types::{Command, FsError, NodeId, Op, SessionId, StoreId, Time, VolumeId};
use parking_lot::Mutex;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// For the first leader election and the first commands of a cluster.
const BIRTH_DEADLINE: Duration = Duration::from_secs(20);
/// Between looks whether a cluster's birth is complete.
const COMPLETION_LOOK: Duration = Duration::from_millis(200);
/// A birth that is not complete after so many was cut off.
const COMPLETION_LOOKS: u32 = 15;
/// Bytes in flight to and from mounts. With the same of the servers (below), the
/// caches and the mover's buffers a server stays below 512 MiB.
const CLIENTS_LEN_MAX: usize = 96 << 20;
/// Bytes in flight to and from other servers.
const PEERS_LEN_MAX: usize = 64 << 20;
/// The first node of a cluster.
const FIRST: NodeId = NodeId(1);

/// Runs the server until it is told to stop.
///
/// # Errors
/// It could not start, or had to stop.
pub fn run(config: Config) -> Result<()> {
    let data = DataDir::open(&config.data, || StoreId(rand::random()))?;
    let main = runtime("lagan", network_threads())?;
    let disk = runtime("lagan-disk", 4)?;
    let result = main.block_on(serve(Arc::new(config), data, disk.handle().clone()));
    main.shutdown_timeout(Duration::from_secs(2));
    disk.shutdown_timeout(Duration::from_secs(2));
    result
}

/// One thread for the network and the metadata for four processors: it carries a gigabyte a
/// second, and waking a second one for every message costs more than it brings.
fn network_threads() -> usize {
    std::thread::available_parallelism().map_or(1, |n| (n.get() / 4).clamp(1, 8))
}

fn runtime(name: &str, workers: usize) -> Result<Runtime> {
    Builder::new_multi_thread()
        .worker_threads(workers)
        .thread_name(name)
        .enable_all()
        .build()
        .context("start runtime")
}

/// A server that does nothing yet.
fn new_node(config: Arc<Config>, data: DataDir, disk: tokio::runtime::Handle) -> Arc<Node> {
    let identity = data.identity().clone();
    let mut options = PoolOptions::new(server_hello(&data));
    options.connection.bind_from = Some(config.bind_from());
    Arc::new(Node {
        parts: Parts {
            config,
            store_id: identity.store,
            boot: identity.boot,
            pool: Pool::new(options),
            disk,
            cancel: CancellationToken::new(),
            tasks: TaskTracker::new(),
            failure: Arc::default(),
        },
        data: Mutex::new(data),
        member: OnceLock::new(),
        live: Mutex::default(),
        birth: tokio::sync::Mutex::new(()),
    })
}

async fn serve(config: Arc<Config>, data: DataDir, disk: tokio::runtime::Handle) -> Result<()> {
    let membership = data.identity().membership;
    let node = new_node(config.clone(), data, disk);
    let doors = open_doors(&node, LEAVING_PATIENCE).await?;
    let stopped = shutdown::on_signals(node.parts.cancel.clone())?;
    tracing::info!(
        name = %config.name, listen = %config.listen, peer_listen = %config.peer_listen,
        http = %config.http, boot = node.parts.boot, "server started"
    );
    let fatal = match membership {
        Some(membership) => revive(&node, membership).await,
        None => {
            tracing::info!("no cluster yet: waiting for `lagan init` or `lagan join`");
            Ok(())
        }
    };
    if fatal.is_ok() {
        stopped.await;
    }
    shutdown::stop(&node, doors).await;
    match node.parts.failure.get() {
        Some(reason) => bail!("{reason}"),
        None => fatal,
    }
}

fn server_hello(data: &DataDir) -> Hello {
    let identity = data.identity();
    Hello {
        role: Role::Server,
        incarnation: identity.membership.map(|m| m.incarnation),
        node: identity.membership.map(|m| m.node),
        store: Some(identity.store),
        boot: identity.boot,
        service: Service::Meta,
        build: env!("CARGO_PKG_VERSION").into(),
    }
}

/// Listens on all addresses.
async fn open_doors(node: &Arc<Node>, patience: Duration) -> Result<Vec<Server>> {
    let config = &node.parts.config;
    let cancel = node.parts.cancel.clone();
    listen_within(patience, || http::serve(node, config.http, cancel.clone()))
        .await
        .with_context(|| format!("listen on http {}: is the port taken?", config.http))?;
    let mut doors = Vec::new();
    for (addr, peers, len) in [
        (config.listen, false, CLIENTS_LEN_MAX),
        (config.peer_listen, true, PEERS_LEN_MAX),
    ] {
        let limits = ServerLimits {
            total_in_flight_len_max: len,
            ..ServerLimits::default()
        };
        let door = || {
            let door = Door::new(node.clone(), peers);
            Server::bind(addr, door, limits.clone(), cancel.clone())
        };
        let door = listen_within(patience, door).await;
        doors.push(door.with_context(|| format!("listen on {addr}: is the port taken?"))?);
    }
    Ok(doors)
}

/// A member that was one before: opens its stores and registers this boot.
async fn revive(node: &Arc<Node>, membership: Membership) -> Result<()> {
    let member = start_member(node, membership).await?;
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
    register_in_background(node, member);
    Ok(())
}

/// Whether the cluster has its configuration and its first node, as far as
/// this server's own state has it.
fn is_complete(member: &Member) -> Result<bool> {
    if !member.raft.is_initialized() {
        return Ok(false);
    }
    let view = member.raft.local_view();
    let map = lagan_meta::cluster_map(&view).context("read the metadata")?;
    Ok(map.is_some_and(|map| map.node(FIRST).is_some()))
}

/// The first server's state may only lag behind its log; or its `lagan init`
/// was cut off, and another one will complete it.
async fn await_completion(node: Arc<Node>, member: Arc<Member>) {
    let mut looks = 0u32;
    loop {
        match is_complete(&member) {
            Ok(true) => return register_in_background(&node, member),
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

async fn start_member(node: &Arc<Node>, membership: Membership) -> Result<Arc<Member>> {
    let member = Member::start(node.parts.clone(), membership).await?;
    node.parts.pool.set_hello(server_hello(&node.data.lock()));
    if node.member.set(member.clone()).is_err() {
        bail!("started twice");
    }
    Ok(member)
}

/// A store that the cluster refuses ends the server; a leader that is not
/// there yet is waited for.
fn register_in_background(node: &Arc<Node>, member: Arc<Member>) {
    let node = node.clone();
    node.parts.clone().spawn("registration", async move {
        if let Err(e) = member.register().await {
            let reason = format!("{e:#}");
            if let Err(e) = node.data.lock().refuse(&reason) {
                tracing::error!(error = format!("{e:#}"), "note the refusal");
            }
            node.parts.fail(reason);
        }
    });
}

/// `lagan init` and `lagan join`, asked of a server.
///
/// # Errors
/// Why it cannot be, in words for the person who asked.
pub async fn birth(node: &Arc<Node>, request: MetaRequest) -> Result<MetaReply> {
    let _one_at_a_time = node.birth.lock().await;
    match request {
        MetaRequest::Init { config } => init(node, config).await,
        MetaRequest::JoinVia { via } => join(node, &via).await,
        other => bail!("not a birth: {other:?}"),
    }
}

async fn init(node: &Arc<Node>, mut config: ClusterConfig) -> Result<MetaReply> {
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
            start_member(node, membership).await?
        }
    };
    if !member.raft.is_initialized() {
        let peer_addr = node.parts.config.peer_listen.to_string();
        member.raft.initialize(peer_addr).await?;
    }
    first_commands(&member, config).await?;
    register_in_background(node, member);
    Ok(joined(membership))
}

/// Configuration and first node, once this node leads.
async fn first_commands(member: &Member, config: ClusterConfig) -> Result<()> {
    let until = wall_ms() + BIRTH_DEADLINE.as_millis() as u64;
    for op in [
        Op::Init { config },
        Op::RegisterNode {
            info: lagan_types::cluster::NodeInfo {
                id: NodeId(0),
                ..member.info()
            },
        },
    ] {
        let command = Command {
            volume: VolumeId(1),
            session: SessionId::SYSTEM,
            seq: 0,
            unanswered: 0,
            time: Time::default(),
            op,
        };
        loop {
            match member.raft.propose(command.clone(), BIRTH_DEADLINE).await {
                Ok(Ok(_) | Err(FsError::Exists)) => break,
                Ok(Err(e)) => bail!("first command of the cluster: {e}"),
                Err(e) if wall_ms() > until => bail!("first command of the cluster: {e}"),
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }
    Ok(())
}

async fn join(node: &Arc<Node>, via: &str) -> Result<MetaReply> {
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
    let request = MetaRequest::Join {
        info: node.joining_info(),
    };
    let answer = client.call(&request, BIRTH_DEADLINE).await;
    let membership = match answer.with_context(|| format!("join via {via}"))? {
        MetaReply::Joined {
            node,
            cluster,
            incarnation,
        } => Membership {
            cluster,
            incarnation,
            node,
        },
        MetaReply::Refused(reason) => bail!("{reason}"),
        other => bail!("unexpected answer {other:?}"),
    };
    // First, so that a server that belongs to a cluster always knows where it is.
    keep_first_hint(&node.parts.config.data, via)?;
    node.data.lock().join(membership)?;
    let member = start_member(node, membership).await?;
    member.leader_client.set_nodes([(NodeId(0), via)]);
    register_in_background(node, member);
    Ok(joined(membership))
}

fn joined(membership: Membership) -> MetaReply {
    MetaReply::Joined {
        node: membership.node,
        cluster: membership.cluster,
        incarnation: membership.incarnation,
    }
}

#[cfg(test)]
mod tests;
