//! The one thread that writes the log: it drains its queue, writes everything in it,
//! syncs once, and only then answers.

use super::files::{Dir, Segment};
use super::index::{Floor, Index, Place};
use super::record::{self, Header, Kind};
use super::recover::{Checkpoint, Recovered};
use super::segment::{RECORD_HEADER_LEN, SEGMENT_HEADER_LEN, SegmentHeader};
use crate::types::TypeConfig;
use crate::types::alias::{LogId, Vote};
use bytes::Bytes;
use lagan_types::codec;
use openraft::storage::LogFlushed;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::Receiver;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// Receives the outcome once the work is on disk, or the reason why it is not.
pub(super) type Done = oneshot::Sender<Result<(), String>>;

/// Work for the thread.
pub(super) enum Work {
    /// Entries with their payloads, and the callback, unless it was called at once.
    Append(Vec<(LogId, Kind, Bytes)>, Option<LogFlushed<TypeConfig>>),
    Vote(Vote, Done),
    Truncate(LogId, Done),
    /// The state covers that entry durably: forget up to it.
    Purge(LogId),
    Stop,
}

/// Time for which a slow sync is remembered.
const SLOW_REMEMBERED: Duration = Duration::from_secs(10);

/// Figures of the log.
#[derive(Debug)]
pub struct LogStats {
    base: Instant,
    slow: Duration,
    bytes: AtomicU64,
    syncs: AtomicU64,
    sync_us_total: AtomicU64,
    sync_us_max: AtomicU64,
    /// Microseconds from `base` at which the running sync began, plus one; 0: none.
    sync_began: AtomicU64,
    /// Microseconds from `base` at which a slow sync ended, plus one; 0: none.
    slow_at: AtomicU64,
    poisoned: AtomicBool,
}

impl LogStats {
    pub(super) fn new(slow: Duration) -> Self {
        LogStats {
            base: Instant::now(),
            slow,
            bytes: AtomicU64::new(0),
            syncs: AtomicU64::new(0),
            sync_us_total: AtomicU64::new(0),
            sync_us_max: AtomicU64::new(0),
            sync_began: AtomicU64::new(0),
            slow_at: AtomicU64::new(0),
            poisoned: AtomicBool::new(false),
        }
    }

    fn now_us(&self) -> u64 {
        self.base.elapsed().as_micros() as u64
    }

    fn begin(&self) -> u64 {
        let now = self.now_us();
        self.sync_began.store(now + 1, Ordering::Relaxed);
        now
    }

    fn end(&self, began: u64) {
        let now = self.now_us();
        let took = now - began;
        self.sync_began.store(0, Ordering::Relaxed);
        self.syncs.fetch_add(1, Ordering::Relaxed);
        self.sync_us_total.fetch_add(took, Ordering::Relaxed);
        self.sync_us_max.fetch_max(took, Ordering::Relaxed);
        if took > self.slow.as_micros() as u64 {
            self.slow_at.store(now + 1, Ordering::Relaxed);
        }
    }

    fn running_us(&self) -> u64 {
        match self.sync_began.load(Ordering::Relaxed) {
            0 => 0,
            began => self.now_us().saturating_sub(began - 1),
        }
    }

    fn slow(&self) -> bool {
        let ended = self.slow_at.load(Ordering::Relaxed);
        let remembered = SLOW_REMEMBERED.as_micros() as u64;
        self.running_us() > self.slow.as_micros() as u64
            || (ended != 0 && self.now_us().saturating_sub(ended) < remembered)
    }

    /// A write or sync has failed: nothing more is written.
    pub fn poisoned(&self) -> bool {
        self.poisoned.load(Ordering::Acquire)
    }

