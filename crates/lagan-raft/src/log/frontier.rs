//! Marks: each record says how far its segment was on disk when it was written.
//!
//! The chain of CRCs says where the log breaks, not why. A record behind the break with
//! a mark beyond the break was written when the broken record was on disk and perhaps
//! acknowledged: the break is rot, and not the torn tail of a crash. A mark counts only
//! with its check, which is seeded with the segment's own seed: it fits neither another
//! life of the file nor bytes that a client put into a payload.
//!
//! Damage in the bytes of the last sync is not seen: no mark is behind them.

use super::segment::{RECORD_HEADER_LEN, RECORD_MAGIC, SegmentHeader};
use crc32fast::Hasher;

/// The mark in a record's header: synced offset, low half of the segment's sequence, and
/// a check of all bytes before it.
const SYNCED: std::ops::Range<usize> = 48..52;
const SEQUENCE: std::ops::Range<usize> = 52..56;
const CHECK: std::ops::Range<usize> = 56..60;

/// Puts the mark that all of the segment before `synced` is on disk into a record's
/// header.
pub(super) fn mark(raw: &mut [u8; RECORD_HEADER_LEN], segment: &SegmentHeader, synced: u64) {
    // A segment has at most 1 GiB.
    let synced = u32::try_from(synced).unwrap_or(u32::MAX);
    raw[SYNCED].copy_from_slice(&synced.to_le_bytes());
    raw[SEQUENCE].copy_from_slice(&(segment.sequence as u32).to_le_bytes());
    let check = check_of(&raw[..CHECK.start], segment);
    raw[CHECK].copy_from_slice(&check.to_le_bytes());
}

fn check_of(head: &[u8], segment: &SegmentHeader) -> u32 {
    let mut hasher = Hasher::new();
    hasher.update(&segment.seed.to_le_bytes());
    hasher.update(&segment.sequence.to_le_bytes());
    hasher.update(head);
    hasher.finalize()
}

/// The highest offset that a mark anywhere in `bytes`, which are the segment's from
/// some place on, says was on disk; 0: there is none.
pub(super) fn highest(bytes: &[u8], segment: &SegmentHeader) -> u64 {
    let magic = RECORD_MAGIC.to_le_bytes();
    bytes
        .windows(RECORD_HEADER_LEN)
        .filter(|raw| raw[..4] == magic)
        .filter_map(|raw| read(raw, segment))
        .max()
        .unwrap_or(0)
}

/// The offset in a header's mark, if it is of this segment.
fn read(raw: &[u8], segment: &SegmentHeader) -> Option<u64> {
    let number = |at: std::ops::Range<usize>| {
        let bytes = raw.get(at)?.try_into().ok()?;
        Some(u32::from_le_bytes(bytes))
    };
    let head = raw.get(..CHECK.start)?;
    let fits =
        number(SEQUENCE)? == segment.sequence as u32 && number(CHECK)? == check_of(head, segment);
    fits.then(|| number(SYNCED)).flatten().map(u64::from)
}

#[cfg(test)]
mod tests {
    use super::super::record::{Header, Kind, encode_marked};
    use super::*;
    use crate::types::alias::LogId;
    use openraft::CommittedLeaderId;
    use proptest::prelude::*;

    const SEGMENT: SegmentHeader = SegmentHeader {
        sequence: 7,
        seed: 0x0102_0304,
    };

    fn record(index: u64, payload: &[u8], seed: u32, synced: u64) -> (Vec<u8>, u32) {
        let id = LogId::new(CommittedLeaderId::new(1, 1), index);
        let header = Header::of(Kind::Normal, &id, 0, payload.len());
        let mut out = Vec::new();
        let crc = encode_marked(&mut out, &header, payload, seed, Some((&SEGMENT, synced)));
        (out, crc)
    }

    #[test]
    fn mark_counts_only_in_its_own_segment() {
        let (bytes, _) = record(1, b"abc", 5, 4_000);
        assert_eq!(highest(&bytes, &SEGMENT), 4_000);
        let other_life = SegmentHeader { seed: 9, ..SEGMENT };
        let other_segment = SegmentHeader {
            sequence: 8,
            ..SEGMENT
        };
        assert_eq!(highest(&bytes, &other_life), 0);
        assert_eq!(highest(&bytes, &other_segment), 0);
        assert_eq!(highest(&bytes[..RECORD_HEADER_LEN - 1], &SEGMENT), 0);
        // a record that was put into a payload by somebody who does not know the seed
        let (inner, _) = {
            let id = LogId::new(CommittedLeaderId::new(1, 1), 2);
            let header = Header::of(Kind::Normal, &id, 0, 0);
            let mut out = Vec::new();
            let crc = encode_marked(&mut out, &header, &[], 5, Some((&other_life, 1 << 30)));
            (out, crc)
        };
        let (outer, _) = record(1, &inner, 5, 100);
        assert_eq!(highest(&outer, &SEGMENT), 100);
    }

    proptest! {
        #[test]
        fn no_bytes_are_a_mark_by_chance(bytes in prop::collection::vec(any::<u8>(), 0..2048)) {
            prop_assert_eq!(highest(&bytes, &SEGMENT), 0);
        }

        #[test]
        fn flipped_mark_says_nothing(at in 4..60usize, bit in 0..8u8) {
            let (mut bytes, _) = record(1, b"abc", 5, 4_000);
            bytes[at] ^= 1 << bit;
            prop_assert_eq!(highest(&bytes, &SEGMENT), 0);
        }
    }
}
