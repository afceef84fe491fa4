//! The log as openraft wants it.

use super::files::Dir;
use super::index::{Floor, Place, Slot};
use super::record::Kind;
use super::recover::{read_record, recover};
use super::syncs::Syncs;
use super::writer::{LogStats, Shared, Work, Writer};
use crate::error::RaftError;
use crate::staging::chunks_of;
use crate::types::alias::{Entry, LogId, Membership, StorageError, Vote};
use crate::types::{Batch, TypeConfig};
use bytes::Bytes;
use lagan_types::codec;
use openraft::storage::{LogFlushed, LogState, RaftLogStorage};
use openraft::{AnyError, EntryPayload, OptionalSend, RaftLogReader, StorageIOError};
use parking_lot::Mutex;
use std::fmt::Debug;
use std::ops::{Bound, RangeBounds};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

/// Settings of the log.
#[derive(Debug, Clone)]
pub struct LogOptions {
    /// Its directory.
    pub dir: PathBuf,
    /// The node whose log it is.
    pub node: u64,
    /// Bytes of a segment.
    pub segment_bytes: u64,
    /// Bytes of entries kept in memory.
    pub cache_bytes: usize,
    /// A sync longer than this is a sign of a failing disk.
    pub slow_sync: Duration,
}

/// Entries in one answer to a replication stream, at most this many bytes
/// (but at least one entry).
const READ_LEN_MAX: usize = 1024 * 1024;
/// Work that waits for the writer: openraft's core waits for each piece itself
/// once a few are under way ([`Syncs`]), so this is never reached.
const QUEUE_LEN_MAX: usize = 64;
/// Longest wait of an append for the snapshot that covers purged entries: the installation of
/// one that was received takes a rename and some syncs.
const COVER_DEADLINE: Duration = Duration::from_secs(3);
/// How long that goes on after what the chunk store does not take was given up, and how often
/// it is.
const GIVE_UP_DEADLINE: Duration = Duration::from_secs(5);
const GIVE_UP_AGAIN: Duration = Duration::from_millis(100);
/// Longest wait of an append for the chunks of those before it: a part of what makes others
/// think that this node is gone.
const CROWDED_WAIT: Duration = Duration::from_millis(100);
/// Time until the writer's full queue is tried again.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

struct Inner {
    shared: Arc<Shared>,
    queue: SyncSender<Work>,
    floor: Arc<Floor>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// The index of an entry that cannot be read, and the reason.
struct ReadError(u64, String);

impl From<ReadError> for StorageError {
    fn from(ReadError(index, why): ReadError) -> Self {
        StorageIOError::read_log_at_index(index, AnyError::error(why)).into()
    }
}

/// The log; clones share it.
#[derive(Clone)]
pub struct LogStore(Arc<Inner>);

/// Reads entries; clones share the log.
pub type LogReader = LogStore;

impl LogStore {
    /// Opens or makes the log. `floor`: see [`Floor`].
    ///
    /// # Errors
    /// [`RaftError::Io`], [`RaftError::LogVersion`], [`RaftError::LogDamaged`].
    pub fn open(options: LogOptions, floor: Arc<Floor>) -> Result<LogStore, RaftError> {
        let dir = Dir::open(options.dir, options.segment_bytes)
            .map_err(RaftError::io("open log directory"))?;
        let mut found = recover(&dir)?;
        found.index.vote = found.index.vote.map(|vote| resigned(vote, options.node));
        let committed_next = found.index.committed.map_or(0, |id| id.index + 1);
        let shared = Arc::new(Shared {
            index: Mutex::default(),
            segments: Mutex::default(),
            committed_next: AtomicU64::new(committed_next),
            cache_bytes: options.cache_bytes,
            stats: LogStats::new(options.slow_sync),
            floor: floor.clone(),
            #[cfg(test)]
            still: std::sync::atomic::AtomicBool::new(false),
        });
        let writer =
            Writer::new(dir, found, shared.clone()).map_err(RaftError::io("begin log segment"))?;
        let (queue, work) = sync_channel(QUEUE_LEN_MAX);
        let thread = std::thread::Builder::new()
            .name("raft-log".into())
            .spawn(move || writer.run(work))
            .map_err(RaftError::io("start log writer"))?;
        Ok(LogStore(Arc::new(Inner {
            shared,
            queue,
            floor,
            thread: Mutex::new(Some(thread)),
        })))
    }