    /// Sets the log's figures in `stats`.
    pub fn fill(&self, stats: &mut crate::Stats) {
        stats.log_bytes = self.bytes.load(Ordering::Relaxed);
        stats.syncs = self.syncs.load(Ordering::Relaxed);
        stats.sync_us_total = self.sync_us_total.load(Ordering::Relaxed);
        stats.sync_us_max = self.sync_us_max.load(Ordering::Relaxed);
        stats.sync_running_us = self.running_us();
        stats.disk_slow = self.slow();
        stats.poisoned = self.poisoned();
    }
}

/// The state that writer and readers share.
pub(super) struct Shared {
    pub index: Mutex<Index>,
    /// Open files of all segments; lock order: never together with `index`.
    pub segments: Mutex<BTreeMap<u64, Segment>>,
    /// Committed index + 1, put into each record.
    pub committed_next: AtomicU64,
    pub cache_bytes: usize,
    pub stats: LogStats,
    pub floor: Arc<Floor>,
    /// The disk stands still.
    #[cfg(test)]
    pub still: AtomicBool,
}

/// A record that is in the buffer, to be placed when it is written.
struct Pending {
    id: LogId,
    place: Place,
}

/// The writing end.
pub(super) struct Writer {
    dir: Dir,
    shared: Arc<Shared>,
    current: Segment,
    /// Header of the current segment, with which marks are checked.
    header: SegmentHeader,
    /// All of the current segment before this is on disk, as far as this process knows.
    synced: u64,
    /// Offset of the next byte, after the buffer.
    end: u64,
    seed: u32,
    buffer: Vec<u8>,
    pending: Vec<Pending>,
    highest: BTreeMap<u64, u64>,
    vote: Option<Vote>,
    purged: Option<LogId>,
    spare_asked: bool,
    /// Makes the next segment ready; ended before the writer is, so that nobody
    /// works on the files of a log that was stopped.
    spare: Option<JoinHandle<()>>,
}

/// Buffers are given back to the allocator above this size.
const BUFFER_KEPT_LEN: usize = 1024 * 1024;

impl Writer {
    /// Goes on where recovery ended, with a checkpoint to which no old bytes can fit.
    pub fn new(dir: Dir, found: Recovered, shared: Arc<Shared>) -> io::Result<Writer> {
        let (vote, purged) = (found.index.vote, found.index.purged_on_disk);
        let last = found.segments.last_key_value().map(|(_, s)| s.clone());
        let (current, header, end, seed, fresh) = match (last, found.header, found.end) {
            (Some(segment), Some(header), Some((end, seed))) => (segment, header, end, seed, false),
            _ => {
                let header = SegmentHeader {
                    sequence: 1,
                    seed: rand::random(),
                };
                let segment = dir.begin(header, 0)?;
                let end = SEGMENT_HEADER_LEN as u64;
                (segment, header, end, header.seed, true)
            }
        };
        *shared.segments.lock() = found.segments;
        if fresh {
            shared.segments.lock().insert(1, current.clone());
        }
        *shared.index.lock() = found.index;
        let mut writer = Writer {
            dir,
            shared,
            current,
            header,
            synced: 0,
            end,
            seed,
            buffer: Vec::new(),
            pending: Vec::new(),
            highest: found.highest,
            vote,
            purged,
            spare_asked: false,
            spare: None,
        };
        writer.checkpoint()?;
        writer.flush()?;
        writer.current.file.sync_data()?;
        writer.synced = writer.end;
        writer.dir.sync()?;
        writer.note_bytes();
        Ok(writer)
    }

    /// Works until told to stop or a write fails.
    pub fn run(mut self, queue: Receiver<Work>) {
        let mut group = Vec::new();
        while let Ok(first) = queue.recv() {
            group.push(first);
            group.extend(queue.try_iter());
            let stop = group.iter().any(|w| matches!(w, Work::Stop));
            let result = self.write_group(&group);
            if let Err(e) = &result {
                tracing::error!(error = %e, "write log");
                self.shared.stats.poisoned.store(true, Ordering::Release);
            }
            self.publish(&group, &result);
            answer(&mut group, &result);
            if stop || result.is_err() {
                break;
            }
            self.prepare_spare();
        }
        // Whoever asks later gets the closed queue.
        self.end_spare();
    }

