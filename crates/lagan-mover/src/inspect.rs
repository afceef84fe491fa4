//! Looks at objects for `lagan check`: whether those that the metadata names are
//! there and right, and which there are. Changes nothing.

use crate::gate::Gate;
use crate::{MoverError, RecallError};
use lagan_object::{ObjectError, ObjectInfo, ObjectStore};
use lagan_types::message::ObjectHealth;
use lagan_types::query::Object;
use std::sync::Arc;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// Questions to S3 at the same time: each is a round trip and costs no bandwidth.
const HEADS: usize = 16;
/// Objects in one answer to [`Inspector::list`]: what one S3 request gives.
const LIST_MAX: u32 = 1000;
/// Objects in one question to [`Inspector::check`].
pub(crate) const CHECK_MAX: usize = 256;

/// One node's way to look at objects.
#[derive(Clone)]
pub(crate) struct Inspector {
    store: Arc<dyn ObjectStore>,
    gate: Arc<Gate>,
    heads: Arc<Semaphore>,
}

impl Inspector {
    pub fn new(store: Arc<dyn ObjectStore>, gate: Arc<Gate>) -> Self {
        Inspector {
            store,
            gate,
            heads: Arc::new(Semaphore::new(HEADS)),
        }
    }

    /// The state of each object, in order.
    pub async fn check(&self, objects: Vec<Object>) -> Vec<ObjectHealth> {
        let unknown = || ObjectHealth::Unknown("the question was given up".into());
        let mut found: Vec<ObjectHealth> = objects.iter().map(|_| unknown()).collect();
        let mut tasks = JoinSet::new();
        for (i, object) in objects.into_iter().enumerate() {
            let inspector = self.clone();
            tasks.spawn(async move { (i, inspector.health(&object).await) });
        }
        while let Some(done) = tasks.join_next().await {
            if let Ok((i, health)) = done
                && let Some(place) = found.get_mut(i)
            {
                *place = health;
            }
        }
        found
    }

    async fn health(&self, object: &Object) -> ObjectHealth {
        // never closed
        let _turn = self.heads.acquire().await;
        if let Err(error) = self.gate.try_read() {
            return ObjectHealth::Unknown(error.reason);
        }
        let info = self.store.head(&object.key).await;
        self.report(info.as_ref().map(|_| ()));
        match info {
            Ok(info) => compare(&info, object),
            Err(error) if error.is_not_found() => ObjectHealth::Missing,
            Err(error) => ObjectHealth::Unknown(error.to_string()),
        }
    }

    /// Reports a read to the gate. An answer that the object is not there counts as
    /// success: it is no trouble with the endpoint.
    fn report(&self, result: Result<(), &ObjectError>) {
        match result {
            Err(error) if error.is_not_found() => self.gate.report_read(Ok(())),
            other => self.gate.report_read(other),
        }
    }

    /// Lists objects of this incarnation under the archive's prefix, in order of key,
    /// above `after`: key and bytes of each, and whether these were the last. A failure
    /// is not reported to the gate: credentials that may not list must not stop reads.
    ///
    /// # Errors
    /// The endpoint's; there is no archive.
    pub async fn list(
        &self,
        after: Option<String>,
        limit: u32,
    ) -> Result<(Vec<(String, u64)>, bool), RecallError> {
        let Some((prefix, owner)) = self.gate.ours() else {
            return Err(RecallError::permanent("the cluster has no archive"));
        };
        let folder = match prefix.trim_matches('/') {
            "" => format!("{}/", owner.incarnation),
            prefix => format!("{prefix}/{}/", owner.incarnation),
        };
        let limit = limit.clamp(1, LIST_MAX) as usize;
        let listed = self.store.list(&folder, after.as_deref(), limit).await;
        let listed = listed.map_err(MoverError::Object)?;
        let last = listed.len() < limit;
        let pairs = listed.into_iter().map(|o| (o.key, o.len));
        Ok((pairs.collect(), last))
    }
}

/// Compares what S3 says of an object with what the metadata says.
fn compare(info: &ObjectInfo, object: &Object) -> ObjectHealth {
    let crc_fits = info.crc32.is_none_or(|crc| crc == object.crc);
    if info.len == object.size && crc_fits {
        return ObjectHealth::Healthy;
    }
    ObjectHealth::Differs {
        size: info.len,
        crc: info.crc32,
    }
}
