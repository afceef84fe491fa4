//! Healing: a damaged or missing replica is replaced by a copy of another.
//!
//! Chunks never change, so two replicas are equal or one is corrupt: healing
//! is copying. The healer verifies a suspect first and leaves a healthy one alone.
//!
//! # What is brought back
//! The store replaces a damaged record in one step: a crash leaves the bad
//! one, which is found again, or the good one. A chunk that is not here may have
//! been deleted, so the healer writes it only if the metadata, asked now, names it
//! at the place where the reporter saw it. Meanwhile no reap row is worked off here:
//! a chunk that is freed before the question is not named, and the row of one that
//! is freed after it is worked off after the write, also when a crash comes between.
//!
//! # When no member has a good copy
//! If all members say so and the file's version is archived, the healer points the
//! extent at the object (`ReleaseExtent`). Otherwise nothing changes: a member that
//! is down may have the bytes.
//!
//! # What is forgotten
//! The queue is in memory and bounded. A suspect that is dropped from it, or that
//! could not be healed, is reported again by the next reader that meets it and by
//! each `lagan check`.

use crate::metrics::METRICS;
use crate::read::{NoCopy, WholeChunk, fetch_from};
use crate::work::{Work, blocking};
use lagan_chunk::ChunkError;
use lagan_types::answer::ReleasedFiles;
use lagan_types::op::ReleaseExtent;
use lagan_types::query::Extents;
use lagan_types::{ChunkId, Content, FsError, Ino, NodeId, Refusal};
use parking_lot::Mutex;
use std::collections::HashSet;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Suspects that may wait; further ones are reported again by the next reader.
const SUSPECTS_MAX: usize = 1024;

/// A chunk that may be damaged or missing here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Suspect {
    /// The chunk.
    pub id: ChunkId,
    /// A file, and an offset in it, that named the chunk when it was reported. Without
    /// this place only a damaged replica is healed, not a missing one.
    pub named: Option<(Ino, u64)>,
}

/// Queues suspects; [`Healer::run`] works them off.
#[derive(Debug)]
pub struct Healer {
    suspects: mpsc::Sender<Suspect>,
    /// The suspects in the queue, so that each waits once.
    waiting: Mutex<HashSet<Suspect>>,
}

impl Healer {
    /// Makes a healer, and the queue that [`Healer::run`] takes.
    pub fn new() -> (Arc<Healer>, mpsc::Receiver<Suspect>) {
        let (suspects, queue) = mpsc::channel(SUSPECTS_MAX);
        let healer = Healer {
            suspects,
            waiting: Mutex::default(),
        };
        (Arc::new(healer), queue)
    }

    /// Queues a chunk that may be damaged or missing here. Never waits.
    pub fn suspect(&self, suspect: Suspect) {
        let mut waiting = self.waiting.lock();
        if !waiting.insert(suspect) {
            return;
        }
        if self.suspects.try_send(suspect).is_err() {
            waiting.remove(&suspect);
            tracing::debug!(chunk = %suspect.id, "too many suspects, left for the next reader");
        }
    }

    /// Works off the queue until `cancel`.
    pub async fn run(
        self: Arc<Self>,
        mut queue: mpsc::Receiver<Suspect>,
        work: Work,
        cancel: CancellationToken,
    ) {
        loop {
            let suspect = tokio::select! {
                () = cancel.cancelled() => return,
                suspect = queue.recv() => match suspect {
                    Some(suspect) => suspect,
                    None => return,
                },
            };
            // Removed before the look: a report that comes during it may know more.
            self.waiting.lock().remove(&suspect);
            let chunk = suspect.id;
            match heal(&work, suspect).await {
                Ok(Healed::Nothing) => {}
                Ok(Healed::Copied) => {
                    METRICS.healed.inc();
                    tracing::warn!(%chunk, "healed a chunk from another replica");
                }
                Ok(Healed::FromArchive) => {
                    METRICS.healed.inc();
                    tracing::warn!(%chunk, "no replica is good, its file is read from the archive");
                }
                Err(HealError::Later(why)) => {
                    METRICS.heal_failures.inc();
                    tracing::warn!(%chunk, why, "chunk could not be healed now");
                }
                Err(HealError::Lost(why)) => {
                    METRICS.heal_failures.inc();
                    tracing::error!(%chunk, why, "chunk could not be healed");
                }
            }
        }
    }
}

