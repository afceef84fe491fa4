//! Healing: a damaged or missing replica is replaced by a copy of another.
//!
//! Chunks never change, so two replicas are equal or one is corrupt: healing
//! is copying. A suspect is verified first; a healthy one is left alone.
//!
//! # What is brought back
//! A damaged record is replaced in one step by the store: a crash leaves the bad
//! one, which is found again, or the good one. What is not here may have been
//! deleted, so it is written only if the metadata, asked now, names it at the place
//! where the reporter saw it. While that is done no reap row is worked off here: a
//! chunk that is freed before the question is not named, and the row of one that is
//! freed after it is worked off after the write, also when a crash comes between.
//!
//! # When no member has a good copy
//! If all members say so and the file's version is archived, its extent is pointed
//! at the object (`ReleaseExtent`). Otherwise nothing changes: a member that is down
//! may have the bytes.
//!
//! # What is forgotten
//! The queue is in memory and bounded. What is dropped from it, or fails, is
//! reported again by the next reader that meets it and by each `lagan check`.

use crate::metrics::METRICS;
use crate::peers::Peers;
use crate::work::Work;
use bytes::Bytes;
use lagan_chunk::ChunkError;
use lagan_types::chunk::{combine_crcs, verify_blocks};
use lagan_types::limits::CHUNK_LEN_MAX;
use lagan_types::message::{ChunkReply, ChunkRequest};
use lagan_types::op::Op;
use lagan_types::query::{Query, QueryAnswer};
use lagan_types::{Answer, ChunkId, Content, FsError, Ino, NodeId};
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
    /// Which.
    pub id: ChunkId,
    /// A file, and an offset in it, that named the chunk when it was reported. Without
    /// it only a damaged replica is healed, not a missing one.
    pub named: Option<(Ino, u64)>,
}

/// Takes suspects; [`Healer::run`] works them off.
#[derive(Debug)]
pub struct Healer {
    suspects: mpsc::Sender<Suspect>,
    /// Those in the queue, so that each waits once.
    waiting: Mutex<HashSet<Suspect>>,
}

/// A whole chunk as a peer has it, verified.
#[derive(Debug, Clone)]
pub struct WholeChunk {
    /// Its bytes.
    pub data: Bytes,
    /// Its block CRCs.
    pub crcs: Vec<u32>,
}

impl WholeChunk {
    fn content(&self) -> (u32, u32) {
        let len = self.data.len() as u32;
        // Verified blocks of a whole chunk always combine.
        (len, combine_crcs(&self.crcs, len).unwrap_or_default())
    }
}

impl Healer {
    /// A healer, and the queue that [`Healer::run`] takes.
    pub fn new() -> (Arc<Healer>, mpsc::Receiver<Suspect>) {
        let (suspects, queue) = mpsc::channel(SUSPECTS_MAX);
        let healer = Healer {
            suspects,
            waiting: Mutex::default(),
        };
        (Arc::new(healer), queue)
    }

    /// The chunk may be damaged or missing here. Never waits.
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
            // Before the look: a report that comes during it may know more.
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

/// Why a suspect stays as it is, in words.
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

/// What was done about a suspect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Healed {
    /// It is healthy, or not to be here.
    Nothing,
    /// A good copy is here now.
    Copied,
    /// The metadata names the object instead.
    FromArchive,
}

/// The state of the replica here.
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

/// What the metadata says of a chunk.
#[derive(Clone, Copy)]
struct Name {
    ino: Ino,
    /// First byte of the extent.
    offset: u64,
    /// The file's data version.
    version: u64,
    /// The chunk's length and CRC.
    content: (u32, u32),
}

