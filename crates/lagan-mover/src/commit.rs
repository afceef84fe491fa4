//! Reports the ends of uploads to the metadata, several in one mutation.
//!
//! The channel to it is short: while the metadata is away, uploads wait with
//! their ends in hand and no new ones begin. What cannot be reported for long
//! is dropped: the attempt stays recorded, and the sweep of lost attempts
//! fails the attempt later.

use crate::Meta;
use crate::attempts::Active;
use crate::report::report;
use lagan_types::op::{ArchiveFail, ArchiveFinish, FailArchive, FinishArchive};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// Ends in one mutation.
const BATCH_MAX: usize = 256;
/// Time that the first end waits for others: a file's state is not in a hurry, and a
/// commit on all voters costs as much as an upload does.
const GATHER: Duration = Duration::from_millis(25);

/// The end of an upload, as it is reported.
#[derive(Debug, Clone)]
pub(crate) enum End {
    Finish(ArchiveFinish),
    Fail(ArchiveFail),
}

/// Reports ends until the channel closes.
pub(crate) async fn run(meta: Arc<dyn Meta>, active: Arc<Active>, mut ends: mpsc::Receiver<End>) {
    let mut batch = Vec::new();
    while ends.recv_many(&mut batch, BATCH_MAX).await > 0 {
        gather(&mut ends, &mut batch).await;
        let (mut finished, mut failed) = (Vec::new(), Vec::new());
        for end in batch.drain(..) {
            match end {
                End::Finish(file) => finished.push(file),
                End::Fail(file) => failed.push(file),
            }
        }
        let attempts: Vec<u64> = finished
            .iter()
            .map(|f| f.attempt)
            .chain(failed.iter().map(|f| f.attempt))
            .collect();
        if !finished.is_empty() {
            report(&*meta, FinishArchive { files: finished }).await;
        }
        if !failed.is_empty() {
            report(&*meta, FailArchive { files: failed }).await;
        }
        active.remove(&attempts);
    }
}

/// Takes what comes within a moment.
async fn gather(ends: &mut mpsc::Receiver<End>, batch: &mut Vec<End>) {
    let deadline = tokio::time::Instant::now() + GATHER;
    while batch.len() < BATCH_MAX {
        let left = BATCH_MAX - batch.len();
        match tokio::time::timeout_at(deadline, ends.recv_many(batch, left)).await {
            Ok(n) if n > 0 => {}
            _ => return,
        }
    }
}
