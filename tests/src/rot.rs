//! Damage to what servers have on disk, as bad disks do it.

use crate::manifest;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Bytes of the header before the bytes of a chunk of two blocks: 64 and a CRC for each.
const HEAD_LEN: usize = 72;

/// Flips a bit at each place of the bytes in each file below a directory; says in how
/// many files. A server may have them twice: a first attempt that came late leaves
/// bytes that nothing names.
///
/// # Panics
/// When a file cannot be read or written.
pub fn flip(top: &Path, bytes: &[u8]) -> usize {
    change(top, bytes, |file, at| {
        file.write_all_at(&[bytes[0] ^ 4], at as u64)
    })
}

/// Damages the headers of the records of chunks of two blocks that begin with these bytes.
///
/// # Panics
/// When a file cannot be read or written.
pub fn unhead(top: &Path, bytes: &[u8]) -> usize {
    change(top, bytes, |file, at| {
        file.write_all_at(b"ROT", at.saturating_sub(HEAD_LEN) as u64)
    })
}

/// Whether a file below a directory has these bytes.
///
/// # Panics
/// When a file cannot be read.
pub fn holds(top: &Path, bytes: &[u8]) -> bool {
    let files = manifest::files(top).expect("list a store");
    let mut contents = files.iter().filter_map(|path| fs::read(path).ok());
    contents.any(|content| content.windows(bytes.len()).any(|w| w == bytes))
}

fn change(
    top: &Path,
    bytes: &[u8],
    write: impl Fn(&fs::File, usize) -> std::io::Result<()>,
) -> usize {
    let mut count = 0;
    for path in manifest::files(top).expect("list a store") {
        let content = fs::read(&path).expect("read a store");
        let mut places = content.windows(bytes.len()).enumerate();
        let places = places.by_ref().filter(|(_, window)| *window == bytes);
        let places: Vec<usize> = places.map(|(at, _)| at).collect();
        if places.is_empty() {
            continue;
        }
        let file = fs::File::options()
            .write(true)
            .open(&path)
            .expect("open a store");
        for at in places {
            write(&file, at).expect("damage a store");
        }
        count += 1;
    }
    count
}
