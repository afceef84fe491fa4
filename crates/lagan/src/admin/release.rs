//! `lagan release`: drops the local copies of archived files.

use crate::admin::output::{Progress, print_json};
use crate::admin::walk::{Item, Walk};
use crate::exit::{OK, Outcome};
use crate::net::Cluster;
use lagan_host::units;
use lagan_types::Ino;
use lagan_types::attr::ArchiveState;
use lagan_types::message::{ReleaseFiles, Released};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Most files in one command.
const BATCH: usize = 4096;
/// Longest wait for a mount. One that is silent for longer has lost its session: it has
/// nothing open.
const SILENCE_MAX: Duration = Duration::from_secs(40);
/// Pause between two questions.
const PAUSE: Duration = Duration::from_millis(200);

#[derive(Debug, Default, serde::Serialize)]
struct Report {
    schema: u32,
    files: u64,
    released: u64,
    bytes: u64,
    already: u64,
    not_archived: u64,
    open: u64,
    skipped: u64,
    unknown: u64,
}

/// Releases the archived files at and below the paths; others stay as they are.
///
/// # Errors
/// Those of the cluster.
pub async fn run(cluster: &Cluster, paths: &[PathBuf], json: bool) -> Outcome<u8> {
    let mut progress = Progress::new(json);
    let mut report = Report {
        schema: 1,
        ..Report::default()
    };
    let mut walk = Walk::new(cluster, paths);
    loop {
        let batch = walk.batch(BATCH).await?;
        if batch.is_empty() {
            break;
        }
        release(cluster, &batch, &mut report).await?;
        progress.show(|| format!("{} of {} files released", report.released, report.files));
    }
    progress.end();
    if json {
        print_json(&report)?;
        return Ok(OK);
    }
    println!(
        "released {} files, {} each copy",
        report.released,
        units::bytes(report.bytes)
    );
    for (count, what) in [
        (
            report.already,
            "hold nothing here: released before, or empty",
        ),
        (
            report.not_archived,
            "are not in S3 yet: `lagan archive now` sends them",
        ),
        (report.open, "were left out: open on some mount"),
        (
            report.unknown,
            "were left out: a mount does not say what it has open",
        ),
        (
            report.skipped,
            "were left out: changed or removed meanwhile",
        ),
    ] {
        if count > 0 {
            println!("{count} files {what}");
        }
    }
    Ok(OK)
}

async fn release(cluster: &Cluster, batch: &[Item], report: &mut Report) -> Outcome<()> {
    let mut files: Vec<(Ino, u64)> = Vec::new();
    for Item { attr, .. } in batch {
        report.files += 1;
        match attr.archive {
            // There is nothing to drop: the file is empty, or has only holes.
            _ if attr.allocated == 0 => report.already += 1,
            ArchiveState::Archived => files.push((attr.ino, attr.version)),
            ArchiveState::Released => report.already += 1,
            ArchiveState::Local | ArchiveState::Archiving | ArchiveState::Dirty => {
                report.not_archived += 1;
            }
        }
    }
    if files.is_empty() {
        return Ok(());
    }
    let asked = files.len() as u64;
    let released = ask(cluster, &files).await?;
    report.released += released.files;
    report.bytes += released.bytes;
    report.open += released.open;
    report.unknown += released.unknown;
    report.skipped += asked.saturating_sub(released.files + released.open + released.unknown);
    Ok(())
}

/// Asks until every mount has said which files it has open.
async fn ask(cluster: &Cluster, files: &[(Ino, u64)]) -> Outcome<Released> {
    let end = Instant::now() + SILENCE_MAX;
    let mut all = Released::default();
    loop {
        let files = files.to_vec();
        let released = cluster.ask(ReleaseFiles { files }).await?;
        all.files += released.files;
        all.bytes += released.bytes;
        (all.open, all.unknown) = (released.open, released.unknown);
        if released.unknown == 0 || Instant::now() >= end {
            return Ok(all);
        }
        tokio::time::sleep(PAUSE).await;
    }
}