    /// The log's figures.
    pub fn stats(&self) -> &LogStats {
        &self.0.shared.stats
    }

    /// Tells how far the log is on disk.
    pub fn syncs(&self) -> &Syncs {
        &self.0.floor.syncs
    }

    /// Lets its disk stand still, or go on.
    #[cfg(test)]
    pub fn set_still(&self, still: bool) {
        self.0.shared.still.store(still, Ordering::Relaxed);
    }

    /// Bytes of the entries behind that index.
    pub fn bytes_behind(&self, index: u64) -> u64 {
        let log = self.0.shared.index.lock();
        let behind = log.slots.iter().rev().take_while(|s| s.id.index > index);
        behind.map(Slot::bytes).sum()
    }

    /// Index of the last entry with more than `kept` bytes of entries behind it.
    pub fn beyond(&self, kept: u64) -> Option<u64> {
        let log = self.0.shared.index.lock();
        let mut behind = 0;
        for slot in log.slots.iter().rev() {
            if behind > kept {
                return Some(slot.id.index);
            }
            behind += slot.bytes();
        }
        None
    }

    /// Index of the last purged entry.
    pub fn purged(&self) -> u64 {
        self.0.shared.index.lock().purged.map_or(0, |id| id.index)
    }

    /// Index of the first entry that the disk may still need; the state must
    /// hold all before it.
    pub fn needs_from(&self) -> u64 {
        let index = self.0.shared.index.lock();
        index.purged_on_disk.map_or(0, |id| id.index + 1)
    }

    /// Purges as far as [`RaftLogStorage::purge`] was asked and the floor allows by
    /// now.
    pub fn purge_to_floor(&self) {
        let mut index = self.0.shared.index.lock();
        let Some(wanted) = index.purged.filter(|id| id.index < self.0.floor.next()) else {
            return;
        };
        // Sent under the lock, so that no entry gets before it; the queue is
        // only full if something is wrong, and the next call tries again.
        if (index.hole || index.purged_on_disk < Some(wanted))
            && self.0.queue.try_send(Work::Purge(wanted)).is_ok()
        {
            index.purged_on_disk = Some(wanted);
            index.hole = false;
        }
    }

    /// Waits for the snapshot that covers the purged entries, if these reach beyond the written
    /// ones. openraft has the log purged when it only begins to install the snapshot, and
    /// the next leader's entries may come before that is done.
    ///
    /// # Errors
    /// The state does not cover them after [`COVER_DEADLINE`], in words.
    async fn close_hole(&self) -> Result<(), String> {
        let hole = || {
            let index = self.0.shared.index.lock();
            index.purged.filter(|_| index.hole)
        };
        let Some(purged) = hole() else {
            return Ok(());
        };
        let covered = async {
            self.0.floor.reaches(purged.index + 1).await;
            self.purge_to_floor();
            while hole().is_some() {
                // The writer's queue was full.
                tokio::time::sleep(LOOK_AGAIN).await;
                self.purge_to_floor();
            }
        };
        tokio::pin!(covered);
        if timeout(COVER_DEADLINE, &mut covered).await.is_ok() {
            return Ok(());
        }
        // The chunk store does not take what came with the entries: others have it.
        let staging = &self.0.floor.staging;
        staging.lacks()?;
        let until = Instant::now() + GIVE_UP_DEADLINE;
        while Instant::now() < until {
            // The installation may still stage some.
            staging.give_up(purged.index + 1);
            if timeout(GIVE_UP_AGAIN, &mut covered).await.is_ok() {
                return Ok(());
            }
        }
        Err("the state does not cover what was purged".to_owned())
    }

    /// Syncs what was written and ends the writer.
    pub fn stop(&self) {
        // Already gone is as good.
        let _ = self.0.queue.send(Work::Stop);
        if let Some(thread) = self.0.thread.lock().take()
            && thread.join().is_err()
        {
            tracing::error!("log writer panicked");
        }
    }

