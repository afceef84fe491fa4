//! Checksums of a large object's units, kept in the object's own metadata.
//!
//! The cluster's metadata has one CRC-32 of a whole object. To verify a range
//! of a large one, the CRCs of its units go along as `lagan-crcs`:
//! `UNIT_MIB:BASE64`, four bytes (big endian) for each unit. They need not be
//! trusted: combined they must give the CRC that the cluster knows.

use crc32fast::Hasher;

/// The metadata name.
pub(crate) const META_NAME: &str = "lagan-crcs";
/// Units of an object, at most: 4 bytes each must fit beside a path into S3's 2 KiB.
const UNITS_MAX: u64 = 128;
/// Bytes of a unit, at least: objects up to this are one unit.
pub(crate) const UNIT_LEN_MIN: u64 = 8 * MIB;

const MIB: u64 = 1024 * 1024;

/// The units that an object is divided into for verification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Units {
    /// Bytes of the object.
    pub len: u64,
    /// Bytes of each unit but the last.
    pub unit_len: u64,
    /// CRC-32 of each unit.
    pub crcs: Vec<u32>,
}

/// Bytes of a unit of an object of that length.
pub(crate) fn unit_len(len: u64) -> u64 {
    len.div_ceil(UNITS_MAX)
        .next_multiple_of(MIB)
        .max(UNIT_LEN_MIN)
}

impl Units {
    /// The whole object as one unit.
    pub fn whole(len: u64, crc: u32) -> Self {
        Units {
            len,
            unit_len: len.max(1),
            crcs: vec![crc],
        }
    }

    /// First byte and length of a unit.
    pub fn range(&self, unit: usize) -> (u64, u64) {
        let start = (unit as u64).saturating_mul(self.unit_len).min(self.len);
        (start, self.unit_len.min(self.len - start))
    }

    /// The unit of a byte.
    pub fn unit_of(&self, offset: u64) -> usize {
        (offset / self.unit_len.max(1)) as usize
    }

    /// The CRC-32 of the whole object.
    pub fn combined(&self) -> u32 {
        let mut all = Hasher::new();
        for (i, crc) in self.crcs.iter().enumerate() {
            all.combine(&Hasher::new_with_initial_len(*crc, self.range(i).1));
        }
        all.finalize()
    }

    /// The metadata's value; `None` for an object of one unit, which needs none.
    pub fn to_meta(&self) -> Option<String> {
        if self.crcs.len() < 2 {
            return None;
        }
        let bytes: Vec<u8> = self.crcs.iter().flat_map(|crc| crc.to_be_bytes()).collect();
        Some(format!("{}:{}", self.unit_len / MIB, encode(&bytes)))
    }

    /// Reads a value back; `None` if it is not that of an object of that
    /// length and CRC-32.
    pub fn from_meta(value: &str, len: u64, crc: u32) -> Option<Self> {
        let (unit_mib, list) = value.split_once(':')?;
        let unit_len = unit_mib
            .parse::<u64>()
            .ok()?
            .checked_mul(MIB)
            .filter(|n| *n > 0)?;
        let bytes = decode(list)?;
        if bytes.len() % 4 != 0 || (bytes.len() / 4) as u64 != len.div_ceil(unit_len) {
            return None;
        }
        let crcs = bytes
            .chunks(4)
            .map(|b| b.iter().fold(0, |n, b| n << 8 | u32::from(*b)));
        let units = Units {
            len,
            unit_len,
            crcs: crcs.collect(),
        };
        (units.combined() == crc).then_some(units)
    }
}

const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// URL-safe base64 without padding.
fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let bits = (0..3).fold(0u32, |n, i| n << 8 | u32::from(*group.get(i).unwrap_or(&0)));
        for i in 0..=group.len() {
            let digit = DIGITS.get((bits >> (18 - 6 * i) & 63) as usize);
            text.extend(digit.map(|d| *d as char));
        }
    }
    text
}

fn decode(text: &str) -> Option<Vec<u8>> {
    if text.len() as u64 > UNITS_MAX * 8 {
        return None;
    }
    let mut bytes = Vec::with_capacity(text.len());
    for group in text.as_bytes().chunks(4) {
        let mut bits = 0u32;
        for i in 0..4 {
            let digit = match group.get(i) {
                Some(d) => DIGITS.iter().position(|known| known == d)?,
                None => 0,
            };
            bits = bits << 6 | digit as u32;
        }
        let len = group.len().checked_sub(1).filter(|n| *n > 0)?;
        bytes.extend(bits.to_be_bytes().get(1..1 + len)?);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn few_units_whatever_the_length() {
        for len in [1, 8 * MIB, 8 * MIB + 1, 1 << 30, (1 << 30) + 1, 5 << 40] {
            let unit = unit_len(len);
            assert!(
                len.div_ceil(unit) <= UNITS_MAX && unit >= UNIT_LEN_MIN,
                "{len}"
            );
        }
    }

    #[test]
    fn the_list_is_proved_by_the_whole_crc() {
        let len = 20 * MIB + 5;
        let units = Units {
            len,
            unit_len: 8 * MIB,
            crcs: vec![1, 2, 0xffff_fffe],
        };
        let value = units.to_meta().unwrap();
        // Objects with this are in buckets: it never changes.
        assert_eq!((META_NAME, &*value), ("lagan-crcs", "8:AAAAAQAAAAL____-"));
        let crc = units.combined();
        assert_eq!(Units::from_meta(&value, len, crc), Some(units));
        assert_eq!(Units::from_meta(&value, len, crc ^ 1), None);
        assert_eq!(Units::from_meta(&value, len + 8 * MIB, crc), None);
        assert_eq!(Units::from_meta("0:AAAA", len, crc), None);
    }

    #[test]
    fn units_combine_to_the_crc_of_the_bytes() {
        let data: Vec<u8> = (0..3000u32).map(|i| (i * 31) as u8).collect();
        let units = Units {
            len: 3000,
            unit_len: 1024,
            crcs: data.chunks(1024).map(crc32fast::hash).collect(),
        };
        assert_eq!(units.combined(), crc32fast::hash(&data));
        assert_eq!(units.range(2), (2048, 952));
        assert_eq!(units.unit_of(2047), 1);
    }

    proptest! {
        #[test]
        fn base64_is_read_back(bytes: Vec<u8>) {
            prop_assume!(bytes.len() < 512);
            prop_assert_eq!(decode(&encode(&bytes)), Some(bytes));
        }

        #[test]
        fn garbage_is_no_list(text: String, len: u64, crc: u32) {
            let _ = Units::from_meta(&text, len, crc);
        }
    }
}
