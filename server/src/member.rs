//! Everything that runs once a server belongs to a cluster.

use crate::config::Config;
use crate::fitness::{self, Signs, Trouble};
use crate::heartbeat;
use crate::identity::{Membership, replace_file};
use crate::meta_edge::MetaEdge;
use crate::mover_edge::MoverSlot;
use crate::transport::NetTransport;
use anyhow::{Context, Result, bail};
use lagan_chunk::Store;
use lagan_leader::{Leader, MetaService, wanted_voters};
use lagan_net::{LeaderClient, MapCell, Pool};
use lagan_raft::Raft;
use lagan_replica::heal::{Healer, Suspect};
use lagan_replica::{ChunkService, Meta, Peers, Work, fill, reap};
use lagan_types::cluster::{NodeInfo, NodeRole, NodeState};
use lagan_types::{Answer, FsError, NodeId, Op, StoreId};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Between attempts to register with a leader that is not there yet.
const REGISTER_PAUSE: Duration = Duration::from_millis(300);

/// What a member is made of.
#[derive(Debug, Clone)]
pub struct Parts {
    /// The configuration file.
    pub config: Arc<Config>,
    /// This store.
    pub store_id: StoreId,
    /// Which start of it this is.
    pub boot: u64,
    /// Connections to other servers.
    pub pool: Pool,
    /// Runtime for work that reads disks.
    pub disk: Handle,
    /// Ends the whole server.
    pub cancel: CancellationToken,
    /// Owns every task; joined at shutdown.
    pub tasks: TaskTracker,
    /// Why the server had to stop by itself.
    pub failure: Arc<OnceLock<String>>,
}

impl Parts {
    /// Stops the server for that reason, which its exit tells.
    pub fn fail(&self, reason: String) {
        if self.failure.set(reason).is_ok() {
            let reason = self.failure.get().map(String::as_str);
            tracing::error!(reason, "this server cannot go on, stopping");
        }
        self.cancel.cancel();
    }

    /// Runs what a server is not whole without: if it ends by a panic, the server stops.
    pub fn spawn(&self, name: &'static str, work: impl Future<Output = ()> + Send + 'static) {
        let parts = self.clone();
        self.tasks.spawn(async move {
            if tokio::spawn(work).await.is_err_and(|e| e.is_panic()) {
                parts.fail(format!("its task {name:?} ended by a defect"));
            }
        });
    }
}

/// See the module.
pub struct Member {
    /// This server's number.
    pub node: NodeId,
    /// Which start of its store this is.
    pub boot: u64,
    /// The cluster map as this node has it.
    pub map: Arc<MapCell>,
    /// Chunks.
    pub store: Arc<Store>,
    /// Consensus.
    pub raft: Arc<Raft>,
    /// What it asks of the leader.
    pub edge: Arc<MetaEdge>,
    /// Finds the leader.
    pub leader_client: Arc<LeaderClient>,
    /// What mounts ask about metadata.
    pub meta: Arc<MetaService>,
    /// What mounts and nodes ask about chunks.
    pub chunks: Arc<ChunkService>,
    /// The way to S3.
    pub mover: Arc<MoverSlot>,
    /// The cluster took this boot.
    registered: AtomicBool,
    parts: Parts,
}

impl std::fmt::Debug for Member {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Member").finish_non_exhaustive()
    }
}

impl Member {
    /// Opens the stores and starts every task but registration.
    ///
    /// # Errors
    /// A store does not open: the reason.
    pub async fn start(parts: Parts, membership: Membership) -> Result<Arc<Member>> {
        let dir = parts.config.data.clone();
        let store = open_store(&parts.config).await?;
        let options = lagan_raft::Options {
            cache_bytes: parts.config.cache.0 as usize,
            segment_bytes: parts.config.log_segment_len.0,
            ..lagan_raft::Options::new(dir.join("meta"), membership.node)
        };
        let map = Arc::new(MapCell::default());
        let transport = Arc::new(NetTransport::new(parts.pool.clone(), map.clone()));
        let raft = Raft::start(options, transport)
            .await
            .context("open metadata")?;
        let servers = servers_to_ask(&dir, &raft.members(), parts.config.peer_listen);
        let leader_client = Arc::new(LeaderClient::new(parts.pool.clone(), servers));
        let edge = MetaEdge::new(leader_client.clone());
        let peers = Arc::new(Peers::new(Arc::new(parts.pool.clone()), map.clone()));
        let (healer, suspects) = Healer::new();
        let chunks = ChunkService::new(
            store.clone(),
            peers.clone(),
            healer.clone(),
            membership.node,
            parts.disk.clone(),
        );
        let leader = Leader::new(raft.clone());
        let meta = MetaService::new(
            membership.node,
            raft.clone(),
            leader.clone(),
            map.clone(),
            leader_client.clone(),
        );
        let work = Work::new(edge.clone(), store.clone(), peers, membership.node);
        let mover = MoverSlot::new(edge.clone(), work.clone());
        let member = Arc::new(Member {
            node: membership.node,
            boot: parts.boot,
            map,
            store,
            raft,
            edge,
            leader_client,
            meta,
            chunks,
            mover,
            registered: AtomicBool::new(false),
            parts,
        });
        member.spawn_tasks(leader, work, (healer, suspects));
        Ok(member)
    }

