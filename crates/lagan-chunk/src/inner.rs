//! The state that the store's threads share.

use crate::error::ChunkError;
use crate::index::{DiskIndex, Place};
use crate::options::Options;
use crate::pool::Pool;
use crate::queue::{Done, Effect, Op, Queue};
use crate::record;
use crate::segment::Damage;
use crate::staged::Staged;
use crate::state::State;
use lagan_types::ChunkId;
use lagan_types::limits::CHUNK_LEN_MAX;
use parking_lot::{Condvar, Mutex};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, mpsc};
use std::time::{Duration, Instant};

/// Time that a caller waits for the disk. A disk that takes longer is dead, and the
/// store has failed.
const DISK_WAIT: Duration = Duration::from_secs(120);
/// Damaged ranges that are remembered; the others are counted only.
const DAMAGE_MAX: usize = 1024;

/// Receives the log thread's answer.
pub(crate) type Answer = mpsc::Receiver<Result<(), ChunkError>>;

/// Damage found since the store was opened.
#[derive(Default)]
pub(crate) struct DamageLog {
    count: u64,
    ranges: Vec<Damage>,
}

/// Signals to the space thread.
#[derive(Default)]
pub(crate) struct SpaceSignal {
    pub stop: bool,
    pub wake: bool,
}

/// The state that the store's threads share. Lock order: compacting, moves, merging,
/// state; the others are leaves.
pub(crate) struct Inner {
    pub options: Options,
    pub state: Mutex<State>,
    pub index: DiskIndex,
    pub queue: Queue,
    /// Chunks in memory.
    pub staged: Staged,
    pub pool: Pool,
    /// With `state`: a merge is due, or the merge thread shall stop.
    pub merge_wanted: Condvar,
    /// With `state`: a merge has ended.
    pub merged: Condvar,
    /// Held while merging, so that merges follow each other.
    pub merging: Mutex<()>,
    /// Held while chunks move or go, so that a delete names the right segment.
    pub moves: Mutex<()>,
    /// Held by the one compaction.
    pub compacting: Mutex<()>,
    pub space: Mutex<SpaceSignal>,
    pub space_wanted: Condvar,
    /// Set before the queue is closed if the last segment shall be sealed.
    pub closing: AtomicBool,
    /// Set when the merge thread shall stop.
    pub stopping: AtomicBool,
    /// A chunk found no space since the last compaction.
    pub pressed: AtomicBool,
    pub open_files: AtomicUsize,
    /// Readers that pin a segment.
    pub pins: Arc<AtomicUsize>,
    /// Syncs of segments so far.
    pub syncs: AtomicU64,
    active_left: AtomicU64,
    opened: Instant,
    /// Milliseconds since `opened`, plus one; 0 while the disk is not used.
    busy_since_ms: AtomicU64,
    damage: Mutex<DamageLog>,
    failure: OnceLock<Arc<str>>,
}

impl Inner {
    /// The state that recovery found, ready for threads.
    pub fn new(options: Options, state: State, index: DiskIndex, pool: Pool) -> Self {
        Inner {
            options,
            state: Mutex::new(state),
            index,
            queue: Queue::default(),
            staged: Staged::default(),
            pool,
            merge_wanted: Condvar::new(),
            merged: Condvar::new(),
            merging: Mutex::new(()),
            moves: Mutex::new(()),
            compacting: Mutex::new(()),
            space: Mutex::new(SpaceSignal::default()),
            space_wanted: Condvar::new(),
            closing: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            pressed: AtomicBool::new(false),
            open_files: AtomicUsize::new(0),
            pins: Arc::default(),
            syncs: AtomicU64::new(0),
            active_left: AtomicU64::new(0),
            opened: Instant::now(),
            busy_since_ms: AtomicU64::new(0),
            damage: Mutex::new(DamageLog::default()),
            failure: OnceLock::new(),
        }
    }

    /// Ends all writing for good; `why` is logged and told to every later writer.
    pub fn fail(&self, why: &str) -> ChunkError {
        let why = self.failure.get_or_init(|| {
            tracing::error!(why, "chunk store has failed and takes no more writes");
            why.into()
        });
        ChunkError::Failed(why.clone())
    }

