//! Releasing local copies of files that are open nowhere (docs/DESIGN.md "Release and
//! recall").
//!
//! The leader asks the mounts which of the files they have open; a file that is open
//! anywhere stays. If a mount does not answer within the time of a request, all files stay:
//! until its session has ended, nobody knows what it has open.

use crate::leader::{Disk, Leader};
use crate::no_answer::NoAnswer;
use crate::open_check::CHECK_INOS_MAX;
use crate::sessions::live_sessions;
use lagan_meta::kv::{Read, StoreError};
use lagan_raft::{ProposeError, View};
use lagan_types::answer::ReleasedFiles;
use lagan_types::message::Released;
use lagan_types::op::Release;
use lagan_types::{Ino, Refusal, SessionId};
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout_at};

/// Time for one release, including the wait for its turn: a mount says what it has open
/// every second, and the asker waits longer than this.
const DEADLINE: Duration = Duration::from_secs(5);
/// Files in one command.
const BATCH: usize = 256;

/// The replicated state, the nodes and the mounts, as releases need them.
pub(crate) trait Edge: Send + Sync + 'static {
    /// One state to read.
    type State: Read + Send;

    /// Whether this node leads, as far as it knows.
    fn leads(&self) -> bool;

    /// Returns the disks of the nodes that were heard of lately.
    fn disks(&self) -> Vec<Disk>;

    /// Returns the state as it is now; an error if this node does not lead.
    fn state(&self) -> impl Future<Output = Result<Self::State, ProposeError>> + Send;

    /// Releases files of which none is open; `None`: it may have happened or not.
    fn release(
        &self,
        op: Release,
    ) -> impl Future<Output = Option<Result<ReleasedFiles, Refusal>>> + Send;

    /// Held during a release: one at a time.
    fn turn(&self) -> &Mutex<()>;

    /// Asks the sessions, and returns those of the files that are open nowhere; `None`: not
    /// every mount has said until `end`.
    fn closed(
        &self,
        inos: Vec<Ino>,
        sessions: Vec<SessionId>,
        end: Instant,
    ) -> impl Future<Output = Option<BTreeSet<Ino>>> + Send;
}

/// Why no more files are released.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReleaseError {
    /// The state cannot be read now.
    #[error(transparent)]
    Raft(#[from] ProposeError),
    /// The state store does not work.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<ReleaseError> for NoAnswer {
    fn from(error: ReleaseError) -> Self {
        match error {
            ReleaseError::Raft(error) => NoAnswer::Raft(error),
            ReleaseError::Store(error) => NoAnswer::Store(error),
        }
    }
}

impl Leader {
    /// Releases those of the files that are open nowhere.
    ///
    /// # Errors
    /// This node does not lead.
    pub(crate) async fn release(&self, files: Vec<(Ino, u64)>) -> Result<Released, NoAnswer> {
        if files.len() > CHECK_INOS_MAX {
            let reason = format!("at most {CHECK_INOS_MAX} files can be released at once");
            return Err(NoAnswer::Refused(reason));
        }
        let released = release_closed(self, files).await?;
        released.ok_or_else(|| NoAnswer::Refused("the cluster has no archive (s3 none)".into()))
    }
}

/// Releases those of the files, [`CHECK_INOS_MAX`] at most, that are open nowhere;
/// `None`: the cluster has no archive.
///
/// # Errors
/// This node does not lead, or its state store does not work.
pub(crate) async fn release_closed(
    edge: &impl Edge,
    files: Vec<(Ino, u64)>,
) -> Result<Option<Released>, ReleaseError> {
    let end = Instant::now() + DEADLINE;
    let mut released = Released::default();
    let unknown = Released {
        unknown: files.len() as u64,
        ..Released::default()
    };
    let Ok(_turn) = timeout_at(end, edge.turn().lock()).await else {
        return Ok(Some(unknown));
    };
    let inos = files.iter().map(|(ino, _)| *ino).collect();
    let Some(sessions) = sessions_now(edge).await? else {
        return Ok(None);
    };
    let Some(closed) = edge.closed(inos, sessions, end).await else {
        return Ok(Some(unknown));
    };
    let before = files.len();
    let files: Vec<_> = files
        .into_iter()
        .filter(|(ino, _)| closed.contains(ino))
        .collect();
    released.open = (before - files.len()) as u64;
    for batch in files.chunks(BATCH) {
        let files = batch.to_vec();
        match edge.release(Release { files }).await {
            Some(Ok(done)) => {
                released.files += done.files;
                released.bytes += done.bytes;
            }
            Some(Err(_)) | None => released.unknown += batch.len() as u64,
        }
    }
    Ok(Some(released))
}

/// Returns the live sessions; `None`: the cluster has no archive.
async fn sessions_now(edge: &impl Edge) -> Result<Option<Vec<SessionId>>, ReleaseError> {
    let state = edge.state().await?;
    let map = lagan_meta::cluster_map(&state)?;
    if map.is_none_or(|map| map.config.archive.is_none()) {
        return Ok(None);
    }
    Ok(Some(live_sessions(&state)?))
}

impl Edge for Leader {
    type State = View;

    fn leads(&self) -> bool {
        self.raft.is_leader()
    }

    fn disks(&self) -> Vec<Disk> {
        Leader::disks(self)
    }

    async fn state(&self) -> Result<View, ProposeError> {
        self.raft.read().await
    }

    async fn release(&self, op: Release) -> Option<Result<ReleasedFiles, Refusal>> {
        self.propose(op).await
    }

    fn turn(&self) -> &Mutex<()> {
        &self.releasing
    }

    async fn closed(
        &self,
        inos: Vec<Ino>,
        sessions: Vec<SessionId>,
        end: Instant,
    ) -> Option<BTreeSet<Ino>> {
        self.state.lock().releases.begin(inos, sessions);
        loop {
            let answered = self.answered.notified();
            tokio::pin!(answered);
            answered.as_mut().enable();
            if let Some(closed) = self.state.lock().releases.finished() {
                return Some(closed.into_iter().collect());
            }
            timeout_at(end, answered).await.ok()?;
        }
    }
}
