//! Whether archived objects that have no local copy can be fetched.

use crate::admin::Progress;
use crate::admin::check::named::Names;
use crate::admin::check::report::{Finding, Report};
use crate::exit::Outcome;
use crate::net::{Cluster, ask_chunks, node_addr, unexpected};
use lagan_types::cluster::{ClusterMap, NodeState};
use lagan_types::message::{ChunkReply, ChunkRequest};
use lagan_types::{Content, Ino, Query, QueryAnswer};
use std::time::Duration;

const DEADLINE: Duration = Duration::from_secs(60);

/// Fetches one byte of each.
///
/// # Errors
/// The cluster's.
pub async fn check(
    cluster: &Cluster,
    map: &ClusterMap,
    names: &Names,
    report: &mut Report,
    progress: &mut Progress,
) -> Outcome<()> {
    let up: Vec<_> = map
        .nodes
        .iter()
        .filter(|n| n.state != NodeState::Down)
        .collect();
    for (i, &(ino, version, offset)) in names.objects.iter().enumerate() {
        let Some(node) = up.get(i % up.len().max(1)) else {
            report.leave_unchecked("objects", "no server is up", names.objects.len() as u64);
            return Ok(());
        };
        let request = ChunkRequest::Recall {
            ino,
            version,
            offset,
            len: 1,
        };
        report.objects += 1;
        let why = match ask_chunks(cluster.pool(), node_addr(node)?, &request, DEADLINE).await {
            Ok(ChunkReply::Recalled { .. }) => continue,
            Ok(ChunkReply::RecallFailed { reason, transient }) if !transient => reason,
            Ok(ChunkReply::NotFound) => "the server knows no such object".into(),
            Ok(ChunkReply::RecallFailed { reason, .. } | ChunkReply::Failed(reason)) => {
                report.leave_unchecked(&node.name, &reason, 1);
                continue;
            }
            Ok(other) => unexpected(&other).message,
            Err(e) => {
                report.leave_unchecked(&node.name, &e.to_string(), 1);
                continue;
            }
        };
        if still_named(cluster, ino, version).await? {
            report.find(Finding {
                ino: Some(ino.0),
                ..Finding::of("object", why)
            });
        }
        progress.show(|| format!("{} objects asked for", report.objects));
    }
    Ok(())
}

async fn still_named(cluster: &Cluster, ino: Ino, version: u64) -> Outcome<bool> {
    match cluster.query(Query::File { ino }).await? {
        Ok(QueryAnswer::File { extents, .. }) => Ok(extents
            .iter()
            .any(|e| matches!(e.content, Content::Object { version: v, .. } if v == version))),
        _ => Ok(false),
    }
}