    /// Entries from that index on, some at a time; none at the end.
    ///
    /// # Errors
    /// The disk, in words.
    pub fn entries(&self, start: u64) -> Result<Vec<Entry>, String> {
        let read = self.read(start, u64::MAX, READ_LEN_MAX);
        read.map_err(|ReadError(index, why)| format!("read entry {index} of the log: {why}"))
    }

    fn read(&self, start: u64, end: u64, len_max: usize) -> Result<Vec<Entry>, ReadError> {
        let slots = self.collect(start, end, len_max);
        let mut entries = Vec::with_capacity(slots.len());
        for (id, kind, found) in slots {
            entries.push(match found {
                Ok(entry) => entry,
                Err(place) => self.read_place(id, kind, &place)?,
            });
        }
        Ok(entries)
    }

    /// Entries in memory, and places of those that are not.
    fn collect(
        &self,
        start: u64,
        end: u64,
        len_max: usize,
    ) -> Vec<(LogId, Kind, Result<Entry, Place>)> {
        let index = self.0.shared.index.lock();
        let mut slots = Vec::new();
        let mut len = 0;
        for at in start.max(index.first_index())..end {
            let Some(slot) = index.get(at) else { break };
            len += slot.payload_len as usize;
            if len > len_max && !slots.is_empty() {
                break;
            }
            let found = match (&slot.entry, slot.place) {
                (Some(entry), _) => Ok(entry.clone()),
                (None, Some(place)) => Err(place),
                (None, None) => break,
            };
            slots.push((slot.id, slot.kind, found));
        }
        slots
    }

    fn read_place(&self, id: LogId, kind: Kind, place: &Place) -> Result<Entry, ReadError> {
        let segment = self.0.shared.segments.lock().get(&place.segment).cloned();
        let failed = |e: String| ReadError(id.index, e);
        let segment = segment.ok_or_else(|| failed("segment is gone".into()))?;
        let (_, payload) = read_record(&segment, place).map_err(|e| failed(e.to_string()))?;
        let payload = payload_of(kind, payload.into()).map_err(failed)?;
        Ok(Entry {
            log_id: id,
            payload,
        })
    }

