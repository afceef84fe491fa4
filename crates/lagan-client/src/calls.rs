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
use crate::calls::no_acl::Lists;
use crate::chunks::Chunks;
use crate::error::ConnectError;
use crate::file::flush;
use crate::file::inode::Files;
use crate::file::pages::KernelPages;
use crate::file::tidy::Tidy;
use crate::leader::Leader;
use crate::leader::connect::Joined;
use crate::options::{AccessTimes, Invalidate, Options};
use crate::tasks::Tasks;
use lagan_types::{FsError, Op, SessionId};
use parking_lot::RwLock;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::Instant;

/// Room for written data, at least: a few of the largest writes.
const WRITE_BUFFER_MIN: usize = 16 * 1024 * 1024;
/// Time of a shutdown that is kept for closing the session, at most.
const CLOSE_WAIT: Duration = Duration::from_secs(2);

type Invalidator = Arc<dyn Fn(Invalidate) -> bool + Send + Sync>;

/// The file system of one mount.
///
/// Shared by all tasks. No call blocks a thread; each ends within
/// [`Options::timeout`]. Dropping a call's future gives it up: a mutation
/// that was under way may still happen.
pub struct Client {
    pub(crate) me: Weak<Client>,
    pub(crate) options: Options,
    pub(crate) leader: Arc<Leader>,
    pub(crate) chunks: Arc<Chunks>,
    pub(crate) tasks: Arc<Tasks>,
    pub(crate) files: Files,
    pub(crate) dirs: Dirs,
    pub(crate) pages: KernelPages,
    pub(crate) lists: Lists,
    pub(crate) accesses: Accesses,
    pub(crate) tidy: Tidy,
    /// Bytes of written data that still have room.
    pub(crate) memory: Semaphore,
    invalidator: RwLock<Option<Invalidator>>,
}

impl Client {
    /// Finds the cluster, opens a session and starts its heartbeats. Must be
    /// called in a runtime, which must live as long as the client.
    ///
    /// # Errors
    /// The text says what to do.
    pub async fn connect(mut options: Options) -> Result<Arc<Client>, ConnectError> {
        let joined = Joined::connect(&options).await?;
        options.write_buffer_bytes = options.write_buffer_bytes.max(WRITE_BUFFER_MIN);
        let client = Arc::new_cyclic(|me| Client::new(me.clone(), options, joined));
        client.leader.start();
        let me = || client.me.clone();
        client.tasks.every(flush::EVERY, me(), |client| async move {
            client.flush_old();
        });
        if client.options.access_times != AccessTimes::None {
            client
                .tasks
                .every(access::EVERY, me(), |client| async move {
                    client
                        .tell_accesses(Instant::now() + access::DEADLINE)
                        .await;
                });
        }
        Ok(client)
    }

    fn new(me: Weak<Client>, options: Options, joined: Joined) -> Self {
        let tasks = Arc::new(Tasks::new());
        let leader = Leader::new(joined, options.clone(), tasks.clone(), me.clone());
        let cache_bytes = options.read_cache_bytes;
        Client {
            chunks: Chunks::new(leader.clone(), tasks.clone(), cache_bytes),
            leader,
            tasks,
            me,
            files: Files::default(),
            dirs: Dirs::default(),
            pages: KernelPages::default(),
            lists: Lists::default(),
            accesses: Accesses::new(options.access_times),
            tidy: Tidy::default(),
            memory: Semaphore::new(options.write_buffer_bytes),
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
        self.leader.session()
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
        self.leader.closing();
        let session = self.session();
        let op = Op::CloseSession { session };
        let closed = self.leader.mutate_by(op, Some(session), until).await;
        if let Err(error) = closed {
            tracing::warn!(%error, %session, "close the session");
        }
        self.tasks.end(until).await;
        self.leader.link().close();
        flushed
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client")
            .field("session", &self.session())
            .finish_non_exhaustive()
    }
}
