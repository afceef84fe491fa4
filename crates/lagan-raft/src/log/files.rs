//! Makes, lists and recycles the segment files in their directory.

use super::segment::{SEGMENT_HEADER_LEN, SegmentHeader};
use lagan_host::replace::make_dirs;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const SUFFIX: &str = "seg";
const SPARE: &str = "spare.seg";
const SPARE_TMP: &str = "spare.tmp";
/// Zeros are written in pieces of this size.
const ZEROS_LEN: usize = 1024 * 1024;

/// A segment's file, open.
#[derive(Debug, Clone)]
pub(super) struct Segment {
    pub sequence: u64,
    pub file: Arc<File>,
    /// Bytes that are written ahead and may be used.
    pub len: u64,
}

impl Segment {
    pub fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }
}

/// The directory of the log.
#[derive(Debug, Clone)]
pub(super) struct Dir {
    path: PathBuf,
    segment_bytes: u64,
}

impl Dir {
    /// Opens or makes the directory.
    pub fn open(path: PathBuf, segment_bytes: u64) -> io::Result<Dir> {
        make_dirs(&path)?;
        for entry in fs::read_dir(&path)? {
            let file = entry?.path();
            if file.extension().is_some_and(|e| e == "tmp") {
                fs::remove_file(file)?;
            }
        }
        Ok(Dir {
            path,
            segment_bytes,
        })
    }

    fn file_of(&self, sequence: u64) -> PathBuf {
        self.path.join(format!("{sequence:016x}.{SUFFIX}"))
    }

    /// Sequence numbers of the files that have one, in order.
    pub fn list(&self) -> io::Result<Vec<u64>> {
        let mut sequences = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let name = entry?.file_name();
            let name = Path::new(&name);
            if name.extension().is_none_or(|e| e != SUFFIX) {
                continue;
            }
            let stem = name.file_stem().and_then(|s| s.to_str());
            if let Some(sequence) = stem.and_then(|s| u64::from_str_radix(s, 16).ok()) {
                sequences.push(sequence);
            }
        }
        sequences.sort_unstable();
        Ok(sequences)
    }

    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        let Ok(entries) = fs::read_dir(&self.path) else {
            return 0;
        };
        entries
            .filter_map(|e| e.ok()?.metadata().ok())
            .map(|m| m.len())
            .sum()
    }

    /// Opens an existing segment.
    pub fn open_segment(&self, sequence: u64) -> io::Result<Segment> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(self.file_of(sequence))?;
        let len = file.metadata()?.len();
        Ok(Segment {
            sequence,
            file: Arc::new(file),
            len,
        })
    }

    /// Begins a segment with room for at least `need` bytes, from the spare
    /// file if there is one; its header is written, not synced.
    pub fn begin(&self, header: SegmentHeader, need: u64) -> io::Result<Segment> {
        let need = need + SEGMENT_HEADER_LEN as u64;
        let spare = self.path.join(SPARE);
        let spare_len = fs::metadata(&spare).map_or(0, |m| m.len());
        if spare_len < need.max(self.segment_bytes) {
            make_zeroed(&spare, need.max(self.segment_bytes))?;
        }
        fs::rename(&spare, self.file_of(header.sequence))?;
        self.sync()?;
        let segment = self.open_segment(header.sequence)?;
        segment.write_at(&header.encode(), 0)?;
        Ok(segment)
    }

    /// Whether a spare file waits.
    pub fn has_spare(&self) -> bool {
        self.path.join(SPARE).exists()
    }

    /// Makes a spare file, if there is none.
    pub fn make_spare(&self) -> io::Result<()> {
        if self.has_spare() {
            return Ok(());
        }
        let tmp = self.path.join(SPARE_TMP);
        make_zeroed(&tmp, self.segment_bytes)?;
        fs::rename(&tmp, self.path.join(SPARE))
    }

    /// Gives up a segment: it becomes the spare one or goes.
    pub fn retire(&self, sequence: u64) -> io::Result<()> {
        let file = self.file_of(sequence);
        if self.has_spare() || fs::metadata(&file)?.len() != self.segment_bytes {
            return fs::remove_file(file);
        }
        fs::rename(file, self.path.join(SPARE))
    }

    /// Makes renames and removals durable.
    pub fn sync(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }
}

fn make_zeroed(path: &Path, len: u64) -> io::Result<()> {
    let mut file = File::create(path)?;
    let zeros = vec![0u8; ZEROS_LEN];
    let mut left = len;
    while left > 0 {
        let piece = left.min(ZEROS_LEN as u64) as usize;
        file.write_all(&zeros[..piece])?;
        left -= piece as u64;
    }
    file.sync_all()
}
