//! Tells the metadata how uploads ended.

use crate::Meta;
use lagan_object::Backoff;
use lagan_types::SystemOp;

/// Tries before a report is dropped, some five minutes.
const TRIES_MAX: u32 = 60;
const BACKOFF: Backoff = Backoff::new(100, 10_000);

/// Repeats the mutation until it is done or was tried too often; `false`: given up.
/// Repeats are harmless: attempts have numbers, and each ends once.
pub(crate) async fn report(meta: &dyn Meta, op: impl Into<SystemOp>) -> bool {
    let op = op.into();
    for failures in 1..=TRIES_MAX {
        match meta.mutate(op.clone()).await {
            Ok(_) => return true,
            Err(error) => {
                tracing::debug!(%error, failures, "report of uploads");
                tokio::time::sleep(BACKOFF.delay(failures, rand::random())).await;
            }
        }
    }
    tracing::warn!("uploads could not be reported, they will be repeated");
    false
}
