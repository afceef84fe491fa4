//! One server, before and after it belongs to a cluster.

use crate::config::Config;
use crate::identity::{DataDir, Membership};
use crate::live::Live;
use crate::member::Member;
use crate::parts::Parts;
use anyhow::{Result, bail};
use lagan_net::{Hello, Peer, Pool, PoolOptions, Role, Service};
use parking_lot::Mutex;
use std::sync::{Arc, OnceLock};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The server as its listeners see it.
#[derive(Debug)]
pub(crate) struct Node {
    /// The parts that members are made of.
    pub(crate) parts: Parts,
    /// The data directory.
    pub(crate) data: Mutex<DataDir>,
    /// Set once the server belongs to a cluster and its stores are open.
    pub(crate) member: OnceLock<Arc<Member>>,
    /// Connections from other nodes.
    pub(crate) live: Mutex<Live<PeerId>>,
    /// Held while the server is being initialised or joined.
    pub(crate) birth: tokio::sync::Mutex<()>,
}

/// An accepted connection, told from others by its place in memory.
#[derive(Debug, Clone)]
pub(crate) struct PeerId(pub(crate) Arc<Peer>);

impl PartialEq for PeerId {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Node {
    /// Makes a server that does nothing yet; `disk` is the runtime for disk work.
    pub(crate) fn new(config: Arc<Config>, data: DataDir, disk: Handle) -> Arc<Node> {
        let identity = data.identity().clone();
        let mut options = PoolOptions::new(hello(&data, Service::Meta));
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

    /// Returns how this server introduces itself.
    pub(crate) fn hello(&self, service: Service) -> Hello {
        hello(&self.data.lock(), service)
    }

    /// Opens the stores and starts the tasks of a member.
    ///
    /// # Errors
    /// A store does not open, or the member was started before.
    pub(crate) async fn start_member(&self, membership: Membership) -> Result<Arc<Member>> {
        let member = Member::start(self.parts.clone(), membership).await?;
        self.parts.pool.set_hello(self.hello(Service::Meta));
        if self.member.set(member.clone()).is_err() {
            bail!("started twice");
        }
        Ok(member)
    }

    /// Registers the member's start with the cluster, for as long as it takes. If the
    /// cluster refuses the store, the server stops and never starts on it again.
    pub(crate) fn register_in_background(self: &Arc<Self>, member: Arc<Member>) {
        let node = self.clone();
        self.parts.spawn("registration", async move {
            if let Err(e) = member.register().await {
                let reason = format!("{e:#}");
                if let Err(e) = node.data.lock().refuse(&reason) {
                    tracing::error!(error = format!("{e:#}"), "note the refusal");
                }
                node.parts.fail(reason);
            }
        });
    }
}

fn hello(data: &DataDir, service: Service) -> Hello {
    let identity = data.identity();
    Hello {
        role: Role::Server,
        incarnation: identity.membership.map(|m| m.incarnation),
        node: identity.membership.map(|m| m.node),
        store: Some(identity.store),
        boot: identity.boot,
        service,
        build: env!("CARGO_PKG_VERSION").into(),
    }
}
