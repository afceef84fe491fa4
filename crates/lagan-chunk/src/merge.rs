//! The merge thread: moves index changes from memory to disk in batches.
//!
//! A batch is one atomic change of the index, with the log position that it
//! covers. A crash before, in or after it leaves the index at one such
//! position; the log behind it is replayed.

use crate::error::ChunkError;
use crate::inner::Inner;
use crate::log::DELTA_LEN_MERGE;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// How long changes stay in memory at most, so that a restart has little to
/// replay.
const MERGE_INTERVAL: Duration = Duration::from_secs(10);
/// How often the index is made durable.
const FLUSH_INTERVAL: Duration = Duration::from_secs(15);

/// Merges all that is in memory into the index.
pub(crate) fn merge(inner: &Inner) -> Result<(), ChunkError> {
    merge_part(inner)?;
    while inner.state.lock().rebuilding {
        merge_part(inner)?;
    }
    Ok(())
}

/// Makes one atomic change of the index.
fn merge_part(inner: &Inner) -> Result<(), ChunkError> {
    let _merging = inner.merging.lock();
    inner.check_failed()?;
    let Some(merge) = inner.state.lock().begin_merge(inner.pool.next_generation()) else {
        return Ok(());
    };
    // On an error the changes stay in `merging`, where reads find them; the
    // store takes no more writes, and the next open replays the log.
    inner.index.apply(merge).inspect_err(|e| {
        inner.fail(&e.to_string());
    })?;
    inner.state.lock().end_merge();
    inner.merged.notify_all();
    Ok(())
}

/// The thread's body: until the store stops.
pub(crate) fn run(inner: Arc<Inner>) {
    let mut merged = Instant::now();
    let mut flushed = Instant::now();
    loop {
        {
            let mut state = inner.state.lock();
            if inner.stopping.load(Ordering::Acquire) {
                return;
            }
            if state.delta.len() < DELTA_LEN_MERGE {
                inner
                    .merge_wanted
                    .wait_for(&mut state, Duration::from_secs(1));
            }
            let due = state.delta.len() >= DELTA_LEN_MERGE || merged.elapsed() > MERGE_INTERVAL;
            if !due || inner.stopping.load(Ordering::Acquire) {
                continue;
            }
        }
        merged = Instant::now();
        let flush = flushed.elapsed() > FLUSH_INTERVAL;
        let mut result = merge_part(&inner);
        if flush && result.is_ok() {
            flushed = Instant::now();
            result = inner.index.flush();
        }
        if let Err(error) = result {
            inner.fail(&error.to_string());
            return;
        }
    }
}
