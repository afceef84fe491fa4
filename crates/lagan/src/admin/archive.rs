//! `lagan archive now`: makes files due at once.

use crate::admin::output::{Progress, print_json};
use crate::admin::walk::{Item, Walk};
use crate::exit::{DEGRADED, Doing, ERROR, Failure, OK, Outcome};
use crate::net::{Cluster, one_for_each};
use lagan_types::attr::ArchiveState;
use lagan_types::op::ArchiveNow;
use lagan_types::query::GetAttrs;
use lagan_types::{Attr, Ino};
use std::collections::VecDeque;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Most inodes in one command.
const BATCH: usize = 1024;
/// Files that one round looks at. The queue is worked off about in order, so the files
/// behind these wait too.
const LOOKED_AT: usize = 128;
/// Pauses between rounds without progress: the first, and the longest.
const PAUSE_MIN: Duration = Duration::from_millis(30);
const PAUSE_MAX: Duration = Duration::from_millis(250);
/// Time without progress after which the state of S3 is asked for again.
const STALL: Duration = Duration::from_secs(5);

#[derive(Debug, Default, serde::Serialize)]
struct Report {
    schema: u32,
    files: u64,
    bytes: u64,
    archived: u64,
    changed: u64,
    gone: u64,
    too_large: u64,
    waiting: u64,
}

/// A file that was asked for.
struct Asked {
    ino: Ino,
    version: u64,
}

/// Makes the files at and below the paths due. `wait`: `None` to return at once,
/// `Some(limit)` to wait until all are in S3.
///
/// # Errors
/// Those of the cluster; status 1 when there is no archive, or the limit passed.
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
    let mut walk = Walk::new(cluster, paths);
    let mut asked = VecDeque::new();
    loop {
        let batch = walk.batch(BATCH).await?;
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
            "{} of {} files are in S3{}{}{}",
            report.archived,
            report.files,
            note(
                report.too_large,
                "cannot go there: over 5 TiB, or holes of over 64 GiB"
            ),
            note(report.changed, "changed meanwhile"),
            note(report.waiting, "wait for the mover")
        );
    }
    let unfinished = wait.is_some() && report.waiting > 0;
    Ok(match (unfinished, report.changed + report.too_large) {
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
    let mut inos: Vec<Ino> = Vec::new();
    for Item { attr, .. } in batch {
        report.files += 1;
        report.bytes += attr.size;
        if in_s3(attr) {
            report.archived += 1;
            continue;
        }
        if attr.unfit_for_s3().is_some() {
            report.too_large += 1;
            continue;
        }
        inos.push(attr.ino);
        asked.push_back(Asked {
            ino: attr.ino,
            version: attr.version,
        });
    }
    if inos.is_empty() {
        return Ok(());
    }
    let answer = cluster.mutate(ArchiveNow { inos }).await?;
    answer.doing(|| "make files due".into())
}

fn in_s3(attr: &Attr) -> bool {
    matches!(
        attr.archive,
        ArchiveState::Archived | ArchiveState::Released
    )
}

/// Looks at the first of the files that were asked for; returns how many are settled.
async fn look(
    cluster: &Cluster,
    asked: &mut VecDeque<Asked>,
    report: &mut Report,
) -> Outcome<usize> {
    let first: Vec<Asked> = asked.drain(..LOOKED_AT.min(asked.len())).collect();
    let inos = first.iter().map(|f| f.ino).collect();
    let answer = cluster.query(GetAttrs { inos }).await?;
    let attrs = answer.doing(|| "look at files".into())?;
    let attrs = one_for_each(attrs, first.len()).map_err(Failure::error)?;
    let before = first.len();
    let mut waiting = 0;
    for (file, attr) in first.into_iter().zip(attrs) {
        match attr {
            None => report.gone += 1,
            Some(attr) if in_s3(&attr) => report.archived += 1,
            Some(attr) if attr.version != file.version => report.changed += 1,
            Some(_) => {
                asked.push_back(file);
                waiting += 1;
            }
        }
    }
    Ok(before - waiting)
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
    let mut pause = PAUSE_MIN;
    while !asked.is_empty() {
        let settled = look(cluster, asked, report).await?;
        if settled > 0 {
            (moved, pause) = (Instant::now(), PAUSE_MIN);
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
        if left > 0 && settled < LOOKED_AT / 2 {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }
    Ok(())
}

/// The reason why nothing moves, if the servers know it.
async fn s3_trouble(cluster: &Cluster) -> Outcome<String> {
    let status = cluster.status().await?;
    let error = status.nodes.iter().find(|n| !n.s3_error.is_empty());
    Ok(error.map_or_else(String::new, |n| format!(" ({})", n.s3_error)))
}
