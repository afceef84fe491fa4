//! The state store as openraft wants it.

use super::store::StateStore;
use crate::types::alias::{Entry, LogId, Snapshot, SnapshotMeta, StorageError, StoredMembership};
use crate::types::{BatchAnswer, SnapshotData, TypeConfig};
use lagan_meta::kv::StoreError;
use openraft::storage::RaftStateMachine;
use openraft::{AnyError, OptionalSend, RaftSnapshotBuilder, StorageIOError};

/// Bytes of rows that are copied at a time.
const COPY_LEN: usize = 1024 * 1024;

fn read_failed(e: StoreError) -> StorageError {
    StorageIOError::read_state_machine(AnyError::error(e)).into()
}

fn write_failed(e: StoreError) -> StorageError {
    tracing::error!(error = %e, "write state store");
    StorageIOError::write_state_machine(AnyError::error(e)).into()
}

fn snapshot((meta, view): (SnapshotMeta, super::View)) -> Snapshot {
    Snapshot {
        meta,
        snapshot: Box::new(SnapshotData::Local(view)),
    }
}

impl RaftSnapshotBuilder<TypeConfig> for StateStore {
    async fn build_snapshot(&mut self) -> Result<Snapshot, StorageError> {
        self.take_snapshot()
            .await
            .map(snapshot)
            .map_err(write_failed)
    }
}

impl StateStore {
    /// Nothing is applied that this node's log does not have on disk. Takes as
    /// long as the disk does; the end of the log ends it.
    async fn wait_for_log(&self, entries: &[Entry]) -> Result<(), StorageError> {
        let Some(last) = entries.last() else {
            return Ok(());
        };
        let waited = self.floor().syncs.wait(last.log_id.index).await;
        waited.map_err(|e| StorageIOError::apply(last.log_id, AnyError::new(&e)).into())
    }
}

impl RaftStateMachine<TypeConfig> for StateStore {
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), StorageError> {
        let applied = self.applied();
        Ok((applied.last, applied.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<BatchAnswer>, StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        self.wait_for_log(&entries).await?;
        StateStore::apply(self, entries).await.map_err(write_failed)
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<SnapshotData>, StorageError> {
        Ok(Box::new(SnapshotData::Nothing))
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: Box<SnapshotData>,
    ) -> Result<(), StorageError> {
        let incoming = match *snapshot {
            SnapshotData::Received(incoming) => *incoming,
            SnapshotData::Local(view) => {
                let mut incoming = self.incoming().map_err(write_failed)?;
                let mut after = None;
                loop {
                    let piece = view
                        .piece(after.as_deref(), COPY_LEN)
                        .map_err(read_failed)?;
                    incoming.add(&piece.bytes).map_err(write_failed)?;
                    if piece.end {
                        break;
                    }
                    after = Some(piece.last_key);
                }
                incoming.finish().map_err(write_failed)?;
                incoming
            }
            SnapshotData::Nothing => {
                return Err(write_failed(super::db::io("no snapshot was received")));
            }
        };
        self.install(meta, incoming).await.map_err(write_failed)
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, StorageError> {
        let current = self.current_snapshot().await.map_err(write_failed)?;
        Ok(current.map(snapshot))
    }
}
