//! `lagan archive now`: files become due at once.

use crate::admin::walk::{Item, Walk};
use crate::admin::{Progress, print_json};
use crate::exit::{DEGRADED, ERROR, Failure, OK, Outcome};
use crate::net::Cluster;
use lagan_types::attr::ArchiveState;
use lagan_types::{Ino, Op, Query, QueryAnswer};
use std::collections::VecDeque;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Inodes in one command.
const BATCH: usize = 256;
/// Files that are still waiting, looked at in one round.
const WAITING_LOOKED_AT: usize = 32;
/// Between two rounds of asking.
const PAUSE: Duration = Duration::from_millis(250);
/// S3 is looked at again after this long without progress.
const STALL: Duration = Duration::from_secs(5);

#[derive(Debug, Default, serde::Serialize)]
struct Report {
    schema: u32,
    files: u64,
    bytes: u64,
    archived: u64,
    changed: u64,
    gone: u64,
    waiting: u64,
}

/// A file that was asked for.
struct Asked {
    ino: Ino,
    version: u64,
}

/// `wait`: `None` to return at once, `Some(limit)` to wait until all are in S3.
///
/// # Errors
/// The cluster's; status 1 when there is no archive, or the limit passed.
pub async fn run(
    cluster: &Cluster,
    paths: &[PathBuf],
    wait: Option<Option<Duration>>,
    json: bool,
) -> Outcome<u8> {
    if cluster.map().await?.config.archive.is_none() {
        return Err(Failure::error("the cluster has no archive (s3 none)"));
    }
    let mut progress = Progress::new(json);
    let mut report = Report {
        schema: 1,
        ..Report::default()
    };
    let walk = Walk::start(paths)?;
    let mut asked = VecDeque::new();
    loop {
        let batch = walk.batch(BATCH)?;
        if batch.is_empty() {
            break;
        }
        ask(cluster, &batch, &mut asked, &mut report).await?;
        progress.show(|| format!("{} files are due", report.files));
    }
    if let Some(limit) = wait {
        let end = limit.map(|l| Instant::now() + l);
        wait_archived(cluster, &mut asked, &mut report, end, &mut progress).await?;
    }
    progress.end();
    report.waiting = asked.len() as u64;
    if json {
        print_json(&report)?;
    } else {
        println!(
            "{} of {} files are in S3{}{}",
            report.archived,
            report.files,
            note(report.changed, "changed meanwhile"),
            note(report.waiting, "wait for the mover")
        );
    }
    let unfinished = wait.is_some() && report.waiting > 0;
    Ok(match (unfinished, report.changed) {
        (true, _) => ERROR,
        (false, 0) => OK,
        (false, _) => DEGRADED,
    })
}

fn note(count: u64, what: &str) -> String {
    match count {
        0 => String::new(),
        n => format!(", {n} {what}"),
    }
}

async fn ask(
    cluster: &Cluster,
    batch: &[Item],
    asked: &mut VecDeque<Asked>,
    report: &mut Report,
) -> Outcome<()> {
    for item in batch {
        report.files += 1;
        report.bytes += item.len;
        match state(cluster, item.ino).await? {
            Some((ArchiveState::Archived | ArchiveState::Released, _)) => report.archived += 1,
            Some((_, version)) => asked.push_back(Asked {
                ino: item.ino,
                version,
            }),
            None => report.gone += 1,
        }
    }
    let inos: Vec<Ino> = batch.iter().map(|i| i.ino).collect();
    cluster
        .mutate(Op::ArchiveNow { inos })
        .await?
        .map(|_| ())
        .map_err(|e| Failure::error(format!("make files due: {e}")))
}

/// The archive state and data version; `None`: the file is gone.
async fn state(cluster: &Cluster, ino: Ino) -> Outcome<Option<(ArchiveState, u64)>> {
    match cluster.query(Query::GetAttr { ino }).await? {
        Ok(QueryAnswer::Attr(attr)) => Ok(Some((attr.archive, attr.version))),
        Ok(other) => Err(crate::net::unexpected(&other)),
        Err(_) => Ok(None),
    }
}

async fn wait_archived(
    cluster: &Cluster,
    asked: &mut VecDeque<Asked>,
    report: &mut Report,
    end: Option<Instant>,
    progress: &mut Progress,
) -> Outcome<()> {
    let mut trouble = String::new();
    let mut moved = Instant::now();
    while !asked.is_empty() {
        let before = asked.len();
        // The queue is worked off in order: behind some that wait, the rest waits too.
        let mut waiting = 0;
        for _ in 0..before {
            if waiting >= WAITING_LOOKED_AT {
                break;
            }
            let Some(file) = asked.pop_front() else {
                break;
            };
            match state(cluster, file.ino).await? {
                None => report.gone += 1,
                Some((ArchiveState::Archived | ArchiveState::Released, _)) => report.archived += 1,
                Some((_, version)) if version != file.version => report.changed += 1,
                Some(_) => {
                    asked.push_back(file);
                    waiting += 1;
                }
            }
        }
        if asked.len() < before {
            moved = Instant::now();
            trouble.clear();
        } else if moved.elapsed() > STALL {
            moved = Instant::now();
            trouble = s3_trouble(cluster).await?;
        }
        let left = asked.len();
        progress.show(|| {
            format!(
                "{} of {} files are in S3, {left} wait{trouble}",
                report.archived, report.files
            )
        });
        if end.is_some_and(|end| Instant::now() >= end) {
            break;
        }
        if left > 0 {
            tokio::time::sleep(PAUSE).await;
        }
    }
    Ok(())
}

/// Why nothing moves, if the servers know.
async fn s3_trouble(cluster: &Cluster) -> Outcome<String> {
    let status = cluster.status().await?;
    let error = status.nodes.iter().find(|n| !n.s3_error.is_empty());
    Ok(error.map_or_else(String::new, |n| format!(" ({})", n.s3_error)))
}
