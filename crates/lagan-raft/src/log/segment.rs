//! The header of a segment, and the magic number that begins each record in it. The
//! table of bytes is in [`record`](super::record).

/// Bytes of a segment's header.
pub const SEGMENT_HEADER_LEN: usize = 64;
/// Bytes of a record's header.
pub const RECORD_HEADER_LEN: usize = 64;
/// The version that this build writes and reads.
pub const FORMAT_VERSION: u32 = 6;

const SEGMENT_MAGIC: &[u8; 8] = b"LAGANLOG";
pub(super) const RECORD_MAGIC: u32 = u32::from_le_bytes(*b"LgRc");

/// A segment's header, decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentHeader {
    /// Counts the segments; also in the file's name.
    pub sequence: u64,
    /// CRC of the last record of the segment before.
    pub seed: u32,
}

impl SegmentHeader {
    /// Encodes it.
    pub fn encode(&self) -> [u8; SEGMENT_HEADER_LEN] {
        let mut raw = [0u8; SEGMENT_HEADER_LEN];
        raw[0..8].copy_from_slice(SEGMENT_MAGIC);
        raw[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        raw[16..24].copy_from_slice(&self.sequence.to_le_bytes());
        raw[24..28].copy_from_slice(&self.seed.to_le_bytes());
        let crc = crc32fast::hash(&raw[..60]);
        raw[60..64].copy_from_slice(&crc.to_le_bytes());
        raw
    }

    /// Decodes it; `Ok(None)`: the bytes are no header.
    ///
    /// # Errors
    /// The version, if it is one that this build does not know.
    pub fn decode(bytes: &[u8]) -> Result<Option<SegmentHeader>, u32> {
        let Some(raw) = bytes.get(..SEGMENT_HEADER_LEN) else {
            return Ok(None);
        };
        if &raw[0..8] != SEGMENT_MAGIC || crc32fast::hash(&raw[..60]) != u32_at(raw, 60) {
            return Ok(None);
        }
        match u32_at(raw, 8) {
            FORMAT_VERSION => Ok(Some(SegmentHeader {
                sequence: u64_at(raw, 16),
                seed: u32_at(raw, 24),
            })),
            other => Err(other),
        }
    }
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut raw = [0; 4];
    raw.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(raw)
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut raw = [0; 8];
    raw.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(raw)
}
