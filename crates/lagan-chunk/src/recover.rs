//! Opens a store: reads what is on disk and makes it ready to go on.
//!
//! The index on disk covers the log up to a position; the rest is replayed.
//! An index that does not open, or does not fit the files that are there, is
//! wiped and made again from all segments. The segment that was written to
//! last is cut at its torn tail and sealed; a new one begins. A crash in the
//! middle of recovery leaves what the next recovery can read.

use crate::error::ChunkError;
use crate::files::{self, Name};
use crate::index::{DiskIndex, Loaded, Place};
use crate::inner::Inner;
use crate::log::{self, Active};
use crate::options::Options;
use crate::pool::{Class, Fresh, Pool};
use crate::record::{self, Entry, Kind, Position};
use crate::scan::{self, Scan};
use crate::segment::{Damage, Segment, open_existing};
use crate::state::State;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::sync::Arc;

/// Changes replayed before they are merged into the index.
const REPLAY_LEN_MERGE: usize = 256;
/// Chunks that are kept in memory when the index is made anew, so that the
/// store serves at once; about 64 bytes each.
const REBUILD_LEN_MERGE: usize = 2_000_000;

fn io(e: std::io::Error) -> ChunkError {
    ChunkError::Io {
        action: "recover segments",
        source: Arc::new(e),
    }
}

/// The files that were found.
struct Found {
    /// Bytes of each segment's file.
    segments: BTreeMap<u64, u64>,
    free: Vec<u64>,
    next_generation: u64,
}

/// Recovers the store; also returns the segment to append to.
pub(crate) fn recover(options: Options) -> Result<(Inner, Active), ChunkError> {
    files::open_dir(&options.dir)?;
    let found = find_files(&options)?;
    let (index, loaded) = open_index(&options, &found)?;
    let covered = loaded.summary.covered;
    let next_generation = found.next_generation.max(loaded.summary.next_generation);
    let mut recovery = Recovery {
        state: State::new(loaded),
        index,
        options,
        found,
        next_generation,
        damage: Vec::new(),
    };
    recovery.drop_retiring()?;
    recovery.replay(covered)?;
    recovery.finish()
}

fn find_files(options: &Options) -> Result<Found, ChunkError> {
    let mut found = Found {
        segments: BTreeMap::new(),
        free: Vec::new(),
        next_generation: 1,
    };
    for (name, len) in files::list(&options.dir).map_err(io)? {
        let number = match name {
            Name::Segment(n) => {
                found.segments.insert(n, len);
                n
            }
            Name::Free(n) => {
                if len == options.segment_len {
                    found.free.push(n);
                } else {
                    fs::remove_file(files::path(&options.dir, name)).map_err(io)?;
                }
                n
            }
        };
        found.next_generation = found.next_generation.max(number.saturating_add(1));
    }
    Ok(found)
}

/// Opens the index; an empty one if it is not usable.
fn open_index(options: &Options, found: &Found) -> Result<(DiskIndex, Loaded), ChunkError> {
    let dir = files::index_dir(&options.dir);
    let open = || DiskIndex::open(&dir, options.index_cache_bytes);
    let fresh = !dir.exists() && found.segments.is_empty();
    match open() {
        Ok(index) => {
            if fresh {
                return Ok((index, Loaded::default()));
            }
            if let Some(loaded) = index.load().filter(|l| fits(l, found)) {
                return Ok((index, loaded));
            }
            tracing::warn!("chunk index does not fit the segments, making it again");
        }
        Err(error) => tracing::warn!(%error, "chunk index does not open, making it again"),
    }
    match fs::remove_dir_all(&dir) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(io(e)),
        _ => Ok((open()?, Loaded::default())),
    }
}

