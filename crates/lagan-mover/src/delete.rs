//! Deletes objects that nothing names: the leader's duty.
//!
//! The queue is replicated; a row leaves it only after S3 confirmed the
//! delete. Before each batch the owner object is read: if it names another
//! incarnation, nothing is deleted any more. Deletes are idempotent, so two
//! leaders for a moment, or a row done twice, harm nobody.

use crate::attempts::pages;
use crate::gate::Gate;
use crate::metrics::METRICS;
use crate::report::report;
use crate::{Meta, MoverError};
use lagan_object::{ObjectStore, Owner, OwnerError, read_owner};
use lagan_types::op::ObjectsDeleted;
use lagan_types::query::ObjectReap;
use std::collections::HashSet;
use std::time::Duration;

/// Objects in one batch: what one S3 request takes.
const BATCH: u32 = 1000;
/// Unfinished uploads that one sweep looks at.
const UPLOADS: usize = 1000;

/// Deletes one batch of what is ready; returns how many.
pub(crate) async fn delete_batch(
    meta: &dyn Meta,
    store: &dyn ObjectStore,
    gate: &Gate,
) -> Result<usize, MoverError> {
    let now_ms = meta.now_ms();
    let limit = BATCH;
    let rows = meta.read(ObjectReap { now_ms, limit }).await?;
    if rows.is_empty() {
        return Ok(0);
    }
    let Some((prefix, owner)) = gate.ours() else {
        return Ok(0);
    };
    check_owner(store, gate, &prefix, owner).await?;
    let (ours, foreign): (Vec<_>, Vec<_>) = rows
        .into_iter()
        .partition(|(_, key)| is_under(key, &prefix));
    for (_, key) in &foreign {
        tracing::error!(
            key,
            "object to delete is not under the archive's prefix, kept"
        );
    }
    let keys: Vec<String> = ours.iter().map(|(_, key)| key.clone()).collect();
    let deleted = store.delete(&keys).await;
    gate.report(deleted.as_ref().map(|_| ()));
    deleted?;
    METRICS.deletes.add(keys.len() as u64);
    let rows: Vec<u64> = ours.iter().chain(&foreign).map(|(row, _)| *row).collect();
    let count = rows.len();
    if report(meta, ObjectsDeleted { rows }).await {
        Ok(count)
    } else {
        Err(MoverError::NotReported("deletes"))
    }
}

async fn check_owner(
    store: &dyn ObjectStore,
    gate: &Gate,
    prefix: &str,
    owner: Owner,
) -> Result<(), MoverError> {
    let wrong = match read_owner(store, prefix).await {
        Ok(Some(found)) if found.incarnation == owner.incarnation => return Ok(()),
        Ok(Some(found)) => OwnerError::Other(found.incarnation),
        Ok(None) => OwnerError::Malformed {
            key: lagan_object::owner_key(prefix),
            message: "it is gone".into(),
        },
        Err(OwnerError::Store(error)) => {
            gate.report(Err(&error));
            return Err(error.into());
        }
        Err(other) => other,
    };
    gate.lose_ownership(&wrong);
    Err(wrong.into())
}

/// True if the key is one of the archive's own.
fn is_under(key: &str, prefix: &str) -> bool {
    match prefix.trim_matches('/') {
        "" => !key.starts_with(".lagan"),
        prefix => {
            let rest = key
                .strip_prefix(prefix)
                .and_then(|rest| rest.strip_prefix('/'));
            rest.is_some_and(|rest| !rest.is_empty() && !rest.starts_with(".lagan"))
        }
    }
}

/// Aborts unfinished uploads that no recorded attempt wants; returns how many.
pub(crate) async fn abort_stale_uploads(
    meta: &dyn Meta,
    store: &dyn ObjectStore,
    prefix: &str,
    age: Duration,
) -> Result<usize, MoverError> {
    let folder = match prefix.trim_matches('/') {
        "" => String::new(),
        prefix => format!("{prefix}/"),
    };
    let uploads = store.list_uploads(&folder, UPLOADS).await?;
    let latest_s = (meta.now_ms() / 1000).saturating_sub(age.as_secs());
    let mut stale: Vec<_> = uploads
        .into_iter()
        .filter(|u| u.begun_s <= latest_s)
        .collect();
    if stale.is_empty() {
        return Ok(0);
    }
    let mut wanted = HashSet::new();
    pages(meta, |rows| wanted.extend(rows.into_iter().map(|r| r.key))).await?;
    stale.retain(|u| is_under(&u.key, prefix) && !wanted.contains(&u.key));
    for upload in &stale {
        store.abort_upload(&upload.key, &upload.upload_id).await?;
    }
    Ok(stale.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_archives_own_keys_are_deleted() {
        assert!(is_under("p/1/a", "p"));
        assert!(is_under("1/a", ""));
        for foreign in ["p2/1/a", "p", "p/", "q/p/1", "p/.lagan-owner"] {
            assert!(!is_under(foreign, "p"), "{foreign}");
        }
        assert!(!is_under(".lagan-owner", ""));
    }
}
