//! A session with a cluster: how it starts, and how it ends.

pub(crate) mod access;
pub(crate) mod attrs;
pub(crate) mod copy;
pub(crate) mod dirs;
pub(crate) mod locks;
pub(crate) mod names;
pub(crate) mod no_acl;
pub(crate) mod open;
pub(crate) mod space;
pub(crate) mod xattrs;

use crate::calls::access::Accesses;
use crate::calls::dirs::Dirs;
use crate::calls::locks::LockOwners;
use crate::calls::no_acl::Lists;
use crate::chunks::blocks::BlockCache;
use crate::chunks::fetch::Fetching;
use crate::error::ConnectError;
use crate::file::inode::{Creates, Files};
use crate::file::pages::KernelPages;
use crate::file::tidy::Tidy;
use crate::leader::cluster::Cluster;
use crate::leader::heartbeat;
use crate::leader::ids::Ids;
use crate::leader::link::{Link, resolve};
use crate::leader::promises::Reserved;
use crate::leader::session::{Session, open_session};
use crate::options::{AccessTimes, Invalidate, Options};
use lagan_types::cluster::ClusterMap;
use lagan_types::message::{MetaReply, MetaRequest};
use lagan_types::{FsError, Op, SessionId};
use parking_lot::RwLock;
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long a mount waits for its cluster at start.
const CONNECT_WAIT: Duration = Duration::from_secs(20);
/// Room for written data, at least: a few of the largest writes.
const WRITE_BUFFER_MIN: usize = 16 * 1024 * 1024;
/// Time of a shutdown that is kept for closing the session, at most.
const CLOSE_WAIT: Duration = Duration::from_secs(2);
/// Chunks on their way to servers at the same time.
const SENDS_MAX: usize = 32;
/// Units fetched ahead at the same time.
const AHEAD_MAX: usize = 16;

type Invalidator = Arc<dyn Fn(Invalidate) -> bool + Send + Sync>;

/// The file system of one mount.
///
/// Shared by all tasks. No call blocks a thread; each ends within
/// [`Options::timeout`]. Dropping a call's future gives it up: a mutation
/// that was under way may still happen.
pub struct Client {
    pub(crate) me: Weak<Client>,
    pub(crate) options: Options,
    pub(crate) link: Link,
    pub(crate) session: Session,
    pub(crate) ids: Ids,
    pub(crate) cluster: Cluster,
    pub(crate) files: Files,
    pub(crate) creates: Creates,
    pub(crate) reserved: Reserved,
    pub(crate) dirs: Dirs,
    pub(crate) locks: LockOwners,
    pub(crate) blocks: BlockCache,
    pub(crate) pages: KernelPages,
    pub(crate) fetching: Fetching,
    pub(crate) lists: Lists,
    pub(crate) accesses: Accesses,
    pub(crate) tidy: Tidy,
    /// Bytes of written data that still have room.
    pub(crate) memory: Semaphore,
    pub(crate) sends: Semaphore,
    pub(crate) ahead: Arc<Semaphore>,
    pub(crate) cancel: CancellationToken,
    /// The session is being closed: no other follows it.
    pub(crate) closing: AtomicBool,
    tasks: TaskTracker,
    runtime: Handle,
    invalidator: RwLock<Option<Invalidator>>,
}

impl Client {
    /// Finds the cluster, opens a session and starts its heartbeats. Must be
    /// called in a runtime, which must live as long as the client.
    ///
    /// # Errors
    /// The text says what to do.
    pub async fn connect(mut options: Options) -> Result<Arc<Client>, ConnectError> {
        let (servers, unknown) = resolve(&options.servers).await?;
        let until = Instant::now() + CONNECT_WAIT.min(options.timeout);
        let link = Link::new(servers, options.bind_from);
        let map = tokio::select! {
            map = first_map(&link, &options, until) => map?,
            never = link.keep_looking(&unknown) => match never {},
        };
        if map.config.volume != options.volume {
            return Err(ConnectError::NoSuchVolume {
                wanted: options.volume,
                found: map.config.volume,
            });
        }
        link.set_incarnation(map.config.incarnation);
        link.set_nodes(&map);
        let (session, _) = open_session(&link, &options, options.predecessor, until)
            .await
            .map_err(|e| ConnectError::Refused(format!("open a session: {e}")))?;
        options.write_buffer_bytes = options.write_buffer_bytes.max(WRITE_BUFFER_MIN);
        let client = Arc::new_cyclic(|me| Client::new(me.clone(), options, link, session));
        client.cluster.install(map, client.options.bind_from);
        client.prefetch_block();
        client.tasks.spawn(heartbeat::run(client.me.clone()));
        if client.options.access_times != AccessTimes::None {
            client.tasks.spawn(access::run(client.me.clone()));
        }
        Ok(client)
    }

