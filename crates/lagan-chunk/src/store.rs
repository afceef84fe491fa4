//! The store's public face.

use crate::compact;
use crate::error::ChunkError;
use crate::inner::Inner;
use crate::log;
use crate::merge;
use crate::options::Options;
use crate::queue::{Done, Effect, Op};
use crate::read::{self, BlockRange};
use crate::record::{self, Kind};
use crate::recover;
use crate::segment::Damage;
use crate::state::Admission;
use bytes::Bytes;
use lagan_types::chunk::{combine_crcs, verify_blocks};
use lagan_types::limits::CHUNK_LEN_MAX;
use lagan_types::{ChunkId, SetId};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

/// Chunks in one deletes record.
const DELETES_MAX: usize = 128;

/// The usage of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Bytes of records of the chunks that are here.
    pub used_bytes: u64,
    /// Bytes that chunks may still take, the reserve left out; some of it may
    /// need a compaction first.
    pub free_bytes: u64,
    /// The sum of both.
    pub total_bytes: u64,
    /// Chunks that are here.
    pub chunks: u64,
    /// Whether a chunk of full length would be refused now.
    pub full: bool,
    /// Segments in the log.
    pub segments: u64,
    /// Bytes of the segments' files.
    pub segment_bytes: u64,
    /// Damaged ranges found since the store was opened.
    pub damaged: u64,
}

