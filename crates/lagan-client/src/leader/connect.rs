//! How a mount finds its cluster and opens its first session.

use crate::Options;
use crate::error::ConnectError;
use crate::leader::Leader;
use crate::leader::cluster::Cluster;
use crate::leader::creates::Creates;
use crate::leader::groups::Groups;
use crate::leader::heartbeat;
use crate::leader::id_blocks::IdBlocks;
use crate::leader::kernel::Kernel;
use crate::leader::leases::Leases;
use crate::leader::link::{Link, resolve};
use crate::leader::lock_owners::LockOwners;
use crate::leader::open_files::OpenFiles;
use crate::leader::promises::Promises;
use crate::leader::recalls;
use crate::leader::renew::open_session;
use crate::leader::session::Session;
use crate::tasks::Tasks;
use lagan_net::NetError;
use lagan_types::SessionId;
use lagan_types::cluster::ClusterMap;
use lagan_types::message::GetMap;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::time::Instant;

/// How long a mount waits for its cluster at start.
const CONNECT_WAIT: Duration = Duration::from_secs(20);

/// A cluster that was found, and a session in it.
pub(crate) struct Joined {
    /// The way to its servers.
    pub link: Link,
    /// The cluster's map.
    pub map: ClusterMap,
    /// The open session.
    pub session: SessionId,
}

impl Joined {
    /// Finds the cluster and opens a session.
    ///
    /// # Errors
    /// The text says what to do.
    pub async fn connect(options: &Options) -> Result<Joined, ConnectError> {
        let (servers, unknown) = resolve(&options.servers).await?;
        let until = Instant::now() + CONNECT_WAIT.min(options.timeout);
        let link = Link::new(servers, options.bind_from);
        let map = tokio::select! {
            map = first_map(&link, options, until) => map?,
            never = link.keep_looking(&unknown) => match never {},
        };
        if map.config.volume != options.volume {
            return Err(ConnectError::NoSuchVolume {
                wanted: options.volume.clone(),
                found: map.config.volume,
            });
        }
        link.set_incarnation(map.config.incarnation);
        link.set_nodes(&map);
        let session = open_session(&link, options, options.predecessor, until)
            .await
            .map_err(|e| ConnectError::Refused(format!("open a session: {e}")))?;
        Ok(Joined { link, map, session })
    }
}

impl Leader {
    /// Builds the storey under `files`, which need not be complete yet; nothing
    /// runs before [`Leader::start`].
    pub fn new(
        joined: Joined,
        options: Options,
        tasks: Arc<Tasks>,
        files: Weak<dyn OpenFiles>,
    ) -> Arc<Leader> {
        let cluster = Cluster::default();
        cluster.install(joined.map, options.bind_from);
        Arc::new_cyclic(|me| Leader {
            me: me.clone(),
            kernel: Arc::new(Kernel::new(files.clone())),
            files,
            tasks,
            link: Arc::new(joined.link),
            cluster,
            session: Session::new(joined.session),
            ids: IdBlocks::new(joined.session),
            leases: Arc::new(Leases::new(joined.session, options.leases)),
            promises: Promises::default(),
            creates: Creates::default(),
            looks: Groups::default(),
            opens: Groups::default(),
            making: Groups::default(),
            locks: LockOwners::default(),
            options,
        })
    }

    /// Asks for the first chunk ids, and starts the heartbeats and the polls for recalls.
    pub fn start(&self) {
        self.prefetch_block();
        self.tasks
            .run(heartbeat::run(self.me.clone(), self.tasks.cancel_token()));
        self.tasks
            .run(recalls::run(self.me.clone(), self.tasks.cancel_token()));
    }

    /// From now on no other session follows this one, and nothing is remembered.
    pub fn closing(&self) {
        self.session.close();
        self.leases.close();
    }
}

async fn first_map(
    link: &Link,
    options: &Options,
    until: Instant,
) -> Result<ClusterMap, ConnectError> {
    match link.ask(GetMap { known: 0 }, until).await {
        Ok(map) => map.ok_or(ConnectError::NoCluster),
        Err(NetError::Declined(reason) | NetError::Protocol(reason)) => {
            Err(ConnectError::Refused(reason))
        }
        Err(NetError::Refused { addr, reason }) => {
            Err(ConnectError::Refused(format!("{addr}: {reason}")))
        }
        Err(error) => Err(ConnectError::NoAnswer {
            servers: options.servers.join(", "),
            seconds: CONNECT_WAIT.min(options.timeout).as_secs(),
            reason: error.to_string(),
        }),
    }
}
