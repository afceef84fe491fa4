//! The names of a store's files.
//!
//! | name | is |
//! | --- | --- |
//! | `FORMAT` | `lagan-chunk 1`: the format that this table and [`crate::record`] describe |
//! | `segments/seg-GENERATION` | a segment of the log, 16 hexadecimal digits |
//! | `segments/free-NUMBER` | a file to be reused; its content means nothing |
//! | `index/` | sled, rebuilt from the segments at will |

use crate::error::ChunkError;
use lagan_host::replace::{PUBLIC, make_dirs, replace_file};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// The format that this build reads and writes.
const FORMAT: u32 = 1;
const _: () = assert!(
    FORMAT == crate::record::FORMAT as u32,
    "one format has one number"
);
const FORMAT_NAME: &str = "FORMAT";
const SEGMENTS_DIR: &str = "segments";

/// The use of a file in the segments' directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Name {
    /// Part of the log.
    Segment(u64),
    /// To be reused.
    Free(u64),
}

/// The directory of the segments.
pub(crate) fn segments_dir(dir: &Path) -> PathBuf {
    dir.join(SEGMENTS_DIR)
}

/// The directory of the index.
pub(crate) fn index_dir(dir: &Path) -> PathBuf {
    dir.join("index")
}

/// The path of a file in the segments' directory.
pub(crate) fn path(dir: &Path, name: Name) -> PathBuf {
    let file = match name {
        Name::Segment(n) => format!("seg-{n:016x}"),
        Name::Free(n) => format!("free-{n:016x}"),
    };
    segments_dir(dir).join(file)
}

fn parse(name: &str) -> Option<Name> {
    let (kind, number) = name.split_once('-')?;
    if number.len() != 16 {
        return None;
    }
    let number = u64::from_str_radix(number, 16).ok()?;
    match kind {
        "seg" => Some(Name::Segment(number)),
        "free" => Some(Name::Free(number)),
        _ => None,
    }
}

/// The files in the segments' directory with their lengths, in no order.
pub(crate) fn list(dir: &Path) -> io::Result<Vec<(Name, u64)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(segments_dir(dir))? {
        let entry = entry?;
        if let Some(name) = entry.file_name().to_str().and_then(parse) {
            found.push((name, entry.metadata()?.len()));
        }
    }
    Ok(found)
}

/// Makes names in `dir` durable.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Makes the directories where needed and checks the format.
///
/// # Errors
/// [`ChunkError::Format`] for a format that this build does not know.
pub(crate) fn open_dir(dir: &Path) -> Result<(), ChunkError> {
    let io = |e| ChunkError::io("create chunk store", e);
    make_dirs(&segments_dir(dir)).map_err(io)?;
    let path = dir.join(FORMAT_NAME);
    match fs::read(&path) {
        Ok(bytes) => check_format(dir, &bytes),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            if !list(dir).map_err(io)?.is_empty() {
                return Err(format_error(dir, "segments but no format file".into()));
            }
            let text = format!("lagan-chunk {FORMAT}\n");
            replace_file(&path, text.as_bytes(), PUBLIC).map_err(io)
        }
        Err(e) => Err(ChunkError::io("read chunk store format", e)),
    }
}

fn check_format(dir: &Path, bytes: &[u8]) -> Result<(), ChunkError> {
    let text = String::from_utf8_lossy(bytes);
    let number = text.trim().strip_prefix("lagan-chunk ");
    match number.and_then(|n| n.parse::<u32>().ok()) {
        Some(FORMAT) => Ok(()),
        Some(n) => Err(format_error(dir, format!("format {n}"))),
        None => Err(format_error(dir, "an unreadable format file".into())),
    }
}

fn format_error(dir: &Path, found: String) -> ChunkError {
    ChunkError::Format {
        path: dir.to_path_buf(),
        found,
        known: FORMAT,
    }
}
