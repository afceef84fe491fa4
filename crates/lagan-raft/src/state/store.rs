//! The state store: applies entries, makes them durable, shows the state, takes and
//! installs snapshots.

use super::db::{Db, Incoming, Rows, io};
use super::overlay::{Applying, Base, Overlay};
use super::view::View;
use crate::error::RaftError;
use crate::log::Floor;
use crate::staging::{InlineChunk, chunks_of_command, keep_own};
use crate::types::alias::{Entry, LogId, SnapshotMeta, StoredMembership};
use crate::types::{Batch, BatchAnswer};
use lagan_meta::kv::StoreError;
use lagan_types::Time;
use lagan_types::codec;
use openraft::EntryPayload;
use parking_lot::{Mutex, RwLock};
use redb::Durability;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::Notify;

/// Key of [`Applied`]: table 0 is this crate's.
const APPLIED_KEY: &[u8] = &[0, b'a'];
/// Transactions after which a durable one is made before its time: pages that were freed
/// since the last one cannot be used again before it.
const UNDURABLE_MAX: u64 = 500;
/// How long a durable commit waits for what came with the commands to be on disk.
const SETTLE_MAX: Duration = Duration::from_secs(2);
/// Rows that wait for a transaction: those of some tens of commands. Each apply copies
/// their keys.
const WAITING_ROWS: usize = 192;
/// Rows that may wait for a transaction that is under way: two full batches.
const WAITING_ROWS_MAX: usize = 8_192;

/// How far the state is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    /// The last entry in it.
    pub last: Option<LogId>,
    /// The last membership in it.
    pub membership: StoredMembership,
    /// The time of the last command.
    pub time: Time,
}

impl Applied {
    /// Index of the entry that comes next.
    fn next(&self) -> u64 {
        self.last.map_or(0, |id| id.index + 1)
    }

    /// A snapshot of exactly this state has this meta.
    pub(super) fn meta(&self) -> SnapshotMeta {
        let id = match self.last {
            Some(id) => format!(
                "{}-{}-{}",
                id.leader_id.term, id.leader_id.node_id, id.index
            ),
            None => "empty".to_string(),
        };
        SnapshotMeta {
            last_log_id: self.last,
            last_membership: self.membership.clone(),
            snapshot_id: id,
        }
    }
}

/// The state that readers see: that after exactly one entry.
#[derive(Clone)]
struct Shown {
    base: Arc<Base>,
    over: Arc<Overlay>,
    applied: Arc<Applied>,
}

struct Inner {
    dir: PathBuf,
    cache_bytes: usize,
    /// Replaced as a whole before an answer goes out. Locked for moments only.
    shown: RwLock<Shown>,
    /// The database. A writer holds the lock for as long as a sync takes, so no thread
    /// that others need may wait for it. Lock order: before `shown`.
    db: Mutex<Arc<Db>>,
    /// All entries with a lower index are in the last durable commit.
    durable_next: AtomicU64,
    /// Transactions since the last durable one.
    undurable: AtomicU64,
    wanted: Notify,
    floor: Arc<Floor>,
    /// The entry that openraft's current snapshot stands for.
    snapshot: Mutex<Option<LogId>>,
}

/// The state store; clones share it.
#[derive(Clone)]
pub struct StateStore(Arc<Inner>);

impl StateStore {
    /// Opens or makes the store in `dir`.
    ///
    /// # Errors
    /// [`RaftError::Io`]; [`RaftError::State`], also for the state of a build whose
    /// rows this one does not read.
    pub fn open(
        dir: PathBuf,
        cache_bytes: usize,
        floor: Arc<Floor>,
    ) -> Result<StateStore, RaftError> {
        let db = Arc::new(Db::open(&dir, cache_bytes)?);
        let state = |e: StoreError| RaftError::State(e.to_string());
        let base = Base::open(db.clone()).map_err(state)?;
        let row = super::db::get(&base.rows, APPLIED_KEY).map_err(state)?;
        let applied = decode_applied(row).map_err(state)?;
        let view = View {
            base: Arc::new(base),
            over: Arc::default(),
        };
        lagan_meta::layout::check_versions(&view).map_err(state)?;
        let settled_next = db.settled_next().map_err(state)?;
        floor.raise(settled_next.unwrap_or(u64::MAX).min(applied.next()));
        let durable_next = AtomicU64::new(applied.next());
        let shown = Shown {
            base: view.base,
            over: view.over,
            applied: Arc::new(applied),
        };
        Ok(StateStore(Arc::new(Inner {
            dir,
            cache_bytes,
            shown: RwLock::new(shown),
            db: Mutex::new(db),
            durable_next,
            undurable: AtomicU64::new(0),
            wanted: Notify::new(),
            floor,
            snapshot: Mutex::new(None),
        })))
    }

