//! A file's content as it goes into its object: the extents in order, holes as
//! zeros, with the checksums that the metadata already has of them.

use crate::crcs::{Units, unit_len};
use crate::{Chunks, Meta, MoverError};
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use crc32fast::Hasher;
use lagan_object::{Body, BodySource};
use lagan_types::limits::{CHUNK_LEN_MAX, EXTENTS_PAGE_MAX, OBJECT_LEN_MAX};
use lagan_types::query::Extents;
use lagan_types::{ChunkId, Content, Extent, Ino};
use std::sync::Arc;
use std::time::Duration;

/// Bytes of a piece that is read at once.
const PIECE_LEN_MAX: u64 = Body::PIECE_LEN_MAX as u64;
/// Time limit of one read of a piece, all replicas included.
const READ_TIME: Duration = Duration::from_secs(60);
/// Extents of a file, at most: enough for the largest object in whole chunks, and some
/// more. They take 100 MiB of memory.
const EXTENTS_MAX: usize = 1536 * 1024;

const _: () = assert!(EXTENTS_MAX as u64 > OBJECT_LEN_MAX / CHUNK_LEN_MAX as u64);

/// The place that a piece of the file is read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// A hole, read as zeros.
    Hole,
    /// In a chunk from byte `skip` on; the CRC if it is all of the chunk.
    Chunk {
        id: ChunkId,
        skip: u32,
        crc: Option<u32>,
    },
    /// In the object of an older or partly released version.
    Object { version: u64, offset: u64 },
}

/// A range of the file in one place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Piece {
    pub offset: u64,
    pub len: u64,
    pub place: Place,
}

impl Piece {
    fn end(&self) -> u64 {
        self.offset + self.len
    }

    /// The part of it in `start..end`, which must overlap.
    fn part(&self, start: u64, end: u64) -> Piece {
        let (from, to) = (self.offset.max(start), self.end().min(end));
        let ahead = from - self.offset;
        let whole = from == self.offset && to == self.end();
        let place = match self.place {
            Place::Hole => Place::Hole,
            Place::Chunk { id, skip, crc } => Place::Chunk {
                id,
                // inside a chunk, whose offsets are 32 bits
                skip: skip.saturating_add(u32::try_from(ahead).unwrap_or(u32::MAX)),
                crc: crc.filter(|_| whole),
            },
            Place::Object { version, offset } => Place::Object {
                version,
                offset: offset + ahead,
            },
        };
        Piece {
            offset: from,
            len: to - from,
            place,
        }
    }
}

/// The pieces of a file of `size` bytes: they cover it without gap or overlap.
///
/// # Errors
/// The extents overlap, are out of order, or hold lost bytes.
pub(crate) fn pieces(size: u64, extents: &[Extent]) -> Result<Vec<Piece>, MoverError> {
    let mut pieces = Vec::with_capacity(extents.len() + 1);
    let mut end = 0;
    for extent in extents {
        let len = extent.len.min(size.saturating_sub(extent.offset));
        if len == 0 {
            continue;
        }
        if extent.offset < end {
            return Err(MoverError::Extents(format!(
                "extents overlap at {}",
                extent.offset
            )));
        }
        if extent.offset > end {
            pieces.push(Piece {
                offset: end,
                len: extent.offset - end,
                place: Place::Hole,
            });
        }
        let place = match extent.content {
            Content::Chunk {
                id,
                skip,
                chunk_len,
                chunk_crc,
            } => {
                let whole = skip == 0 && len == u64::from(chunk_len);
                Place::Chunk {
                    id,
                    skip,
                    crc: whole.then_some(chunk_crc),
                }
            }
            Content::Object { version, offset } => Place::Object { version, offset },
            Content::Lost => {
                let at = extent.offset;
                return Err(MoverError::Chunk(format!("bytes at {at} are lost")));
            }
        };
        pieces.push(Piece {
            offset: extent.offset,
            len,
            place,
        });
        end = extent.offset + len;
    }
    if end < size {
        pieces.push(Piece {
            offset: end,
            len: size - end,
            place: Place::Hole,
        });
    }
    Ok(pieces)
}

/// CRC-32 of `len` zeros, in logarithmic time.
fn zeros_crc(len: u64) -> Hasher {
    let mut all = Hasher::new();
    let mut run = Hasher::new();
    run.update(&[0]);
    let mut left = len;
    while left > 0 {
        if left & 1 == 1 {
            all.combine(&run);
        }
        let half = run.clone();
        run.combine(&half);
        left >>= 1;
    }
    all
}

/// Reads what is in an object: the mover's own recall.
#[async_trait]
pub(crate) trait Recall: Send + Sync {
    /// Verified bytes of a file's archived version.
    async fn recall(
        &self,
        ino: Ino,
        version: u64,
        offset: u64,
        len: u32,
    ) -> Result<Bytes, MoverError>;
}

/// A file at one data version, ready to be read.
pub(crate) struct FileContent {
    ino: Ino,
    size: u64,
    pieces: Vec<Piece>,
    chunks: Arc<dyn Chunks>,
    recall: Arc<dyn Recall>,
}

