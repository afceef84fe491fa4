//! The bytes of small files, which come along with the answers that say where they are.
//!
//! Whoever opens a file reads it next, nearly always, so that a small one costs one round trip
//! instead of two. That is a favour: what is not at hand on this node, or not soon, does not
//! come, and its reader asks the file's nodes. The bytes need no lease and no verification
//! here. A chunk never changes, and a reader knows its length and CRC from the same answer.

use bytes::Bytes;
use lagan_types::extent::{Content, Extent};
use lagan_types::limits::{ALONG_ALL_LEN_MAX, ALONG_LEN_MAX};
use lagan_types::message::StateRead;
use lagan_types::{ChunkId, Data, QueryAnswer, Refusal};
use std::time::Duration;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::{Instant, timeout_at};

/// How long an answer waits for the disk: the reader would wait for it anyway, but perhaps
/// another node has the bytes sooner.
const DISK_WAIT: Duration = Duration::from_millis(50);

/// Most chunks of one file that come along: of more, the reads would take longer than the round
/// trip that they save.
const CHUNKS_MAX: usize = 8;

/// The chunks that this node has.
pub trait ChunksHere: Send + Sync {
    /// Whether this node is to have the chunk, as a member of its set.
    fn has(&self, id: ChunkId) -> bool;

    /// Returns a whole chunk of that length, not verified, if no disk is needed for that.
    fn read_now(&self, id: ChunkId, len: u32) -> Option<Bytes>;

    /// Reads whole chunks of these lengths, not verified, one after the other until then or until
    /// nobody receives any more; leaves out those that it cannot read.
    fn read(
        &self,
        wanted: Vec<(ChunkId, u32)>,
        until: Instant,
    ) -> UnboundedReceiver<(ChunkId, Bytes)>;
}

/// Adds to an answer the chunks that it names, `limit` bytes at most, without waiting. Returns
/// those that the disk must give.
pub(crate) fn bring(
    chunks: &dyn ChunksHere,
    read: &mut StateRead,
    limit: u32,
) -> Vec<(ChunkId, u32)> {
    let mut missing = Vec::new();
    for (id, len) in wanted(&read.answer, limit, |id| chunks.has(id)) {
        match chunks.read_now(id, len) {
            Some(bytes) => read.chunks.push((id, Data(bytes))),
            None => missing.push((id, len)),
        }
    }
    missing
}

/// Adds to an answer the chunks that are `missing`, as far as the disk gives them soon.
pub(crate) async fn wait(
    chunks: &dyn ChunksHere,
    read: &mut StateRead,
    missing: Vec<(ChunkId, u32)>,
) {
    if missing.is_empty() {
        return;
    }
    let until = Instant::now() + DISK_WAIT;
    let mut found = chunks.read(missing, until);
    while let Ok(Some((id, bytes))) = timeout_at(until, found.recv()).await {
        read.chunks.push((id, Data(bytes)));
    }
}

/// Returns the chunks of all files in the answer that are small enough, and their lengths:
/// each chunk once.
fn wanted(
    answer: &Result<QueryAnswer, Refusal>,
    limit: u32,
    has: impl Fn(ChunkId) -> bool,
) -> Vec<(ChunkId, u32)> {
    let mut wanted: Vec<(ChunkId, u32)> = Vec::new();
    let mut left = limit.min(ALONG_ALL_LEN_MAX);
    let mut add = |extents: &[Extent]| {
        let mut chunks: Vec<(ChunkId, u32)> = Vec::new();
        for extent in extents {
            if let Content::Chunk { id, chunk_len, .. } = extent.content
                && chunks.iter().all(|(other, _)| *other != id)
            {
                chunks.push((id, chunk_len));
            }
        }
        let len: u64 = chunks.iter().map(|(_, len)| u64::from(*len)).sum();
        let few = chunks.len() <= CHUNKS_MAX && chunks.iter().all(|(id, _)| has(*id));
        if few && len <= u64::from(left.min(ALONG_LEN_MAX)) {
            left -= len as u32;
            wanted.extend(chunks);
        }
    };
    match answer {
        Ok(QueryAnswer::Opened(opened)) if !opened.more => add(&opened.extents),
        Ok(QueryAnswer::AllOpened(all)) => {
            let whole = all.iter().flatten().filter(|opened| !opened.more);
            whole.for_each(|opened| add(&opened.extents));
        }
        _ => {}
    }
    wanted
}

#[cfg(test)]
mod tests;
