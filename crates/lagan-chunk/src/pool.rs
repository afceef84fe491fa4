//! Makes, reuses and counts the files that segments are made of.
//!
//! A segment's space is reserved on disk when it is made, so a full disk shows
//! there and not in the middle of a record.

use crate::error::ChunkError;
use crate::files::{self, Name};
use crate::options::Options;
use crate::segment::Segment;
use crate::sys;
use parking_lot::Mutex;
use std::fs::{self, OpenOptions};
use std::io;
use std::sync::Arc;

/// Free files kept for reuse; more are deleted.
const FREE_MAX: usize = 2;

/// The use that space is wanted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    /// A new chunk: leaves the reserve alone.
    Chunk,
    /// Chunks that came with commits, promised already: may use half of the reserve.
    Staged,
    /// Compaction and deletes: may use the reserve.
    Upkeep,
}

struct Free {
    number: u64,
    /// The segment that the file was last, perhaps still pinned by readers; `None`:
    /// nothing is known of the file's content.
    pin: Option<Arc<Segment>>,
}

/// A segment to append to.
pub(crate) struct Fresh {
    pub segment: Arc<Segment>,
    /// Bytes from its start on whose blocks were written before, in an earlier
    /// life: to write these again changes no metadata of the file system.
    pub written: u64,
}

struct State {
    next_generation: u64,
    free: Vec<Free>,
    /// Bytes of files that are part of the log.
    log_bytes: u64,
}

/// The files that segments are made of.
pub(crate) struct Pool {
    options: Options,
    state: Mutex<State>,
}

/// Bytes on the disk, as the pool counts them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Room {
    /// Bytes that all segment files together may take.
    pub total: u64,
    /// Bytes that the log takes.
    pub log: u64,
    /// Bytes that the log may still take for chunks, in whole segments.
    pub left: u64,
}

impl Pool {
    /// A pool over the files that recovery found. `free` are numbers of files
    /// for reuse, `log_bytes` the bytes of those in the log.
    pub fn new(options: Options, next_generation: u64, free: Vec<u64>, log_bytes: u64) -> Self {
        let pool = Pool {
            options,
            state: Mutex::new(State {
                next_generation,
                free: Vec::new(),
                log_bytes,
            }),
        };
        for number in free {
            pool.add_free(number, None);
        }
        pool
    }

    /// Counts the bytes that there are and that are left.
    pub fn room(&self) -> Result<Room, ChunkError> {
        let available = sys::available_bytes(&files::segments_dir(&self.options.dir))
            .map_err(|e| ChunkError::io("ask for free disk space", e))?;
        let state = self.state.lock();
        let free = state.free.len() as u64 * self.options.segment_len;
        let disk = available + free + state.log_bytes;
        let total = disk.min(self.options.capacity_bytes.unwrap_or(u64::MAX));
        let left = total.saturating_sub(state.log_bytes + self.options.reserve());
        Ok(Room {
            total,
            log: state.log_bytes,
            left: left - left % self.options.segment_len,
        })
    }

    /// Makes the next segment, with its space reserved on disk.
    ///
    /// # Errors
    /// [`ChunkError::NoSpace`], with nothing changed.
    pub fn take(&self, class: Class) -> Result<Fresh, ChunkError> {
        let room = self.room()?;
        let enough = match class {
            Class::Chunk => room.left > 0,
            Class::Staged => {
                let half = self.options.reserve() / 2;
                room.total.saturating_sub(room.log) >= self.options.segment_len + half
            }
            Class::Upkeep => room.total.saturating_sub(room.log) >= self.options.segment_len,
        };
        if !enough {
            return Err(ChunkError::NoSpace);
        }
        let (number, written) = match self.reusable() {
            Some(Free { number, pin }) => (number, pin.map_or(0, |_| self.options.segment_len)),
            None => (self.make_file()?, 0),
        };
        let segment = self.begin(number)?;
        Ok(Fresh { segment, written })
    }

    /// Names a free file as the next segment.
    fn begin(&self, number: u64) -> Result<Arc<Segment>, ChunkError> {
        let io = |e| ChunkError::io("begin a segment", e);
        let dir = &self.options.dir;
        let generation = self.next_number();
        let path = files::path(dir, Name::Segment(generation));
        fs::rename(files::path(dir, Name::Free(number)), &path).map_err(io)?;
        files::sync_dir(&files::segments_dir(dir)).map_err(io)?;
        self.state.lock().log_bytes += self.options.segment_len;
        Ok(Arc::new(Segment::new(generation, path)))
    }

    /// A number that no file has or had.
    pub fn next_number(&self) -> u64 {
        let mut state = self.state.lock();
        let number = state.next_generation;
        state.next_generation += 1;
        number
    }

    fn reusable(&self) -> Option<Free> {
        let mut state = self.state.lock();
        let unpinned = |f: &Free| f.pin.as_ref().is_none_or(|p| Arc::strong_count(p) == 1);
        let at = state.free.iter().position(unpinned)?;
        Some(state.free.swap_remove(at))
    }

    /// Makes a free file ahead if there is none, so that the log need not wait
    /// for it. For a thread of its own.
    pub fn prepare(&self) -> Result<(), ChunkError> {
        if !self.state.lock().free.is_empty() {
            return Ok(());
        }
        if self.room()?.left == 0 {
            return Ok(());
        }
        let number = self.make_file()?;
        self.state.lock().free.push(Free { number, pin: None });
        Ok(())
    }

    /// Makes a file of full length, all its space reserved.
    fn make_file(&self) -> Result<u64, ChunkError> {
        let number = self.next_number();
        let path = files::path(&self.options.dir, Name::Free(number));
        self.fill_file(&path).map_err(|e| {
            // What cannot be removed now is removed at the next open.
            let _ = fs::remove_file(&path);
            ChunkError::io("make a segment file", e)
        })?;
        Ok(number)
    }

    fn fill_file(&self, path: &std::path::Path) -> io::Result<()> {
        let file = OpenOptions::new().write(true).create_new(true).open(path)?;
        sys::allocate(&file, self.options.segment_len)?;
        file.sync_all()
    }

    /// Takes a segment's file out of the log, durably. Its bytes stay as long as
    /// a reader pins the segment.
    pub fn retire(&self, segment: Arc<Segment>, file_len: u64) -> Result<(), ChunkError> {
        let io = |e| ChunkError::io("retire a segment", e);
        let dir = &self.options.dir;
        let number = segment.generation;
        fs::rename(&segment.path, files::path(dir, Name::Free(number))).map_err(io)?;
        files::sync_dir(&files::segments_dir(dir)).map_err(io)?;
        {
            let mut state = self.state.lock();
            state.log_bytes = state.log_bytes.saturating_sub(file_len);
        }
        if file_len == self.options.segment_len {
            self.add_free(number, Some(segment));
            return Ok(());
        }
        fs::remove_file(files::path(dir, Name::Free(number))).map_err(io)
    }

    fn add_free(&self, number: u64, pin: Option<Arc<Segment>>) {
        let mut state = self.state.lock();
        if state.free.len() < FREE_MAX {
            state.free.push(Free { number, pin });
            return;
        }
        drop(state);
        let path = files::path(&self.options.dir, Name::Free(number));
        if let Err(error) = fs::remove_file(&path) {
            tracing::warn!(%error, ?path, "free segment file cannot be removed");
        }
    }

    /// The generation after the newest one.
    pub fn next_generation(&self) -> u64 {
        self.state.lock().next_generation
    }
}
