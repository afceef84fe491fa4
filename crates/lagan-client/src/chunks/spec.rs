//! A chunk as a reader knows it, and why its bytes could not be had.

use lagan_types::{ChunkId, Content, FsError, Ino};

/// A chunk as the file's map describes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ChunkSpec {
    /// The chunk's id.
    pub id: ChunkId,
    /// The chunk's length.
    pub len: u32,
    /// The CRC-32 of all of it.
    pub crc: u32,
    /// A file, and the offset in it where the first byte that is read lies: servers
    /// are told so with a report of a bad replica. `None`: it is reported without.
    pub named: Option<(Ino, u64)>,
}

impl ChunkSpec {
    /// The chunk of an extent, and the extent's first byte in it; `None` if the
    /// extent has no chunk.
    pub fn of(content: &Content) -> Option<(Self, u32)> {
        match *content {
            Content::Chunk {
                id,
                skip,
                chunk_len: len,
                chunk_crc: crc,
            } => Some((
                ChunkSpec {
                    id,
                    len,
                    crc,
                    named: None,
                },
                skip,
            )),
            Content::Object { .. } | Content::Lost => None,
        }
    }

    /// The same chunk, found at that place of a file.
    pub fn named(self, ino: Ino, offset: u64) -> Self {
        ChunkSpec {
            named: Some((ino, offset)),
            ..self
        }
    }

    /// The same chunk, read so many bytes further on.
    pub fn further(self, bytes: u64) -> Self {
        ChunkSpec {
            named: self.named.map(|(ino, offset)| (ino, offset + bytes)),
            ..self
        }
    }
}

/// Why bytes could not be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Missing {
    /// A replica does not have them, and none gave them: the map may be old.
    NotFound {
        /// Every replica answered so.
        everywhere: bool,
    },
    /// Each replica's node was asked, by the newest map, and none answered. They may
    /// come back.
    Unreachable,
    /// The caller gets this error.
    Failed(FsError),
}
