//! Archived objects: their bytes by way of the storage nodes, and where they stand in for chunks.

use crate::chunks::Chunks;
use crate::chunks::spec::Missing;
use crate::leader::link::left;
use bytes::Bytes;
use lagan_types::message::{ArchiveRefusal, Recall, Recalled};
use lagan_types::query::File;
use lagan_types::{FsError, Ino};
use std::time::Duration;
use tokio::time::Instant;

/// How long one attempt to have bytes recalled waits, at most: S3 may be slow.
const RECALL_ATTEMPT: Duration = Duration::from_secs(30);
/// Wait between rounds over all nodes, at first and at most.
const PAUSE: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// How long the leader is asked whether a file is archived, while its replicas may come back.
const ASK_MEANWHILE: Duration = Duration::from_secs(1);
/// How long S3 is asked for its bytes meanwhile.
const RECALL_MEANWHILE: Duration = Duration::from_secs(15);

impl Chunks {
    /// Reads bytes `at..at + len` of an archived object, through any storage node.
    ///
    /// # Errors
    /// [`Missing::NotFound`] if a node says that there is no such object;
    /// [`FsError::Io`] at the deadline, and if every node says that S3 never gives it.
    pub async fn recall(
        &self,
        (ino, version): (Ino, u64),
        at: u64,
        len: u32,
        until: Instant,
    ) -> Result<Bytes, Missing> {
        let request = Recall {
            ino,
            version,
            offset: at,
            len,
        };
        let mut pause = PAUSE;
        loop {
            let suspects = self.leader.cluster().suspects();
            let placement = self.leader.cluster().current();
            let (mut missing, mut refused) = (0, 0);
            let nodes = placement.any_order(|n| suspects.contains(&n), 0);
            for &node in &nodes {
                let Some(Ok(addr)) = placement.addr(node).map(str::parse) else {
                    continue;
                };
                let deadline = RECALL_ATTEMPT.min(left(until));
                let link = self.leader.link();
                let asked = link.ask_at(addr, request.clone(), Bytes::new(), deadline);
                match asked.await {
                    Ok((Ok(Recalled { crc }), data))
                        if data.len() == len as usize && crc32fast::hash(&data) == crc =>
                    {
                        return Ok(data);
                    }
                    Ok((Ok(_), _)) => tracing::warn!(%node, %ino, "recalled bytes are wrong"),
                    Ok((Err(ArchiveRefusal::Gone), _)) => missing += 1,
                    Ok((Err(refusal), _)) => {
                        tracing::warn!(%node, %refusal, %ino, "recall failed");
                        let never = matches!(refusal, ArchiveRefusal::Failed(_));
                        refused += usize::from(never);
                    }
                    Err(error) => {
                        tracing::debug!(%node, %error, %ino, "recall failed");
                        self.leader.cluster().suspect(node);
                    }
                }
            }
            if missing > 0 {
                let everywhere = missing == nodes.len();
                return Err(Missing::NotFound { everywhere });
            }
            let hopeless = refused > 0 && refused == nodes.len();
            if hopeless || Instant::now() + pause >= until {
                return Err(Missing::Failed(FsError::Io));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Reads bytes `at..at + len` of that version of the file from its object; `None` if it
    /// is not archived as it was then, or S3 does not give them.
    pub(super) async fn archived_bytes(
        &self,
        (ino, version): (Ino, u64),
        at: u64,
        len: u32,
        until: Instant,
    ) -> Option<Bytes> {
        if !self.is_archived((ino, version), until).await {
            return None;
        }
        self.recall((ino, version), at, len, until).await.ok()
    }

    /// Does the same for bytes that may come from a replica yet: gives up soon if
    /// nobody leads, or S3 is away.
    pub(super) async fn archived_meanwhile(
        &self,
        file: (Ino, u64),
        at: u64,
        len: u32,
        until: Instant,
    ) -> Option<Bytes> {
        let now = Instant::now();
        if !self.is_archived(file, until.min(now + ASK_MEANWHILE)).await {
            return None;
        }
        let until = until.min(now + RECALL_MEANWHILE);
        self.recall(file, at, len, until).await.ok()
    }

    /// Whether an object is named that has exactly the bytes of that version.
    async fn is_archived(&self, (ino, version): (Ino, u64), until: Instant) -> bool {
        let file = self.leader.query_by(File { ino }, until).await;
        let object = file.ok().and_then(|file| file.object);
        object.is_some_and(|o| o.version == version)
    }
}
