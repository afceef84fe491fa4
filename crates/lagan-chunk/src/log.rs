//! The log thread: appends records, syncs, answers.
//!
//! ```text
//!  queue --take--> stage (place each record) --pwritev--> fdatasync --> publish --> answer
//!                    | does not fit: flush what is staged, seal, next segment
//! ```
//! One thread writes and syncs, so what was synced is always everything up to
//! the start of the batch: that is the frontier in each of its records. While
//! a sync runs, the next batch gathers.
//!
//! A crash in the middle leaves a part of one batch, none of it acknowledged.
//! A full disk leaves the batch unwritten; the next batch goes to the same
//! place. Any other error ends all writing: after a failed sync nobody knows
//! what is on disk.

use crate::append::{Appender, write_end};
use crate::error::ChunkError;
use crate::index::Place;
use crate::inner::Inner;
use crate::pool::{Class, Fresh};
use crate::queue::{Effect, Op};
use crate::record::{self, Entry, Kind, Position};
use crate::segment::Segment;
use crate::state::State;
use bytes::Bytes;
use lagan_types::ChunkId;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Bytes gathered into one sync: enough that the sync's cost vanishes.
const BATCH_LEN_MAX: usize = 8 << 20;
/// Merges that may wait before writers do: 64 thousand chunks.
const FROZEN_MAX: usize = 256;

/// The segment that is being appended to.
pub(crate) struct Active {
    segment: Arc<Segment>,
    file: Arc<File>,
    file_len: u64,
    /// Start of the next batch: all bytes before it are synced.
    pos: u32,
    /// Bytes from the start on whose blocks have been written.
    written: u64,
    entries: Vec<Entry>,
}

impl Active {
    /// An empty segment.
    pub fn new(fresh: Fresh, file_len: u64) -> Result<Self, ChunkError> {
        let Fresh { segment, written } = fresh;
        let (file, _) = segment
            .file()
            .map_err(|e| ChunkError::io("open a segment", e))?;
        Ok(Active {
            segment,
            file,
            file_len,
            pos: 0,
            written,
            entries: Vec::new(),
        })
    }

    /// Bytes that records may still take, less their entries in the table.
    pub fn left(&self) -> u64 {
        self.file_len
            .saturating_sub(self.pos as u64 + record::table_len(self.entries.len()))
    }
}

/// Writes a segment's table at `pos` and its footer at the end of the file,
/// and syncs both.
pub(crate) fn write_table(
    file: &File,
    at: Position,
    file_len: u64,
    entries: &[Entry],
) -> std::io::Result<()> {
    let table = record::encode_table(entries);
    let crc = crc32fast::hash(&table);
    let mut head = record::new_head(Kind::Table, ChunkId(0), table.len() as u32, crc, &[]);
    record::place_head(&mut head, at, at);
    head.extend_from_slice(&table);
    file.write_all_at(&head, at.offset as u64)?;
    let footer = record::encode_footer(at.generation, at.offset);
    file.write_all_at(&footer, file_len - record::FOOTER_LEN as u64)?;
    file.sync_data()
}

/// The thread's own state.
pub(crate) struct Log {
    inner: Arc<Inner>,
    active: Active,
    staged: Vec<(Op, u32)>,
    staged_end: u32,
}

/// Stops all writing if the log thread panics, and answers all ops that wait.
struct FailOnPanic(Arc<Inner>);

impl Drop for FailOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let error = self.0.fail("log thread panicked");
            self.0.queue.close();
            while let Some(ops) = self.0.queue.take(usize::MAX) {
                for op in ops {
                    (op.done)(Err(error.clone()));
                }
            }
        }
    }
}

/// The thread's body: until the queue is closed and empty. Seals the segment
/// if the store was closed, and leaves it as a crash would if it was dropped.
pub(crate) fn run(inner: Arc<Inner>, active: Active) {
    let _guard = FailOnPanic(inner.clone());
    let mut log = Log {
        staged_end: active.pos,
        inner,
        active,
        staged: Vec::new(),
    };
    while let Some(ops) = log.inner.queue.take(BATCH_LEN_MAX) {
        log.commit(ops);
    }
    if log.inner.closing.load(Ordering::Acquire)
        && log.inner.check_failed().is_ok()
        && log.active.pos > 0
        && let Err(error) = log.seal()
    {
        tracing::warn!(%error, "last segment not sealed");
    }
}

