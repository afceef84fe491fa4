//! The ranges of a file that have data, by SEEK_DATA and SEEK_HOLE.

use super::{said, sys};
use std::os::fd::RawFd;
use std::path::Path;

/// ext4 knows holes by blocks.
const BLOCK: i64 = 4096;

/// Whether what is said is right: ranges in order, nothing but zeros outside
/// them. `exactly`: also which blocks have data.
pub(super) fn describe(fd: RawFd, exactly: bool) -> String {
    let size = match sys::stat(fd, Path::new("")) {
        Ok(stat) if stat.st_mode & libc::S_IFMT == libc::S_IFREG => stat.st_size,
        Ok(_) => return "no regular file".into(),
        Err(errno) => return said(Err(errno)),
    };
    let position = sys::seek(fd, 0, libc::SEEK_CUR);
    let found = ranges(fd, size);
    let back = position.and_then(|at| sys::seek(fd, at, libc::SEEK_SET));
    match (found, back) {
        (Ok(ranges), Ok(_)) => judge(fd, size, &ranges, exactly),
        (Err(what), _) => what,
        (_, Err(errno)) => said(Err(errno)),
    }
}

fn ranges(fd: RawFd, size: i64) -> Result<Vec<(i64, i64)>, String> {
    let mut found = Vec::new();
    let mut at = 0;
    loop {
        let from = match sys::seek(fd, at, libc::SEEK_DATA) {
            Ok(from) => from,
            Err(libc::ENXIO) => return Ok(found),
            Err(errno) => return Err(said(Err(errno))),
        };
        let to = sys::seek(fd, from, libc::SEEK_HOLE).map_err(|e| said(Err(e)))?;
        if from < at || to <= from || to > size {
            return Err(format!("data from {from} to {to} after {at} of {size}"));
        }
        found.push((from, to));
        at = to;
    }
}

fn judge(fd: RawFd, size: i64, ranges: &[(i64, i64)], exactly: bool) -> String {
    let mut at = 0;
    for &(from, to) in ranges.iter().chain([&(size, size)]) {
        // the ends of a hole, where mistakes are
        for start in [at, (from - BLOCK).max(at)] {
            let mut bytes = vec![0; (from - start).min(BLOCK) as usize];
            if sys::read(fd, &mut bytes, Some(start)).is_ok() && bytes.iter().any(|&b| b != 0) {
                return format!("data in what is called a hole, from {start}");
            }
        }
        at = to;
    }
    if exactly {
        let blocks = ranges
            .iter()
            .map(|(from, to)| (from / BLOCK, (to + BLOCK - 1) / BLOCK));
        return format!("data in blocks {:?}", blocks.collect::<Vec<_>>());
    }
    "right".into()
}
