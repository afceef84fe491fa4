//! The state store: applies, makes durable, shows, takes and installs snapshots.

use super::db::{Db, Incoming, io};
use super::view::View;
use crate::error::RaftError;
use crate::log::Floor;
use crate::types::BatchAnswer;
use crate::types::alias::{Entry, LogId, SnapshotMeta, StoredMembership};
use lagan_meta::kv::StoreError;
use lagan_types::Time;
use lagan_types::codec;
use openraft::EntryPayload;
use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::Notify;

/// Key of [`Applied`]: table 0 is this crate's.
const APPLIED_KEY: &[u8] = &[0, b'a'];
/// Applied batches after which a durable commit does not wait for its time:
/// pages freed in between cannot be used again before it.
const UNDURABLE_MAX: u64 = 2_000;

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

struct Inner {
    dir: PathBuf,
    cache_bytes: usize,
    db: RwLock<Arc<Db>>,
    applied: Mutex<Applied>,
    /// Shared by all readers until the next change. Locked while it is opened,
    /// cleared after each commit: what it shows is never older than an answer.
    view: Mutex<Option<View>>,
    /// Held by whoever writes: redb has one writer, and whoever waits for the
    /// sync of a durable commit must not block a thread.
    writing: tokio::sync::Mutex<()>,
    /// Batches since the last durable commit.
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
    /// [`RaftError::Io`], [`RaftError::State`].
    pub fn open(
        dir: PathBuf,
        cache_bytes: usize,
        floor: Arc<Floor>,
    ) -> Result<StateStore, RaftError> {
        let db = Arc::new(Db::open(&dir, cache_bytes)?);
        let state = |e: StoreError| RaftError::State(e.to_string());
        let view = View::open(db.clone()).map_err(state)?;
        let row = view.get_full(APPLIED_KEY).map_err(state)?;
        let applied = decode_applied(row).map_err(state)?;
        floor.raise(applied.last.map_or(0, |id| id.index + 1));
        Ok(StateStore(Arc::new(Inner {
            dir,
            cache_bytes,
            db: RwLock::new(db),
            applied: Mutex::new(applied),
            view: Mutex::new(None),
            writing: tokio::sync::Mutex::new(()),
            undurable: AtomicU64::new(0),
            wanted: Notify::new(),
            floor,
            snapshot: Mutex::new(None),
        })))
    }

    fn db(&self) -> Arc<Db> {
        self.0.db.read().clone()
    }

    /// How far the state is.
    pub fn applied(&self) -> Applied {
        self.0.applied.lock().clone()
    }

    /// Index of the last applied entry.
    pub fn applied_index(&self) -> u64 {
        self.0.applied.lock().last.map_or(0, |id| id.index)
    }

    /// Index of the last entry that a crash leaves in the state.
    pub fn durable_index(&self) -> u64 {
        self.0.floor.next().saturating_sub(1)
    }

    /// The time of the last applied command.
    pub fn last_time(&self) -> Time {
        self.0.applied.lock().time
    }

    /// Index that the last snapshot stands for.
    pub fn snapshot_index(&self) -> u64 {
        self.0.snapshot.lock().map_or(0, |id| id.index)
    }

    /// The state now.
    ///
    /// # Errors
    /// [`StoreError`]: the disk.
    pub fn view(&self) -> Result<View, StoreError> {
        let mut cached = self.0.view.lock();
        if let Some(view) = &*cached {
            return Ok(view.clone());
        }
        let view = View::open(self.db())?;
        *cached = Some(view.clone());
        Ok(view)
    }

    /// Applies entries, all in one transaction.
    ///
    /// # Errors
    /// [`StoreError`]: nothing was applied, the node must stop.
    pub(super) async fn apply(&self, entries: Vec<Entry>) -> Result<Vec<BatchAnswer>, StoreError> {
        let _writing = self.0.writing.lock().await;
        let mut applied = self.applied();
        let answers = self.db().commit_lazily(|rows| {
            let mut answers = Vec::with_capacity(entries.len());
            for entry in &entries {
                answers.push(apply_entry(rows, entry, &mut applied)?);
            }
            rows.put_full(APPLIED_KEY, &codec::encode_serde(&applied))?;
            Ok(answers)
        })?;
        *self.0.applied.lock() = applied;
        *self.0.view.lock() = None;
        if self.0.undurable.fetch_add(1, Ordering::Relaxed) + 1 == UNDURABLE_MAX {
            self.0.wanted.notify_one();
        }
        Ok(answers)
    }

    /// Whether a crash would forget something.
    pub fn is_dirty(&self) -> bool {
        self.0.undurable.load(Ordering::Relaxed) > 0
    }

    /// Returns when so much is not durable that it should be made so at once.
    pub async fn wants_durable(&self) {
        self.0.wanted.notified().await;
    }

    /// Makes the state durable and raises the floor; returns what is now
    /// durable, with a view of exactly that.
    ///
    /// # Errors
    /// [`StoreError`]: the disk; the node must stop.
    pub async fn make_durable(&self) -> Result<(Applied, View), StoreError> {
        let _writing = self.0.writing.lock().await;
        let (applied, db) = (self.applied(), self.db());
        let committing = db.clone();
        tokio::task::spawn_blocking(move || committing.commit_durably(|_| Ok(())))
            .await
            .map_err(io)??;
        self.0.undurable.store(0, Ordering::Relaxed);
        self.0
            .floor
            .raise(applied.last.map_or(0, |id| id.index + 1));
        Ok((applied, View::open(db)?))
    }

    /// Makes a snapshot: no more than a durable commit.
    pub(super) async fn take_snapshot(&self) -> Result<(SnapshotMeta, View), StoreError> {
        let (applied, view) = self.make_durable().await?;
        *self.0.snapshot.lock() = applied.last;
        Ok((applied.meta(), view))
    }

    /// The current snapshot: if there was ever one, the state now.
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
        let _writing = self.0.writing.lock().await;
        let applied = decode_applied(incoming.get_full(APPLIED_KEY)?)?;
        if applied.last != meta.last_log_id {
            return Err(io("the snapshot's rows are not those of its log id"));
        }
        let db = tokio::task::spawn_blocking(move || incoming.install())
            .await
            .map_err(io)??;
        let old = std::mem::replace(&mut *self.0.db.write(), Arc::new(db));
        *self.0.snapshot.lock() = applied.last;
        self.0
            .floor
            .raise(applied.last.map_or(0, |id| id.index + 1));
        *self.0.applied.lock() = applied;
        *self.0.view.lock() = None;
        self.0.undurable.store(0, Ordering::Relaxed);
        // Closing it writes; readers may hold it for a while longer.
        tokio::task::spawn_blocking(move || drop(old));
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
    rows: &mut super::db::Rows<'_>,
    entry: &Entry,
    applied: &mut Applied,
) -> Result<BatchAnswer, StoreError> {
    let mut answers = BatchAnswer::default();
    match &entry.payload {
        EntryPayload::Blank => {}
        EntryPayload::Membership(membership) => {
            applied.membership = StoredMembership::new(Some(entry.log_id), membership.clone());
        }
        EntryPayload::Normal(batch) => {
            let commands = batch.commands().map_err(io)?;
            for command in commands.iter() {
                applied.time = applied.time.max(command.time);
                answers.0.push(lagan_meta::apply(rows, command)?);
            }
        }
    }
    applied.last = Some(entry.log_id);
    Ok(answers)
}