impl Log {
    fn commit(&mut self, ops: Vec<Op>) {
        self.wait_for_merge();
        for op in ops {
            if let Err(error) = self.inner.check_failed() {
                self.answer(vec![op], Err(error));
                continue;
            }
            let len = op.record_len();
            if len > 0 && !self.fits(len) {
                self.flush();
                if let Err(error) = self.roll(op.class(), len) {
                    self.inner.press();
                    self.answer(vec![op], Err(error));
                    continue;
                }
            }
            self.stage(op);
        }
        self.flush();
    }

    /// Waits while merges are behind.
    fn wait_for_merge(&self) {
        let mut state = self.inner.state.lock();
        while state.frozen.len() >= FROZEN_MAX
            && self.inner.check_failed().is_ok()
            && !self.inner.stopping.load(Ordering::Acquire)
        {
            self.inner.merge_wanted.notify_one();
            let second = std::time::Duration::from_secs(1);
            self.inner.merged.wait_for(&mut state, second);
        }
    }

    fn fits(&self, len: u64) -> bool {
        let entries = self.active.entries.len() + self.staged.len() + 1;
        self.staged_end as u64 + len + record::table_len(entries) <= self.active.file_len
    }

    fn stage(&mut self, mut op: Op) {
        let offset = self.staged_end;
        if !op.head.is_empty() {
            let generation = self.active.segment.generation;
            let at = |offset| Position { generation, offset };
            record::place_head(&mut op.head, at(offset), at(self.active.pos));
            self.staged_end += op.record_len() as u32;
        }
        self.staged.push((op, offset));
    }

    /// Seals the segment and begins the next one, for a record of `len` bytes.
    fn roll(&mut self, class: Class, len: u64) -> Result<(), ChunkError> {
        if len + record::table_len(1) > self.inner.options.segment_len {
            return Err(ChunkError::Invalid("chunk longer than a segment"));
        }
        let fresh = self.inner.pool.take(class)?;
        let segment = fresh.segment.clone();
        let next = Active::new(fresh, self.inner.options.segment_len)?;
        if let Err(error) = self.seal() {
            return Err(self.inner.fail(&error.to_string()));
        }
        self.inner.state.lock().add_segment(segment);
        self.active = next;
        self.staged_end = 0;
        self.inner.set_active_left(self.active.left());
        self.inner.wake_space();
        Ok(())
    }

    fn seal(&mut self) -> Result<(), ChunkError> {
        if self.active.entries.is_empty() {
            return Ok(());
        }
        let at = Position {
            generation: self.active.segment.generation,
            offset: self.active.pos,
        };
        write_table(
            &self.active.file,
            at,
            self.active.file_len,
            &self.active.entries,
        )
        .map_err(|e| ChunkError::Io {
            action: "seal a segment",
            source: Arc::new(e),
        })
    }

    /// Writes and syncs what is staged, and answers it.
    fn flush(&mut self) {
        let staged = std::mem::take(&mut self.staged);
        if staged.is_empty() {
            return;
        }
        let start = self.active.pos;
        let mut result = Ok(());
        if self.staged_end > start {
            self.inner.set_busy(true);
            result = self.write(&staged);
            self.inner.syncs.fetch_add(1, Ordering::Relaxed);
            self.inner.set_busy(false);
        }
        match &result {
            Ok(()) => {
                self.active.pos = self.staged_end;
                self.active.entries.extend(staged.iter().filter_map(entry));
                self.publish(&staged);
            }
            Err(_) => self.staged_end = start,
        }
        self.answer(staged.into_iter().map(|(op, _)| op).collect(), result);
    }

    fn write(&mut self, staged: &[(Op, u32)]) -> Result<(), ChunkError> {
        let end = match self.write_records(staged) {
            Ok(end) => end,
            Err(error) => {
                return Err(match ChunkError::io("write records", error) {
                    ChunkError::NoSpace => ChunkError::NoSpace,
                    other => self.inner.fail(&other.to_string()),
                });
            }
        };
        let synced = self.active.file.sync_data();
        synced.map_err(|e| self.inner.fail(&format!("sync segment: {e}")))?;
        self.active.written = self.active.written.max(end);
        Ok(())
    }

