//! The chunks that come with commits, on their way from this node's log to its chunk store
//! (`lagan_raft::Staging`).
//!
//! What the store does not take is tried again. Where it takes nothing for long, this node
//! gives the chunks up, so that its log does not grow for ever, and raises its [`Doubt`]: it
//! then fetches them from the sets' other members.

use lagan_chunk::{ChunkError, Store};
use lagan_raft::{BoxFuture, InlineChunk, Staging};
use lagan_replica::Doubt;
use lagan_types::NodeId;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// How long a chunk is tried that the store does not take.
const TRY_FOR: Duration = Duration::from_secs(60);
/// Time between two tries.
const TRY_EVERY: Duration = Duration::from_millis(500);
/// Bytes in memory with which the log takes no more at once.
const CROWDED_LEN: usize = 64 << 20;

/// A chunk that the store did not take.
struct Failed {
    index: u64,
    chunk: InlineChunk,
    since: Instant,
    error: ChunkError,
}

#[derive(Default)]
struct Table {
    /// Chunks of entries that are in the log and not carried out.
    held: BTreeMap<u64, Vec<InlineChunk>>,
    /// How many chunks of an entry are staged and not on disk.
    unsettled: BTreeMap<u64, usize>,
    failed: Vec<Failed>,
    /// When these were tried again last.
    tried: Option<Instant>,
}

impl Table {
    /// One chunk of the entry is on disk, or given up.
    fn settle(&mut self, index: u64) {
        if let Some(count) = self.unsettled.get_mut(&index) {
            *count -= 1;
            if *count == 0 {
                self.unsettled.remove(&index);
            }
        }
    }
}

/// The chunks of one node on their way.
pub(crate) struct Staged {
    node: NodeId,
    store: Arc<Store>,
    doubt: Arc<Doubt>,
    table: Arc<Mutex<Table>>,
}

impl std::fmt::Debug for Staged {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Staged").field("node", &self.node).finish()
    }
}

impl Staged {
    /// Nothing on its way to `store` of `node`.
    pub(crate) fn new(node: NodeId, store: Arc<Store>, doubt: Arc<Doubt>) -> Self {
        Staged {
            node,
            store,
            doubt,
            table: Arc::default(),
        }
    }

    /// Gives a chunk that is counted as unsettled to the store.
    fn start(&self, index: u64, chunk: InlineChunk, since: Option<Instant>) {
        let table = self.table.clone();
        let InlineChunk { id, data, crc } = chunk.clone();
        let done = move |result: Result<(), ChunkError>| {
            let mut table = table.lock();
            match result {
                Ok(()) => table.settle(index),
                Err(error) => table.failed.push(Failed {
                    index,
                    chunk,
                    since: since.unwrap_or_else(Instant::now),
                    error,
                }),
            }
        };
        self.store.stage(id, data, crc, Box::new(done));
    }

    fn let_go(&self, chunks: &[InlineChunk]) {
        for chunk in chunks {
            self.store.let_go(chunk.id);
        }
    }

    /// Stages again what failed, or gives it up; not too often.
    fn try_again(&self) {
        let failed = {
            let mut table = self.table.lock();
            let recently = |at: Instant| at.elapsed() < TRY_EVERY;
            if table.failed.is_empty() || table.tried.is_some_and(recently) {
                return;
            }
            table.tried = Some(Instant::now());
            std::mem::take(&mut table.failed)
        };
        let mut gone = Vec::new();
        for one in failed {
            let never = matches!(
                one.error,
                ChunkError::Conflict(_) | ChunkError::WrongCrc(_) | ChunkError::Invalid(_)
            );
            if !never && one.since.elapsed() < TRY_FOR {
                self.start(one.index, one.chunk, Some(one.since));
                continue;
            }
            let (chunk, error) = (one.chunk.id, &one.error);
            tracing::error!(%chunk, %error, "a chunk that came with a commit could not be stored, it is fetched from another node later");
            // First it is not here any more: who compares from now on finds that it is missing.
            self.store.unstage(chunk);
            gone.push(one);
        }
        if gone.is_empty() {
            return;
        }
        match self.doubt.raise() {
            Ok(()) => {
                let mut table = self.table.lock();
                gone.iter().for_each(|one| table.settle(one.index));
            }
            Err(e) => {
                // Nothing is forgotten without the mark.
                tracing::error!(error = %e, "mark that chunks may be missing here");
                for one in gone {
                    self.start(one.index, one.chunk, Some(one.since));
                }
            }
        }
    }
}

impl Staging for Staged {
    fn node(&self) -> NodeId {
        self.node
    }

    fn hold(&self, index: u64, chunks: Vec<InlineChunk>) {
        for chunk in &chunks {
            self.store.hold(chunk.id, chunk.data.clone(), chunk.crc);
        }
        let before = self.table.lock().held.insert(index, chunks);
        self.let_go(&before.unwrap_or_default());
    }

    fn cut(&self, since: u64) {
        let cut = self.table.lock().held.split_off(&since);
        cut.values().for_each(|chunks| self.let_go(chunks));
    }

    fn stage(&self, index: u64, chunks: Vec<InlineChunk>) {
        let held = {
            let mut table = self.table.lock();
            if !chunks.is_empty() {
                *table.unsettled.entry(index).or_default() += chunks.len();
            }
            table.held.remove(&index)
        };
        for chunk in chunks {
            self.start(index, chunk, None);
        }
        // Only now: a reader must find them all the time.
        self.let_go(&held.unwrap_or_default());
    }

    fn stage_held(&self, through: u64, is_own: &dyn Fn(&InlineChunk) -> bool) {
        let held: Vec<(u64, Vec<InlineChunk>)> = {
            let table = self.table.lock();
            let held = table.held.range(..=through);
            held.map(|(index, chunks)| (*index, chunks.clone()))
                .collect()
        };
        for (index, mut chunks) in held {
            chunks.retain(is_own);
            self.stage(index, chunks);
        }
    }

    fn give_up(&self, before: u64) {
        let gone = {
            let mut table = self.table.lock();
            table.unsettled = table.unsettled.split_off(&before);
            let all = std::mem::take(&mut table.failed);
            let (gone, failed): (Vec<_>, Vec<_>) = all.into_iter().partition(|f| f.index < before);
            table.failed = failed;
            gone
        };
        for failed in gone {
            self.store.unstage(failed.chunk.id);
        }
    }

    fn lacks(&self) -> Result<(), String> {
        self.doubt.raise().map_err(|e| e.to_string())
    }

    fn unsettled(&self) -> Option<u64> {
        self.table.lock().unsettled.keys().next().copied()
    }

    fn has_work(&self) -> bool {
        let table = self.table.lock();
        !table.unsettled.is_empty() || !table.failed.is_empty()
    }

    fn is_crowded(&self) -> bool {
        self.store.staged_bytes() > CROWDED_LEN
    }

    fn settle(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            self.try_again();
            let (done, settled) = oneshot::channel();
            self.store.settle(Box::new(move |result| {
                let _ = done.send(result);
            }));
            // What failed is in the table.
            let _ = settled.await;
        })
    }
}

#[cfg(test)]
mod tests;