/// Whether the index speaks of the segments that are there.
fn fits(loaded: &Loaded, found: &Found) -> bool {
    let covered = loaded.summary.covered;
    let named_exist = loaded
        .stats
        .iter()
        .all(|(g, s)| s.retiring || s.used == 0 || found.segments.contains_key(g));
    let existing_named = found
        .segments
        .iter()
        .all(|(g, _)| *g > covered.generation || loaded.stats.contains_key(g));
    let long_enough = found
        .segments
        .iter()
        .all(|(g, len)| loaded.stats.get(g).is_none_or(|s| s.used as u64 <= *len));
    named_exist && existing_named && long_enough
}

struct Recovery {
    state: State,
    index: DiskIndex,
    options: Options,
    found: Found,
    next_generation: u64,
    damage: Vec<Damage>,
}

impl Recovery {
    /// Finishes what a crash interrupted: segments that nothing names.
    fn drop_retiring(&mut self) -> Result<(), ChunkError> {
        let gone = |(g, s): (&u64, &crate::segment::Stats)| {
            (s.retiring || !self.found.segments.contains_key(g)).then_some(*g)
        };
        let gone: Vec<u64> = self.state.stats.iter().filter_map(gone).collect();
        for generation in gone {
            self.state.end_retire(generation);
            if self.found.segments.remove(&generation).is_some() {
                let path = files::path(&self.options.dir, Name::Segment(generation));
                fs::remove_file(path).map_err(io)?;
            }
        }
        Ok(())
    }

    fn open_segment(&self, generation: u64) -> Result<File, ChunkError> {
        let path = files::path(&self.options.dir, Name::Segment(generation));
        open_existing(&path).map_err(io)
    }

    /// Replays the log behind `covered` and seals what is not sealed.
    fn replay(&mut self, covered: Position) -> Result<(), ChunkError> {
        let segments = self.found.segments.clone();
        let last = self.last_with_records(&segments)?;
        for (&generation, &file_len) in &segments {
            let file = self.open_segment(generation)?;
            self.register(generation);
            if generation < covered.generation {
                continue;
            }
            let sealed = scan::load_table(&file, generation, file_len).map_err(io)?;
            let scan = match sealed {
                Some(scan) => scan,
                None => {
                    let may_tear = last.is_none_or(|last| generation >= last);
                    let scan = scan::walk(&file, generation, file_len, covered, may_tear);
                    scan.map_err(io)?
                }
            };
            for &(offset, len) in &scan.damage {
                let at = Position { generation, offset };
                self.damage.push(Damage { at, len });
            }
            self.replay_segment(&file, generation, &scan, covered)?;
            if !scan.sealed {
                self.seal_or_free(&file, generation, &scan)?;
            }
        }
        Ok(())
    }

    fn register(&mut self, generation: u64) {
        let path = files::path(&self.options.dir, Name::Segment(generation));
        let segment = Arc::new(Segment::new(generation, path));
        self.state.segments.insert(generation, segment);
    }

    /// The newest segment that has a record.
    fn last_with_records(&self, segments: &BTreeMap<u64, u64>) -> Result<Option<u64>, ChunkError> {
        for (&generation, &file_len) in segments.iter().rev() {
            let file = self.open_segment(generation)?;
            if scan::load_table(&file, generation, file_len)
                .map_err(io)?
                .is_some()
            {
                return Ok(Some(generation));
            }
            let none = Position::default();
            let scan = scan::walk(&file, generation, file_len, none, true).map_err(io)?;
            if !scan.entries.is_empty() || !scan.damage.is_empty() {
                return Ok(Some(generation));
            }
        }
        Ok(None)
    }

    fn replay_segment(
        &mut self,
        file: &File,
        generation: u64,
        scan: &Scan,
        covered: Position,
    ) -> Result<(), ChunkError> {
        for entry in &scan.entries {
            let at = Position {
                generation,
                offset: entry.offset,
            };
            if at < covered {
                continue;
            }
            self.replay_entry(file, at, entry)?;
            let end = (entry.offset as u64 + entry.record_len()) as u32;
            self.state.publish_end(Position {
                generation,
                offset: end,
            });
            self.merge_if(match self.state.rebuilding {
                true => REBUILD_LEN_MERGE,
                false => REPLAY_LEN_MERGE,
            })?;
        }
        let end = Position {
            generation,
            offset: scan.end,
        };
        if end >= covered {
            self.state.publish_end(end);
        }
        Ok(())
    }