    /// Wakes all that wait for the disk. Called before [`answer`], so that openraft never
    /// appends behind a truncation that [`Syncs`](super::syncs::Syncs) does not know.
    fn publish(&self, group: &[Work], result: &io::Result<()>) {
        if result.is_err() {
            return;
        }
        let syncs = &self.shared.floor.syncs;
        for work in group {
            match work {
                Work::Append(entries, _) => {
                    if let Some((id, ..)) = entries.last() {
                        syncs.advance(1, id.index + 1);
                    }
                }
                Work::Truncate(since, _) => syncs.truncate(since.index),
                Work::Vote(..) | Work::Purge(_) | Work::Stop => {}
            }
        }
    }

    fn write_group(&mut self, group: &[Work]) -> io::Result<()> {
        let mut purge = false;
        let mut sync = false;
        for work in group {
            match work {
                Work::Append(entries, _) => {
                    for (id, kind, payload) in entries {
                        self.entry(id, *kind, payload)?;
                    }
                    sync = true;
                }
                Work::Vote(vote, _) => {
                    self.vote = Some(*vote);
                    self.put(Header::of_vote(vote, self.committed()), &[])?;
                    sync = true;
                }
                Work::Truncate(since, _) => {
                    self.put(Header::of(Kind::Truncate, since, self.committed(), 0), &[])?;
                    sync = true;
                }
                Work::Purge(id) => {
                    self.purged = self.purged.max(Some(*id));
                    self.put(Header::of(Kind::Purge, id, self.committed(), 0), &[])?;
                    purge = true;
                }
                Work::Stop => sync = true,
            }
        }
        let retire = if purge { self.retirable() } else { Vec::new() };
        self.flush()?;
        if sync || !retire.is_empty() {
            self.sync()?;
        }
        self.retire(retire)
    }

    fn committed(&self) -> u64 {
        self.shared.committed_next.load(Ordering::Relaxed)
    }

    fn entry(&mut self, id: &LogId, kind: Kind, payload: &Bytes) -> io::Result<()> {
        let header = Header::of(kind, id, self.committed(), payload.len());
        let (offset, seed) = self.put(header, payload)?;
        let segment = self.current.sequence;
        let highest = self.highest.entry(segment).or_default();
        *highest = id.index.max(*highest);
        self.pending.push(Pending {
            id: *id,
            place: Place {
                segment,
                offset,
                len: payload.len() as u32,
                seed,
            },
        });
        Ok(())
    }

    /// Puts a record into the buffer, in a new segment if the current is full;
    /// returns its offset and the CRC that it is seeded with.
    fn put(&mut self, header: Header, payload: &[u8]) -> io::Result<(u64, u32)> {
        let need = (RECORD_HEADER_LEN + payload.len()) as u64;
        if self.end + need > self.current.len {
            self.roll(need)?;
        }
        let (offset, seed) = (self.end, self.seed);
        let mark = Some((&self.header, self.synced));
        self.seed = record::encode_marked(&mut self.buffer, &header, payload, seed, mark);
        self.end += need;
        Ok((offset, seed))
    }

    fn roll(&mut self, need: u64) -> io::Result<()> {
        self.flush()?;
        // The next header says that all before it is whole.
        self.sync()?;
        let header = SegmentHeader {
            sequence: self.current.sequence + 1,
            seed: self.seed,
        };
        self.current = self.dir.begin(header, need + 4096)?;
        self.header = header;
        self.synced = 0;
        self.end = SEGMENT_HEADER_LEN as u64;
        self.spare_asked = false;
        let segment = self.current.clone();
        self.shared
            .segments
            .lock()
            .insert(segment.sequence, segment);
        self.checkpoint()?;
        self.note_bytes();
        Ok(())
    }

