//! Reports of replicas that are missing or damaged, to the nodes that should have them.

use crate::chunks::Chunks;
use crate::chunks::spec::ChunkSpec;
use bytes::Bytes;
use lagan_types::NodeId;
use lagan_types::message::{ReportBad, ReportReplica};
use std::net::SocketAddr;
use std::time::Duration;

/// How long one report tries; nobody waits for it.
const DEADLINE: Duration = Duration::from_secs(10);

impl Chunks {
    /// Tells nodes that their replica is missing or damaged, in the background. They
    /// ask the metadata before they bring anything back, so a report that is out of
    /// date does no harm. One that is lost is made again by the next reader.
    pub(super) fn report(&self, nodes: &[NodeId], chunk: ChunkSpec) {
        if nodes.is_empty() {
            return;
        }
        let placement = self.leader.cluster().current();
        for &node in nodes {
            let Some(Ok(addr)) = placement.addr(node).map(str::parse::<SocketAddr>) else {
                continue;
            };
            self.tasks.spawn(&self.me, move |chunks| async move {
                let (id, link) = (chunk.id, chunks.leader.link());
                let reported = match chunk.named {
                    Some((ino, offset)) => {
                        let report = ReportReplica { id, ino, offset };
                        let asked = link.ask_at(addr, report, Bytes::new(), DEADLINE);
                        asked.await.map(|_| ())
                    }
                    None => {
                        let asked = link.ask_at(addr, ReportBad { id }, Bytes::new(), DEADLINE);
                        asked.await.map(|_| ())
                    }
                };
                if let Err(error) = reported {
                    tracing::debug!(%node, %error, "report a bad replica");
                }
            });
        }
    }

    /// Does the same for all members of the chunk's set.
    pub(super) fn report_everywhere(&self, chunk: ChunkSpec) {
        let nodes = self
            .leader
            .cluster()
            .current()
            .order(chunk.id.set(), |_| false, 0);
        self.report(&nodes, chunk);
    }
}
