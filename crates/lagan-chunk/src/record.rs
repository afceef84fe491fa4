//! The layout of segment files: the one table of bytes on disk.
//!
//! Integers are little endian. A record starts at a multiple of 64 and is
//! padded with zeros to the next one.
//!
//! | at | bytes | header of a record |
//! | --- | --- | --- |
//! | 0 | 4 | magic `LGNR` |
//! | 4 | 1 | format, 1 |
//! | 5 | 1 | kind: 1 chunk, 2 deletes, 3 table |
//! | 6 | 2 | number of block CRCs (0 unless a chunk) |
//! | 8 | 8 | generation of the segment |
//! | 16 | 4 | offset of this record in the segment |
//! | 20 | 4 | length of the payload |
//! | 24 | 16 | chunk id (0 unless a chunk) |
//! | 40 | 8 | generation of the last synced frontier |
//! | 48 | 4 | offset of the last synced frontier |
//! | 52 | 4 | CRC-32 of the payload (of a chunk: its block CRCs combined) |
//! | 56 | 4 | zero |
//! | 60 | 4 | CRC-32 of bytes 0..60 and of the block CRCs |
//! | 64 | 4n | block CRCs, one per 64 KiB of payload |
//! | 64+4n | | payload |
//!
//! *Last synced frontier*: all bytes of the log before it were on disk when the
//! record was written.
//!
//! Payload of deletes, per chunk: its id (16) and the generation of the segment
//! that held it (8). The entry must be kept while a segment of that generation
//! exists, or a rebuild would bring the chunk back.
//!
//! Payload of a table, 32 bytes per record of the segment, in order:
//! kind (1), zero (3), offset (4), payload length (4), CRC (4), chunk id (16).
//!
//! The last 64 bytes of a sealed segment's file are its footer:
//!
//! | at | bytes | footer |
//! | --- | --- | --- |
//! | 0 | 4 | magic `LGNF` |
//! | 4 | 1 | format, 1 |
//! | 5 | 3 | zero |
//! | 8 | 8 | generation |
//! | 16 | 4 | offset of the table's record |
//! | 20 | 40 | zero |
//! | 60 | 4 | CRC-32 of bytes 0..60 |
//!
//! # To change this format
//! - Raise `FORMAT` here and in `files.rs` together. A record of an unknown format looks
//!   like rot or like a torn tail, which is cut: so the file `FORMAT` has to refuse the
//!   whole store before any segment is read.
//! - That file refuses every number but its own, by name. A build that goes on with old
//!   stores has to accept both numbers there, and both formats in [`parse_head`] and
//!   [`decode_footer`]: segments are never rewritten in place. Compaction writes what it
//!   moves with a new header.
//! - The bytes in `record/tests.rs` change, and the number in the test of `store/tests.rs`
//!   that another format is refused.

use lagan_types::ChunkId;
use lagan_types::limits::{BLOCK_LEN, CHUNK_LEN_MAX};

/// Bytes of a record's fixed header.
pub const HEAD_LEN: u32 = 64;
/// Bytes of the longest header with its block CRCs.
pub const HEAD_LEN_MAX: u32 = HEAD_LEN + 4 * CHUNK_LEN_MAX.div_ceil(BLOCK_LEN);
/// Records start at multiples of this: small enough to waste little, large
/// enough that looking for the next good record is quick.
pub const ALIGN: u32 = 64;
/// Bytes of a footer.
pub const FOOTER_LEN: u32 = 64;
/// Bytes of a table's entry.
pub const ENTRY_LEN: u32 = 32;
/// Bytes of one chunk's entry in a deletes record.
pub const DELETE_LEN: u32 = 24;
/// A write ends at a multiple of this, so that no page must be read first.
pub const PAGE_LEN: u32 = 4096;
/// Bytes of a segment, at least: shorter ones make no sense even in tests.
pub const SEGMENT_LEN_MIN: u64 = 64 * 1024;

const MAGIC: [u8; 4] = *b"LGNR";
const FOOTER_MAGIC: [u8; 4] = *b"LGNF";
/// The format of a record's head and of a footer; the file `FORMAT` says it, too.
pub const FORMAT: u8 = 1;

/// The kind of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// One chunk.
    Chunk = 1,
    /// Chunks that were deleted.
    Deletes = 2,
    /// The records of this segment: it is sealed.
    Table = 3,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Kind> {
        match byte {
            1 => Some(Kind::Chunk),
            2 => Some(Kind::Deletes),
            3 => Some(Kind::Table),
            _ => None,
        }
    }
}

