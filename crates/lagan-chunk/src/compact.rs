//! Frees segments whose chunks are all gone, and segments that are less than half
//! alive, whose chunks it writes again.
//!
//! ```text
//!  pick --> victim --> move chunks, carry deletes --> merge + flush index --> rename to free
//!                      (crash: both copies are there; the newer one counts,
//!                       and the segment stays a victim)
//! ```
//! A delete entry is dropped once no segment of the generation that held its chunk
//! exists. Victims are freed before all others, so that no half-emptied segment holds
//! an older copy of a chunk when a delete entry is judged.

use crate::error::ChunkError;
use crate::index::Place;
use crate::inner::{Answer, Inner};
use crate::log;
use crate::merge;
use crate::queue::{Done, Effect, Op};
use crate::record::{self, DELETE_LEN, Entry, Kind, Position};
use crate::scan::{self, Scan};
use crate::segment::{Damage, Segment};
use crate::sys;
use bytes::Bytes;
use lagan_types::ChunkId;
use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::time::Duration;

/// Bytes moved before their sync is awaited.
const MOVE_LEN_MAX: u64 = 4 << 20;
/// Records moved before their sync is awaited.
const MOVE_MAX: usize = 256;
/// How often the thread looks for work.
const INTERVAL: Duration = Duration::from_secs(1);

fn io(e: std::io::Error) -> ChunkError {
    ChunkError::Io {
        action: "compact a segment",
        source: Arc::new(e),
    }
}

/// The thread's body: prepares segments and compacts until the store stops.
pub(crate) fn run(inner: Arc<Inner>) {
    loop {
        {
            let mut signal = inner.space.lock();
            if !signal.stop && !signal.wake {
                inner.space_wanted.wait_for(&mut signal, INTERVAL);
            }
            if signal.stop {
                return;
            }
            signal.wake = false;
        }
        if inner.check_failed().is_err() {
            continue;
        }
        if let Err(error) = inner.pool.prepare() {
            tracing::debug!(%error, "no segment prepared");
        }
        if let Err(error) = compact_once(&inner) {
            tracing::warn!(%error, "segment not compacted");
        }
    }
}

/// Frees the segment that [`pick`] chooses, if any. Says whether it did.
pub(crate) fn compact_once(inner: &Inner) -> Result<bool, ChunkError> {
    let _compacting = inner.compacting.lock();
    inner.check_failed()?;
    // A full store is asked for nothing any more: it has to look by itself.
    let pressed = inner.pressed.swap(false, Ordering::Relaxed) || inner.is_full();
    let Some(segment) = pick(inner, pressed) else {
        return Ok(false);
    };
    let generation = segment.generation;
    inner.state.lock().victims.insert(generation);
    let (file, _) = segment.file().map_err(io)?;
    let file_len = file.metadata().map_err(io)?.len();
    let scan = match scan::load_table(&file, generation, file_len).map_err(io)? {
        Some(scan) => scan,
        None => scan::walk(&file, generation, file_len, Position::default(), false).map_err(io)?,
    };
    empty(inner, &file, generation, &scan)?;
    retire(inner, segment, file_len)?;
    Ok(true)
}

/// The segment to free: a victim of an earlier compaction, else the emptiest
/// sealed one if it is less than half alive, or if space is wanted and it has
/// anything to give.
fn pick(inner: &Inner, pressed: bool) -> Option<Arc<Segment>> {
    let state = inner.state.lock();
    let active = *state.segments.last_key_value()?.0;
    let sealed = |g: &u64| *g < active && state.segments.contains_key(g);
    if let Some(victim) = state.victims.iter().copied().find(sealed) {
        return state.segments.get(&victim).cloned();
    }
    let ratio = |kept: u64, used: u32| kept as f64 / (used as f64).max(1.0);
    let (generation, share) = state
        .stats
        .iter()
        .filter(|(g, _)| sealed(g))
        .map(|(g, s)| (*g, ratio(s.kept(), s.used)))
        .min_by(|a, b| a.1.total_cmp(&b.1))?;
    let limit = if pressed { 0.9 } else { 0.5 };
    if share < limit {
        state.segments.get(&generation).cloned()
    } else {
        None
    }
}