    /// Writes the records; returns the end of the last write.
    fn write_records(&self, staged: &[(Op, u32)]) -> std::io::Result<u64> {
        let start = self.active.pos as u64;
        let mut appender = Appender::new(&self.active.file, start);
        for (op, _) in staged.iter().filter(|(op, _)| !op.head.is_empty()) {
            appender.record(&op.head, &op.data)?;
        }
        let end = appender.end();
        let written = match self.inner.options.prewrite {
            true => self.active.written,
            false => u64::MAX,
        };
        let to = write_end(end, end - start, written).min(self.active.file_len);
        appender.finish(to)?;
        Ok(to)
    }

    fn publish(&self, staged: &[(Op, u32)]) {
        let generation = self.active.segment.generation;
        let next_generation = self.inner.pool.next_generation();
        let mut state = self.inner.state.lock();
        for (op, offset) in staged {
            let at = |offset| Position { generation, offset };
            publish_op(&mut state, op, at(*offset));
            // Record by record, so that a merge may end at any of them.
            state.publish_end(at(*offset + op.record_len() as u32));
            if state.freeze_due() {
                state.freeze(next_generation);
            }
        }
        let merge_due = !state.frozen.is_empty();
        drop(state);
        if merge_due {
            self.inner.merge_wanted.notify_one();
        }
        self.inner.set_active_left(self.active.left());
    }

    /// Answers ops and gives back their room in the queue.
    fn answer(&self, ops: Vec<Op>, result: Result<(), ChunkError>) {
        let counted = ops.iter().filter(|op| !op.lazy);
        let (count, len) = counted.fold((0, 0), |(n, len), op| (n + 1, len + op.data.len()));
        self.inner.queue.release(count, len);
        if result.is_err() {
            let mut state = self.inner.state.lock();
            for op in &ops {
                if let Effect::Write { id, .. } = op.effect {
                    state.pending.remove(&id);
                }
            }
        }
        for op in ops {
            let result = match op.effect {
                Effect::Await(id) => result.clone().and_then(|()| self.inner.check_here(id)),
                _ => result.clone(),
            };
            let done = op.done;
            if catch_unwind(AssertUnwindSafe(|| done(result))).is_err() {
                tracing::error!("a write's callback panicked");
            }
        }
    }
}

fn entry((op, offset): &(Op, u32)) -> Option<Entry> {
    let (kind, id, crc) = match &op.effect {
        Effect::Write { id, crc, .. } | Effect::Move { id, crc, .. } => (Kind::Chunk, *id, *crc),
        Effect::Delete(_) | Effect::Carry(_) => {
            (Kind::Deletes, ChunkId(0), crc32fast::hash(&op.data))
        }
        Effect::Await(_) | Effect::Settle => return None,
    };
    Some(Entry {
        kind,
        offset: *offset,
        len: op.data.len() as u32,
        crc,
        id,
    })
}

fn publish_op(state: &mut State, op: &Op, at: Position) {
    match &op.effect {
        Effect::Write { id, len, crc } => {
            let (len, crc) = (*len, *crc);
            state.insert(*id, Place { at, len, crc });
        }
        Effect::Move { id, len, crc, from } => {
            let (len, crc) = (*len, *crc);
            state.relocate(*id, *from, Place { at, len, crc });
        }
        Effect::Delete(items) => {
            for (id, place) in items {
                state.remove(*id, *place);
            }
            let items: Vec<_> = items.iter().map(|(id, p)| (*id, p.at.generation)).collect();
            state.count_deletes(at.generation, &items);
        }
        Effect::Carry(items) => state.count_deletes(at.generation, items),
        Effect::Await(_) | Effect::Settle => {}
    }
}

/// The payload of a chunk as an op that moves it.
pub(crate) fn move_op(id: ChunkId, from: Place, crcs: &[u32], data: Bytes) -> Op {
    let (len, crc) = (from.len, from.crc);
    Op {
        head: record::new_head(Kind::Chunk, id, len, crc, crcs),
        data,
        effect: Effect::Move { id, len, crc, from },
        lazy: false,
        done: Box::new(|_| {}),
    }
}

#[cfg(test)]
mod tests;