impl FileContent {
    /// Loads where the bytes of that version are.
    ///
    /// # Errors
    /// `Changed` if the file has another version or size by now.
    pub async fn load(
        meta: &dyn Meta,
        chunks: Arc<dyn Chunks>,
        recall: Arc<dyn Recall>,
        file: (Ino, u64, u64),
    ) -> Result<Self, MoverError> {
        let extents = load_extents(meta, file).await?;
        FileContent::new(&extents, chunks, recall, (file.0, file.2))
    }

    /// Takes all extents of a version, and the file's inode and size.
    ///
    /// # Errors
    /// Those of [`pieces`].
    pub fn new(
        extents: &[Extent],
        chunks: Arc<dyn Chunks>,
        recall: Arc<dyn Recall>,
        (ino, size): (Ino, u64),
    ) -> Result<Self, MoverError> {
        Ok(FileContent {
            ino,
            size,
            pieces: pieces(size, extents)?,
            chunks,
            recall,
        })
    }

    /// The pieces in `start..end`.
    fn between(&self, start: u64, end: u64) -> impl Iterator<Item = Piece> {
        let first = self.pieces.partition_point(|p| p.end() <= start);
        let rest = self.pieces.get(first..).unwrap_or_default().iter();
        rest.take_while(move |p| p.offset < end)
            .map(move |p| p.part(start, end))
    }

    async fn read_piece(&self, piece: Piece) -> Result<Bytes, MoverError> {
        let len = u32::try_from(piece.len).map_err(|e| MoverError::Chunk(e.to_string()))?;
        let bytes = match piece.place {
            Place::Hole => Bytes::from(vec![0; len as usize]),
            Place::Chunk { id, skip, .. } => self.chunks.read(id, skip, len).await?,
            Place::Object { version, offset } => {
                self.recall.recall(self.ino, version, offset, len).await?
            }
        };
        if bytes.len() as u64 != piece.len {
            let message = format!("{} bytes of {len} at {}", bytes.len(), piece.offset);
            return Err(MoverError::Chunk(message));
        }
        Ok(bytes)
    }

    /// The bytes `start..start + len`, at most a piece's length.
    pub async fn read(&self, start: u64, len: u64) -> Result<Bytes, MoverError> {
        let mut all = BytesMut::new();
        for piece in self.between(start, start + len) {
            let bytes = tokio::time::timeout(READ_TIME, self.read_piece(piece)).await;
            let bytes = bytes.map_err(|_| MoverError::Chunk("read took too long".into()))??;
            if bytes.len() as u64 == len {
                return Ok(bytes);
            }
            all.extend_from_slice(&bytes);
        }
        Ok(all.freeze())
    }

    /// The CRCs of the object's units: from the metadata where it has them,
    /// else (parts of chunks, objects) by reading.
    pub async fn units(&self) -> Result<Units, MoverError> {
        let unit_len = unit_len(self.size);
        let mut crcs = Vec::new();
        for start in (0..self.size).step_by(usize::try_from(unit_len).unwrap_or(usize::MAX)) {
            let end = self.size.min(start + unit_len);
            let mut unit = Hasher::new();
            for piece in self.between(start, end) {
                unit.combine(&self.piece_crc(piece).await?);
            }
            crcs.push(unit.finalize());
        }
        if crcs.is_empty() {
            return Ok(Units::whole(0, 0));
        }
        Ok(Units {
            len: self.size,
            unit_len,
            crcs,
        })
    }

    async fn piece_crc(&self, piece: Piece) -> Result<Hasher, MoverError> {
        match piece.place {
            Place::Hole => Ok(zeros_crc(piece.len)),
            Place::Chunk { crc: Some(crc), .. } => Ok(Hasher::new_with_initial_len(crc, piece.len)),
            _ => {
                let mut crc = Hasher::new();
                let mut at = piece.offset;
                while at < piece.end() {
                    let bytes = self.read(at, PIECE_LEN_MAX.min(piece.end() - at)).await?;
                    crc.update(&bytes);
                    at += bytes.len() as u64;
                }
                Ok(crc)
            }
        }
    }

    /// The body of an upload: in memory if it is short.
    pub async fn body(self: Arc<Self>) -> Result<Body, MoverError> {
        if self.size <= PIECE_LEN_MAX {
            return Ok(Body::from(self.read(0, self.size).await?));
        }
        let size = self.size;
        Ok(Body::from_source(size, self))
    }
}

async fn load_extents(
    meta: &dyn Meta,
    (ino, version, size): (Ino, u64, u64),
) -> Result<Vec<Extent>, MoverError> {
    let mut all: Vec<Extent> = Vec::new();
    loop {
        let offset = all.last().map_or(0, Extent::end);
        let limit = EXTENTS_PAGE_MAX as u32;
        let page = meta.read(Extents { ino, offset, limit }).await?;
        if (page.version, page.size) != (version, size) {
            return Err(MoverError::Changed);
        }
        let before = all.len();
        all.extend(page.extents);
        if all.len() > EXTENTS_MAX {
            return Err(MoverError::Extents(format!(
                "more than {EXTENTS_MAX} extents"
            )));
        }
        if !page.more || all.len() == before {
            break;
        }
    }
    Ok(all)
}

#[async_trait]
impl BodySource for FileContent {
    async fn read_at(&self, offset: u64, len: usize) -> Result<Bytes, String> {
        self.read(offset, len as u64)
            .await
            .map_err(|e| e.to_string())
    }
}

#[cfg(test)]
mod tests;