    fn spawn_tasks(
        self: &Arc<Self>,
        leader: Arc<Leader>,
        work: Work,
        (healer, suspects): (Arc<Healer>, tokio::sync::mpsc::Receiver<Suspect>),
    ) {
        let (parts, cancel) = (&self.parts, &self.parts.cancel);
        let leads = lagan_leader::run(leader.clone(), cancel.clone());
        parts.spawn("leader's duties", leads);
        let marks = lagan_leader::keep_water_marks(leader, cancel.clone());
        parts.spawn("water marks", marks);
        parts.spawn("heartbeat", heartbeat::run(self.clone(), cancel.clone()));
        parts.spawn("watch", fitness::watch(self.clone(), cancel.clone()));
        parts.spawn("heal", healer.run(suspects, work.clone(), cancel.clone()));
        parts.spawn("reap", reap::run(work.clone(), cancel.clone()));
        parts.spawn("fill", fill::run(work, cancel.clone()));
        let mover = self.mover.clone();
        let member = self.clone();
        parts.spawn("mover", async move {
            let Parts {
                config,
                cancel,
                tasks,
                ..
            } = &member.parts;
            mover.run(config, &member.raft, cancel.clone(), tasks).await;
        });
        parts.spawn("peer hints", keep_peer_hints(self.clone(), cancel.clone()));
    }

    /// Registers this boot with the leader, for as long as it takes.
    ///
    /// # Errors
    /// The registered store is another or a newer one.
    pub async fn register(&self) -> Result<()> {
        loop {
            match self
                .edge
                .mutate(Op::RegisterNode { info: self.info() })
                .await
            {
                Ok(Answer::Node { .. }) => {
                    self.registered.store(true, Ordering::Release);
                    heartbeat::fetch_map(self).await;
                    return Ok(());
                }
                Err(FsError::Stale) => bail!(
                    "the cluster knows another or a newer store as node {}, or removed it: this \
                     directory is an older copy or of no use; give the server an empty one and \
                     join it under a new name",
                    self.node.0
                ),
                other => tracing::debug!(answer = ?other, "not registered yet"),
            }
            tokio::select! {
                () = self.parts.cancel.cancelled() => return Ok(()),
                () = tokio::time::sleep(REGISTER_PAUSE) => {}
            }
        }
    }

    /// The leader does not know this boot. Once registered, that means that another
    /// process runs under this node's number with a copy of its store: one of them
    /// must go, and it is the one that is not registered.
    pub async fn not_known(&self) {
        if !self.registered.load(Ordering::Acquire) {
            return;
        }
        if let Err(e) = self.register().await {
            self.fail(format!("{e:#}"));
        }
    }

    /// This node's row, as it registers it.
    pub fn info(&self) -> NodeInfo {
        node_info(&self.parts, self.node)
    }

    /// Whether it can do its work: registered, up, a leader known, and a voter if
    /// it is to be one.
    pub fn is_ready(&self) -> bool {
        let map = self.map.get();
        let up = map
            .node(self.node)
            .is_some_and(|n| n.state != NodeState::Down && n.boot == self.boot);
        let voters = self.raft.voters();
        let wanted = wanted_voters(&map.nodes, &voters);
        // A voter whose map is a moment behind has its vote all the same.
        let votes = voters.contains(&self.node) || !wanted.contains(&self.node);
        let failed = self.trouble().is_some_and(|t| t.is_failure());
        up && votes && !failed && self.raft_leads_or_client_knows()
    }

    /// Stops the server for that reason.
    pub fn fail(&self, reason: String) {
        self.parts.fail(reason);
    }

    /// Why this node steps aside, if it does.
    pub fn trouble(&self) -> Option<Trouble> {
        fitness::judge(&self.signs())
    }

