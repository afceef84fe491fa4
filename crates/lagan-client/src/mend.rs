//! Replicas that are missing or damaged: who is told, and what else has the bytes.

use crate::Client;
use crate::fetch::ChunkSpec;
use bytes::Bytes;
use lagan_types::message::ChunkRequest;
use lagan_types::{Ino, NodeId, Query, QueryAnswer};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::time::Instant;

/// For one report; nobody waits for it.
const DEADLINE: Duration = Duration::from_secs(10);

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
        let placement = self.cluster.current();
        for &node in nodes {
            let Some(Ok(addr)) = placement.addr(node).map(str::parse::<SocketAddr>) else {
                continue;
            };
            let request = request.clone();
            self.spawn(move |client| async move {
                let report = client.link.chunk(addr, &request, Bytes::new(), DEADLINE);
                if let Err(error) = report.await {
                    tracing::debug!(%node, %error, "report a bad replica");
                }
            });
        }
    }

    /// As [`Client::report`], to all members of the chunk's set.
    pub(crate) fn report_everywhere(&self, chunk: ChunkSpec) {
        let nodes = self.cluster.current().order(chunk.id.set(), |_| false, 0);
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
        let answer = self.query_by(Query::File { ino }, until).await;
        let Ok(QueryAnswer::File { object, .. }) = answer else {
            return None;
        };
        // The object of a version has exactly the bytes of that version.
        object.filter(|o| o.version == version)?;
        self.recall((ino, version), at, len, until).await.ok()
    }
}
