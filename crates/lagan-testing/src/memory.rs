//! An object store in memory, with faults on demand: for tests of what uses one.

use async_trait::async_trait;
use bytes::Bytes;
use lagan_object::{
    Body, ErrorKind, ListedObject, ListedUpload, ObjectError, ObjectInfo, ObjectMeta, ObjectStore,
};
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A fault of one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The call fails without effect.
    Fail(ErrorKind),
    /// The call takes effect, but its answer is lost (a transient error).
    LoseAnswer,
    /// The call succeeds, but a bit of the bytes stored or read is flipped.
    Corrupt,
}

#[derive(Debug, Clone)]
struct Stored {
    bytes: Bytes,
    meta: ObjectMeta,
    crc32: Option<u32>,
}

#[derive(Debug, Default)]
struct State {
    objects: BTreeMap<String, Stored>,
    /// Faults to come, one for each call, first to last.
    next: std::collections::VecDeque<Fault>,
    /// The fault of every call while `next` is empty.
    always: Option<Fault>,
    calls: u64,
    accepts_wrong_checksums: bool,
}

/// One bucket in memory.
#[derive(Debug, Default)]
pub struct MemoryStore {
    /// Held for moments only, never across a wait.
    state: Mutex<State>,
}

impl MemoryStore {
    /// An empty bucket that works.
    pub fn new() -> Self {
        Self::default()
    }

    /// The next call without a fault gets this one; repeated calls queue up.
    pub fn fault_next(&self, fault: Fault) {
        self.lock().next.push_back(fault);
    }

    /// Every call gets this fault until it is `None` again.
    pub fn fault_always(&self, fault: Option<Fault>) {
        self.lock().always = fault;
    }

    /// Stores bytes even if they do not fit their checksum, as some endpoints do.
    pub fn accept_wrong_checksums(&self, accept: bool) {
        self.lock().accepts_wrong_checksums = accept;
    }

    /// An object's bytes; no fault applies.
    pub fn bytes(&self, key: &str) -> Option<Bytes> {
        self.lock().objects.get(key).map(|o| o.bytes.clone())
    }

    /// An object's metadata; no fault applies.
    pub fn meta(&self, key: &str) -> Option<ObjectMeta> {
        self.lock().objects.get(key).map(|o| o.meta.clone())
    }

    /// All keys; no fault applies.
    pub fn keys(&self) -> Vec<String> {
        self.lock().objects.keys().cloned().collect()
    }

    /// Number of calls so far, failed ones included.
    pub fn calls(&self) -> u64 {
        self.lock().calls
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a call and takes its fault; `Fail` is returned as the error.
    fn begin(&self, op: &'static str, key: &str) -> Result<Option<Fault>, ObjectError> {
        let mut state = self.lock();
        state.calls += 1;
        let fault = state.next.pop_front().or(state.always);
        match fault {
            Some(Fault::Fail(kind)) => Err(ObjectError::new(kind, op, key, "fault on demand")),
            other => Ok(other),
        }
    }
}

fn lost(fault: Option<Fault>, op: &'static str, key: &str) -> Result<(), ObjectError> {
    match fault {
        Some(Fault::LoseAnswer) => Err(ObjectError::new(
            ErrorKind::Transient,
            op,
            key,
            "answer lost on demand",
        )),
        _ => Ok(()),
    }
}

fn corrupt(fault: Option<Fault>, bytes: Bytes) -> Bytes {
    if fault != Some(Fault::Corrupt) {
        return bytes;
    }
    let mut flipped = bytes.to_vec();
    if let Some(byte) = flipped.first_mut() {
        *byte ^= 1;
    }
    flipped.into()
}

fn not_found(op: &'static str, key: &str) -> ObjectError {
    ObjectError::new(ErrorKind::NotFound, op, key, "no such object")
}

#[async_trait]
impl ObjectStore for MemoryStore {
    async fn put(
        &self,
        key: &str,
        body: Body,
        meta: &ObjectMeta,
        crc32: Option<u32>,
    ) -> Result<(), ObjectError> {
        let fault = self.begin("put", key)?;
        let bytes = body
            .collect(0, body.len())
            .await
            .map_err(|e| ObjectError::new(ErrorKind::Source, "read", key, e))?;
        let bytes = corrupt(fault, bytes);
        let mut state = self.lock();
        let wrong = crc32.is_some_and(|crc| crc != crc32fast::hash(&bytes));
        if wrong && !state.accepts_wrong_checksums {
            return Err(ObjectError::new(
                ErrorKind::ChecksumMismatch,
                "put",
                key,
                "bad digest",
            ));
        }
        state.objects.insert(
            key.into(),
            Stored {
                bytes,
                meta: meta.clone(),
                crc32,
            },
        );
        lost(fault, "put", key)
    }

    async fn get_range(&self, key: &str, offset: u64, len: u64) -> Result<Bytes, ObjectError> {
        let fault = self.begin("get", key)?;
        lost(fault, "get", key)?;
        let bytes = self.bytes(key).ok_or_else(|| not_found("get", key))?;
        let range = usize::try_from(offset)
            .ok()
            .zip(
                offset
                    .checked_add(len)
                    .and_then(|end| usize::try_from(end).ok()),
            )
            .filter(|(_, end)| *end <= bytes.len());
        let (start, end) = range.ok_or_else(|| {
            ObjectError::new(
                ErrorKind::Transient,
                "get",
                key,
                "object is shorter than the range",
            )
        })?;
        Ok(corrupt(fault, bytes.slice(start..end)))
    }

    async fn head(&self, key: &str) -> Result<ObjectInfo, ObjectError> {
        let fault = self.begin("head", key)?;
        lost(fault, "head", key)?;
        let state = self.lock();
        let stored = state
            .objects
            .get(key)
            .ok_or_else(|| not_found("head", key))?;
        Ok(ObjectInfo {
            len: stored.bytes.len() as u64,
            crc32: stored.crc32,
            user: stored.meta.user.clone(),
        })
    }

    async fn delete(&self, keys: &[String]) -> Result<(), ObjectError> {
        let first = keys.first().map(String::as_str).unwrap_or_default();
        let fault = self.begin("delete", first)?;
        let mut state = self.lock();
        for key in keys {
            state.objects.remove(key);
        }
        lost(fault, "delete", first)
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<ListedObject>, ObjectError> {
        let fault = self.begin("list", prefix)?;
        lost(fault, "list", prefix)?;
        let state = self.lock();
        let start = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        let range = state.objects.range::<str, _>((start, Bound::Unbounded));
        Ok(range
            .take_while(|(key, _)| key.starts_with(prefix))
            .take(limit)
            .map(|(key, o)| ListedObject {
                key: key.clone(),
                len: o.bytes.len() as u64,
            })
            .collect())
    }

    async fn list_uploads(
        &self,
        prefix: &str,
        _limit: usize,
    ) -> Result<Vec<ListedUpload>, ObjectError> {
        // a put is one step here: nothing is ever begun and not ended
        self.begin("list uploads", prefix)?;
        Ok(Vec::new())
    }

    async fn abort_upload(&self, key: &str, _upload_id: &str) -> Result<(), ObjectError> {
        self.begin("abort upload", key)?;
        Ok(())
    }

    async fn check_bucket(&self) -> Result<(), ObjectError> {
        let fault = self.begin("check bucket", "")?;
        lost(fault, "check bucket", "")
    }
}

#[cfg(test)]
mod tests;
