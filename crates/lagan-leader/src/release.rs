//! Releasing local copies of files that are open nowhere (docs/DESIGN.md "Release and
//! recall").
//!
//! The leader asks the mounts which of the files they have open; a file that is open
//! anywhere stays. If a mount does not answer within the time of a request, all files stay:
//! until its session has ended, nobody knows what it has open.

use crate::leader::Leader;
use crate::open_check::CHECK_INOS_MAX;
use crate::tick::live_sessions;
use lagan_meta::kv::StoreError;
use lagan_raft::ProposeError;
use lagan_types::message::{MetaReply, Released};
use lagan_types::op::Release;
use lagan_types::{Answer, Ino, SessionId};
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// Time for one release, including the wait for its turn: a mount says what it has open
/// every second, and the asker waits longer than this.
const DEADLINE: Duration = Duration::from_secs(5);
/// Files in one command.
const BATCH: usize = 256;

impl Leader {
    /// Releases those of the files that are open nowhere.
    ///
    /// # Errors
    /// This node does not lead.
    pub(crate) async fn release(&self, files: Vec<(Ino, u64)>) -> Result<MetaReply, ProposeError> {
        if files.len() > CHECK_INOS_MAX {
            let reason = format!("at most {CHECK_INOS_MAX} files can be released at once");
            return Ok(MetaReply::Refused(reason));
        }
        Ok(match self.release_closed(files).await? {
            Some(released) => MetaReply::Released(released),
            None => MetaReply::Refused("the cluster has no archive (s3 none)".into()),
        })
    }

    /// Releases those of the files, [`CHECK_INOS_MAX`] at most, that are open nowhere;
    /// `None`: the cluster has no archive.
    ///
    /// # Errors
    /// This node does not lead.
    pub(crate) async fn release_closed(
        &self,
        files: Vec<(Ino, u64)>,
    ) -> Result<Option<Released>, ProposeError> {
        let end = Instant::now() + DEADLINE;
        let mut released = Released::default();
        let unknown = Released {
            unknown: files.len() as u64,
            ..Released::default()
        };
        let Ok(_turn) = timeout_at(end, self.releasing.lock()).await else {
            return Ok(Some(unknown));
        };
        let inos = files.iter().map(|(ino, _)| *ino).collect();
        let Some(sessions) = self.sessions_now().await? else {
            return Ok(None);
        };
        let Some(closed) = self.closed(inos, sessions, end).await else {
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
            match self.propose(Release { files }).await {
                Some(Ok(Answer::Released { files, bytes })) => {
                    released.files += files;
                    released.bytes += bytes;
                }
                _ => released.unknown += batch.len() as u64,
            }
        }
        Ok(Some(released))
    }

    /// Returns the live sessions; `None`: the cluster has no archive.
    async fn sessions_now(&self) -> Result<Option<Vec<SessionId>>, ProposeError> {
        let view = self.raft.read().await?;
        let look = || -> Result<_, StoreError> {
            let map = lagan_meta::cluster_map(&view)?;
            if map.is_none_or(|map| map.config.archive.is_none()) {
                return Ok(None);
            }
            Ok(Some(live_sessions(&view)?))
        };
        look().map_err(|error| {
            tracing::error!(%error, "state store");
            ProposeError::Stopped
        })
    }

    /// Returns those of the files that are open nowhere; `None`: not every mount has said.
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