    fn replay_entry(&mut self, file: &File, at: Position, entry: &Entry) -> Result<(), ChunkError> {
        match entry.kind {
            Kind::Chunk => {
                let (len, crc) = (entry.len, entry.crc);
                let place = Place { at, len, crc };
                self.state.replay_chunk(entry.id, place, &self.index)
            }
            Kind::Deletes => match scan::load_deletes(file, at.generation, entry).map_err(io)? {
                Some(items) => self
                    .state
                    .replay_deletes(at.generation, &items, &self.index),
                None => {
                    let len = entry.record_len() as u32;
                    self.damage.push(Damage { at, len });
                    Ok(())
                }
            },
            Kind::Table => Ok(()),
        }
    }

    fn merge_if(&mut self, len: usize) -> Result<(), ChunkError> {
        if self.state.delta.len() < len {
            return Ok(());
        }
        self.state.freeze(self.next_generation);
        while let Some(merge) = self.state.begin_merge() {
            self.index.apply(merge)?;
            self.state.end_merge();
        }
        Ok(())
    }

    /// Cuts the tail and seals the segment, or frees it if it has nothing.
    fn seal_or_free(
        &mut self,
        file: &File,
        generation: u64,
        scan: &Scan,
    ) -> Result<(), ChunkError> {
        if scan.entries.is_empty() && scan.damage.is_empty() {
            let path = files::path(&self.options.dir, Name::Segment(generation));
            fs::remove_file(path).map_err(io)?;
            self.found.segments.remove(&generation);
            self.state.segments.remove(&generation);
            self.state.end_retire(generation);
            return Ok(());
        }
        let file_len = scan.end as u64 + record::table_len(scan.entries.len());
        file.set_len(file_len).map_err(io)?;
        let at = Position {
            generation,
            offset: scan.end,
        };
        log::write_table(file, at, file_len, &scan.entries).map_err(io)?;
        file.sync_all().map_err(io)?;
        self.found.segments.insert(generation, file_len);
        Ok(())
    }

    /// Begins a new segment and hands all over.
    fn finish(mut self) -> Result<(Inner, Active), ChunkError> {
        files::sync_dir(&files::segments_dir(&self.options.dir)).map_err(io)?;
        if !self.state.rebuilding {
            self.merge_if(1)?;
        }
        let log_bytes = self.found.segments.values().sum();
        let free = std::mem::take(&mut self.found.free);
        let pool = Pool::new(self.options.clone(), self.next_generation, free, log_bytes);
        let (fresh, file_len) = match pool.take(Class::Upkeep) {
            Ok(fresh) => (fresh, self.options.segment_len),
            // Nothing can be written, but all can be read.
            Err(ChunkError::NoSpace) => (self.full_segment(&pool)?, 0),
            Err(error) => return Err(error),
        };
        self.state.add_segment(fresh.segment.clone());
        let active = Active::new(fresh, file_len)?;
        let inner = Inner::new(self.options, self.state, self.index, pool);
        inner.set_active_left(active.left());
        for damage in self.damage {
            inner.report_damage(damage);
        }
        Ok((inner, active))
    }

    /// An empty file to stand for the active segment on a full disk: nothing
    /// fits into it, so the first write asks for a segment again.
    fn full_segment(&self, pool: &Pool) -> Result<Fresh, ChunkError> {
        let generation = pool.next_number();
        let path = files::path(&self.options.dir, Name::Segment(generation));
        File::create(&path).map_err(io)?;
        Ok(Fresh {
            segment: Arc::new(Segment::new(generation, path)),
            written: 0,
        })
    }
}
