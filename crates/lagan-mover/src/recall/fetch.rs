//! One unit from S3, verified.

use super::cache::{BLOCK, Cache, Unit, UnitKey};
use super::{Described, Fetched, Recaller, gone_or};
use crate::crcs::UNIT_LEN_MIN;
use crate::metrics::METRICS;
use crate::{RecallError, RecallFailure};
use bytes::{Bytes, BytesMut};
use crc32fast::Hasher;
use lagan_object::{ErrorKind, ObjectError};
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

/// Bytes of one request; whole blocks.
const REQUEST_LEN: u64 = 4 * 1024 * 1024;
/// Fetches of a unit before wrong bytes are reported.
const TRIES: u32 = 3;

const _: () = assert!(REQUEST_LEN.is_multiple_of(BLOCK as u64));

impl Recaller {
    /// Fetches a unit and puts it into the cache.
    pub(super) async fn fetch(&self, object: &Described, key: &UnitKey) -> Fetched {
        let _permit = self
            .fetches
            .acquire()
            .await
            .map_err(|_| RecallError::transient("the mover stops"))?;
        // somebody may have brought it while this one waited
        if let Some(found) = self.cache.get(key) {
            return Ok(found);
        }
        let mut tries = 1;
        loop {
            match self.fetch_once(object, key).await {
                Err(error) if error.kind == ErrorKind::ChecksumMismatch && tries < TRIES => {
                    tracing::warn!(key = %key.0, unit = key.1, %error, "recall again");
                    tries += 1;
                }
                Err(error) if error.kind == ErrorKind::ChecksumMismatch => {
                    tracing::error!(key = %key.0, unit = key.1, "object has other bytes in S3");
                    self.gate.note_read(&error);
                    return Err(RecallError::transient(error.to_string()));
                }
                Err(error) => return Err(gone_or(error)),
                Ok(unit) => return Ok(unit),
            }
        }
    }

    async fn fetch_once(
        &self,
        object: &Described,
        key: &UnitKey,
    ) -> Result<Arc<Unit>, ObjectError> {
        let (start, len) = object.units.range(key.1);
        let mut receiving = match len <= UNIT_LEN_MIN {
            true => Receiving::memory(len),
            false => Receiving::file(self.cache.begin().map_err(|e| disk(key, e))?),
        };
        let mut at = 0;
        while at < len {
            let piece_len = REQUEST_LEN.min(len - at);
            let bytes = self.get(&object.key, start + at, piece_len).await?;
            receiving = receiving.take(bytes).await.map_err(|e| disk(key, e))?;
            at += piece_len;
        }
        let expected = object.units.crcs.get(key.1).copied();
        let found = receiving.crc.clone().finalize();
        if Some(found) != expected {
            receiving.discard();
            let message = format!("unit {} has CRC {found:08x}", key.1);
            return Err(ObjectError::new(
                ErrorKind::ChecksumMismatch,
                "recall",
                key.0.to_string(),
                message,
            ));
        }
        let (cache, key) = (self.cache.clone(), key.clone());
        let kept = tokio::task::spawn_blocking({
            let key = key.clone();
            move || receiving.keep(&cache, key, len)
        });
        match kept.await {
            Ok(unit) => unit.map_err(|e| disk(&key, e)),
            Err(error) => Err(disk(&key, std::io::Error::other(error))),
        }
    }

    async fn get(&self, key: &str, offset: u64, len: u64) -> Result<Bytes, ObjectError> {
        if let Err(error) = self.gate.try_read() {
            let kind = match error.failure {
                RecallFailure::Transient => ErrorKind::Transient,
                RecallFailure::Gone | RecallFailure::Permanent => ErrorKind::Permanent,
            };
            return Err(ObjectError::new(kind, "get", key, error.reason));
        }
        let got = self.store.get_range(key, offset, len).await;
        self.gate.report_read(got.as_ref().map(|_| ()));
        METRICS
            .fetched_bytes
            .add(got.as_ref().map_or(0, |b| b.len() as u64));
        got
    }
}

/// The cache's disk failed: says nothing of S3.
fn disk(key: &UnitKey, error: std::io::Error) -> ObjectError {
    ObjectError::new(
        ErrorKind::Source,
        "recall",
        key.0.to_string(),
        format!("cache: {error}"),
    )
}

/// A unit on its way: in memory if it is short, else in a file.
struct Receiving {
    crc: Hasher,
    blocks: Vec<u32>,
    place: Place,
}

enum Place {
    Memory(BytesMut),
    File(PathBuf, File),
}

impl Receiving {
    fn memory(len: u64) -> Self {
        let capacity = usize::try_from(len.min(UNIT_LEN_MIN)).unwrap_or_default();
        let place = Place::Memory(BytesMut::with_capacity(capacity));
        Receiving {
            crc: Hasher::new(),
            blocks: Vec::new(),
            place,
        }
    }

    fn file((path, file): (PathBuf, File)) -> Self {
        Receiving {
            crc: Hasher::new(),
            blocks: Vec::new(),
            place: Place::File(path, file),
        }
    }

    /// Takes a piece; all but the last are whole blocks.
    async fn take(mut self, bytes: Bytes) -> std::io::Result<Self> {
        for block in bytes.chunks(BLOCK) {
            let mut crc = Hasher::new();
            crc.update(block);
            self.crc.combine(&crc);
            self.blocks.push(crc.finalize());
        }
        match self.place {
            Place::Memory(ref mut all) => {
                all.extend_from_slice(&bytes);
                Ok(self)
            }
            Place::File(path, mut file) => {
                let written = tokio::task::spawn_blocking(move || {
                    let result = file.write_all(&bytes);
                    (file, result)
                });
                let (file, result) = written.await.map_err(std::io::Error::other)?;
                if result.is_err() {
                    let _ = std::fs::remove_file(&path);
                }
                result?;
                Ok(Receiving {
                    place: Place::File(path, file),
                    ..self
                })
            }
        }
    }

    fn discard(self) {
        if let Place::File(path, _) = self.place {
            let _ = std::fs::remove_file(path);
        }
    }

    /// Makes it a unit of the cache. A short one is served even if the disk refuses it.
    fn keep(self, cache: &Cache, key: UnitKey, len: u64) -> std::io::Result<Arc<Unit>> {
        let blocks: Arc<[u32]> = self.blocks.into();
        match self.place {
            Place::Memory(bytes) => {
                let bytes = bytes.freeze();
                if let Err(error) = cache.store(key, &bytes, blocks.clone()) {
                    tracing::warn!(%error, "recall cache");
                }
                Ok(Arc::new(Unit::memory(bytes, blocks)))
            }
            Place::File(path, file) => {
                drop(file);
                cache.insert(key.clone(), path, len, blocks)?;
                cache
                    .get(&key)
                    .ok_or_else(|| std::io::Error::other("unit left the cache at once"))
            }
        }
    }
}