/// A place in the log: segments follow each other by generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Position {
    /// The segment.
    pub generation: u64,
    /// Bytes from its start.
    pub offset: u32,
}

/// A record's header, checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The kind of the record.
    pub kind: Kind,
    /// Number of block CRCs.
    pub blocks: u16,
    /// The place that the record claims to be at.
    pub at: Position,
    /// Bytes of the payload.
    pub len: u32,
    /// The chunk (0 unless a chunk).
    pub id: ChunkId,
    /// The last synced frontier when it was written.
    pub frontier: Position,
    /// CRC of the payload.
    pub crc: u32,
}

impl Header {
    /// Bytes of header and block CRCs.
    pub fn head_len(&self) -> u32 {
        HEAD_LEN + 4 * self.blocks as u32
    }

    /// Bytes of the whole record with its padding.
    pub fn record_len(&self) -> u64 {
        align(self.head_len() as u64 + self.len as u64)
    }
}

/// One record in a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Chunk or deletes.
    pub kind: Kind,
    /// Where the record starts.
    pub offset: u32,
    /// Bytes of the payload.
    pub len: u32,
    /// CRC of the payload.
    pub crc: u32,
    /// The chunk (0 unless a chunk).
    pub id: ChunkId,
}

impl Entry {
    /// Bytes of the record that this entry names.
    pub fn record_len(&self) -> u64 {
        match self.kind {
            Kind::Chunk => chunk_record_len(self.len),
            Kind::Deletes | Kind::Table => align(HEAD_LEN as u64 + self.len as u64),
        }
    }
}

/// Rounds up to the next place where a record may start.
pub fn align(len: u64) -> u64 {
    len.next_multiple_of(ALIGN as u64)
}

/// Bytes of the record of a chunk of `len` bytes.
pub fn chunk_record_len(len: u32) -> u64 {
    align(HEAD_LEN as u64 + 4 * len.div_ceil(BLOCK_LEN) as u64 + len as u64)
}

/// Bytes of a table of `entries` records with the footer after it.
pub fn table_len(entries: usize) -> u64 {
    align(HEAD_LEN as u64 + entries as u64 * ENTRY_LEN as u64) + FOOTER_LEN as u64
}

