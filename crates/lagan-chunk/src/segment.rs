//! A segment's file in use, and what is known of its content.

use crate::record::{DELETE_LEN, Position};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Opens a file for reading and writing that must exist.
pub(crate) fn open_existing(path: &std::path::Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(path)
}

/// A segment of one generation. Each `Arc` of it pins its file's content: the file
/// is not reused before all of them are dropped.
#[derive(Debug)]
pub(crate) struct Segment {
    /// The generation, which the file's name and all records of it repeat.
    pub generation: u64,
    /// The path of its file while the segment is part of the log.
    pub path: PathBuf,
    file: Mutex<Option<Arc<File>>>,
    touched: AtomicBool,
}

impl Segment {
    /// A segment whose file is at `path` and is not open yet.
    pub fn new(generation: u64, path: PathBuf) -> Self {
        Segment {
            generation,
            path,
            file: Mutex::new(None),
            touched: AtomicBool::new(false),
        }
    }

    /// The open file, and whether this call has opened it.
    pub fn file(&self) -> io::Result<(Arc<File>, bool)> {
        let mut slot = self.file.lock();
        self.touched.store(true, Ordering::Relaxed);
        if let Some(file) = &*slot {
            return Ok((file.clone(), false));
        }
        let file = Arc::new(open_existing(&self.path)?);
        *slot = Some(file.clone());
        Ok((file, true))
    }

    /// The file, if it is open.
    pub fn open_file(&self) -> Option<Arc<File>> {
        self.touched.store(true, Ordering::Relaxed);
        self.file.lock().clone()
    }

    /// Closes the file unless it was used since the last call; says whether
    /// it is still open.
    pub fn close_if_idle(&self) -> bool {
        let mut slot = self.file.lock();
        if !self.touched.swap(false, Ordering::Relaxed) {
            *slot = None;
        }
        slot.is_some()
    }
}

/// The sums that are kept of a segment's content.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Stats {
    /// Bytes of its records, without the table.
    pub used: u32,
    /// Bytes of records of chunks that the index names here.
    pub live: u64,
    /// The segment is about to leave the log: the index names nothing in it any more.
    pub retiring: bool,
    /// Number of its delete entries, by the generation that held the chunk.
    pub deletes: BTreeMap<u64, u32>,
}

impl Stats {
    /// Bytes that a compaction would have to write again.
    pub fn kept(&self) -> u64 {
        let deletes: u64 = self.deletes.values().map(|&n| n as u64).sum();
        self.live + deletes * DELETE_LEN as u64
    }
}

/// A range of the log that was synced and cannot be read any more: rot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Damage {
    /// Start of the range.
    pub at: Position,
    /// Bytes in the range.
    pub len: u32,
}
