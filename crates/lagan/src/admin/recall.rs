//! `lagan recall`: reads released files once, so that the servers' cache holds them.
//!
//! It reads through the mount, as a user does: the mount knows which server to ask, and
//! every byte is verified on the way.

use crate::admin::output::{Progress, print_json};
use crate::admin::walk::Walk;
use crate::exit::{ERROR, Failure, OK, Outcome};
use crate::net::Cluster;
use lagan_host::units;
use lagan_types::attr::ArchiveState;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::task::JoinSet;

/// Number of files read at the same time.
const READERS: usize = 8;
/// Length of one read.
const READ_LEN: usize = 1 << 20;
/// Pause between two looks at the readers.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Time without a byte from any reader after which the command gives up. A mount answers
/// earlier.
const SILENCE_MAX: Duration = Duration::from_secs(300);

#[derive(Debug, Default, serde::Serialize)]
struct Report {
    schema: u32,
    files: u64,
    recalled: u64,
    bytes: u64,
    local: u64,
    failed: u64,
}

/// Reads every released file at and below the paths.
///
/// # Errors
/// Those of the cluster; status 1 when a file could not be read.
pub async fn run(cluster: &Cluster, paths: &[PathBuf], json: bool) -> Outcome<u8> {
    let mut progress = Progress::new(json);
    let mut report = Report {
        schema: 1,
        ..Report::default()
    };
    let bytes = Arc::new(AtomicU64::new(0));
    let mut readers = JoinSet::new();
    let mut walk = Walk::new(cluster, paths);
    loop {
        let batch = walk.batch(READERS).await?;
        let last = batch.is_empty();
        for item in batch {
            report.files += 1;
            if item.attr.archive != ArchiveState::Released {
                report.local += 1;
                continue;
            }
            let bytes = bytes.clone();
            readers.spawn_blocking(move || read(&item.path, &bytes).map_err(|e| (item.path, e)));
        }
        let room = if last { 0 } else { READERS };
        collect(&mut readers, room, &mut report, &bytes, &mut progress).await?;
        if last {
            break;
        }
    }
    progress.end();
    report.bytes = bytes.load(Ordering::Relaxed);
    if json {
        print_json(&report)?;
    } else {
        println!(
            "recalled {} files, {}; {} were local",
            report.recalled,
            units::bytes(report.bytes),
            report.local
        );
    }
    Ok(if report.failed > 0 { ERROR } else { OK })
}

/// Waits until no more than `room` readers are left.
async fn collect(
    readers: &mut JoinSet<Result<(), (PathBuf, std::io::Error)>>,
    room: usize,
    report: &mut Report,
    bytes: &AtomicU64,
    progress: &mut Progress,
) -> Outcome<()> {
    let mut silent = Duration::ZERO;
    let mut before = bytes.load(Ordering::Relaxed);
    while readers.len() > room {
        match tokio::time::timeout(LOOK_EVERY, readers.join_next()).await {
            Ok(Some(Ok(Ok(())))) => report.recalled += 1,
            Ok(Some(Ok(Err((path, error))))) => {
                report.failed += 1;
                eprintln!("lagan: {}: {error}", path.display());
            }
            Ok(Some(Err(e))) => return Err(Failure::error(format!("read: {e}"))),
            Ok(None) => break,
            Err(_) => silent += LOOK_EVERY,
        }
        let now = bytes.load(Ordering::Relaxed);
        if now != before {
            silent = Duration::ZERO;
            before = now;
        }
        if silent >= SILENCE_MAX {
            return Err(Failure::error("the mount does not answer"));
        }
        let done = report.recalled;
        progress.show(|| format!("recalled {done} files, {}", units::bytes(now)));
    }
    Ok(())
}

fn read(path: &Path, bytes: &AtomicU64) -> std::io::Result<()> {
    let mut file = File::open(path)?;
    let mut buffer = vec![0; READ_LEN];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(()),
            n => bytes.fetch_add(n as u64, Ordering::Relaxed),
        };
    }
}
