//! Damage to what servers have on disk, as bad disks do it.

use crate::manifest;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Bytes of the header before the bytes of a chunk of one block: 64 and a CRC.
const HEAD_LEN: usize = 68;

/// Flips a bit at the first place of the bytes in each file below a directory; says in
/// how many files.
///
/// # Panics
/// When a file cannot be read or written.
pub fn flip(top: &Path, bytes: &[u8]) -> usize {
    change(top, bytes, |file, at| {
        file.write_all_at(&[bytes[0] ^ 4], at as u64)
    })
}

/// Damages the header of the record of a chunk of one block that begins with these bytes.
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
        let found = content.windows(bytes.len()).position(|w| w == bytes);
        if let Some(at) = found {
            let file = fs::File::options()
                .write(true)
                .open(&path)
                .expect("open a store");
            write(&file, at).expect("damage a store");
            count += 1;
        }
    }
    count
}