    /// The agreement between this store and the log.
    pub(super) fn floor(&self) -> &Floor {
        &self.0.floor
    }

    fn shown(&self) -> Shown {
        self.0.shown.read().clone()
    }

    /// How far the state is.
    pub fn applied(&self) -> Arc<Applied> {
        self.0.shown.read().applied.clone()
    }

    /// Index of the last applied entry.
    pub fn applied_index(&self) -> u64 {
        self.applied().last.map_or(0, |id| id.index)
    }

    /// Index of the last entry that a crash leaves in the state.
    pub fn durable_index(&self) -> u64 {
        let next = self.0.durable_next.load(Ordering::Acquire);
        next.saturating_sub(1)
    }

    /// Whether all entries with a lower index are durable here, with what came with them.
    pub(crate) fn is_settled(&self, next: u64) -> bool {
        self.0.floor.next() >= next
    }

    /// Index of the entry that comes next.
    pub(crate) fn applied_next(&self) -> u64 {
        self.applied().next()
    }

    /// The index below which all entries of a state up to `next` are settled.
    fn settled_next(&self, next: u64) -> u64 {
        let unsettled = self.0.floor.staging.unsettled();
        unsettled.map_or(next, |unsettled| unsettled.min(next))
    }

    /// The time of the last applied command.
    pub fn last_time(&self) -> Time {
        self.applied().time
    }

    /// Index of the last entry in the last snapshot.
    pub fn snapshot_index(&self) -> u64 {
        self.0.snapshot.lock().map_or(0, |id| id.index)
    }

    /// The state now.
    pub fn view(&self) -> View {
        let Shown { base, over, .. } = self.shown();
        View { base, over }
    }

    /// Applies entries; a reader sees all of them or none.
    ///
    /// # Errors
    /// [`StoreError`]: nothing was applied, the node must stop.
    pub(super) async fn apply(&self, entries: Vec<Entry>) -> Result<Vec<BatchAnswer>, StoreError> {
        let Some(at) = entries.last().map(|e| e.log_id.index) else {
            return Ok(Vec::new());
        };
        let mut applied = Applied::clone(&*self.applied());
        let mut answers = Vec::with_capacity(entries.len());
        let staging = &*self.0.floor.staging;
        let waiting = self.change(at, |rows| {
            let mut named = Vec::new();
            for entry in &entries {
                let answer = apply_entry(rows, entry, &mut applied)?;
                if let EntryPayload::Normal(batch) = &entry.payload
                    && batch.is_carrying()
                {
                    let chunks = named_chunks(batch, &answer)?;
                    let own = keep_own(rows, staging.node(), chunks)?;
                    named.push((entry.log_id.index, own));
                }
                answers.push(answer);
            }
            // Before the state is shown: a durable commit of it must find them unsettled.
            for (index, chunks) in named {
                staging.stage(index, chunks);
            }
            Ok(applied)
        })?;
        self.relieve(waiting).await?;
        Ok(answers)
    }

    /// Makes the next state, after entry `at`, and shows it. Returns the number of rows
    /// that are not in redb. Never called twice at a time.
    pub(super) fn change(
        &self,
        at: u64,
        change: impl FnOnce(&mut Applying) -> Result<Applied, StoreError>,
    ) -> Result<usize, StoreError> {
        let Shown { base, over, .. } = self.shown();
        let over = Overlay::clone(&over);
        let mut rows = Applying { base, over, at };
        let applied = Arc::new(change(&mut rows)?);
        let waiting = rows.over.len();
        // The base may be a newer one by now: what it has of the overlay is the same.
        let mut shown = self.0.shown.write();
        shown.over = Arc::new(rows.over);
        shown.applied = applied;
        Ok(waiting)
    }

