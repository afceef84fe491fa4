//! How a mount starts, and how it ends.

use crate::Client;
use crate::calls::access;
use crate::calls::accesses::Accesses;
use crate::calls::no_acl::NoAcl;
use crate::calls::open_dirs::OpenDirs;
use crate::chunks::Chunks;
use crate::error::ConnectError;
use crate::file::{Files, Limits, flush};
use crate::leader::Leader;
use crate::leader::connect::Joined;
use crate::options::{AccessTimes, Options};
use crate::tasks::Tasks;
use lagan_types::FsError;
use lagan_types::op::CloseSession;
use parking_lot::RwLock;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::time::Instant;

/// Room for written data, at least: a few of the largest writes.
const WRITE_BUFFER_MIN: usize = 16 * 1024 * 1024;
/// Time of a shutdown that is kept for closing the session, at most.
const CLOSE_WAIT: Duration = Duration::from_secs(2);

impl Client {
    /// Finds the cluster, opens a session and starts its heartbeats. Must be
    /// called in a runtime, which must live as long as the client.
    ///
    /// # Errors
    /// The text says what to do.
    pub async fn connect(options: Options) -> Result<Arc<Client>, ConnectError> {
        let joined = Joined::connect(&options).await?;
        let tasks = Arc::new(Tasks::new());
        let limits = Limits {
            write_buffer_bytes: options.write_buffer_bytes.max(WRITE_BUFFER_MIN),
            read_ahead_bytes: options.read_ahead_bytes,
        };
        let (cache_bytes, whose) = (options.read_cache_bytes, options.access_times);
        let files = Arc::new_cyclic(|me: &Weak<Files>| {
            let leader = Leader::new(joined, options, tasks.clone(), me.clone());
            let chunks = Chunks::new(leader.clone(), tasks.clone(), cache_bytes);
            Files::new(me.clone(), leader, chunks, tasks.clone(), limits)
        });
        let client = Arc::new(Client {
            leader: files.leader().clone(),
            files,
            tasks,
            dirs: OpenDirs::default(),
            no_acl: NoAcl::default(),
            accesses: Accesses::new(whose),
            invalidator: RwLock::default(),
        });
        client.start(whose);
        Ok(client)
    }

    /// Starts what runs in the background from the beginning.
    fn start(self: &Arc<Self>, whose: AccessTimes) {
        self.leader.start();
        let files = Arc::downgrade(&self.files);
        self.tasks.every(
            flush::EVERY,
            files,
            |files| async move { files.flush_old() },
        );
        if whose != AccessTimes::None {
            let me = Arc::downgrade(self);
            self.tasks.every(access::EVERY, me, |client| async move {
                client
                    .tell_accesses(Instant::now() + access::DEADLINE)
                    .await;
            });
        }
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
        let flush = self.files.flush_all(flush_until);
        let flushed = tokio::time::timeout_at(flush_until, flush).await;
        let flushed = flushed.unwrap_or(Err(FsError::Io));
        self.tell_accesses(flush_until).await;
        self.leader.closing();
        // Programs may go on in a mount that was taken away lazily.
        let kernel = self.leader.kernel();
        kernel.take_all_back(self.leader.leases()).await;
        let session = self.session();
        let closed = self
            .leader
            .mutate_by(CloseSession, Some(session), until)
            .await;
        if let Err(error) = closed {
            tracing::warn!(%error, %session, "close the session");
        }
        self.tasks.end(until).await;
        self.leader.link().close();
        flushed
    }
}
