//! openraft's own tests of log and state store.

use crate::log::{Floor, LogOptions, LogStore};
use crate::state::StateStore;
use crate::types::TypeConfig;
use crate::types::alias::StorageError;
use openraft::testing::{StoreBuilder, Suite};
use std::sync::Arc;
use std::time::Duration;

struct Builder;

impl StoreBuilder<TypeConfig, LogStore, StateStore, tempfile::TempDir> for Builder {
    async fn build(&self) -> Result<(tempfile::TempDir, LogStore, StateStore), StorageError> {
        let dir = tempfile::tempdir().unwrap();
        let floor = Arc::new(Floor::default());
        let state = StateStore::open(dir.path().join("state"), 1 << 20, floor.clone()).unwrap();
        // The suite purges what it has never applied.
        floor.raise(u64::MAX);
        let log = LogOptions {
            dir: dir.path().join("log"),
            node: 1,
            segment_bytes: 64 * 1024,
            cache_bytes: 1 << 20,
            slow_sync: Duration::from_secs(1),
        };
        let log = LogStore::open(log, floor).unwrap();
        Ok((dir, log, state))
    }
}

#[test]
fn log_and_state_store_pass_the_suite() {
    Suite::test_all(Builder).unwrap();
}