    /// Puts rows into redb if many wait: at once, or, if a durable transaction is under
    /// way and far too many wait, after it.
    async fn relieve(&self, waiting: usize) -> Result<(), StoreError> {
        if waiting < WAITING_ROWS {
            return Ok(());
        }
        if let Some(db) = self.0.db.try_lock() {
            self.flush(&db, Durability::None)?;
        } else if waiting >= WAITING_ROWS_MAX {
            let state = self.clone();
            let flushing = move || state.flush(&state.0.db.lock(), Durability::None);
            tokio::task::spawn_blocking(flushing).await.map_err(io)??;
        } else {
            return Ok(());
        }
        if self.0.undurable.fetch_add(1, Ordering::Relaxed) + 1 == UNDURABLE_MAX {
            self.0.wanted.notify_one();
        }
        Ok(())
    }

    /// Puts the rows that wait into redb.
    #[cfg(test)]
    pub(super) fn flush_now(&self) -> Result<(), StoreError> {
        self.flush(&self.0.db.lock(), Durability::None).map(|_| ())
    }

    /// Puts the rows that wait into redb, in one transaction; returns the state
    /// that is there then.
    fn flush(&self, db: &Arc<Db>, durability: Durability) -> Result<Shown, StoreError> {
        let Shown { over, applied, .. } = self.shown();
        let durably = matches!(durability, Durability::Immediate);
        let settled_next = self.settled_next(applied.next());
        let change = |rows: &mut Rows<'_>| {
            for (key, value) in over.iter() {
                match value {
                    Some(value) => rows.put(key, value)?,
                    None => rows.remove(key)?,
                }
            }
            rows.put(APPLIED_KEY, &codec::encode_serde(&*applied))
        };
        match durably {
            true => db.commit_settled(settled_next, change)?,
            false => db.commit_lazily(change)?,
        }
        if durably {
            self.0.durable_next.store(applied.next(), Ordering::Release);
            self.0.floor.raise(settled_next);
        }
        let base = Arc::new(Base::open(db.clone())?);
        let mut shown = self.0.shown.write();
        shown.base = base.clone();
        if let Some(last) = applied.last {
            Arc::make_mut(&mut shown.over).forget(last.index);
        }
        Ok(Shown {
            base,
            over: Arc::default(),
            applied,
        })
    }

    /// Whether a crash would forget something, or the log could forget more.
    pub fn is_dirty(&self) -> bool {
        let next = self.applied().next();
        next > self.0.durable_next.load(Ordering::Acquire)
            || self.settled_next(next) > self.0.floor.next()
            || self.0.floor.staging.has_work()
    }

    /// Returns when so many transactions are not durable that the state should be made
    /// durable at once.
    pub async fn wants_durable(&self) {
        self.0.wanted.notified().await;
    }

    /// Makes the state durable and raises the floor; returns how far it is now durable,
    /// with a view of exactly that state.
    ///
    /// # Errors
    /// [`StoreError`]: the disk; the node must stop.
    pub async fn make_durable(&self) -> Result<(Arc<Applied>, View), StoreError> {
        let staging = &self.0.floor.staging;
        if staging.has_work() {
            // If it takes longer, the log keeps more until the next time.
            let _ = tokio::time::timeout(SETTLE_MAX, staging.settle()).await;
        }
        let state = self.clone();
        let committing = move || {
            let db = state.0.db.lock();
            let Shown {
                base,
                over,
                applied,
            } = state.flush(&db, Durability::Immediate)?;
            state.0.undurable.store(0, Ordering::Relaxed);
            Ok((applied, View { base, over }))
        };
        tokio::task::spawn_blocking(committing).await.map_err(io)?
    }

    /// Makes a snapshot, which is no more than a durable commit.
    pub(super) async fn take_snapshot(&self) -> Result<(SnapshotMeta, View), StoreError> {
        let (applied, view) = self.make_durable().await?;
        *self.0.snapshot.lock() = applied.last;
        Ok((applied.meta(), view))
    }

    /// The current snapshot: the state of now, if there was ever a snapshot.
    pub(super) async fn current_snapshot(
        &self,
    ) -> Result<Option<(SnapshotMeta, View)>, StoreError> {
        if self.0.snapshot.lock().is_none() {
            return Ok(None);
        }
        self.take_snapshot().await.map(Some)
    }

    /// Begins to receive a snapshot.
    ///
    /// # Errors
    /// [`StoreError`]: the disk.
    pub(crate) fn incoming(&self) -> Result<Incoming, StoreError> {
        Incoming::new(&self.0.dir, self.0.cache_bytes)
    }

    /// Replaces the state by a received one.
    ///
    /// # Errors
    /// [`StoreError`] if it is not the state that `meta` names, or the disk.
    pub(super) async fn install(
        &self,
        meta: &SnapshotMeta,
        incoming: Incoming,
    ) -> Result<(), StoreError> {
        let (state, last) = (self.clone(), meta.last_log_id);
        let installing = move || state.install_now(last, incoming);
        tokio::task::spawn_blocking(installing)
            .await
            .map_err(io)??;
        // The log may forget what the snapshot covers when what came with it is on disk.
        self.make_durable().await.map(|_| ())
    }

    fn install_now(&self, last: Option<LogId>, incoming: Incoming) -> Result<(), StoreError> {
        let applied = decode_applied(incoming.get_full(APPLIED_KEY)?)?;
        if applied.last != last {
            return Err(io("the snapshot's rows are not those of its log id"));
        }
        let staging = &self.0.floor.staging;
        staging.lacks().map_err(io)?;
        let mut db = self.0.db.lock();
        let settled_next = self.settled_next(self.applied().next());
        let new = Arc::new(incoming.install(settled_next)?);
        let next = applied.next();
        let shown = Shown {
            base: Arc::new(Base::open(new.clone())?),
            over: Arc::default(),
            applied: Arc::new(applied),
        };
        let before = std::mem::replace(&mut *self.0.shown.write(), shown);
        let old = std::mem::replace(&mut *db, new);
        *self.0.snapshot.lock() = last;
        self.0.durable_next.store(next, Ordering::Release);
        self.0.undurable.store(0, Ordering::Relaxed);
        if let Some(last) = last {
            // Before anybody can make the new state durable: it would count as settled.
            let node = staging.node();
            let view = self.view();
            let is_own = |chunk: &InlineChunk| {
                lagan_meta::is_member(&view, chunk.id.set(), node).unwrap_or(true)
            };
            staging.stage_held(last.index, &is_own);
            // Whoever compared meanwhile did so with the state before.
            staging.lacks().map_err(io)?;
        }
        drop(db);
        // Closing it writes, here where that may take its time; unless a reader
        // holds it for a while longer.
        drop(before);
        drop(old);
        Ok(())
    }
}