/// One node's store of immutable chunks. A method may wait for the disk unless its
/// text says otherwise.
pub struct Store {
    inner: Arc<Inner>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Store {
    /// Opens the store in `options.dir`, makes it if it is missing, and recovers it.
    ///
    /// # Errors
    /// [`ChunkError::Format`] for another format; [`ChunkError::Io`].
    pub fn open(options: Options) -> Result<Arc<Store>, ChunkError> {
        Store::open_with(options, true)
    }

    /// Opens as [`Store::open`] does; `background` says whether merges, preparation
    /// and compaction happen by themselves.
    pub(crate) fn open_with(options: Options, background: bool) -> Result<Arc<Store>, ChunkError> {
        options.check()?;
        let (inner, active) = recover::recover(options)?;
        let inner = Arc::new(inner);
        let mut threads = vec![spawn("chunk-log", &inner, move |i| log::run(i, active))?];
        if background {
            threads.push(spawn("chunk-merge", &inner, merge::run)?);
            threads.push(spawn("chunk-space", &inner, compact::run)?);
        }
        Ok(Arc::new(Store {
            inner,
            threads: Mutex::new(threads),
        }))
    }

    /// Keeps a chunk that came with a command in memory, where [`Store::read`] finds it, until
    /// [`Store::let_go`] was called as often, and [`Store::stage`] has ended.
    pub fn hold(&self, id: ChunkId, data: Bytes, crc: u32) {
        self.inner.staged.hold(id, data, crc);
    }

    /// Takes one [`Store::hold`] back.
    pub fn let_go(&self, id: ChunkId) {
        self.inner.staged.let_go(id);
    }

    /// Queues a chunk of one block to be written some time later: with others, or when
    /// somebody calls [`Store::settle`]. Until then it is read from memory. It may use the
    /// reserve. `done` is called as by [`Store::write`]; after an error the chunk stays in
    /// memory, and the caller stages it again or gives it up by [`Store::unstage`]. Never waits
    /// for a write.
    ///
    /// # Errors
    /// Through `done`: those of [`Store::write`].
    pub fn stage(&self, id: ChunkId, data: Bytes, crc: u32, done: Done) {
        let inner = &self.inner;
        inner.staged.stage(id, data.clone(), crc);
        let staging = inner.clone();
        let done: Done = Box::new(move |result| {
            if result.is_ok() {
                staging.staged.end(id);
            }
            done(result);
        });
        let (len, _) = match self.check_write(id, &data, &[crc]) {
            Ok(content) => content,
            Err(error) => return done(Err(error)),
        };
        let admission = inner.state.lock().admit(id, (len, crc), &inner.index);
        let (head, data, effect) = match admission {
            Ok(Admission::New) => {
                let head = record::new_head(Kind::Chunk, id, len, crc, &[crc]);
                (head, data, Effect::Write { id, len, crc })
            }
            Ok(Admission::Waiting) => (Vec::new(), Bytes::new(), Effect::Await(id)),
            Ok(Admission::Here) => return done(Ok(())),
            Ok(Admission::Conflict) => return done(Err(ChunkError::Conflict(id))),
            Err(error) => return done(Err(error)),
        };
        inner.push_lazy(Op {
            head,
            data,
            effect,
            lazy: true,
            done,
        });
    }

    /// Gives up a chunk that could not be staged.
    pub fn unstage(&self, id: ChunkId) {
        self.inner.staged.end(id);
    }

    /// Has all that was staged before written at once; `done` is called after that.
    pub fn settle(&self, done: Done) {
        self.inner.push(Op::settle(done));
    }

    /// Does what [`Store::settle`] does, and waits for it.
    ///
    /// # Errors
    /// [`ChunkError::Failed`], [`ChunkError::Closed`].
    pub fn settle_blocking(&self) -> Result<(), ChunkError> {
        self.inner.push_and_wait(Op::settle)
    }

    /// Waits until the chunk is not on its way to disk any more.
    fn settle_staged(&self, ids: &[ChunkId]) -> Result<(), ChunkError> {
        match ids.iter().any(|id| self.inner.staged.is_staged(*id)) {
            true => self.settle_blocking(),
            false => Ok(()),
        }
    }

    /// Bytes of chunks that are in memory and perhaps not on disk.
    pub fn staged_bytes(&self) -> usize {
        self.inner.staged.len()
    }

    /// Queues a chunk to be written; `done` is called once it is on disk or
    /// has failed. Waits (bounded) only while too many bytes are in flight.
    ///
    /// Writing a chunk that is here already, with the same length and CRC, is
    /// no error. `done` may be called before this returns.
    ///
    /// # Errors
    /// Through `done`: [`ChunkError::WrongCrc`], [`ChunkError::Conflict`],
    /// [`ChunkError::NoSpace`], [`ChunkError::Busy`], [`ChunkError::Failed`].
    pub fn write(&self, id: ChunkId, data: Bytes, block_crcs: &[u32], done: Done) {
        let inner = &self.inner;
        let (len, crc) = match self.check_write(id, &data, block_crcs) {
            Ok(content) => content,
            Err(error) => return done(Err(error)),
        };
        let admission = inner.state.lock().admit(id, (len, crc), &inner.index);
        match admission {
            Ok(Admission::New) => inner.push(Op {
                head: record::new_head(Kind::Chunk, id, len, crc, block_crcs),
                data,
                effect: Effect::Write { id, len, crc },
                lazy: false,
                done,
            }),
            Ok(Admission::Waiting) => inner.push(Op {
                head: Vec::new(),
                data: Bytes::new(),
                effect: Effect::Await(id),
                lazy: false,
                done,
            }),
            Ok(Admission::Here) => done(Ok(())),
            Ok(Admission::Conflict) => done(Err(ChunkError::Conflict(id))),
            Err(error) => done(Err(error)),
        }
    }

    fn check_write(
        &self,
        id: ChunkId,
        data: &Bytes,
        block_crcs: &[u32],
    ) -> Result<(u32, u32), ChunkError> {
        self.inner.check_failed()?;
        if data.is_empty() || data.len() > CHUNK_LEN_MAX as usize {
            return Err(ChunkError::Invalid("chunk length out of range"));
        }
        let len = data.len() as u32;
        if record::chunk_record_len(len) + record::table_len(1) > self.inner.options.segment_len {
            return Err(ChunkError::Invalid("chunk longer than a segment"));
        }
        match combine_crcs(block_crcs, len) {
            Some(crc) if verify_blocks(data, block_crcs) => Ok((len, crc)),
            _ => Err(ChunkError::WrongCrc(id)),
        }
    }

    /// Whether [`Store::write`] of `len` bytes would not wait now. Callers that must
    /// not wait ask before, and hand a write that would to a thread that may.
    pub fn has_room(&self, len: usize) -> bool {
        self.inner.queue.has_room(len)
    }

    /// Writes a chunk and waits until it is on disk.
    ///
    /// # Errors
    /// Fails as [`Store::write`] does.
    pub fn write_blocking(
        &self,
        id: ChunkId,
        data: Bytes,
        block_crcs: &[u32],
    ) -> Result<(), ChunkError> {
        let (sender, receiver) = mpsc::sync_channel(1);
        let done = Box::new(move |result| {
            let _ = sender.send(result);
        });
        self.write(id, data, block_crcs, done);
        self.inner.wait_for(&receiver)
    }

    /// Puts a good copy in the place of a chunk that is here, in one step: a crash
    /// leaves the old record or the new one. Returns false and writes nothing if the
    /// chunk is not here (any more): a deleted chunk stays deleted.
    ///
    /// # Errors
    /// [`ChunkError::WrongCrc`], [`ChunkError::NoSpace`], [`ChunkError::Failed`],
    /// [`ChunkError::Index`].
    pub fn replace(
        &self,
        id: ChunkId,
        data: Bytes,
        block_crcs: &[u32],
    ) -> Result<bool, ChunkError> {
        let inner = &self.inner;
        let (len, crc) = self.check_write(id, &data, block_crcs)?;
        self.settle_staged(&[id])?;
        let _moves = inner.moves.lock();
        let Some(from) = inner.lookup(id)? else {
            return Ok(false);
        };
        // As in a compaction: the segment with the older record goes before the
        // one with the newer, or a later delete would be forgotten too early.
        inner.state.lock().victims.insert(from.at.generation);
        let head = record::new_head(Kind::Chunk, id, len, crc, block_crcs);
        let effect = Effect::Move { id, len, crc, from };
        inner.push_and_wait(|done| Op {
            head,
            data,
            effect,
            lazy: false,
            done,
        })?;
        Ok(true)
    }

    /// The whole blocks that cover `offset..offset + len` of a chunk, and
    /// their CRCs, which the reader checks. Cut at the chunk's end.
    ///
    /// # Errors
    /// [`ChunkError::NotFound`]; [`ChunkError::Corrupt`] if the record's header
    /// is not the chunk's.
    pub fn read(&self, id: ChunkId, offset: u32, len: u32) -> Result<BlockRange, ChunkError> {
        read::read(&self.inner, id, offset, len)
    }

    /// Reads as [`Store::read`] does, for callers that must not wait: `None` if the
    /// disk would be needed, and for every error.
    pub fn read_now(&self, id: ChunkId, offset: u32, len: u32) -> Option<BlockRange> {
        read::read_now(&self.inner, id, offset, len)
    }

    /// Syncs of segments since the store was opened: one for each group of writes.
    pub fn syncs(&self) -> u64 {
        self.inner.syncs.load(Ordering::Relaxed)
    }

    /// Reads a chunk and checks all its CRCs.
    ///
    /// # Errors
    /// [`ChunkError::NotFound`], [`ChunkError::Corrupt`].
    pub fn verify(&self, id: ChunkId) -> Result<(), ChunkError> {
        read::verify(&self.inner, id)
    }

    /// Whether the chunk is on disk here, or on its way there. One that is only held may not
    /// stay.
    ///
    /// # Errors
    /// [`ChunkError::Index`].
    pub fn contains(&self, id: ChunkId) -> Result<bool, ChunkError> {
        Ok(self.inner.staged.is_staged(id) || self.is_on_disk(id)?)
    }

    /// Whether the chunk is on disk here.
    ///
    /// # Errors
    /// [`ChunkError::Index`].
    pub fn is_on_disk(&self, id: ChunkId) -> Result<bool, ChunkError> {
        Ok(self.inner.lookup(id)?.is_some())
    }

    /// The chunk's length and CRC, if it can be read here.
    ///
    /// # Errors
    /// [`ChunkError::Index`].
    pub fn chunk_len(&self, id: ChunkId) -> Result<Option<(u32, u32)>, ChunkError> {
        if let Some(content) = self.inner.staged.content(id) {
            return Ok(Some(content));
        }
        Ok(self.inner.lookup(id)?.map(|p| (p.len, p.crc)))
    }

    /// Deletes chunks durably and says how many were here.
    ///
    /// # Errors
    /// [`ChunkError::Failed`], [`ChunkError::NoSpace`] if even the reserve is
    /// used up. Some of the chunks may be gone then.
    pub fn delete(&self, ids: &[ChunkId]) -> Result<usize, ChunkError> {
        let mut count = 0;
        for ids in ids.chunks(DELETES_MAX.min(self.deletes_that_fit())) {
            count += self.delete_some(ids)?;
        }
        Ok(count)
    }

    fn deletes_that_fit(&self) -> usize {
        (self.inner.options.segment_len / 2 / record::DELETE_LEN as u64) as usize
    }

    fn delete_some(&self, ids: &[ChunkId]) -> Result<usize, ChunkError> {
        let inner = &self.inner;
        inner.check_failed()?;
        self.settle_staged(ids)?;
        let _moves = inner.moves.lock();
        let mut here = BTreeMap::new();
        for id in ids {
            if let Some(place) = inner.lookup(*id)? {
                here.insert(*id, place);
            }
        }
        if here.is_empty() {
            return Ok(0);
        }
        let items: Vec<(ChunkId, u64)> = here.iter().map(|(i, p)| (*i, p.at.generation)).collect();
        let effect = Effect::Delete(here.into_iter().collect());
        inner.push_and_wait(|done| Op::deletes(&items, effect, done))?;
        Ok(items.len())
    }

    /// Up to `limit` chunks after `after` (of that set only) with their
    /// lengths, in order of id.
    ///
    /// # Errors
    /// [`ChunkError::Index`].
    pub fn list(
        &self,
        set: Option<SetId>,
        after: Option<ChunkId>,
        limit: usize,
    ) -> Result<Vec<(ChunkId, u32)>, ChunkError> {
        read::list(&self.inner, set, after, limit)
    }

    /// Chunks per replica set; sets without chunks are left out.
    pub fn set_counts(&self) -> BTreeMap<SetId, u64> {
        self.inner.state.lock().sets.clone()
    }

    /// How full the store is.
    pub fn usage(&self) -> Usage {
        let inner = &self.inner;
        let room = inner.pool.room().ok();
        let (active_left, full) = (inner.active_left(), inner.is_full());
        let state = inner.state.lock();
        let dead: u64 = state
            .stats
            .values()
            .map(|s| (s.used as u64).saturating_sub(s.kept()))
            .sum();
        let left = room.map_or(0, |r| r.left);
        let free_bytes = left + active_left + dead;
        Usage {
            used_bytes: state.live_bytes,
            free_bytes,
            total_bytes: state.live_bytes + free_bytes,
            chunks: state.chunks,
            full,
            segments: state.segments.len() as u64,
            segment_bytes: room.map_or(0, |r| r.log),
            damaged: inner.damage().1,
        }
    }

    /// Readers that keep a segment's file from being reused now.
    pub fn pins(&self) -> usize {
        self.inner.pins.load(Ordering::Relaxed)
    }

    /// The damaged ranges found since the store was opened (the first 1,024).
    pub fn damage(&self) -> Vec<Damage> {
        self.inner.damage().0
    }

    /// Whether the store still takes writes.
    ///
    /// # Errors
    /// [`ChunkError::Failed`] after a failed write or sync.
    pub fn check(&self) -> Result<(), ChunkError> {
        self.inner.check_failed()
    }

    /// The time that the disk has been working on the current batch: a node whose
    /// disk stalls steps aside.
    pub fn stalled_for(&self) -> Duration {
        self.inner.busy_for()
    }

    /// Moves the living chunks of the emptiest segment elsewhere and frees the
    /// segment, if it is less than half alive. Says whether it did.
    ///
    /// # Errors
    /// [`ChunkError::NoSpace`], [`ChunkError::Failed`], [`ChunkError::Index`].
    pub fn compact_once(&self) -> Result<bool, ChunkError> {
        compact::compact_once(&self.inner)
    }

    /// Merges memory into the index and makes it durable, so that a restart
    /// has less to read.
    ///
    /// # Errors
    /// [`ChunkError::Index`].
    pub fn flush_index(&self) -> Result<(), ChunkError> {
        merge::merge(&self.inner)?;
        self.inner.index.flush()
    }

    /// Finishes what is queued, seals the log, makes the index durable, and
    /// stops. Later writes are refused with [`ChunkError::Closed`].
    ///
    /// # Errors
    /// The error that keeps the index from being durable; the chunks are on disk anyway.
    pub fn close(&self) -> Result<(), ChunkError> {
        self.inner.closing.store(true, Ordering::Release);
        self.stop();
        self.inner.check_failed()?;
        self.flush_index()
    }

    fn stop(&self) {
        let inner = &self.inner;
        inner.queue.close();
        inner.stopping.store(true, Ordering::Release);
        inner.space.lock().stop = true;
        inner.space_wanted.notify_all();
        // Taken once, so that the merge thread is either before its check or waiting.
        drop(inner.state.lock());
        inner.merge_wanted.notify_all();
        let me = std::thread::current().id();
        for thread in self.threads.lock().drain(..) {
            if thread.thread().id() != me && thread.join().is_err() {
                tracing::error!("a thread of the chunk store panicked");
            }
        }
    }
}

impl Drop for Store {
    /// Leaves the directory as a crash would, but answers all writes.
    fn drop(&mut self) {
        self.stop();
    }
}

fn spawn(
    name: &str,
    inner: &Arc<Inner>,
    body: impl FnOnce(Arc<Inner>) + Send + 'static,
) -> Result<JoinHandle<()>, ChunkError> {
    let inner = inner.clone();
    std::thread::Builder::new()
        .name(name.into())
        .spawn(move || body(inner))
        .map_err(|e| ChunkError::io("start a thread", e))
}

#[cfg(test)]
mod tests;