/// Writes again what the segment still holds.
fn empty(inner: &Inner, file: &File, generation: u64, scan: &Scan) -> Result<(), ChunkError> {
    let mut entries = scan.entries.iter().peekable();
    while entries.peek().is_some() {
        // Released between batches, so that deletes do not wait for long.
        let _moves = inner.moves.lock();
        let mut moves = Moves::new(inner);
        while let Some(entry) = entries.next_if(|_| moves.has_room()) {
            let at = Position {
                generation,
                offset: entry.offset,
            };
            match entry.kind {
                Kind::Chunk => moves.chunk(file, at, entry)?,
                Kind::Deletes => moves.deletes(file, at, entry)?,
                Kind::Table => {}
            }
        }
        moves.wait()?;
    }
    Ok(())
}

/// One batch of records that move.
struct Moves<'a> {
    inner: &'a Inner,
    sender: mpsc::SyncSender<Result<(), ChunkError>>,
    receiver: Answer,
    len: u64,
    count: usize,
}

impl<'a> Moves<'a> {
    fn new(inner: &'a Inner) -> Self {
        let (sender, receiver) = mpsc::sync_channel(MOVE_MAX);
        Moves {
            inner,
            sender,
            receiver,
            len: 0,
            count: 0,
        }
    }

    fn has_room(&self) -> bool {
        self.len < MOVE_LEN_MAX && self.count < MOVE_MAX
    }

    fn done(&self) -> Done {
        let sender = self.sender.clone();
        Box::new(move |result| {
            let _ = sender.send(result);
        })
    }

    fn push(&mut self, op: Op) {
        self.len += op.record_len();
        self.count += 1;
        self.inner.push(op);
    }

    /// Moves a chunk as it is, with its CRCs: rotten bytes stay visibly wrong. A chunk
    /// whose header rotted cannot be recognized any more and is dropped.
    fn chunk(&mut self, file: &File, at: Position, entry: &Entry) -> Result<(), ChunkError> {
        let (id, len, crc) = (entry.id, entry.len, entry.crc);
        let place = Place { at, len, crc };
        if self.inner.lookup(id)? != Some(place) {
            return Ok(());
        }
        let mut bytes =
            sys::read_at(file, at.offset as u64, entry.record_len() as usize).map_err(io)?;
        let header = record::parse_head(&bytes)
            .filter(|h| h.kind == Kind::Chunk && h.id == id && h.at == at && h.len == len);
        let Some(header) = header.filter(|h| h.head_len() as usize + len as usize <= bytes.len())
        else {
            let len = entry.record_len() as u32;
            self.inner.report_damage(Damage { at, len });
            self.inner.state.lock().remove(id, place);
            return Ok(());
        };
        let crcs = record::parse_crcs(&bytes, &header);
        bytes.truncate(header.head_len() as usize + len as usize);
        let data = Bytes::from(bytes).split_off(header.head_len() as usize);
        let mut op = log::move_op(id, place, &crcs, data);
        op.done = self.done();
        self.push(op);
        Ok(())
    }

    /// Carries over the delete entries that are still needed.
    fn deletes(&mut self, file: &File, at: Position, entry: &Entry) -> Result<(), ChunkError> {
        let Some(items) = scan::load_deletes(file, at.generation, entry).map_err(io)? else {
            let len = entry.record_len() as u32;
            self.inner.report_damage(Damage { at, len });
            return Ok(());
        };
        let items: Vec<(ChunkId, u64)> = {
            let state = self.inner.state.lock();
            let needed = |g: &u64| *g != at.generation && state.stats.contains_key(g);
            items.into_iter().filter(|(_, g)| needed(g)).collect()
        };
        if !items.is_empty() {
            self.len += items.len() as u64 * DELETE_LEN as u64;
            let done = self.done();
            self.push(Op::deletes(&items, Effect::Carry(items.clone()), done));
        }
        Ok(())
    }

    /// Waits until all records of the batch are on disk.
    fn wait(self) -> Result<(), ChunkError> {
        for _ in 0..self.count {
            self.inner.wait_for(&self.receiver)?;
        }
        Ok(())
    }
}

/// Takes the segment out of the log: first the index, durably, then the file.
fn retire(inner: &Inner, segment: Arc<Segment>, file_len: u64) -> Result<(), ChunkError> {
    let generation = segment.generation;
    inner.state.lock().begin_retire(generation);
    merge::merge(inner)?;
    inner.index.flush()?;
    if let Err(error) = inner.pool.retire(segment, file_len) {
        return Err(inner.fail(&error.to_string()));
    }
    inner.state.lock().end_retire(generation);
    Ok(())
}
