//! Bytes of chunks that came along with an answer.

use bytes::Bytes;
use lagan_types::extent::Content;
use lagan_types::query::Opened;
use lagan_types::{ChunkId, Data, QueryAnswer};

/// A chunk whose bytes came along with an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Brought {
    /// The chunk.
    pub id: ChunkId,
    /// Its CRC-32, by the file's extents.
    pub crc: u32,
    /// As many bytes as the extents say that it has, not verified.
    pub bytes: Bytes,
}

/// Finds out what the chunks are of which bytes came along; leaves out what the answer does
/// not name.
pub(super) fn brought<E>(
    answer: &Result<QueryAnswer, E>,
    chunks: Vec<(ChunkId, Data)>,
) -> Vec<Brought> {
    let opened: Vec<&Opened> = match answer {
        Ok(QueryAnswer::Opened(opened)) => vec![opened],
        Ok(QueryAnswer::AllOpened(all)) => all.iter().flatten().collect(),
        _ => Vec::new(),
    };
    let named = |of: ChunkId, bytes: &Bytes| {
        let extents = opened.iter().flat_map(|opened| &opened.extents);
        extents.into_iter().find_map(|extent| match extent.content {
            Content::Chunk {
                id,
                chunk_len,
                chunk_crc,
                ..
            } if id == of && chunk_len as usize == bytes.len() => Some(chunk_crc),
            _ => None,
        })
    };
    let found = chunks.into_iter().filter_map(|(id, data)| {
        let crc = named(id, &data.0)?;
        let bytes = data.0;
        Some(Brought { id, crc, bytes })
    });
    found.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::leader::fake::attr;
    use lagan_types::{BlockId, Extent, FsError, Ino, Refusal, SetId, VolumeId};

    fn id(n: u16) -> ChunkId {
        ChunkId::new(VolumeId::ONLY, SetId(1), BlockId(1), n)
    }

    fn opened(chunk: u16, bytes: &[u8]) -> Opened {
        Opened {
            attr: attr(Ino(7)),
            extents: vec![Extent {
                offset: 0,
                len: bytes.len() as u64,
                content: Content::Chunk {
                    id: id(chunk),
                    skip: 0,
                    chunk_len: bytes.len() as u32,
                    chunk_crc: crc32fast::hash(bytes),
                },
            }],
            more: false,
        }
    }

    #[test]
    fn only_chunks_that_the_answer_names_are_taken() {
        let all = vec![Some(opened(1, b"one")), None, Some(opened(2, b"second"))];
        let answer: Result<QueryAnswer, Refusal> = Ok(QueryAnswer::AllOpened(all));
        let came = |n, bytes: &'static [u8]| (id(n), Data(Bytes::from_static(bytes)));
        let found = brought(
            &answer,
            vec![came(2, b"second"), came(3, b"other"), came(1, b"too long")],
        );
        let second = Brought {
            id: id(2),
            crc: crc32fast::hash(b"second"),
            bytes: Bytes::from_static(b"second"),
        };
        assert_eq!(found, [second]);
        let answer: Result<QueryAnswer, Refusal> = Err(FsError::Stale.into());
        assert_eq!(brought(&answer, vec![came(1, b"one")]), []);
    }
}