/// Why a suspect stays as it is.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HealError {
    /// The next report may find better circumstances.
    #[error("{0}")]
    Later(String),
    /// Nobody has the bytes.
    #[error("{0}")]
    Lost(String),
}

impl HealError {
    fn later(why: impl std::fmt::Display) -> Self {
        HealError::Later(why.to_string())
    }
}

/// The outcome for a suspect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Healed {
    /// The replica is healthy, or has no place here.
    Nothing,
    /// A good copy is here now.
    Copied,
    /// The metadata names the object instead.
    FromArchive,
}

/// State of the replica on this node; a good one with its length and CRC.
enum Here {
    Good(u32, u32),
    Damaged,
    Missing,
}

/// The other members' copies.
enum Others {
    Good(WholeChunk),
    /// All answered, none has it whole.
    None,
    /// None that answered has it whole.
    Unsure(String),
}

/// An extent that names a chunk.
#[derive(Clone, Copy)]
struct Name {
    ino: Ino,
    /// First byte of the extent in the file.
    offset: u64,
    /// The file's data version.
    version: u64,
    /// The chunk's length and CRC.
    content: (u32, u32),
}

/// Verifies the chunk on this node and replaces it if it is damaged or missing.
pub(crate) async fn heal(work: &Work, suspect: Suspect) -> Result<Healed, HealError> {
    let here = look(work, suspect.id).await?;
    let Some(place) = suspect.named else {
        return match here {
            Here::Damaged => replace_damaged(work, suspect.id).await,
            Here::Good(..) | Here::Missing => Ok(Healed::Nothing),
        };
    };
    // From the question to the write nothing is reaped here: see the module.
    let _held = work.reaping.lock().await;
    let Some(name) = named(work, suspect.id, place).await? else {
        return Ok(Healed::Nothing);
    };
    let right = matches!(here, Here::Good(len, crc) if (len, crc) == name.content);
    if right || !is_member(work, suspect.id) {
        return Ok(Healed::Nothing);
    }
    match from_others(work, suspect.id, Some(name.content)).await? {
        Others::Good(whole) => restore(work, suspect.id, whole).await,
        Others::None => from_archive(work, suspect.id, name).await,
        Others::Unsure(why) => Err(HealError::Later(why)),
    }
}

/// Heals a damaged chunk whose place nobody reported. Whether a file still names it
/// does not matter: replacing bad bytes by good ones never does harm.
async fn replace_damaged(work: &Work, id: ChunkId) -> Result<Healed, HealError> {
    if !is_member(work, id) {
        return Ok(Healed::Nothing);
    }
    match from_others(work, id, None).await? {
        Others::Good(whole) => {
            let store = work.store.clone();
            let replaced = blocking(move || store.replace(id, whole.data, &whole.crcs)).await;
            match replaced.map_err(HealError::later)? {
                true => Ok(Healed::Copied),
                false => Ok(Healed::Nothing),
            }
        }
        Others::None => {
            let why = "no other replica gave a good copy";
            Err(HealError::Lost(why.into()))
        }
        Others::Unsure(why) => Err(HealError::Later(why)),
    }
}

async fn look(work: &Work, id: ChunkId) -> Result<Here, HealError> {
    let store = work.store.clone();
    let state = blocking(move || {
        store.verify(id)?;
        store.chunk_len(id)
    });
    match state.await {
        Ok(Some((len, crc))) => Ok(Here::Good(len, crc)),
        Ok(None) | Err(ChunkError::NotFound(_)) => Ok(Here::Missing),
        Err(ChunkError::Closed) => Err(HealError::later("the store is closed")),
        Err(e) => {
            tracing::warn!(chunk = %id, error = %e, "chunk is damaged");
            Ok(Here::Damaged)
        }
    }
}

