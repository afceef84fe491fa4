//! Bytes of the log: the headers of segments and records, and the replay of records.
//!
//! | segment header, 64 bytes | | record header, 64 bytes | |
//! | --- | --- | --- | --- |
//! | 0  | magic `LAGANLOG` | 0  | magic `LgRc`, u32 |
//! | 8  | format version, u32 | 4  | payload length, u32 |
//! | 12 | 0, u32 | 8  | kind, u8; 7 bytes 0 |
//! | 16 | sequence number of the segment, u64 | 16 | index, u64 |
//! | 24 | CRC that the first record is seeded with, u32 | 24 | term, u64 |
//! | 28 | 0 ... | 32 | node that led that term, u64 |
//! | 60 | CRC-32 of the first 60 bytes | 40 | committed index + 1, 0: none known, u64 |
//! |    | | 48 | mark (`frontier`): synced offset, u32, sequence, u32, check, u32; or 0 |
//! |    | | 60 | CRC-32 of header[0..60] and payload, seeded with the CRC before it |
//!
//! This is version 6. Version 1 had no marks, versions 2 and 5 other encodings of commands,
//! version 3 no terms in batches, version 4 no bytes of chunks; all five are refused.
//!
//! Integers are little endian. The payload of `Normal` is the batch in the codec's form (the
//! term that its commands were proposed in, whether bytes of chunks come with them, their
//! number, the commands), that of `Membership`
//! and `Checkpoint` the codec's serde form; the others have none. `Vote` has the term and
//! node of the vote, and index 1 if it is committed.
//!
//! # To change this format
//! - Raise `FORMAT_VERSION` in `segment.rs`. The encoding of commands is part of the
//!   payload and has no version of its own: whoever changes `Command` raises it, too.
//! - The header of a segment says its version. To go on with logs of the older version,
//!   continue its segment in that version until it is full and begin the next one in the
//!   new; old segments go as their entries are purged.
//! - A version that `SegmentHeader::decode` does not know makes the log refuse to open, by
//!   name and without a change to any record.
//! - The golden bytes in `log/tests.rs` change; those of versions that are still read stay.

use super::frontier;
use super::segment::{RECORD_HEADER_LEN, RECORD_MAGIC, SegmentHeader, u32_at, u64_at};
use crate::types::alias::{LogId, Vote};
use crc32fast::Hasher;
use openraft::CommittedLeaderId;

/// Bytes of a payload, at most: a full batch and room for its envelope.
pub const PAYLOAD_LEN_MAX: usize = lagan_types::limits::BATCH_LEN_MAX + 1024 * 1024;
/// The kind of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// An entry without content (a new leader's first).
    Blank = 1,
    /// An entry with commands.
    Normal = 2,
    /// An entry that changes the voters.
    Membership = 3,
    /// This node's vote.
    Vote = 4,
    /// All entries from that index on are void.
    Truncate = 5,
    /// All entries up to that one may be forgotten. If it is beyond the last entry, the
    /// log is empty and goes on behind it.
    Purge = 6,
    /// Vote and purged id, at the start of each segment.
    Checkpoint = 7,
}

impl Kind {
    /// The kind with that number.
    pub fn from_u8(byte: u8) -> Option<Kind> {
        Some(match byte {
            1 => Kind::Blank,
            2 => Kind::Normal,
            3 => Kind::Membership,
            4 => Kind::Vote,
            5 => Kind::Truncate,
            6 => Kind::Purge,
            7 => Kind::Checkpoint,
            _ => return None,
        })
    }

    /// Whether it is an entry of the replicated log.
    pub fn is_entry(self) -> bool {
        matches!(self, Kind::Blank | Kind::Normal | Kind::Membership)
    }
}

/// A record's header, decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The record's kind.
    pub kind: Kind,
    /// Index of the entry, or as the kind says.
    pub index: u64,
    /// Term of the entry's leader.
    pub term: u64,
    /// The entry's leader.
    pub node: u64,
    /// Committed index + 1 as known when it was written; 0: none.
    pub committed_next: u64,
    /// Bytes of payload.
    pub len: u32,
}

impl Header {
    /// The header of an entry or of a record that names one.
    pub fn of(kind: Kind, id: &LogId, committed_next: u64, len: usize) -> Self {
        Header {
            kind,
            index: id.index,
            term: id.leader_id.term,
            node: id.leader_id.node_id,
            committed_next,
            len: len as u32,
        }
    }

