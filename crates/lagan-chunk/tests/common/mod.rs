//! Helpers of the tests of the store.
#![allow(dead_code, missing_docs)]

use bytes::Bytes;
use lagan_chunk::{ChunkError, Options, Store};
use lagan_types::chunk::{block_crcs, verify_blocks};
use lagan_types::{BlockId, ChunkId, SetId, VolumeId};
use std::path::{Path, PathBuf};

pub fn options(dir: &Path) -> Options {
    Options {
        segment_len: 256 * 1024,
        prewrite: false,
        reserve_bytes: 0,
        index_cache_bytes: 4 << 20,
        ..Options::new(dir)
    }
}

pub fn id(n: u64) -> ChunkId {
    ChunkId::new(
        VolumeId::ONLY,
        SetId(n as u32 % 3),
        BlockId(n / 1000),
        (n % 1000) as u16,
    )
}

/// The length of chunk `n`: mostly short, now and then several blocks.
pub fn len(n: u64) -> usize {
    match n % 11 {
        0 => 70_000 + (n as usize * 37) % 60_000,
        _ => 1 + (n as usize * 911) % 9_000,
    }
}

/// The bytes of chunk `n`.
pub fn content(n: u64) -> Bytes {
    let mut x = (n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let bytes = (0..len(n)).map(|_| {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x as u8
    });
    bytes.collect::<Vec<_>>().into()
}

pub fn put(store: &Store, n: u64) -> Result<(), ChunkError> {
    let data = content(n);
    store.write_blocking(id(n), data.clone(), &block_crcs(&data))
}

/// Reads as a careful reader does: right bytes or nothing.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub enum Got {
    Right,
    Absent,
    Corrupt,
}

pub fn get(store: &Store, n: u64) -> Got {
    match store.read(id(n), 0, u32::MAX) {
        Ok(range) if verify_blocks(&range.data, &range.crcs) => {
            assert_eq!(range.data, content(n), "wrong bytes with right crcs");
            store.verify(id(n)).expect("verifies");
            Got::Right
        }
        Ok(_) => {
            store.verify(id(n)).expect_err("must not verify");
            Got::Corrupt
        }
        Err(ChunkError::Corrupt(_)) => Got::Corrupt,
        Err(ChunkError::NotFound(_)) => Got::Absent,
        Err(e) => panic!("read chunk {n}: {e}"),
    }
}

/// The store's segment files, oldest first.
pub fn segments(dir: &Path) -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> = std::fs::read_dir(dir.join("segments"))
        .expect("segments are listed")
        .map(|e| e.expect("entry is read").path())
        .filter(|p| {
            p.file_name()
                .is_some_and(|n| n.to_string_lossy().starts_with("seg-"))
        })
        .collect();
    all.sort();
    all
}

pub fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("directory is made");
    for entry in std::fs::read_dir(from).expect("directory is listed") {
        let entry = entry.expect("entry is read");
        let to = to.join(entry.file_name());
        if entry.file_type().expect("type is read").is_dir() {
            copy_dir(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).expect("file is copied");
        }
    }
}
