//! Brings bytes of released files back, verified.
//!
//! # How a range is verified
//! An object is divided into units whose CRC-32 is known (see `crcs`): up to
//! 8 MiB the whole object is one; a larger one has some hundred units, whose
//! CRCs come with the object and are proved by the whole object's CRC that the
//! metadata has. A unit is fetched whole, verified, and only then served. An
//! object that came without its list (another tool rewrote its metadata) is
//! one unit, whatever its length: its first read takes as long as its fetch,
//! perhaps several deadlines.
//!
//! # How it is fetched
//! One fetch of a unit at a time, however many wait for it; it goes on when
//! they give up, so that a repeated read finds it. Units are kept in files
//! under `cache_dir` up to `cache_bytes`; the least recently used are dropped first.
//! Each has CRCs of its blocks, which are verified at each read. Reading in the second
//! half of a unit fetches the next one ahead.
//!
//! A recall changes no metadata. A crash leaves files that the next start removes.

mod cache;
mod fetch;

use crate::content::Recall;
use crate::crcs::{META_NAME, UNIT_LEN_MIN, Units};
use crate::gate::Gate;
use crate::{Meta, MoverError, Options, RecallError, RecallFailure};
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use cache::{Cache, Unit, UnitKey};
use lagan_object::{ObjectError, ObjectStore};
use lagan_types::Ino;
use lagan_types::limits::CHUNK_LEN_MAX;
use lagan_types::query::{File, Object};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Objects whose units are remembered, at most; then remembering starts anew.
const DESCRIBED_MAX: usize = 4096;

/// The object of an archived version, and its units.
#[derive(Debug)]
struct Described {
    key: Arc<str>,
    units: Units,
}

type Fetched = Result<Arc<Unit>, RecallError>;

/// One node's way back from S3.
pub(crate) struct Recaller {
    meta: Arc<dyn Meta>,
    store: Arc<dyn ObjectStore>,
    gate: Arc<Gate>,
    options: Options,
    cache: Arc<Cache>,
    described: Mutex<HashMap<(Ino, u64), Arc<Described>>>,
    /// Fetches under way; bounded by the readers that wait.
    flights: Mutex<HashMap<UnitKey, watch::Receiver<Option<Fetched>>>>,
    fetches: Semaphore,
    cancel: CancellationToken,
    tasks: TaskTracker,
}

impl Recaller {
    pub fn new(
        meta: Arc<dyn Meta>,
        store: Arc<dyn ObjectStore>,
        gate: Arc<Gate>,
        options: Options,
        (cancel, tasks): (CancellationToken, TaskTracker),
    ) -> Arc<Self> {
        let cache = Arc::new(Cache::new(options.cache_dir.clone(), options.cache_bytes));
        Arc::new(Recaller {
            meta,
            store,
            gate,
            cache,
            described: Mutex::default(),
            flights: Mutex::default(),
            fetches: Semaphore::new(options.fetches.max(1)),
            options,
            cancel,
            tasks,
        })
    }

    /// The bytes `offset..offset + len` of that version's object, within the deadline.
    pub async fn range(
        self: &Arc<Self>,
        ino: Ino,
        version: u64,
        offset: u64,
        len: u32,
    ) -> Result<Bytes, RecallError> {
        if len == 0 || len > CHUNK_LEN_MAX {
            return Err(RecallError::permanent(format!(
                "{len} bytes cannot be recalled at once"
            )));
        }
        let work = self.find_and_read(ino, version, offset, len);
        match tokio::time::timeout(self.options.recall_deadline, work).await {
            Ok(result) => result,
            Err(_) => Err(RecallError::transient("S3 was too slow, the fetch goes on")),
        }
    }

    /// Forgets all that was fetched.
    pub fn clear(&self) {
        self.described.lock().clear();
        self.cache.clear();
    }

    async fn find_and_read(
        self: &Arc<Self>,
        ino: Ino,
        version: u64,
        offset: u64,
        len: u32,
    ) -> Result<Bytes, RecallError> {
        let remembered = self.described.lock().contains_key(&(ino, version));
        let first = self.read(ino, version, offset, len).await;
        match first {
            // what was remembered may be out of date: ask the metadata once more
            Err(error) if remembered && error.failure != RecallFailure::Transient => {
                self.described.lock().remove(&(ino, version));
                self.read(ino, version, offset, len).await
            }
            other => other,
        }
    }