    /// An error if the store takes no more writes.
    pub fn check_failed(&self) -> Result<(), ChunkError> {
        match self.failure.get() {
            None => Ok(()),
            Some(why) => Err(ChunkError::Failed(why.clone())),
        }
    }

    /// Remembers a range that rotted.
    pub fn report_damage(&self, damage: Damage) {
        tracing::error!(?damage, "damaged range in a segment");
        let mut log = self.damage.lock();
        log.count += 1;
        if log.ranges.len() < DAMAGE_MAX {
            log.ranges.push(damage);
        }
    }

    /// An error unless the chunk is on disk.
    pub fn check_here(&self, id: ChunkId) -> Result<(), ChunkError> {
        match self.lookup(id)? {
            Some(_) => Ok(()),
            // The write that this one relied on has failed: try again.
            None => Err(ChunkError::Busy),
        }
    }

    /// Where a chunk is. The index on disk is read with no lock held.
    pub fn lookup(&self, id: ChunkId) -> Result<Option<Place>, ChunkError> {
        let known = self.state.lock().get(id);
        match known {
            Some(place) => Ok(place),
            None => self.index.get(id),
        }
    }

    /// The damaged ranges that are remembered, and how many there were.
    pub fn damage(&self) -> (Vec<Damage>, u64) {
        let log = self.damage.lock();
        (log.ranges.clone(), log.count)
    }

    /// Bytes left in the segment that is being appended to.
    pub fn active_left(&self) -> u64 {
        self.active_left.load(Ordering::Relaxed)
    }

    /// Notes the bytes left in the segment that is being appended to.
    pub fn set_active_left(&self, bytes: u64) {
        self.active_left.store(bytes, Ordering::Relaxed);
    }

    /// Whether a chunk of full length would be refused now.
    pub fn is_full(&self) -> bool {
        let left = self.pool.room().map_or(0, |room| room.left);
        let longest = record::chunk_record_len(CHUNK_LEN_MAX).min(self.options.segment_len / 2);
        left == 0 && self.active_left() < longest
    }

    /// A chunk found no space.
    pub fn press(&self) {
        self.pressed.store(true, Ordering::Relaxed);
        self.wake_space();
    }

    pub fn wake_space(&self) {
        self.space.lock().wake = true;
        self.space_wanted.notify_one();
    }

    /// Queues an op; one that is refused is answered at once.
    pub fn push(&self, op: Op) {
        if let Err(refused) = self.queue.push(op) {
            self.refuse(*refused);
        }
    }

    /// Queues a lazy op without waiting; one that is refused is answered at once.
    pub fn push_lazy(&self, op: Op) {
        if let Err(refused) = self.queue.push_lazy(op) {
            self.refuse(*refused);
        }
    }

    fn refuse(&self, (op, error): (Op, ChunkError)) {
        if let Effect::Write { id, .. } = op.effect {
            self.state.lock().pending.remove(&id);
        }
        (op.done)(Err(error));
    }

    /// Queues an op with `make` and waits for its answer.
    pub fn push_and_wait(&self, make: impl FnOnce(Done) -> Op) -> Result<(), ChunkError> {
        let (sender, receiver) = mpsc::sync_channel(1);
        self.push(make(Box::new(move |result| {
            let _ = sender.send(result);
        })));
        self.wait_for(&receiver)
    }

    /// Waits for an answer of the log thread.
    pub fn wait_for(&self, answer: &Answer) -> Result<(), ChunkError> {
        match answer.recv_timeout(DISK_WAIT) {
            Ok(result) => result,
            Err(mpsc::RecvTimeoutError::Timeout) => Err(self.fail("disk does not answer")),
            Err(mpsc::RecvTimeoutError::Disconnected) => Err(ChunkError::Closed),
        }
    }

    /// Notes that the log thread begins to use the disk, or has ended.
    pub fn set_busy(&self, busy: bool) {
        let now = self.opened.elapsed().as_millis() as u64 + 1;
        self.busy_since_ms
            .store(if busy { now } else { 0 }, Ordering::Relaxed);
    }

    /// How long the log thread has been using the disk for one batch.
    pub fn busy_for(&self) -> Duration {
        let now = self.opened.elapsed().as_millis() as u64 + 1;
        match self.busy_since_ms.load(Ordering::Relaxed) {
            0 => Duration::ZERO,
            since => Duration::from_millis(now.saturating_sub(since)),
        }
    }
}
