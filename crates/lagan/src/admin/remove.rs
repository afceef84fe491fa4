//! `lagan remove NODE`: takes a server that is gone for good out of the cluster.
//!
//! The leader does the work, one step for each question; this command asks until the work
//! is done. If it is broken off, the steps so far stay done: chunks have new replicas.

use crate::admin::output::{Progress, print_json};
use crate::exit::{Doing, Failure, OK, Outcome};
use crate::net::Cluster;
use lagan_types::cluster::ClusterMap;
use lagan_types::message::{Removal, Remove};
use lagan_types::op::MarkLost;
use lagan_types::query::{AllExtents, AllExtentsPage};
use lagan_types::{Content, Ino, NodeId};
use serde::Serialize;
use std::time::Duration;

/// Pause between questions. The leader forgets a removal that nobody asks for in 5 s.
const ASK_EVERY: Duration = Duration::from_millis(500);
/// Most extents in one answer.
const PAGE: u32 = 1024;

#[derive(Debug, Serialize)]
struct Removed<'a> {
    schema: u32,
    removed: &'a str,
    lost_extents: u64,
}

/// Removes the server of that name.
///
/// # Errors
/// Status 1 with the leader's reason; 4 without a quorum.
pub async fn run(cluster: &Cluster, name: &str, force: bool, json: bool) -> Outcome<u8> {
    let node = find(&cluster.map().await?, name)?;
    let mut progress = Progress::new(json);
    loop {
        match cluster.ask(Remove { node, force }).await {
            Ok(Removal::Removed) => break,
            Ok(Removal::Removing { sets, votes }) => progress.show(|| step(sets, votes)),
            Err(failure) => {
                progress.end();
                return Err(Failure {
                    message: format!("{name} is not removed: {}", failure.message),
                    ..failure
                });
            }
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
    let lost_extents = if force { give_up(cluster).await? } else { 0 };
    progress.end();
    if json {
        print_json(&Removed {
            schema: 1,
            removed: name,
            lost_extents,
        })?;
    } else {
        println!("{name} is removed");
        if lost_extents > 0 {
            println!("{lost_extents} extents of files were only there and are lost");
        }
    }
    Ok(OK)
}

fn find(map: &ClusterMap, name: &str) -> Outcome<NodeId> {
    let found = map.nodes.iter().find(|n| n.name == name).map(|n| n.id);
    found.ok_or_else(|| {
        let names: Vec<&str> = map.nodes.iter().map(|n| n.name.as_str()).collect();
        Failure::error(format!(
            "no server {name:?} in this cluster, there are {}",
            names.join(", ")
        ))
    })
}

fn step(sets: u64, votes: bool) -> String {
    match (sets, votes) {
        (0, true) => "its vote goes to another server".into(),
        (0, false) => "its rows go".into(),
        (n, _) => format!("{n} replica sets get another server for it"),
    }
}

/// Marks bytes that no server has any more, so that readers need not wait for them.
async fn give_up(cluster: &Cluster) -> Outcome<u64> {
    let map = cluster.map().await?;
    if map.sets.iter().all(|s| !s.nodes.is_empty()) {
        return Ok(0);
    }
    let (mut from, mut lost) = ((Ino(0), 0), 0);
    loop {
        let query = AllExtents { from, limit: PAGE };
        let Ok(AllExtentsPage { extents, next }) = cluster.query(query).await? else {
            return Err(Failure::error("the extents cannot be listed"));
        };
        for (ino, extent) in extents {
            let Content::Chunk { id: chunk, .. } = extent.content else {
                continue;
            };
            if map.set(chunk.set()).is_some_and(|s| s.nodes.is_empty()) {
                let offset = extent.offset;
                let marked = cluster.mutate(MarkLost { ino, offset, chunk }).await?;
                marked.doing(|| "mark what is lost".into())?;
                lost += 1;
            }
        }
        match next {
            Some(next) => from = next,
            None => return Ok(lost),
        }
    }
}