    async fn read(
        self: &Arc<Self>,
        ino: Ino,
        version: u64,
        offset: u64,
        len: u32,
    ) -> Result<Bytes, RecallError> {
        let object = self.describe(ino, version).await?;
        let units = &object.units;
        let end = offset.saturating_add(u64::from(len));
        if end > units.len {
            let message = format!("{offset}+{len} is outside of {} bytes", units.len);
            return Err(RecallError::gone(message));
        }
        let mut all = BytesMut::new();
        let mut at = offset;
        while at < end {
            let unit = units.unit_of(at);
            let (start, unit_len) = units.range(unit);
            let part = (end - at).min(start + unit_len - at);
            let found = self.unit(&object, unit).await?;
            let read = Cache::read(found, at - start, part).await;
            let bytes = match read {
                Ok(bytes) => bytes,
                Err(error) => {
                    self.cache.forget(&(object.key.clone(), unit));
                    return Err(RecallError::transient(format!("recall cache: {error}")));
                }
            };
            at += part;
            self.read_ahead(&object, unit, at - start);
            if bytes.len() == len as usize {
                return Ok(bytes);
            }
            all.extend_from_slice(&bytes);
        }
        Ok(all.freeze())
    }

    /// Finds the object of that version and its units' CRCs.
    async fn describe(&self, ino: Ino, version: u64) -> Result<Arc<Described>, RecallError> {
        if let Some(known) = self.described.lock().get(&(ino, version)) {
            return Ok(known.clone());
        }
        let file = self.meta.read(File { ino }).await?;
        let Some(object) = file.object.filter(|o| o.version == version) else {
            return Err(RecallError::gone(format!(
                "version {version} has no object now"
            )));
        };
        let units = self.units(&object).await?;
        let found = Arc::new(Described {
            key: object.key.into(),
            units,
        });
        let mut described = self.described.lock();
        if described.len() >= DESCRIBED_MAX {
            described.clear();
        }
        described.insert((ino, version), found.clone());
        Ok(found)
    }

    async fn units(&self, object: &Object) -> Result<Units, RecallError> {
        let whole = Units::whole(object.size, object.crc);
        if object.size <= UNIT_LEN_MIN {
            return Ok(whole);
        }
        self.gate.try_read()?;
        let info = self.store.head(&object.key).await;
        self.gate.report_read(info.as_ref().map(|_| ()));
        let info = info.map_err(gone_or)?;
        let list = info.user.get(META_NAME);
        let units = list.and_then(|l| Units::from_meta(l, object.size, object.crc));
        if units.is_none() {
            tracing::warn!(
                key = object.key,
                "object has no list of checksums, is fetched whole"
            );
        }
        Ok(units.unwrap_or(whole))
    }

    /// A unit, from the cache or S3.
    async fn unit(self: &Arc<Self>, object: &Arc<Described>, unit: usize) -> Fetched {
        let key = (object.key.clone(), unit);
        if let Some(found) = self.cache.get(&key) {
            return Ok(found);
        }
        let mut flight = self.board(object, key);
        let arrived = flight.wait_for(Option::is_some).await;
        match arrived.as_deref() {
            Ok(Some(result)) => result.clone(),
            _ => Err(RecallError::transient("fetch ended with the mover")),
        }
    }

    /// Joins the fetch of a unit, or starts it.
    fn board(
        self: &Arc<Self>,
        object: &Arc<Described>,
        key: UnitKey,
    ) -> watch::Receiver<Option<Fetched>> {
        let mut flights = self.flights.lock();
        if let Some(flight) = flights.get(&key) {
            return flight.clone();
        }
        let (sender, receiver) = watch::channel(None);
        flights.insert(key.clone(), receiver.clone());
        drop(flights);
        let (recaller, object) = (self.clone(), object.clone());
        self.tasks.spawn(async move {
            let landed = Landing {
                recaller: &recaller,
                key: &key,
            };
            let fetched = tokio::select! {
                fetched = recaller.fetch(&object, &key) => fetched,
                () = recaller.cancel.cancelled() => {
                    Err(RecallError::transient("the mover stops"))
                }
            };
            drop(landed);
            sender.send_replace(Some(fetched));
        });
        receiver
    }

    /// Fetches the next unit when this one is read beyond its middle.
    fn read_ahead(self: &Arc<Self>, object: &Arc<Described>, unit: usize, read_to: u64) {
        let (_, unit_len) = object.units.range(unit);
        let next = unit + 1;
        if next >= object.units.crcs.len() || read_to * 2 < unit_len {
            return;
        }
        let key = (object.key.clone(), next);
        if self.fetches.available_permits() > 0 && self.cache.get(&key).is_none() {
            self.board(object, key);
        }
    }
}

/// Takes a fetch off the list, however it ended.
struct Landing<'a> {
    recaller: &'a Recaller,
    key: &'a UnitKey,
}

impl Drop for Landing<'_> {
    fn drop(&mut self) {
        self.recaller.flights.lock().remove(self.key);
    }
}

/// An object that the metadata names and S3 does not have.
fn gone_or(error: ObjectError) -> RecallError {
    MoverError::Object(error).into()
}

#[async_trait]
impl Recall for Arc<Recaller> {
    async fn recall(
        &self,
        ino: Ino,
        version: u64,
        offset: u64,
        len: u32,
    ) -> Result<Bytes, MoverError> {
        let bytes = self.range(ino, version, offset, len).await;
        bytes.map_err(|e| MoverError::Chunk(format!("recall: {e}")))
    }
}