    async fn wait(&self, work: impl FnOnce(super::writer::Done) -> Work) -> Result<(), String> {
        let (done, wait) = oneshot::channel();
        self.0
            .queue
            .send(work(done))
            .map_err(|_| "log writer has stopped".to_string())?;
        wait.await
            .map_err(|_| "log writer has stopped".to_string())?
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // The thread ends when the queue is closed, at the latest.
        let _ = self.queue.try_send(Work::Stop);
    }
}

/// Kind and payload of an entry, for disk and wire.
pub(crate) fn encode_payload(entry: &Entry) -> (Kind, Bytes) {
    match &entry.payload {
        EntryPayload::Blank => (Kind::Blank, Bytes::new()),
        EntryPayload::Normal(batch) => (Kind::Normal, batch.bytes().clone()),
        EntryPayload::Membership(m) => (Kind::Membership, codec::encode_serde(m).into()),
    }
}

/// Decodes a payload of that kind.
///
/// # Errors
/// In words, if it is no entry or its bytes are not of its kind.
pub(crate) fn payload_of(kind: Kind, bytes: Bytes) -> Result<EntryPayload<TypeConfig>, String> {
    match kind {
        Kind::Blank => Ok(EntryPayload::Blank),
        Kind::Normal => Ok(EntryPayload::Normal(Batch::from_bytes(bytes))),
        Kind::Membership => codec::decode_serde::<Membership>(&bytes)
            .map(EntryPayload::Membership)
            .map_err(|e| e.to_string()),
        Kind::Vote | Kind::Truncate | Kind::Purge | Kind::Checkpoint => {
            Err(format!("{kind:?} is no entry"))
        }
    }
}

/// The vote after a restart: a node that led leads no more. openraft would put it back
/// as the leader of its old term. Such a leader does not know its last commit (which
/// goes to disk lazily) and does not begin with an entry of its own, so it would answer
/// reads from before the end. Restarted as a follower with a vote for itself, the node
/// asks for votes in a new term.
fn resigned(vote: Vote, node: u64) -> Vote {
    match vote.leader_id.node_id == node {
        true => Vote::new(vote.leader_id.term, node),
        false => vote,
    }
}

fn bounds(range: &impl RangeBounds<u64>) -> (u64, u64) {
    let start = match range.start_bound() {
        Bound::Included(&at) => at,
        Bound::Excluded(&at) => at.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(&at) => at.saturating_add(1),
        Bound::Excluded(&at) => at,
        Bound::Unbounded => u64::MAX,
    };
    (start, end)
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, StorageError> {
        let (start, end) = bounds(&range);
        Ok(self.read(start, end, usize::MAX)?)
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<Entry>, StorageError> {
        Ok(self.read(start, end, READ_LEN_MAX)?)
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = LogReader;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, StorageError> {
        let index = self.0.shared.index.lock();
        Ok(LogState {
            last_purged_log_id: index.purged,
            last_log_id: index.last(),
        })
    }

    async fn get_log_reader(&mut self) -> LogReader {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), StorageError> {
        let vote = *vote;
        self.wait(|done| Work::Vote(vote, done))
            .await
            .map_err(|e| StorageIOError::write_vote(AnyError::error(e)))?;
        self.0.shared.index.lock().vote = Some(vote);
        Ok(())
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, StorageError> {
        Ok(self.0.shared.index.lock().vote)
    }

    /// Goes to disk with the next record: openraft finds out by itself what
    /// is committed beyond it, so that it is not worth a sync.
    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), StorageError> {
        let next = committed.map_or(0, |id| id.index + 1);
        self.0.shared.committed_next.store(next, Ordering::Relaxed);
        self.0.shared.index.lock().committed = committed;
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, StorageError> {
        Ok(self.0.shared.index.lock().committed)
    }

    async fn append<I>(
        &mut self,
        entries: I,
        callback: LogFlushed<TypeConfig>,
    ) -> Result<(), StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let failed = |e: String| StorageIOError::write_logs(AnyError::error(e));
        let mut records = Vec::new();
        self.close_hole().await.map_err(failed)?;
        let entries: Vec<Entry> = entries.into_iter().collect();
        let staging = &self.0.floor.staging;
        if staging.is_crowded() {
            // Its disk is slower than ours: others wait for this follower a little.
            let _ = timeout(CROWDED_WAIT, staging.settle()).await;
        }
        for entry in &entries {
            if let EntryPayload::Normal(batch) = &entry.payload {
                let chunks = chunks_of(batch);
                if !chunks.is_empty() {
                    staging.hold(entry.log_id.index, chunks);
                }
            }
        }
        {
            let mut index = self.0.shared.index.lock();
            for entry in entries {
                if let EntryPayload::Normal(batch) = &entry.payload {
                    batch.enter();
                }
                let (id, (kind, payload)) = (entry.log_id, encode_payload(&entry));
                if !index.takes(id.index) {
                    return Err(failed(format!("entry {id} does not follow the last")).into());
                }
                index.push(Slot {
                    id,
                    kind,
                    place: None,
                    entry: Some(entry),
                    payload_len: payload.len() as u32,
                });
                records.push((id, kind, payload));
            }
        }
        let Some((last, ..)) = records.last() else {
            callback.log_io_completed(Ok(()));
            return Ok(());
        };
        let members = records.iter().any(|(_, kind, _)| *kind == Kind::Membership);
        let at_once = self.0.floor.syncs.queue(last.index + 1) && !members;
        let (now, then) = match at_once {
            true => (Some(callback), None),
            false => (None, Some(callback)),
        };
        self.0
            .queue
            .send(Work::Append(records, then))
            .map_err(|_| failed("log writer has stopped".into()))?;
        if let Some(callback) = now {
            callback.log_io_completed(Ok(()));
        }
        Ok(())
    }

    async fn truncate(&mut self, log_id: LogId) -> Result<(), StorageError> {
        self.0.shared.index.lock().truncate(log_id.index);
        self.0.floor.staging.cut(log_id.index);
        self.wait(|done| Work::Truncate(log_id, done))
            .await
            .map_err(|e| StorageIOError::write_logs(AnyError::error(e)).into())
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), StorageError> {
        self.0.shared.index.lock().purge(log_id);
        self.purge_to_floor();
        Ok(())
    }
}
