//! Where a range of a file lives.

use crate::codec::{Decode, Encode};
use crate::id::ChunkId;
use serde::{Deserialize, Serialize};

/// One range of a file, `offset..offset + len`, and where its bytes are. A range
/// below the file's size that no extent covers is a hole and reads as zeros.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct Extent {
    /// First byte in the file.
    pub offset: u64,
    /// Bytes; never 0, and at most `CHUNK_LEN_MAX` in a chunk.
    pub len: u64,
    /// Where they are.
    pub content: Content,
}

impl Extent {
    /// First byte after the extent.
    pub fn end(&self) -> u64 {
        self.offset + self.len
    }
}

/// Where an extent's bytes are.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Content {
    /// In a chunk, from byte `skip` of it on.
    Chunk {
        /// The chunk.
        id: ChunkId,
        /// Bytes of the chunk before the extent's first.
        skip: u32,
        /// Bytes of the whole chunk.
        chunk_len: u32,
        /// CRC-32 (IEEE) of the whole chunk: the combination of its block CRCs.
        chunk_crc: u32,
    },
    /// In the S3 object of that data version of this inode, from byte `offset` on.
    Object {
        /// The data version that was archived.
        version: u64,
        /// Byte in the object.
        offset: u64,
    },
    /// Known to be gone: reads answer EIO.
    Lost,
}

/// One change of a file's map: the range gets `content`, or becomes a hole.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Edit {
    /// First byte in the file; for an append, counted from the true end.
    pub offset: u64,
    /// Bytes, never 0.
    pub len: u64,
    /// A new chunk, or `None` for a hole.
    pub content: Option<ChunkRef>,
}

/// A new chunk that an edit names. It is durable on all members before the commit is sent, or
/// its bytes come with the commit ([`Inline`](crate::op::Inline)).
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct ChunkRef {
    /// Its id; block open and of the committing session, id never named.
    pub id: ChunkId,
    /// The epoch of its set when it was written; an older one is refused (StaleEpoch).
    pub set_epoch: crate::id::Epoch,
    /// Bytes of the chunk before the edit's first: 0 but for merged appends.
    pub skip: u32,
    /// Bytes of the chunk.
    pub chunk_len: u32,
    /// CRC-32 of the chunk.
    pub chunk_crc: u32,
}