/// Returns the extent, if the file still names the chunk at that offset.
async fn named(
    work: &Work,
    id: ChunkId,
    (ino, offset): (Ino, u64),
) -> Result<Option<Name>, HealError> {
    let query = Extents {
        ino,
        offset,
        limit: 1,
    };
    let page = match work.meta.read(query).await {
        Ok(page) => page,
        Err(Refusal::Fs(FsError::NotFound | FsError::Stale)) => return Ok(None),
        Err(e) => return Err(HealError::Later(format!("whether it is named: {e}"))),
    };
    let version = page.version;
    let first = page.extents.first().and_then(|e| match e.content {
        Content::Chunk {
            id: named,
            chunk_len,
            chunk_crc,
            ..
        } if named == id => Some(Name {
            ino,
            offset: e.offset,
            version,
            content: (chunk_len, chunk_crc),
        }),
        _ => None,
    });
    Ok(first)
}

fn is_member(work: &Work, id: ChunkId) -> bool {
    let map = work.peers.map();
    map.set(id.set())
        .is_some_and(|set| set.nodes.contains(&work.node))
}

/// Asks the other members for a good copy: with that length and CRC, if they are known.
async fn from_others(
    work: &Work,
    id: ChunkId,
    content: Option<(u32, u32)>,
) -> Result<Others, HealError> {
    let map = work.peers.map();
    let Some(set) = map.set(id.set()) else {
        return Err(HealError::later("its set is unknown"));
    };
    // Also those that are down: one of them may have the last good copy.
    let members = set.nodes.iter().copied();
    let others: Vec<NodeId> = members.filter(|&n| n != work.node).collect();
    Ok(match fetch_from(&work.peers, &others, id, content).await {
        Ok(whole) => Others::Good(whole),
        Err(NoCopy::Absent | NoCopy::Damaged { .. }) => Others::None,
        Err(NoCopy::NoAnswer { node, why }) => {
            Others::Unsure(format!("node {node} may have a copy: {why}"))
        }
    })
}

/// Writes a good copy of a chunk that is named. The caller holds `reaping`.
async fn restore(work: &Work, id: ChunkId, whole: WholeChunk) -> Result<Healed, HealError> {
    let store = work.store.clone();
    let written = blocking(move || {
        if !store.replace(id, whole.data.clone(), &whole.crcs)? {
            store.write_blocking(id, whole.data, &whole.crcs)?;
        }
        Ok(())
    });
    written.await.map_err(HealError::later)?;
    // `fill` deletes chunks of sets that this node left, by the same map: either it has
    // not seen the newer map yet, or this look sees it.
    if !is_member(work, id) {
        let store = work.store.clone();
        let deleted = blocking(move || store.delete(&[id])).await;
        deleted.map_err(HealError::later)?;
        return Ok(Healed::Nothing);
    }
    Ok(Healed::Copied)
}

/// Points the extent at the object, if there is one of this version: no member has
/// the bytes.
async fn from_archive(work: &Work, id: ChunkId, name: Name) -> Result<Healed, HealError> {
    let op = ReleaseExtent {
        ino: name.ino,
        version: name.version,
        offset: name.offset,
        chunk: id,
    };
    let released = work.meta.tell(op).await;
    match released.map_err(|e| HealError::Later(format!("turn to the archive: {e}")))? {
        ReleasedFiles { files: 0, .. } => Err(HealError::Lost(format!(
            "no member of its set has a good copy, and file {} is not archived as it is",
            name.ino
        ))),
        ReleasedFiles { .. } => Ok(Healed::FromArchive),
    }
}

#[cfg(test)]
mod tests;
