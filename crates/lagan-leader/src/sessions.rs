//! The sessions of a state.

use lagan_meta::kv::{Read, StoreError};
use lagan_types::SessionId;
use lagan_types::query::Sessions;

/// Returns the sessions that live.
pub(crate) fn live_sessions(state: &impl Read) -> Result<Vec<SessionId>, StoreError> {
    let sessions = lagan_meta::read(state, Sessions)?.unwrap_or_default();
    Ok(sessions.into_iter().map(|(id, _)| id).collect())
}