fn put(out: &mut [u8], at: usize, bytes: &[u8]) {
    out[at..at + bytes.len()].copy_from_slice(bytes);
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

fn id_at(bytes: &[u8], at: usize) -> Option<ChunkId> {
    let id = bytes.get(at..at + 16)?.try_into().ok()?;
    Some(ChunkId(u128::from_le_bytes(id)))
}

/// A header with its block CRCs. Only the place is missing; [`place_head`] fills it in.
pub fn new_head(kind: Kind, id: ChunkId, len: u32, crc: u32, crcs: &[u32]) -> Vec<u8> {
    let mut head = vec![0; HEAD_LEN as usize + 4 * crcs.len()];
    put(&mut head, 0, &MAGIC);
    head[4] = FORMAT;
    head[5] = kind as u8;
    put(&mut head, 6, &(crcs.len() as u16).to_le_bytes());
    put(&mut head, 20, &len.to_le_bytes());
    put(&mut head, 24, &id.0.to_le_bytes());
    put(&mut head, 52, &crc.to_le_bytes());
    for (i, block) in crcs.iter().enumerate() {
        put(&mut head, HEAD_LEN as usize + 4 * i, &block.to_le_bytes());
    }
    head
}

/// Fills in the record's place, the last synced frontier and the header's CRC.
///
/// # Panics
/// If `head` is not from [`new_head`].
pub fn place_head(head: &mut [u8], at: Position, frontier: Position) {
    put(head, 8, &at.generation.to_le_bytes());
    put(head, 16, &at.offset.to_le_bytes());
    put(head, 40, &frontier.generation.to_le_bytes());
    put(head, 48, &frontier.offset.to_le_bytes());
    let crc = head_crc(&head[..60], &head[HEAD_LEN as usize..]);
    put(head, 60, &crc.to_le_bytes());
}

fn head_crc(fixed: &[u8], crcs: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(fixed);
    hasher.update(crcs);
    hasher.finalize()
}

/// The header at the start of `bytes`, which may go on behind it. `None` unless the
/// whole header is there and right.
pub fn parse_head(bytes: &[u8]) -> Option<Header> {
    let fixed = bytes.get(..HEAD_LEN as usize)?;
    if fixed[..4] != MAGIC || fixed[4] != FORMAT {
        return None;
    }
    let kind = Kind::from_byte(fixed[5])?;
    let blocks = u16::from_le_bytes([fixed[6], fixed[7]]);
    let len = u32_at(fixed, 20)?;
    let wanted = match kind {
        Kind::Chunk if len > CHUNK_LEN_MAX => return None,
        Kind::Chunk => len.div_ceil(BLOCK_LEN),
        Kind::Deletes | Kind::Table => 0,
    };
    if blocks as u32 != wanted {
        return None;
    }
    let crcs = bytes.get(HEAD_LEN as usize..HEAD_LEN as usize + 4 * blocks as usize)?;
    if head_crc(&fixed[..60], crcs) != u32_at(fixed, 60)? {
        return None;
    }
    Some(Header {
        kind,
        blocks,
        at: Position {
            generation: u64_at(fixed, 8)?,
            offset: u32_at(fixed, 16)?,
        },
        len,
        id: id_at(fixed, 24)?,
        frontier: Position {
            generation: u64_at(fixed, 40)?,
            offset: u32_at(fixed, 48)?,
        },
        crc: u32_at(fixed, 52)?,
    })
}

/// The block CRCs that follow a header in `bytes`.
pub fn parse_crcs(bytes: &[u8], header: &Header) -> Vec<u32> {
    let crcs = bytes.get(HEAD_LEN as usize..header.head_len() as usize);
    crcs.unwrap_or_default()
        .as_chunks::<4>()
        .0
        .iter()
        .map(|b| u32::from_le_bytes(*b))
        .collect()
}

/// The payload of a deletes record.
pub fn encode_deletes(items: &[(ChunkId, u64)]) -> Vec<u8> {
    let mut out = Vec::with_capacity(items.len() * DELETE_LEN as usize);
    for (id, generation) in items {
        out.extend_from_slice(&id.0.to_le_bytes());
        out.extend_from_slice(&generation.to_le_bytes());
    }
    out
}

/// Decodes the payload of [`encode_deletes`]; `None` for a length that it cannot have.
pub fn decode_deletes(payload: &[u8]) -> Option<Vec<(ChunkId, u64)>> {
    let (items, rest) = payload.as_chunks::<{ DELETE_LEN as usize }>();
    if !rest.is_empty() {
        return None;
    }
    items
        .iter()
        .map(|b| Some((id_at(b, 0)?, u64_at(b, 16)?)))
        .collect()
}

/// The payload of a table.
pub fn encode_table(entries: &[Entry]) -> Vec<u8> {
    let mut out = Vec::with_capacity(entries.len() * ENTRY_LEN as usize);
    for e in entries {
        out.extend_from_slice(&[e.kind as u8, 0, 0, 0]);
        out.extend_from_slice(&e.offset.to_le_bytes());
        out.extend_from_slice(&e.len.to_le_bytes());
        out.extend_from_slice(&e.crc.to_le_bytes());
        out.extend_from_slice(&e.id.0.to_le_bytes());
    }
    out
}

/// Decodes the payload of [`encode_table`]; `None` for anything else.
pub fn decode_table(payload: &[u8]) -> Option<Vec<Entry>> {
    let (items, rest) = payload.as_chunks::<{ ENTRY_LEN as usize }>();
    if !rest.is_empty() {
        return None;
    }
    items
        .iter()
        .map(|b| {
            Some(Entry {
                kind: Kind::from_byte(b[0])?,
                offset: u32_at(b, 4)?,
                len: u32_at(b, 8)?,
                crc: u32_at(b, 12)?,
                id: id_at(b, 16)?,
            })
        })
        .collect()
}

/// The footer of a sealed segment.
pub fn encode_footer(generation: u64, table_offset: u32) -> [u8; FOOTER_LEN as usize] {
    let mut out = [0; FOOTER_LEN as usize];
    put(&mut out, 0, &FOOTER_MAGIC);
    out[4] = FORMAT;
    put(&mut out, 8, &generation.to_le_bytes());
    put(&mut out, 16, &table_offset.to_le_bytes());
    let crc = crc32fast::hash(&out[..60]);
    put(&mut out, 60, &crc.to_le_bytes());
    out
}

/// The table's offset, if `bytes` are the footer of that generation.
pub fn decode_footer(bytes: &[u8], generation: u64) -> Option<u32> {
    let bytes = bytes.get(..FOOTER_LEN as usize)?;
    let right = bytes[..4] == FOOTER_MAGIC
        && bytes[4] == FORMAT
        && u64_at(bytes, 8)? == generation
        && crc32fast::hash(&bytes[..60]) == u32_at(bytes, 60)?;
    if right { u32_at(bytes, 16) } else { None }
}

#[cfg(test)]
mod tests;