/// Verifies the chunk here and puts it right if it is damaged or missing.
pub(crate) async fn heal(work: &Work, suspect: Suspect) -> Result<Healed, HealError> {
    let here = look(work, suspect.id).await?;
    let Some(place) = suspect.named else {
        return match here {
            Here::Damaged => replace_damaged(work, suspect.id).await,
            Here::Good(..) | Here::Missing => Ok(Healed::Nothing),
        };
    };
    // See the module: from the question to the write nothing is reaped here.
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

/// Of a chunk whose name nobody told: bad bytes are no better than others, so it
/// need not be known whether it is still named.
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

/// Whether the file still names the chunk at that offset, and as what.
async fn named(
    work: &Work,
    id: ChunkId,
    (ino, offset): (Ino, u64),
) -> Result<Option<Name>, HealError> {
    let query = Query::Extents {
        ino,
        offset,
        limit: 1,
    };
    let (version, extents) = match work.meta.query(query).await {
        Ok(QueryAnswer::Extents {
            version, extents, ..
        }) => (version, extents),
        Ok(other) => return Err(HealError::Later(format!("unexpected answer {other:?}"))),
        Err(FsError::NotFound | FsError::Stale) => return Ok(None),
        Err(e) => return Err(HealError::Later(format!("whether it is named: {e}"))),
    };
    let first = extents.first().and_then(|e| match e.content {
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

/// Asks the other members, the first good copy counts: of that content, if it is known.
async fn from_others(
    work: &Work,
    id: ChunkId,
    content: Option<(u32, u32)>,
) -> Result<Others, HealError> {
    let map = work.peers.map();
    let Some(set) = map.set(id.set()) else {
        return Err(HealError::later("its set is unknown"));
    };
    let mut silent = None;
    for &other in set.nodes.iter().filter(|&&n| n != work.node) {
        match fetch(&work.peers, other, id).await {
            Ok(Some(whole)) if content.is_none_or(|c| c == whole.content()) => {
                return Ok(Others::Good(whole));
            }
            Ok(_) | Err(FetchError::Damaged(_)) => {}
            Err(e @ FetchError::NoAnswer(_)) => {
                silent = Some(format!("node {other} may have a copy: {e}"));
            }
        }
    }
    Ok(silent.map_or(Others::None, Others::Unsure))
}

/// Writes a good copy of a chunk that is named, while nothing is reaped.
async fn restore(work: &Work, id: ChunkId, whole: WholeChunk) -> Result<Healed, HealError> {
    let store = work.store.clone();
    let written = blocking(move || {
        if !store.replace(id, whole.data.clone(), &whole.crcs)? {
            store.write_blocking(id, whole.data, &whole.crcs)?;
        }
        Ok(())
    });
    written.await.map_err(HealError::later)?;
    // Who fills sets looks at the same map when it deletes what is no longer ours:
    // it has not seen a newer one yet, or it is seen here.
    if !is_member(work, id) {
        let store = work.store.clone();
        let deleted = blocking(move || store.delete(&[id])).await;
        deleted.map_err(HealError::later)?;
        return Ok(Healed::Nothing);
    }
    Ok(Healed::Copied)
}

/// No member has the bytes: the object has them, if there is one of this version.
async fn from_archive(work: &Work, id: ChunkId, name: Name) -> Result<Healed, HealError> {
    let op = Op::ReleaseExtent {
        ino: name.ino,
        version: name.version,
        offset: name.offset,
        chunk: id,
    };
    let answer = work.meta.mutate(op).await;
    match answer.map_err(|e| HealError::Later(format!("turn to the archive: {e}")))? {
        Answer::Released { files: 0, .. } => Err(HealError::Lost(format!(
            "no member of its set has a good copy, and file {} is not archived as it is",
            name.ino
        ))),
        _ => Ok(Healed::FromArchive),
    }
}

/// Why a peer's copy could not be had.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// It is there, and not whole: in words.
    #[error("{0}")]
    Damaged(String),
    /// Nobody knows: in words.
    #[error("{0}")]
    NoAnswer(String),
}

/// Fetches and verifies a whole chunk from `node`; `None`: it is not there.
///
/// # Errors
/// No answer, or bytes without the CRCs they came with.
pub async fn fetch(
    peers: &Peers,
    node: NodeId,
    id: ChunkId,
) -> Result<Option<WholeChunk>, FetchError> {
    let request = ChunkRequest::Read {
        id,
        offset: 0,
        len: CHUNK_LEN_MAX,
    };
    let (head, data) = peers
        .call(node, &request, Bytes::new(), CHUNK_LEN_MAX as u64)
        .await
        .map_err(|e| FetchError::NoAnswer(e.to_string()))?;
    match head {
        ChunkReply::Blocks {
            chunk_len,
            first_block: 0,
            crcs,
        } if data.len() == chunk_len as usize && verify_blocks(&data, &crcs) => {
            Ok(Some(WholeChunk { data, crcs }))
        }
        ChunkReply::NotFound => Ok(None),
        ChunkReply::Blocks { .. } => {
            let why = "sent bytes that do not fit their crcs";
            Err(FetchError::Damaged(why.into()))
        }
        ChunkReply::Damaged => Err(FetchError::Damaged("has it damaged".into())),
        other => Err(FetchError::NoAnswer(format!("answered {other:?}"))),
    }
}

/// Runs disk work off the async workers.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ChunkError> + Send + 'static,
) -> Result<T, ChunkError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(_) => Err(ChunkError::Closed),
    }
}

#[cfg(test)]
mod tests;
