//! Block CRCs of a chunk.

use crate::limits::BLOCK_LEN;

/// The CRC-32 (IEEE) of each 64 KiB block of `data`, the last of what is left.
/// Empty for empty data.
pub fn block_crcs(data: &[u8]) -> Vec<u32> {
    data.chunks(BLOCK_LEN as usize)
        .map(crc32fast::hash)
        .collect()
}

/// The chunk's CRC: its block CRCs combined. `len` is the chunk's length and
/// must need exactly `crcs.len()` blocks; otherwise `None`.
pub fn combine_crcs(crcs: &[u32], len: u32) -> Option<u32> {
    if crcs.len() != len.div_ceil(BLOCK_LEN) as usize {
        return None;
    }
    let mut left = len as u64;
    let mut total = crc32fast::Hasher::new();
    for &crc in crcs {
        let block = left.min(BLOCK_LEN as u64);
        total.combine(&crc32fast::Hasher::new_with_initial_len(crc, block));
        left -= block;
    }
    Some(total.finalize())
}

/// Whether `data` (whole blocks of a chunk, the last perhaps short) has those
/// block CRCs.
pub fn verify_blocks(data: &[u8], crcs: &[u32]) -> bool {
    data.len().div_ceil(BLOCK_LEN as usize) == crcs.len()
        && data
            .chunks(BLOCK_LEN as usize)
            .zip(crcs)
            .all(|(block, &crc)| crc32fast::hash(block) == crc)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn combination_of_block_crcs_is_the_crc_of_the_whole() {
        for len in [0usize, 1, 65_535, 65_536, 65_537, 200_000] {
            let data: Vec<u8> = (0..len).map(|i| (i * 7 + i / 251) as u8).collect();
            let crcs = block_crcs(&data);
            assert_eq!(
                combine_crcs(&crcs, len as u32),
                Some(crc32fast::hash(&data))
            );
            assert!(verify_blocks(&data, &crcs));
        }
    }

    #[test]
    fn wrong_number_of_blocks_is_refused() {
        assert_eq!(combine_crcs(&[1, 2], 65_536), None);
        assert!(!verify_blocks(&[0; 10], &[]));
    }
}