    /// Header of a vote.
    pub fn of_vote(vote: &Vote, committed_next: u64) -> Self {
        Header {
            kind: Kind::Vote,
            index: vote.committed as u64,
            term: vote.leader_id.term,
            node: vote.leader_id.node_id,
            committed_next,
            len: 0,
        }
    }

    /// The entry's id.
    pub fn log_id(&self) -> LogId {
        LogId::new(CommittedLeaderId::new(self.term, self.node), self.index)
    }

    /// The vote in a `Vote` record.
    pub fn vote(&self) -> Vote {
        match self.index {
            0 => Vote::new(self.term, self.node),
            _ => Vote::new_committed(self.term, self.node),
        }
    }
}

/// Appends a record to `out`; returns its CRC, the seed of the next.
pub fn encode(out: &mut Vec<u8>, header: &Header, payload: &[u8], seed: u32) -> u32 {
    encode_marked(out, header, payload, seed, None)
}

/// Appends as [`encode`] does, with the mark that all of the segment before an offset is
/// on disk.
pub fn encode_marked(
    out: &mut Vec<u8>,
    header: &Header,
    payload: &[u8],
    seed: u32,
    synced: Option<(&SegmentHeader, u64)>,
) -> u32 {
    let mut raw = [0u8; RECORD_HEADER_LEN];
    raw[0..4].copy_from_slice(&RECORD_MAGIC.to_le_bytes());
    raw[4..8].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    raw[8] = header.kind as u8;
    raw[16..24].copy_from_slice(&header.index.to_le_bytes());
    raw[24..32].copy_from_slice(&header.term.to_le_bytes());
    raw[32..40].copy_from_slice(&header.node.to_le_bytes());
    raw[40..48].copy_from_slice(&header.committed_next.to_le_bytes());
    if let Some((segment, synced)) = synced {
        frontier::mark(&mut raw, segment, synced);
    }
    let crc = crc_of(&raw, payload, seed);
    raw[60..64].copy_from_slice(&crc.to_le_bytes());
    out.extend_from_slice(&raw);
    out.extend_from_slice(payload);
    crc
}

fn crc_of(header: &[u8], payload: &[u8], seed: u32) -> u32 {
    let mut hasher = Hasher::new();
    hasher.update(&seed.to_le_bytes());
    hasher.update(&header[..60]);
    hasher.update(payload);
    hasher.finalize()
}

/// The header at the start of `bytes`, if there is one; its CRC is not yet checked.
pub fn peek(bytes: &[u8]) -> Option<Header> {
    let raw = bytes.get(..RECORD_HEADER_LEN)?;
    if u32_at(raw, 0) != RECORD_MAGIC || raw[9..16] != [0; 7] {
        return None;
    }
    let len = u32_at(raw, 4);
    if len as usize > PAYLOAD_LEN_MAX {
        return None;
    }
    Some(Header {
        kind: Kind::from_u8(raw[8])?,
        index: u64_at(raw, 16),
        term: u64_at(raw, 24),
        node: u64_at(raw, 32),
        committed_next: u64_at(raw, 40),
        len,
    })
}

/// The record at the start of `bytes`: header, payload and CRC; `None` if its
/// CRC, seeded with `seed`, is not right.
pub fn parse(bytes: &[u8], seed: u32) -> Option<(Header, &[u8], u32)> {
    let header = peek(bytes)?;
    let end = RECORD_HEADER_LEN + header.len as usize;
    let payload = bytes.get(RECORD_HEADER_LEN..end)?;
    let crc = u32_at(bytes, 60);
    (crc_of(&bytes[..RECORD_HEADER_LEN], payload, seed) == crc).then_some((header, payload, crc))
}

/// A record found by [`replay`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found<'a> {
    /// Its header.
    pub header: Header,
    /// Its payload.
    pub payload: &'a [u8],
    /// Its start in the given bytes.
    pub offset: usize,
    /// The CRC that it is seeded with.
    pub seed: u32,
}

/// Calls `take` for each record from `offset` on until the chain breaks or `take`
/// refuses; returns the end of the last record and its CRC.
///
/// # Errors
/// The error of `take`.
pub fn replay<'a, E>(
    bytes: &'a [u8],
    mut offset: usize,
    mut seed: u32,
    mut take: impl FnMut(Found<'a>) -> Result<(), E>,
) -> Result<(usize, u32), E> {
    while let Some((header, payload, crc)) = bytes.get(offset..).and_then(|b| parse(b, seed)) {
        take(Found {
            header,
            payload,
            offset,
            seed,
        })?;
        offset += RECORD_HEADER_LEN + payload.len();
        seed = crc;
    }
    Ok((offset, seed))
}
