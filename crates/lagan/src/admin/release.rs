//! `lagan release`: local copies of archived files are dropped.

use crate::admin::walk::{Item, Walk};
use crate::admin::{Progress, print_json};
use crate::exit::{Failure, OK, Outcome};
use crate::net::Cluster;
use crate::units;
use lagan_types::attr::ArchiveState;
use lagan_types::{Answer, Ino, Op};
use std::path::PathBuf;

/// Files in one command.
const BATCH: usize = 1024;

#[derive(Debug, Default, serde::Serialize)]
struct Report {
    schema: u32,
    files: u64,
    released: u64,
    bytes: u64,
    already: u64,
    not_archived: u64,
    skipped: u64,
}

/// Releases what is archived at and below the paths; the rest is left as it is.
///
/// # Errors
/// The cluster's.
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
            // Nothing to drop: an empty file, or one of holes.
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
    match cluster.mutate(Op::Release { files }).await? {
        Ok(Answer::Released { files, bytes }) => {
            report.released += files;
            report.bytes += bytes;
            report.skipped += asked.saturating_sub(files);
            Ok(())
        }
        Ok(other) => Err(crate::net::unexpected(&other)),
        Err(e) => Err(Failure::error(format!("release: {e}"))),
    }
}
