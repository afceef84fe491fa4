//! Releasing local copies when disks fill up.
//!
//! Between two water marks: when a node's disk is above the high one, archived
//! files are released, least recently archived first, until the fullest node
//! should be below the low one. Freed chunks become free space only after their
//! readers' deadline and a compaction, so rounds are [`PAUSE`] apart. Files that
//! are open anywhere stay (`release`).
//!
//! The loop is a task of its own beside the ticks: a round waits for the mounts,
//! seconds for each page, while nodes and sessions are looked after as ever.
//!
//! A round ends early when this node stops leading (no state can be read), when a
//! command fails or when a mount does not answer. Nothing of it is remembered: the
//! next look, here or on another leader, begins with the files that are left.
//! A look that ends by a defect is followed by another, after a pause: a full disk
//! is no reason for a server to stop, and the next leader would find the same.

use crate::leader::{Disk, Leader};
use crate::metrics::RELEASED_BYTES;
use crate::open_check::CHECK_INOS_MAX;
use crate::release::{Edge, ReleaseError, release_closed};
use lagan_raft::ProposeError;
use lagan_types::Ino;
use lagan_types::cluster::Config;
use lagan_types::message::Released;
use lagan_types::query::{Releasable, ReleasableFile};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

/// Time between looks at the disks.
const LOOK: Duration = Duration::from_secs(1);
/// Time between rounds: freed chunks take a while to become free space.
const PAUSE: Duration = Duration::from_secs(30);
/// Files in one page and one check of what is open.
const PAGE: u32 = 1024;
const _: () = assert!(PAGE as usize <= CHECK_INOS_MAX);

/// The loop's times.
#[derive(Debug, Clone, Copy)]
struct Times {
    look: Duration,
    pause: Duration,
}

/// Keeps all disks below the high-water mark until `cancel`; does nothing while
/// another node leads.
pub async fn keep_water_marks(leader: Arc<Leader>, cancel: CancellationToken) {
    let times = Times {
        look: LOOK,
        pause: PAUSE,
    };
    cancel.run_until_cancelled(keep(leader, times)).await;
}

async fn keep(edge: Arc<impl Edge>, times: Times) {
    let mut failures = Failures::default();
    loop {
        tokio::time::sleep(times.look).await;
        if !edge.leads() {
            continue;
        }
        let edge = edge.clone();
        // On a task of its own, a look that ends by a defect ends nothing else.
        let look = tokio::spawn(async move { release_if_full(&*edge).await });
        match AbortOnDropHandle::new(look).await {
            Ok(looked) => {
                if failures.is_news(looked.as_ref().err()) {
                    tracing::warn!(error = failures.text(), "files cannot be released");
                }
                let bytes = looked.unwrap_or(0);
                if bytes == 0 {
                    continue;
                }
                tracing::info!(
                    bytes,
                    "a disk was above the high-water mark, released files"
                );
            }
            Err(defect) => {
                tracing::error!(%defect, "a look at the water marks ended by a defect");
            }
        }
        tokio::time::sleep(times.pause).await;
    }
}

/// The last failure of the looks, so that each is logged once until it changes.
#[derive(Debug, Default)]
struct Failures(String);

impl Failures {
    /// Takes how a look ended, and returns whether that is to be logged: a failure that is
    /// not the one before. That another node leads now is none.
    fn is_news(&mut self, failure: Option<&ReleaseError>) -> bool {
        let text = match failure {
            Some(ReleaseError::Raft(ProposeError::NotLeader { .. })) => return false,
            Some(failure) => failure.to_string(),
            None => String::new(),
        };
        let changed = text != self.0;
        self.0 = text;
        changed && failure.is_some()
    }

    fn text(&self) -> &str {
        &self.0
    }
}

/// Releases files if a disk is too full; returns the bytes released.
async fn release_if_full(edge: &impl Edge) -> Result<u64, ReleaseError> {
    let disks = edge.disks();
    let state = edge.state().await?;
    let map = lagan_meta::cluster_map(&state)?;
    drop(state);
    let Some(map) = map.filter(|map| map.config.archive.is_some()) else {
        return Ok(0);
    };
    match wanted(&disks, &map.config, map.nodes.len()) {
        Some(bytes) => release_bytes(edge, bytes).await,
        None => Ok(0),
    }
}

