//! Replicas that are missing or damaged: who is told, and what else has the bytes.

use crate::Client;
use crate::chunks::fetch::ChunkSpec;
use bytes::Bytes;
use lagan_types::message::ChunkRequest;
use lagan_types::{Ino, NodeId, Query, QueryAnswer};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::time::Instant;

/// For one report; nobody waits for it.
const DEADLINE: Duration = Duration::from_secs(10);
/// To learn whether a file is archived while its replicas may come back.
const ASK_MEANWHILE: Duration = Duration::from_secs(1);
/// To get its bytes from S3 meanwhile.
const RECALL_MEANWHILE: Duration = Duration::from_secs(15);

impl Client {
    /// Tells nodes that their replica is missing or damaged, in the background. They
    /// ask the metadata before they bring anything back, so a report that is out of
    /// date does no harm. One that is lost is made again by the next reader.
    pub(crate) fn report(&self, nodes: &[NodeId], chunk: ChunkSpec) {
        if nodes.is_empty() {
            return;
        }
        let request = match chunk.named {
            Some((ino, offset)) => ChunkRequest::ReportReplica {
                id: chunk.id,
                ino,
                offset,
            },
            None => ChunkRequest::ReportBad { id: chunk.id },
        };
        let placement = self.leader.cluster().current();
        for &node in nodes {
            let Some(Ok(addr)) = placement.addr(node).map(str::parse::<SocketAddr>) else {
                continue;
            };
            let request = request.clone();
            self.tasks.spawn(&self.me, move |client| async move {
                let report = client
                    .leader
                    .link()
                    .chunk(addr, &request, Bytes::new(), DEADLINE);
                if let Err(error) = report.await {
                    tracing::debug!(%node, %error, "report a bad replica");
                }
            });
        }
    }

    /// As [`Client::report`], to all members of the chunk's set.
    pub(crate) fn report_everywhere(&self, chunk: ChunkSpec) {
        let nodes = self
            .leader
            .cluster()
            .current()
            .order(chunk.id.set(), |_| false, 0);
        self.report(&nodes, chunk);
    }

    /// Bytes `at..at + len` of that version of the file from its object; `None` if it is not
    /// archived as it was then, or S3 does not give them.
    pub(crate) async fn archived_bytes(
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

    /// As [`Client::archived_bytes`], for bytes that may come from a replica yet: gives
    /// up soon if nobody leads, or S3 is away.
    pub(crate) async fn archived_meanwhile(
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
        match self.leader.query_by(Query::File { ino }, until).await {
            Ok(QueryAnswer::File { object, .. }) => object.is_some_and(|o| o.version == version),
            _ => false,
        }
    }
}
