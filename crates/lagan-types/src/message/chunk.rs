//! The chunk store of one server: bytes of files, and reports about replicas.

use super::{Conversation, Service};
use crate::ask::{Asker, answers, asks};
use crate::chunk::{combine_crcs, verify_blocks};
use crate::codec::{Decode, Encode};
use crate::id::{ChunkId, Epoch, Ino, NodeId, SetId};
use crate::limits::BLOCK_LEN;

asks! {
    /// Asked of the chunk store of one server.
    #[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
    pub enum ChunkRequest -> ChunkReply {
        /// Stores a chunk; data: its bytes. With `forward` the receiver also sends
        /// it to the set's other members and answers when all have it on disk.
        WriteChunk {
            id: ChunkId,
            set_epoch: Epoch,
            block_crcs: Vec<u32>,
            forward: bool,
        } -> (),
        /// The whole blocks that cover `offset..offset + len`; data of the answer: bytes.
        ReadChunk { id: ChunkId, offset: u32, len: u32 } -> Blocks,
        /// Ids held and their chunks' lengths, in order, above `after`.
        ListChunks {
            set: Option<SetId>,
            after: Option<ChunkId>,
            limit: u32,
        } -> Vec<(ChunkId, u32)>,
        /// Reads and verifies; the answer has the health of each chunk on this node, in the
        /// order asked.
        VerifyChunks { ids: Vec<ChunkId> } -> Vec<ChunkHealth>,
        /// A reader found a bad block here: verify, heal.
        ReportBad { id: ChunkId } -> (),
        /// The replica here of a chunk that file `ino` names at `offset` is missing or
        /// damaged: verify, ask the metadata, heal.
        ReportReplica { id: ChunkId, ino: Ino, offset: u64 } -> (),
    }
}

answers! {
    /// What a chunk store answers.
    #[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
    pub enum ChunkReply {
        /// It is done: a written chunk is on disk on every member.
        Done(()),
        /// Blocks of a chunk.
        Blocks(Blocks),
        /// Ids and lengths.
        Ids(Vec<(ChunkId, u32)>),
        /// The health of replicas.
        Verified(Vec<ChunkHealth>),
    }
}

impl Conversation for ChunkRequest {
    const SERVICE: Service = Service::Chunk;
    type Reply = ChunkReply;
    type Refusal = ChunkRefusal;

    fn asker(&self) -> Asker {
        match self {
            ChunkRequest::WriteChunk(_)
            | ChunkRequest::ReadChunk(_)
            | ChunkRequest::ReportBad(_)
            | ChunkRequest::ReportReplica(_) => Asker::Anybody,
            ChunkRequest::ListChunks(_) | ChunkRequest::VerifyChunks(_) => Asker::Operator,
        }
    }

    fn refuse(reason: String) -> ChunkRefusal {
        ChunkRefusal::Failed(reason)
    }
}

/// Whole blocks of a chunk. The first byte is that of `first_block * BLOCK_LEN`.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Blocks {
    /// Bytes of the whole chunk.
    pub chunk_len: u32,
    /// Number of the first block.
    pub first_block: u32,
    /// CRC-32 of each block.
    pub crcs: Vec<u32>,
}

/// What one replica's answer to a read is worth. Whoever reads a chunk and asks another
/// replica if one is bad judges by this.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Replica {
    /// The bytes beside the answer are what their CRCs say.
    Good(Blocks),
    /// The node has none, and no sign of a bad one.
    Absent,
    /// The node's copy is damaged, or is not the chunk that is wanted: why.
    Damaged(&'static str),
    /// The node cannot say: it may have a good copy.
    Unknown(String),
}

impl Replica {
    /// Judges an answer with its data. `content` is the length and the CRC-32 of the whole
    /// chunk, where they are known.
    pub fn of(
        answer: Result<Blocks, ChunkRefusal>,
        data: &[u8],
        content: Option<(u32, u32)>,
    ) -> Self {
        let blocks = match answer {
            Ok(blocks) => blocks,
            Err(ChunkRefusal::NotFound) => return Replica::Absent,
            Err(ChunkRefusal::Damaged) => return Replica::Damaged("has it damaged"),
            Err(
                other @ (ChunkRefusal::MembersFailed(_)
                | ChunkRefusal::StaleEpoch
                | ChunkRefusal::Full
                | ChunkRefusal::Failed(_)),
            ) => return Replica::Unknown(format!("answered: {other}")),
        };
        if !verify_blocks(data, &blocks.crcs) {
            return Replica::Damaged("sent bytes that do not fit their crcs");
        }
        let len = blocks.chunk_len;
        let whole = blocks.crcs.len() == len.div_ceil(BLOCK_LEN) as usize;
        let is_wanted = content.is_none_or(|(wanted_len, wanted_crc)| {
            wanted_len == len && (!whole || combine_crcs(&blocks.crcs, len) == Some(wanted_crc))
        });
        match is_wanted {
            true => Replica::Good(blocks),
            false => Replica::Damaged("has other bytes under this id"),
        }
    }
}

/// Why a chunk store did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, thiserror::Error)]
pub enum ChunkRefusal {
    /// Not on every member: these failed or were silent. Take another set.
    #[error("not stored by {0:?}")]
    MembersFailed(Vec<NodeId>),
    /// The set's row is newer than the writer's: fetch the map.
    #[error("stale replica set epoch")]
    StaleEpoch,
    /// No space for chunks here.
    #[error("no space for chunks")]
    Full,
    /// Not here: fetch the file's map again; no sign of a bad replica.
    #[error("no such chunk")]
    NotFound,
    /// Here, but damaged or unreadable: ask another replica.
    #[error("damaged chunk")]
    Damaged,
    /// The node cannot: in words.
    #[error("{0}")]
    Failed(String),
}

/// State of one replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum ChunkHealth {
    /// Present, all CRCs right: its length and CRC.
    Healthy {
        /// Bytes.
        len: u32,
        /// CRC-32 of all of it.
        crc: u32,
    },
    /// Not there.
    Missing,
    /// There, but wrong.
    Damaged,
}
