//! The service behind the protocol, and what its operations share.

use crate::body::blocking;
use crate::store::Store;
use s3s::dto::{ETagCondition, Timestamp};
use s3s::{S3Result, s3_error};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

/// Bytes of a key, at most (S3).
const KEY_LEN_MAX: usize = 1024;

/// One server's data, as the protocol sees it.
#[derive(Debug, Clone)]
pub(crate) struct Api {
    pub store: Arc<Store>,
    pub region: String,
}

impl Api {
    /// Runs a call of the store where it may block.
    pub(super) async fn on_disk<T, F>(&self, work: F) -> S3Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Store) -> S3Result<T> + Send + 'static,
    {
        let store = self.store.clone();
        blocking(move || work(&store)).await
    }
}

/// Refuses keys that S3 refuses.
pub(super) fn check_key(key: &str) -> S3Result<()> {
    if key.len() > KEY_LEN_MAX {
        Err(s3_error!(KeyTooLongError))
    } else {
        Ok(())
    }
}

/// A time as S3 shows it.
pub(super) fn timestamp(ms: u64) -> Timestamp {
    Timestamp::from(UNIX_EPOCH + Duration::from_millis(ms))
}

/// Whether the condition is that no object of that key exists (`If-None-Match: *`).
pub(super) fn none_match(condition: Option<&ETagCondition>) -> bool {
    condition.is_some_and(ETagCondition::is_any)
}