/// Releases files of `bytes` in all, or what there is; returns the bytes released.
async fn release_bytes(edge: &impl Edge, bytes: u64) -> Result<u64, ReleaseError> {
    let mut round = Round::new(bytes);
    let mut ended = Ok(());
    while let Some(query) = round.question() {
        ended = release_page(edge, &mut round, query).await;
        if ended.is_err() {
            break;
        }
    }
    RELEASED_BYTES.fetch_add(round.released, Ordering::Relaxed);
    if round.open > 0 {
        tracing::info!(open = round.open, "open files were not released");
    }
    // What was released counts, however the round ended.
    match ended {
        Err(error) if round.released == 0 => Err(error),
        _ => Ok(round.released),
    }
}

async fn release_page(
    edge: &impl Edge,
    round: &mut Round,
    query: Releasable,
) -> Result<(), ReleaseError> {
    // No state is held while mounts are asked: the store could not reuse a page.
    let files = {
        let state = edge.state().await?;
        round.choose(&lagan_meta::read(&state, query)?.unwrap_or_default())
    };
    if files.is_empty() {
        return Ok(());
    }
    match release_closed(edge, files).await? {
        Some(done) => round.note(&done),
        None => round.over = true,
    }
    Ok(())
}

/// Returns the bytes of files to release, so that the fullest node comes below the
/// low mark; `None`: no node is above the high one. `nodes` is how many share the
/// chunks.
fn wanted(disks: &[Disk], config: &Config, nodes: usize) -> Option<u64> {
    let above = |disk: &Disk, percent: u8| {
        let mark = u128::from(disk.total_bytes) * u128::from(percent) / 100;
        disk.used_bytes.saturating_sub(mark as u64)
    };
    let over = disks
        .iter()
        .filter(|disk| disk.total_bytes > 0 && above(disk, config.high_water_percent) > 0);
    let excess = over
        .map(|disk| above(disk, config.low_water_percent))
        .max()?;
    // A file's bytes are on `copies` of the nodes: each gives up that share.
    let copies = u64::from(config.copies.max(1)).min(nodes.max(1) as u64);
    Some(excess.saturating_mul(nodes.max(1) as u64) / copies)
}

/// One round of releases. Pure: its owner asks [`Round::question`], gives the rows
/// to [`Round::choose`], releases the files that are closed, and calls
/// [`Round::note`].
#[derive(Debug)]
struct Round {
    wanted: u64,
    /// Bytes released so far.
    released: u64,
    /// Files that were left because they are open.
    open: u64,
    /// Where the next page starts.
    from: (u64, Ino),
    /// There are no more files, or somebody did not answer.
    over: bool,
}

impl Round {
    fn new(wanted: u64) -> Self {
        Round {
            wanted,
            released: 0,
            open: 0,
            from: (0, Ino(0)),
            over: false,
        }
    }

    /// Asks for the next page of files; `None`: the round is over.
    fn question(&self) -> Option<Releasable> {
        (!self.over && self.released < self.wanted).then_some(Releasable {
            from: self.from,
            limit: PAGE,
        })
    }

    /// Chooses as many files (inode, data version) of the page as are wanted.
    fn choose(&mut self, page: &[ReleasableFile]) -> Vec<(Ino, u64)> {
        let Some(last) = page.last() else {
            self.over = true;
            return Vec::new();
        };
        self.from = (last.archived_ms, Ino(last.ino.0.saturating_add(1)));
        let mut planned = self.released;
        page.iter()
            .take_while(|row| {
                let more = planned < self.wanted;
                planned = planned.saturating_add(row.bytes);
                more
            })
            .map(|row| (row.ino, row.version))
            .collect()
    }

    /// Notes what became of the files that were chosen.
    fn note(&mut self, done: &Released) {
        self.released = self.released.saturating_add(done.bytes);
        self.open = self.open.saturating_add(done.open);
        // A mount does not answer, or a command failed: the next round asks again.
        self.over |= done.unknown > 0;
    }
}

#[cfg(test)]
mod tests;
