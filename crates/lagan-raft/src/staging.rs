//! Chunks whose bytes come with commands: the log has them on disk first, the chunk store some
//! time later.
//!
//! What must hold: the bytes of a chunk that a carried-out command named are in the log of
//! each node that has the command there, or in its chunk store. So the log forgets an entry
//! only when what it brought is *settled*: on disk in the chunk store. How far that is goes
//! into each durable commit of the state; after a crash what lies between is read from the log
//! and staged again ([`crate::restage`]). A snapshot brings no bytes: what this node's log had of
//! them is staged when one is installed.
//!
//! A node stages what its own log brought and no more. Whoever counts copies must hence count
//! the nodes that appended the entry ([`crate::holds`]), not those that have the state.

use crate::future::BoxFuture;
use crate::types::Batch;
use bytes::Bytes;
use lagan_meta::kv::{Read, StoreError};
use lagan_types::{ChunkId, Command, NodeId, Op};

/// A chunk that came with a command: one block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InlineChunk {
    /// The chunk.
    pub id: ChunkId,
    /// All of its bytes.
    pub data: Bytes,
    /// Their CRC-32.
    pub crc: u32,
}

/// One node's chunk store, as far as its log needs it. Calls do not wait unless they say so.
pub trait Staging: std::fmt::Debug + Send + Sync + 'static {
    /// The node.
    fn node(&self) -> NodeId;

    /// The entry is in this node's log, perhaps not yet on disk: from now on its chunks can be
    /// read here.
    fn hold(&self, index: u64, chunks: Vec<InlineChunk>);

    /// The entries from `since` on are void.
    fn cut(&self, since: u64);

    /// The entry was carried out: these of its chunks are this node's and may be named. They go
    /// to disk; the others are forgotten.
    fn stage(&self, index: u64, chunks: Vec<InlineChunk>);

    /// A state takes the place of this node's that has all entries up to that one carried out:
    /// what is held of them and is this node's goes to disk.
    fn stage_held(&self, through: u64, is_own: &dyn Fn(&InlineChunk) -> bool);

    /// What is staged of entries before that one counts as settled, on disk or not: the caller
    /// has called [`Staging::lacks`].
    fn give_up(&self, before: u64);

    /// Chunks may be missing here from now on: a state is about to take the place of this node's
    /// whose entries this node's log never had, or what they brought is given up. Waits for the
    /// disk.
    ///
    /// # Errors
    /// The disk, in words: it must not happen.
    fn lacks(&self) -> Result<(), String>;

    /// Whether so much is in memory that the log should not take more at once.
    fn is_crowded(&self) -> bool;

    /// The first entry of which something is staged and not yet on disk.
    fn unsettled(&self) -> Option<u64>;

    /// Whether [`Staging::settle`] has something to do: what is unsettled, or was given up and is
    /// not on disk.
    fn has_work(&self) -> bool;

    /// Brings to disk what is staged; returns when that was tried, which takes as long as the
    /// disk does.
    fn settle(&self) -> BoxFuture<'_, ()>;
}

/// The chunks of a batch.
pub(crate) fn chunks_of(batch: &Batch) -> Vec<InlineChunk> {
    match batch.is_carrying().then(|| batch.keep_parts()) {
        Some(Ok((_, commands))) => commands.iter().flat_map(chunks_of_command).collect(),
        // Whoever carries it out fails, too, and stops the node.
        Some(Err(_)) | None => Vec::new(),
    }
}

/// The chunks of a command.
pub(crate) fn chunks_of_command(command: &Command) -> Vec<InlineChunk> {
    let Op::File(op) = &command.op else {
        return Vec::new();
    };
    let chunks = op
        .inline()
        .into_iter()
        .flat_map(|commit| commit.inline_chunks());
    let chunks = chunks.map(|(chunk, data)| InlineChunk {
        id: chunk.id,
        data,
        crc: chunk.chunk_crc,
    });
    chunks.collect()
}

/// Leaves those of which the node is to have a copy.
pub(crate) fn keep_own(
    state: &dyn Read,
    node: NodeId,
    chunks: Vec<InlineChunk>,
) -> Result<Vec<InlineChunk>, StoreError> {
    let mut own = Vec::with_capacity(chunks.len());
    for chunk in chunks {
        if lagan_meta::is_member(state, chunk.id.set(), node)? {
            own.push(chunk);
        }
    }
    Ok(own)
}

/// A node without chunks.
#[derive(Debug)]
pub struct NoChunks(pub NodeId);

impl Staging for NoChunks {
    fn node(&self) -> NodeId {
        self.0
    }
    fn hold(&self, _: u64, _: Vec<InlineChunk>) {}
    fn cut(&self, _: u64) {}
    fn stage(&self, _: u64, _: Vec<InlineChunk>) {}
    fn stage_held(&self, _: u64, _: &dyn Fn(&InlineChunk) -> bool) {}
    fn give_up(&self, _: u64) {}
    fn lacks(&self) -> Result<(), String> {
        Ok(())
    }
    fn is_crowded(&self) -> bool {
        false
    }
    fn unsettled(&self) -> Option<u64> {
        None
    }
    fn has_work(&self) -> bool {
        false
    }
    fn settle(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }
}
