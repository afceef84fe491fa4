//! What came with the entries of a log, found again by a start.

use crate::error::RaftError;
use crate::log::LogStore;
use crate::staging::{Staging, chunks_of, keep_own};
use crate::state::View;
use openraft::EntryPayload;

/// Stages what a start finds in the log: of the entries that `state` has, from the first one
/// that is not settled on; the others are held until they are carried out.
///
/// Whether a command was carried out or refused is not known any more, and whether its chunks
/// are still named. What was freed since stands in this node's rows of the reap queue: it
/// reports rows only when all that was carried out before is settled. What was refused goes
/// when its block of ids is closed; it stays until a check, if that has happened already.
///
/// # Errors
/// [`RaftError`]: the log or the state cannot be read.
pub(crate) fn restage(
    log: &LogStore,
    staging: &dyn Staging,
    state: &View,
    settled_next: u64,
    applied_next: u64,
) -> Result<(), RaftError> {
    let failed = |e: String| RaftError::State(e);
    let mut from = settled_next;
    loop {
        let entries = log.entries(from).map_err(failed)?;
        let Some(last) = entries.last() else {
            return Ok(());
        };
        from = last.log_id.index + 1;
        for entry in &entries {
            let EntryPayload::Normal(batch) = &entry.payload else {
                continue;
            };
            let (index, chunks) = (entry.log_id.index, chunks_of(batch));
            if chunks.is_empty() {
                continue;
            }
            if index >= applied_next {
                staging.hold(index, chunks);
                continue;
            }
            let own = keep_own(state, staging.node(), chunks);
            staging.stage(index, own.map_err(|e| failed(e.to_string()))?);
        }
    }
}
