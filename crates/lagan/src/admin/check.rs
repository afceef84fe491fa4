//! `lagan check`: what the metadata names against what the servers hold.
//!
//! 1. All extents are read, which gives the chunks that must exist (32 to 48
//!    bytes of memory each).
//! 2. Each server's list of chunks is merged with those, and, unless `--fast`,
//!    each chunk is read and verified where it should be.
//! 3. With `--objects`, S3 is asked for every object that the metadata names, and its
//!    list of objects is held against these.
//! 4. The cluster goes on working meanwhile. So whatever looks wrong is looked
//!    at again before it is called a finding: a file may have been changed, a
//!    chunk may be on its way in (its block is open) or out (it is in a reap row).
//! 5. A server is told of each replica that it lacks or has damaged: it heals it.

mod named;
mod objects;
mod replicas;
mod report;
mod stored;
mod strays;
mod unnamed;

use crate::admin::output::{Progress, print_json};
use crate::cli::CheckArgs;
use crate::exit::{Failure, Outcome};
use crate::net::{Cluster, node_addr};
use lagan_types::cluster::{ClusterMap, NodeInfo, NodeState};
use named::Names;
use replicas::NodeResult;
use report::Report;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::task::JoinSet;

/// Between two lines of progress.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Checks the whole cluster.
///
/// # Errors
/// When the metadata cannot be read; what is wrong with the data is in the report.
pub async fn run(cluster: &Cluster, args: CheckArgs, json: bool) -> Outcome<u8> {
    let mut progress = Progress::new(json);
    let mut report = Report::default();
    let map = cluster.map().await?;
    let names = Arc::new(named::read(cluster, &mut report, &mut progress).await?);
    report.count_degraded(&names.per_set(), &map);
    let results = check_nodes(cluster, &map, &names, args.fast, &mut report, &mut progress).await?;
    let mut strays = Vec::new();
    for (node, result) in results {
        report.replicas += result.checked;
        report.bytes += result.bytes;
        report.surplus += result.surplus;
        for problem in result.problems {
            if replicas::persists(cluster, &node, &names, &problem).await? {
                replicas::report(cluster, &node, &names, &problem).await;
                report.find(problem.finding(&node, &names));
            }
        }
        strays.extend(result.strays.into_iter().map(|id| (node.clone(), id)));
    }
    progress.show(|| "chunks that nothing names".into());
    strays::check(cluster, strays, &mut report, &mut progress).await?;
    if args.objects {
        objects::check(cluster, &map, &names, &mut report, &mut progress).await?;
    } else {
        report.objects_left_out = map.config.archive.is_some() || report.object_extents > 0;
    }
    progress.end();
    if json {
        print_json(&report.finish())?;
    } else {
        print!("{}", report.finish().text());
    }
    Ok(report.exit_status())
}

/// All servers that are up, at the same time.
async fn check_nodes(
    cluster: &Cluster,
    map: &ClusterMap,
    names: &Arc<Names>,
    fast: bool,
    report: &mut Report,
    progress: &mut Progress,
) -> Outcome<Vec<(NodeInfo, NodeResult)>> {
    let done = Arc::new(AtomicU64::new(0));
    let mut tasks = JoinSet::new();
    for node in &map.nodes {
        let expected = names.of_node(node.id, map);
        if node.state == NodeState::Down {
            report.leave_unchecked(&node.name, "is down", expected.len() as u64);
            continue;
        }
        let addr = node_addr(node)?;
        let (pool, names, done) = (cluster.pool().clone(), names.clone(), done.clone());
        let node = node.clone();
        tasks.spawn(async move {
            let work = replicas::Work {
                pool,
                addr,
                names,
                expected,
                fast,
                done,
            };
            (node, work.run().await)
        });
    }
    let mut results = Vec::new();
    while !tasks.is_empty() {
        match tokio::time::timeout(LOOK_EVERY, tasks.join_next()).await {
            Ok(Some(Ok((node, Ok(result))))) => results.push((node, result)),
            Ok(Some(Ok((node, Err((why, left)))))) => {
                report.leave_unchecked(&node.name, &why, left)
            }
            Ok(Some(Err(e))) => return Err(Failure::error(format!("check: {e}"))),
            Ok(None) | Err(_) => {}
        }
        progress.show(|| format!("{} replicas checked", done.load(Ordering::Relaxed)));
    }
    Ok(results)
}
