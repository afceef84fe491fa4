//! Keeps the state durable and the log short.

use crate::log::LogStore;
use crate::options::Options;
use crate::state::StateStore;
use crate::types::alias::OpenRaft;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// The background work on one voter's stores.
pub(super) struct Keeper {
    pub core: OpenRaft,
    pub state: StateStore,
    pub log: LogStore,
    pub options: Options,
}

impl Keeper {
    /// Makes the state durable about once in `durable_every_ms`, and lets the log purge after
    /// it; until cancelled.
    pub async fn run(self, cancel: CancellationToken) {
        let every = Duration::from_millis(self.options.durable_every_ms);
        loop {
            tokio::select! {
                biased;
                () = cancel.cancelled() => return,
                () = tokio::time::sleep(every) => {}
                () = self.state.wants_durable() => {}
            }
            if self.state.is_dirty()
                && let Err(e) = self.state.make_durable().await
            {
                tracing::error!(error = %e, "make state durable");
                return;
            }
            if self.limit_bytes().await.is_err() {
                // The consensus has ended.
                return;
            }
            self.log.purge_to_floor();
        }
    }

    /// Makes a snapshot where much was written since the last one, and has the log keep so much
    /// and no more behind it: the consensus itself counts entries, not bytes.
    async fn limit_bytes(&self) -> Result<(), openraft::error::Fatal<u64>> {
        let snapshot = self.state.snapshot_index();
        if self.log.bytes_behind(snapshot) > self.options.snapshot_bytes {
            self.core.trigger().snapshot().await?;
        }
        match self.log.beyond(self.options.keep_bytes) {
            Some(last) if last <= snapshot => self.core.trigger().purge_log(last).await,
            _ => Ok(()),
        }
    }
}