    fn new(me: Weak<Client>, options: Options, link: Link, session: SessionId) -> Self {
        Client {
            me,
            link,
            session: Session::new(session),
            ids: Ids::new(session),
            cluster: Cluster::default(),
            files: Files::default(),
            creates: Creates::default(),
            reserved: Reserved::default(),
            dirs: Dirs::default(),
            locks: LockOwners::default(),
            blocks: BlockCache::new(options.read_cache_bytes),
            pages: KernelPages::default(),
            fetching: Fetching::default(),
            lists: Lists::default(),
            accesses: Accesses::new(options.access_times),
            tidy: Tidy::default(),
            memory: Semaphore::new(options.write_buffer_bytes),
            sends: Semaphore::new(SENDS_MAX),
            ahead: Arc::new(Semaphore::new(AHEAD_MAX)),
            cancel: CancellationToken::new(),
            closing: AtomicBool::new(false),
            tasks: TaskTracker::new(),
            runtime: Handle::current(),
            invalidator: RwLock::default(),
            options,
        }
    }

    /// Sets what is called when the kernel must forget something: on a thread
    /// of its own, with no lock held; it may block. The call that found out
    /// waits for it. It returns whether the kernel did forget.
    pub fn on_invalidate(&self, tell: Box<dyn Fn(Invalidate) -> bool + Send + Sync>) {
        *self.invalidator.write() = Some(Arc::from(tell));
    }

    pub(crate) fn invalidator(&self) -> Option<Invalidator> {
        self.invalidator.read().clone()
    }

    /// This mount's session. It changes when the old one was ended.
    pub fn session(&self) -> SessionId {
        self.session.id()
    }

    /// Commits everything that was written and closes the session, within
    /// `deadline`. No call may follow.
    ///
    /// # Errors
    /// Why written data could not be committed; the session is closed, if it
    /// can be, all the same.
    pub async fn shutdown(&self, deadline: Duration) -> Result<(), FsError> {
        let until = Instant::now() + deadline;
        let flush_until = until - (deadline / 5).min(CLOSE_WAIT);
        let flushed = tokio::time::timeout_at(flush_until, self.flush_all(flush_until)).await;
        let flushed = flushed.unwrap_or(Err(FsError::Io));
        self.tell_accesses(flush_until).await;
        self.closing.store(true, Ordering::Release);
        let session = self.session();
        let op = Op::CloseSession { session };
        let closed = self.mutate_by(op, Some(session), until).await;
        if let Err(error) = closed {
            tracing::warn!(%error, %session, "close the session");
        }
        self.cancel.cancel();
        self.tasks.close();
        // What is left are fetches and sends that nobody waits for.
        let _ = tokio::time::timeout_at(until, self.tasks.wait()).await;
        self.link.close();
        flushed
    }

    /// Runs a task in the background; it ends with the client.
    pub(crate) fn spawn<F, T>(&self, task: F)
    where
        F: FnOnce(Arc<Client>) -> T,
        T: Future<Output = ()> + Send + 'static,
    {
        let Some(me) = self.me.upgrade() else {
            return;
        };
        let cancel = self.cancel.clone();
        let task = task(me);
        let work = async move {
            tokio::select! {
                () = cancel.cancelled() => {}
                () = task => {}
            }
        };
        self.tasks.spawn_on(work, &self.runtime);
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client")
            .field("session", &self.session())
            .finish_non_exhaustive()
    }
}

async fn first_map(
    link: &Link,
    options: &Options,
    until: Instant,
) -> Result<ClusterMap, ConnectError> {
    match link.meta(&MetaRequest::Map { known: 0 }, until).await {
        Ok(MetaReply::Map(Some(map))) => Ok(map),
        Ok(MetaReply::Map(None)) => Err(ConnectError::NoCluster),
        Ok(MetaReply::Refused(reason)) => Err(ConnectError::Refused(reason)),
        Ok(_) => Err(ConnectError::Refused("unexpected answer".to_owned())),
        Err(lagan_net::NetError::Refused { addr, reason }) => {
            Err(ConnectError::Refused(format!("{addr}: {reason}")))
        }
        Err(error) => Err(ConnectError::NoAnswer {
            servers: options.servers.join(", "),
            seconds: CONNECT_WAIT.min(options.timeout).as_secs(),
            reason: error.to_string(),
        }),
    }
}
