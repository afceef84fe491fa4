//! Everything that runs once a server belongs to a cluster: the stores, the services over
//! them, and the tasks. What a task needs is handed to it here.

use crate::along::Here;
use crate::config::Config;
use crate::fitness::{self, Signs, Trouble};
use crate::heartbeat::{self, Heart};
use crate::hints;
use crate::identity::Membership;
use crate::meta_edge::{MetaEdge, OwnMeta};
use crate::mover_edge::MoverSlot;
use crate::parts::Parts;
use crate::registration::Registration;
use crate::staged::Staged;
use crate::transport::NetTransport;
use anyhow::{Context, Result};
use lagan_chunk::Store;
use lagan_leader::{Leader, MetaService, wanted_voters};
use lagan_net::{LeaderClient, MapCell};
use lagan_raft::Raft;
use lagan_replica::heal::{Healer, Suspect};
use lagan_replica::{ChunkService, Doubt, Peers, Work, fill, reap};
use lagan_types::NodeId;
use lagan_types::cluster::NodeInfo;
use std::sync::Arc;

/// The stores, services and tasks of one member of a cluster.
pub(crate) struct Member {
    /// The number of this server.
    pub(crate) node: NodeId,
    /// Number of this start of its store.
    pub(crate) boot: u64,
    /// The cluster map as this node has it.
    pub(crate) map: Arc<MapCell>,
    /// This node's chunks.
    pub(crate) store: Arc<Store>,
    /// The replicated metadata.
    pub(crate) raft: Arc<Raft>,
    /// This node's own calls to the leader.
    pub(crate) edge: Arc<MetaEdge>,
    /// The way to the leader, wherever it is.
    pub(crate) leader_client: Arc<LeaderClient>,
    /// The metadata service.
    pub(crate) meta: Arc<MetaService>,
    /// The chunk service.
    pub(crate) chunks: Arc<ChunkService>,
    /// The way to S3.
    pub(crate) mover: Arc<MoverSlot>,
    registration: Arc<Registration>,
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
    pub(crate) async fn start(parts: Parts, membership: Membership) -> Result<Arc<Member>> {
        let dir = parts.config.data.clone();
        let store = open_store(&parts.config).await?;
        let options = lagan_raft::Options {
            cache_bytes: parts.config.cache.0 as usize,
            segment_bytes: parts.config.log_segment_len.0,
            ..lagan_raft::Options::new(dir.join("meta"), membership.node)
        };
        let map = Arc::new(MapCell::default());
        let transport = Arc::new(NetTransport::new(parts.pool.clone(), map.clone()));
        let doubt = Arc::new(Doubt::open(dir.join("doubt")));
        let staged = Staged::new(membership.node, store.clone(), doubt.clone());
        let raft = Raft::start(options, transport, Arc::new(staged))
            .await
            .context("open metadata")?;
        let servers = hints::servers_to_ask(&dir, &raft.members(), parts.config.peer_listen);
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
        let disk = parts.disk.clone();
        let here = Here::new(membership.node, map.clone(), store.clone(), disk);
        let meta = MetaService::new(
            membership.node,
            leader.clone(),
            map.clone(),
            Arc::new(here),
            leader_client.clone(),
        );
        let own = Arc::new(OwnMeta::new(membership.node, raft.clone()));
        let stores = (store.clone(), doubt);
        let work = Work::new(edge.clone(), own, stores, peers, membership.node);
        let mover = MoverSlot::new(edge.clone(), work.clone());
        let registration = Arc::new(Registration::new(
            edge.clone(),
            map.clone(),
            parts.node_info(membership.node),
            parts.cancel.clone(),
        ));
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
            registration,
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
        parts.spawn("heartbeat", heartbeat::run(self.heart(), cancel.clone()));
        let (looks, stops) = (self.clone(), parts.clone());
        let look = move || looks.trouble();
        let watch = fitness::watch(look, move |reason| stops.fail(reason), cancel.clone());
        parts.spawn("watch", watch);
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
        let dir = parts.config.data.clone();
        let keep_hints = hints::keep(dir, self.map.clone(), cancel.clone());
        parts.spawn("peer hints", keep_hints);
    }

    fn heart(&self) -> Heart {
        Heart {
            node: self.node,
            map: self.map.clone(),
            store: self.store.clone(),
            raft: self.raft.clone(),
            edge: self.edge.clone(),
            mover: self.mover.clone(),
            registration: self.registration.clone(),
            parts: self.parts.clone(),
        }
    }

    /// Registers this start with the leader, for as long as it takes.
    ///
    /// # Errors
    /// The registered store is another or a newer one.
    pub(crate) async fn register(&self) -> Result<()> {
        self.registration.register().await
    }

    /// This node's row, as it registers it.
    pub(crate) fn info(&self) -> NodeInfo {
        self.parts.node_info(self.node)
    }

    /// Whether this node can do its work: registered, up, a leader known, and a voter if
    /// it is to be one.
    pub(crate) fn is_ready(&self) -> bool {
        let map = self.map.get();
        let up = map
            .node(self.node)
            .is_some_and(|n| n.is_up() && n.boot == self.boot);
        let voters = self.raft.voters();
        let wanted = wanted_voters(&map.nodes, &voters);
        // A voter whose map is a moment behind has its vote all the same.
        let votes = voters.contains(&self.node) || !wanted.contains(&self.node);
        let failed = self.trouble().is_some_and(|t| t.is_failure());
        up && votes && !failed && self.raft_leads_or_client_knows()
    }

    /// Returns why this node steps aside, if it does.
    pub(crate) fn trouble(&self) -> Option<Trouble> {
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

    /// Closes the stores, after the tasks have ended.
    pub(crate) async fn close(&self) {
        self.raft.shutdown().await;
        let store = self.store.clone();
        match tokio::task::spawn_blocking(move || store.close()).await {
            Ok(Ok(())) => {}
            Ok(Err(e)) => tracing::error!(error = %e, "close chunk store"),
            Err(e) => tracing::error!(error = %e, "close chunk store"),
        }
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