fn decode_applied(row: Option<Vec<u8>>) -> Result<Applied, StoreError> {
    match row {
        Some(row) => codec::decode_serde(&row).map_err(io),
        None => Ok(Applied::default()),
    }
}

fn apply_entry(
    rows: &mut Applying,
    entry: &Entry,
    applied: &mut Applied,
) -> Result<BatchAnswer, StoreError> {
    let mut answer = BatchAnswer::Done(Vec::new());
    match &entry.payload {
        EntryPayload::Blank => {}
        EntryPayload::Membership(membership) => {
            applied.membership = StoredMembership::new(Some(entry.log_id), membership.clone());
        }
        EntryPayload::Normal(batch) => {
            answer = apply_batch(rows, batch, entry.log_id.leader_id.term, applied)?;
        }
    }
    applied.last = Some(entry.log_id);
    Ok(answer)
}

/// Carries out a batch that is in the log with that term. Both terms are in the entry, so
/// that all nodes decide alike whether it is late (INV-11).
fn apply_batch(
    rows: &mut Applying,
    batch: &Batch,
    entered_in: u64,
    applied: &mut Applied,
) -> Result<BatchAnswer, StoreError> {
    let (term, commands) = batch.parts().map_err(io)?;
    if term != entered_in {
        return Ok(BatchAnswer::Late);
    }
    let mut answers = Vec::with_capacity(commands.len());
    for command in commands.iter() {
        applied.time = applied.time.max(command.time);
        answers.push(lagan_meta::apply(rows, command)?);
    }
    Ok(BatchAnswer::Done(answers))
}

/// The chunks that came with the commands of a batch that were carried out, now or before: a
/// repeated command may bring what this node has not had from the first.
fn named_chunks(batch: &Batch, answer: &BatchAnswer) -> Result<Vec<InlineChunk>, StoreError> {
    let BatchAnswer::Done(answers) = answer else {
        return Ok(Vec::new());
    };
    let (_, commands) = batch.parts().map_err(io)?;
    let done = commands.iter().zip(answers).filter(|(_, a)| a.is_ok());
    Ok(done.flat_map(|(c, _)| chunks_of_command(c)).collect())
}