    fn signs(&self) -> Signs {
        let stats = self.raft.stats();
        Signs {
            consensus_ended: self.raft.watch().borrow().stopped,
            log_failed: stats.poisoned,
            log_slow: stats.disk_slow,
            store: self.store.check().map_err(|e| e.to_string()),
            store_stalled: self.store.stalled_for(),
        }
    }

    fn raft_leads_or_client_knows(&self) -> bool {
        self.raft.leader().is_some() || self.leader_client.leader().is_some()
    }

    /// Stops what holds files, after the tasks have ended.
    pub async fn close(&self) {
        self.raft.shutdown().await;
        let store = self.store.clone();
        match tokio::task::spawn_blocking(move || store.close()).await {
            Ok(Ok(())) => {}
            Ok(Err(e)) => tracing::error!(error = %e, "close chunk store"),
            Err(e) => tracing::error!(error = %e, "close chunk store"),
        }
    }
}

/// The row of a node that is not registered yet has number 0.
pub fn node_info(parts: &Parts, node: NodeId) -> NodeInfo {
    NodeInfo {
        id: node,
        name: parts.config.name.clone(),
        store: parts.store_id,
        boot: parts.boot,
        addr: parts.config.listen.to_string(),
        peer_addr: parts.config.peer_listen.to_string(),
        http: parts.config.http.to_string(),
        role: NodeRole::Storage,
        state: NodeState::Up,
        voter: false,
    }
}

async fn open_store(config: &Config) -> Result<Arc<Store>> {
    let mut options = lagan_chunk::Options::new(config.data.join("chunks"));
    options.segment_len = config.segment_len.0;
    options.prewrite = config.prewrite;
    options.capacity_bytes = config.capacity.map(|c| c.0);
    tokio::task::spawn_blocking(move || Store::open(options))
        .await?
        .context("open chunk store")
}

/// Where to look for the leader after a crash that comes before the first map.
///
/// # Errors
/// The disk's.
pub fn keep_first_hint(dir: &Path, via: SocketAddr) -> Result<()> {
    replace_file(&hint_file(dir), via.to_string().as_bytes()).context("write peer addresses")
}

fn hint_file(dir: &Path) -> PathBuf {
    dir.join("peers")
}

/// Addresses of the other servers when this one ran last: where to look for
/// the leader. The file is only a hint, written some time after each change; what the
/// metadata's log says of its members is there as long as the log.
fn servers_to_ask(
    dir: &Path,
    members: &BTreeMap<NodeId, String>,
    own: SocketAddr,
) -> Vec<SocketAddr> {
    let text = std::fs::read_to_string(hint_file(dir)).unwrap_or_default();
    let members = members.values().map(String::as_str);
    let known = text.lines().chain(members).filter_map(|l| l.parse().ok());
    let mut servers = Vec::new();
    for addr in known.chain([own]) {
        if !servers.contains(&addr) {
            servers.push(addr);
        }
    }
    servers
}

/// Between looks for a newer map: a server that dies sooner may find nobody when it comes
/// back at another address, and nobody finds it.
const HINT_LOOK: Duration = Duration::from_millis(250);

async fn keep_peer_hints(member: Arc<Member>, cancel: CancellationToken) {
    let mut written = 0;
    loop {
        let map = member.map.get();
        if map.version != written {
            let lines: Vec<&str> = map.nodes.iter().map(|n| n.peer_addr.as_str()).collect();
            let file = hint_file(&member.parts.config.data);
            match replace_file(&file, lines.join("\n").as_bytes()) {
                Ok(()) => written = map.version,
                Err(e) => tracing::warn!(error = %e, "write peer addresses"),
            }
        }
        tokio::select! {
            () = cancel.cancelled() => return,
            () = tokio::time::sleep(HINT_LOOK) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    #[test]
    fn server_that_died_before_it_wrote_hints_asks_the_members() {
        let dir = tempfile::tempdir().expect("temp dir");
        let members = [(1, addr(1)), (2, addr(2)), (3, addr(3))]
            .map(|(node, addr)| (NodeId(node), addr.to_string()))
            .into();
        // It listens elsewhere now: nobody else can tell the others.
        let asked = servers_to_ask(dir.path(), &members, addr(9));
        assert_eq!(asked, [1, 2, 3, 9].map(addr));
        keep_first_hint(dir.path(), addr(2)).expect("write");
        let asked = servers_to_ask(dir.path(), &members, addr(3));
        assert_eq!(asked, [2, 1, 3].map(addr));
        let asked = servers_to_ask(dir.path(), &BTreeMap::new(), addr(3));
        assert_eq!(asked, [2, 3].map(addr));
    }
}