    fn checkpoint(&mut self) -> io::Result<()> {
        let payload = codec::encode_serde(&Checkpoint {
            vote: self.vote,
            purged: self.purged,
            nonce: rand::random(),
        });
        let header = Header {
            kind: Kind::Checkpoint,
            index: 0,
            term: 0,
            node: 0,
            committed_next: self.committed(),
            len: payload.len() as u32,
        };
        self.put(header, &payload).map(|_| ())
    }

    /// Writes the buffer and lets readers know where the entries are.
    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let start = self.end - self.buffer.len() as u64;
        self.current.write_at(&self.buffer, start)?;
        self.buffer.clear();
        self.buffer.shrink_to(BUFFER_KEPT_LEN);
        let mut index = self.shared.index.lock();
        for pending in self.pending.drain(..) {
            index.placed(&pending.id, pending.place);
        }
        index.evict(self.shared.cache_bytes);
        Ok(())
    }

    /// Called with an empty buffer.
    fn sync(&mut self) -> io::Result<()> {
        let stats = &self.shared.stats;
        let began = stats.begin();
        #[cfg(test)]
        while self.shared.still.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(1));
        }
        let result = self.current.file.sync_data();
        stats.end(began);
        if result.is_ok() {
            self.synced = self.end;
        }
        result
    }

    /// Segments before the current one whose entries are all purged.
    fn retirable(&self) -> Vec<u64> {
        let Some(purged) = self.purged else {
            return Vec::new();
        };
        let segments = self.shared.segments.lock();
        segments
            .range(..self.current.sequence)
            .map(|(&sequence, _)| sequence)
            .take_while(|s| self.highest.get(s).is_none_or(|&h| h <= purged.index))
            .collect()
    }

    fn retire(&mut self, sequences: Vec<u64>) -> io::Result<()> {
        if sequences.is_empty() {
            return Ok(());
        }
        for &sequence in &sequences {
            self.shared.segments.lock().remove(&sequence);
            self.highest.remove(&sequence);
            self.dir.retire(sequence)?;
        }
        self.dir.sync()?;
        self.note_bytes();
        Ok(())
    }

    /// Once the segment is half full, the next is made ready beside the work.
    fn prepare_spare(&mut self) {
        if self.spare_asked || self.end * 2 < self.current.len {
            return;
        }
        self.spare_asked = true;
        self.end_spare();
        let dir = self.dir.clone();
        let made = std::thread::Builder::new()
            .name("raft-log-spare".into())
            .spawn(move || {
                if let Err(e) = dir.make_spare() {
                    tracing::warn!(error = %e, "prepare log segment");
                }
            });
        match made {
            Ok(thread) => self.spare = Some(thread),
            Err(e) => tracing::warn!(error = %e, "prepare log segment"),
        }
    }

    /// Waits for the thread of [`Self::prepare_spare`]: one segment's zeros at most.
    fn end_spare(&mut self) {
        if self.spare.take().is_some_and(|t| t.join().is_err()) {
            tracing::error!("the thread that prepares log segments panicked");
        }
    }

    fn note_bytes(&self) {
        let bytes = self.dir.bytes();
        self.shared.stats.bytes.store(bytes, Ordering::Relaxed);
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.shared.floor.syncs.end();
    }
}

fn answer(group: &mut Vec<Work>, result: &io::Result<()>) {
    let failed = || io::Error::other("the log is poisoned by a failed write");
    for work in group.drain(..) {
        match work {
            Work::Append(_, Some(done)) => match result {
                Ok(()) => done.log_io_completed(Ok(())),
                Err(_) => done.log_io_completed(Err(failed())),
            },
            Work::Append(_, None) => {}
            Work::Vote(_, done) | Work::Truncate(_, done) => {
                // Nobody waits any more: the node is stopping.
                let _ = done.send(result.as_ref().map(|_| ()).map_err(|e| e.to_string()));
            }
            Work::Purge(_) | Work::Stop => {}
        }
    }
}
