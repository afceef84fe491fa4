//! Reading chunks on a server: every byte is verified, and where a copy is missing,
//! damaged or out of reach, another member of the set is asked.
//!
//! Healing, filling and the mover all read through here. What a bad copy means
//! differs: the healer must know whether anybody may still have a good one, so
//! [`NoCopy`] tells a node that did not answer from one that has none.

use crate::peers::Peers;
use crate::work::{Work, blocking};
use bytes::Bytes;
use lagan_chunk::ChunkError;
use lagan_types::chunk::verify_blocks;
use lagan_types::limits::{BLOCK_LEN, CHUNK_LEN_MAX};
use lagan_types::message::{ReadChunk, Replica};
use lagan_types::{ChunkId, NodeId};

/// A whole chunk as a peer has it, verified.
#[derive(Debug, Clone)]
pub(crate) struct WholeChunk {
    pub data: Bytes,
    /// One CRC per block.
    pub crcs: Vec<u32>,
}

/// Why none of the nodes that were asked gave a good copy. A node that did not answer
/// outweighs one with a damaged copy, and that one those that have none.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoCopy {
    /// All answered, and none has the chunk.
    #[error("no node has it")]
    Absent,
    /// All answered; this node's copy is not what it should be.
    #[error("node {node}: {why}")]
    Damaged {
        /// The node.
        node: NodeId,
        /// One line.
        why: String,
    },
    /// This node did not answer: it may have a good copy.
    #[error("node {node}: {why}")]
    NoAnswer {
        /// The node.
        node: NodeId,
        /// One line.
        why: String,
    },
}

/// Why a chunk could not be read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// This node has no good copy, and no other member of the set is up.
    #[error("chunk {0} is on no node that is up")]
    Nowhere(ChunkId),
    /// No member that is up has the chunk.
    #[error("chunk {0} is not there any more")]
    Gone(ChunkId),
    /// The members that are up gave no good copy.
    #[error("chunk {id} from {source}")]
    Peers {
        /// The chunk.
        id: ChunkId,
        /// The last reason.
        source: NoCopy,
    },
    /// The chunk ends before the range does.
    #[error("{got} bytes where {expected} were expected")]
    Short {
        /// Bytes that the chunk has.
        got: usize,
        /// Bytes up to the end of the range.
        expected: usize,
    },
}

/// Reads the bytes `offset..offset + len` of a chunk: from this node, or else from
/// another member of its set that is up.
///
/// # Errors
/// No replica could be read, or the chunk is shorter.
pub async fn read(work: &Work, id: ChunkId, offset: u32, len: u32) -> Result<Bytes, ReadError> {
    let store = work.store.clone();
    match blocking(move || store.read(id, offset, len)).await {
        Ok(range) if verify_blocks(&range.data, &range.crcs) => {
            let skip = (offset - range.first_block * BLOCK_LEN) as usize;
            return cut(&range.data, skip, len);
        }
        Ok(_) => tracing::warn!(chunk = %id, "damaged here, read from a peer"),
        Err(ChunkError::NotFound(_)) => {}
        Err(e) => tracing::warn!(chunk = %id, error = %e, "read from a peer instead"),
    }
    let others = others_up(work, id);
    if others.is_empty() {
        return Err(ReadError::Nowhere(id));
    }
    match fetch_from(&work.peers, &others, id, None).await {
        Ok(whole) => cut(&whole.data, offset as usize, len),
        Err(NoCopy::Absent) => Err(ReadError::Gone(id)),
        Err(source) => Err(ReadError::Peers { id, source }),
    }
}

/// Returns the other members of the chunk's set that are up.
fn others_up(work: &Work, id: ChunkId) -> Vec<NodeId> {
    let map = work.peers.map();
    let members = map.set(id.set()).into_iter().flat_map(|set| &set.nodes);
    members
        .copied()
        .filter(|&node| node != work.node && map.is_up(node))
        .collect()
}

fn cut(data: &Bytes, skip: usize, len: u32) -> Result<Bytes, ReadError> {
    let expected = skip + len as usize;
    if expected > data.len() {
        return Err(ReadError::Short {
            got: data.len(),
            expected,
        });
    }
    Ok(data.slice(skip..expected))
}

/// Fetches a whole chunk from the first of the nodes that has a good copy: with that
/// length and CRC, if `content` says which.
///
/// # Errors
/// None of them gave one: see [`NoCopy`].
pub(crate) async fn fetch_from(
    peers: &Peers,
    nodes: &[NodeId],
    id: ChunkId,
    content: Option<(u32, u32)>,
) -> Result<WholeChunk, NoCopy> {
    let mut problem = NoCopy::Absent;
    for &node in nodes {
        match fetch(peers, node, id, content).await {
            Ok(whole) => return Ok(whole),
            Err(e) => problem.worsen(e),
        }
    }
    Err(problem)
}

impl NoCopy {
    /// Takes the newer reason, unless it weighs less.
    fn worsen(&mut self, newer: NoCopy) {
        let weight = |reason: &NoCopy| match reason {
            NoCopy::Absent => 0,
            NoCopy::Damaged { .. } => 1,
            NoCopy::NoAnswer { .. } => 2,
        };
        if weight(&newer) >= weight(self) {
            *self = newer;
        }
    }
}

/// Fetches and verifies a whole chunk from one node: with that length and CRC, if `content`
/// says which.
///
/// # Errors
/// The node has none, has it damaged, or did not answer.
pub(crate) async fn fetch(
    peers: &Peers,
    node: NodeId,
    id: ChunkId,
    content: Option<(u32, u32)>,
) -> Result<WholeChunk, NoCopy> {
    let damaged = |why: &str| NoCopy::Damaged {
        node,
        why: why.to_owned(),
    };
    let no_answer = |why: String| NoCopy::NoAnswer { node, why };
    let request = ReadChunk {
        id,
        offset: 0,
        len: CHUNK_LEN_MAX,
    };
    let asked = peers.ask(node, request, Bytes::new(), CHUNK_LEN_MAX.into());
    let (answer, data) = asked.await.map_err(|e| no_answer(e.to_string()))?;
    match Replica::of(answer, &data, content) {
        Replica::Good(blocks)
            if blocks.first_block == 0 && data.len() == blocks.chunk_len as usize =>
        {
            let crcs = blocks.crcs;
            Ok(WholeChunk { data, crcs })
        }
        Replica::Good(_) => Err(damaged("sent less than the whole chunk")),
        Replica::Absent => Err(NoCopy::Absent),
        Replica::Damaged(why) => Err(damaged(why)),
        Replica::Unknown(why) => Err(no_answer(why)),
    }
}

#[cfg(test)]
mod tests;
