//! The merge thread: moves index changes from memory to disk in batches.
//!
//! A batch is one atomic change of the index and has the log position that it
//! covers. A crash at any time leaves the index at one such position; the next open
//! replays the log behind it.

use crate::error::ChunkError;
use crate::inner::Inner;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Time that changes stay in memory at most, so that a restart has little to replay.
const MERGE_INTERVAL: Duration = Duration::from_secs(10);
/// How often the index is made durable.
const FLUSH_INTERVAL: Duration = Duration::from_secs(15);

/// Merges all changes that are in memory now into the index.
pub(crate) fn merge(inner: &Inner) -> Result<(), ChunkError> {
    let next_generation = inner.pool.next_generation();
    while inner.state.lock().rebuilding {
        inner.state.lock().freeze(next_generation);
        merge_oldest(inner)?;
    }
    let count = {
        let mut state = inner.state.lock();
        state.freeze(next_generation);
        state.frozen.len()
    };
    for _ in 0..count {
        merge_oldest(inner)?;
    }
    Ok(())
}

/// Makes one atomic change of the index, if one waits.
fn merge_oldest(inner: &Inner) -> Result<(), ChunkError> {
    let _merging = inner.merging.lock();
    inner.check_failed()?;
    let Some(merge) = inner.state.lock().begin_merge() else {
        return Ok(());
    };
    // On an error the changes stay in `frozen`, where reads find them; the
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
            if state.frozen.is_empty() && !state.rebuilding {
                let second = Duration::from_secs(1);
                inner.merge_wanted.wait_for(&mut state, second);
            }
            if state.frozen.is_empty() && (state.rebuilding || merged.elapsed() > MERGE_INTERVAL) {
                state.freeze(inner.pool.next_generation());
                merged = Instant::now();
            }
            if inner.stopping.load(Ordering::Acquire) {
                return;
            }
        }
        let flush = flushed.elapsed() > FLUSH_INTERVAL;
        let mut result = merge_oldest(&inner);
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
