//! One upload: from the metadata's extents to a verified object.

use crate::content::{FileContent, Recall};
use crate::crcs::{META_NAME, Units};
use crate::gate::Gate;
use crate::metrics::METRICS;
use crate::mime::content_type;
use crate::{Chunks, Meta, MoverError, Options};
use bytes::Bytes;
use lagan_object::{ObjectMeta, ObjectStore};
use lagan_types::Ino;
use lagan_types::message::ArchiveJob;
use lagan_types::op::ArchiveFinish;
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

/// Files above this go up in parts and take much memory.
const LARGE_LEN: u64 = 64 * 1024 * 1024;
/// Bytes read back at once.
const READ_BACK_LEN: u64 = 4 * 1024 * 1024;
/// Bytes of user metadata, at most: S3 allows 2 KiB in all, names included.
const META_LEN_MAX: usize = 2000;
/// Files whose failures are counted, at most; then counting starts anew.
const FAILURES_MAX: usize = 65_536;

/// The parts of the mover that all uploads share.
pub(crate) struct Uploader {
    pub meta: Arc<dyn Meta>,
    pub chunks: Arc<dyn Chunks>,
    pub store: Arc<dyn ObjectStore>,
    pub gate: Arc<Gate>,
    pub recall: Arc<dyn Recall>,
    pub large: Semaphore,
    pub options: Options,
    /// Failures in a row of each file, for its back-off.
    pub failures: Mutex<HashMap<Ino, u32>>,
}

impl Uploader {
    /// Uploads a file and verifies the object. Returns the report of the upload's end.
    pub async fn upload(&self, job: &ArchiveJob) -> Result<ArchiveFinish, MoverError> {
        let failed_before = self.failures.lock().contains_key(&job.ino);
        METRICS.upload_retries.add(u64::from(failed_before));
        let _large = match job.size > LARGE_LEN {
            true => Some(
                self.large
                    .acquire()
                    .await
                    .map_err(|e| MoverError::Chunk(e.to_string()))?,
            ),
            false => None,
        };
        let content = Arc::new(self.content(job).await?);
        let units = content.units().await?;
        let crc = units.combined();
        let body = content.body().await?;
        let put = self
            .store
            .put(&job.key, body, &object_meta(job, &units), Some(crc))
            .await;
        self.gate.report(put.as_ref().map(|_| ()));
        put?;
        if !self.gate.verifies() {
            self.read_back(&job.key, job.size, crc).await?;
        }
        self.failures.lock().remove(&job.ino);
        METRICS.uploads.add(1);
        METRICS.upload_bytes.add(job.size);
        Ok(ArchiveFinish {
            ino: job.ino,
            version: job.version,
            attempt: job.attempt,
            key: job.key.clone(),
            size: job.size,
            crc,
        })
    }

    async fn content(&self, job: &ArchiveJob) -> Result<FileContent, MoverError> {
        let (chunks, recall) = (self.chunks.clone(), self.recall.clone());
        match &job.extents {
            Some(extents) => FileContent::new(extents, chunks, recall, (job.ino, job.size)),
            None => {
                let file = (job.ino, job.version, job.size);
                FileContent::load(&*self.meta, chunks, recall, file).await
            }
        }
    }

    /// Reads an object back where the endpoint verifies nothing.
    async fn read_back(&self, key: &str, size: u64, crc: u32) -> Result<(), MoverError> {
        METRICS.read_backs.add(1);
        let mut found = crc32fast::Hasher::new();
        let mut at = 0;
        while at < size {
            let len = READ_BACK_LEN.min(size - at);
            let got: Bytes = self.store.get_range(key, at, len).await?;
            found.update(&got);
            at += len;
        }
        let len = if size == 0 {
            self.store.head(key).await?.len
        } else {
            size
        };
        if found.finalize() == crc && len == size {
            Ok(())
        } else {
            Err(MoverError::ReadBack(key.into()))
        }
    }

    /// Counts a failure of the file. Returns how long the file waits.
    pub fn retry_after(&self, ino: Ino) -> Duration {
        let mut failures = self.failures.lock();
        if failures.len() >= FAILURES_MAX {
            failures.clear();
        }
        let count = failures.entry(ino).or_default();
        *count = count.saturating_add(1);
        self.options.file_backoff.delay(*count, rand::random())
    }
}

/// The metadata that the object gets.
fn object_meta(job: &ArchiveJob, units: &Units) -> ObjectMeta {
    let mut user = BTreeMap::new();
    let mut left = META_LEN_MAX;
    let list = units.to_meta().map(|list| (META_NAME.to_string(), list));
    let given = job
        .meta
        .iter()
        .map(|(k, v)| (header_name(k), header_value(v)));
    for (name, value) in list.into_iter().chain(given) {
        // what does not fit is left out: a long path, for one
        if let Some(rest) = left.checked_sub(name.len() + value.len()) {
            left = rest;
            user.insert(name, value);
        }
    }
    let name = String::from_utf8_lossy(&job.name).into_owned();
    ObjectMeta {
        content_type: Some(content_type(&job.name).into()),
        file_name: Some(name).filter(|n| !n.is_empty()),
        user,
    }
}

/// A metadata name: lower case letters, digits and `-`.
fn header_name(name: &str) -> String {
    let plain = |c: char| {
        if c.is_ascii_alphanumeric() {
            c.to_ascii_lowercase()
        } else {
            '-'
        }
    };
    name.chars().map(plain).collect()
}

/// A metadata value: printable ASCII stays, each other byte is `%XX`. This makes any text
/// fit into a header and encodes no URL: what comes encoded, as a path, stays as it is.
fn header_value(value: &str) -> String {
    value
        .bytes()
        .fold(String::with_capacity(value.len()), |mut text, byte| {
            match byte {
                b'!'..=b'~' => text.push(byte as char),
                _ => {
                    let _ = write!(text, "%{byte:02X}");
                }
            }
            text
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(meta: &[(&str, &str)]) -> ArchiveJob {
        ArchiveJob {
            ino: Ino(2),
            version: 1,
            attempt: 1,
            key: "k".into(),
            size: 1,
            meta: meta
                .iter()
                .map(|(k, v)| (k.to_string(), v.to_string()))
                .collect(),
            name: b"Bericht \xc3\xbc.pdf".to_vec(),
            extents: None,
        }
    }

    #[test]
    fn metadata_is_made_of_what_headers_allow() {
        let units = Units::whole(1, 0);
        let meta = object_meta(&job(&[("Path", "a b/ü\n")]), &units);
        assert_eq!(
            meta.user.get("path").map(String::as_str),
            Some("a%20b/%C3%BC%0A")
        );
        assert_eq!(meta.content_type.as_deref(), Some("application/pdf"));
        assert_eq!(meta.file_name.as_deref(), Some("Bericht ü.pdf"));
    }

    #[test]
    fn metadata_that_does_not_fit_is_left_out() {
        let long = "x".repeat(1990);
        let units = Units {
            len: 4 << 20,
            unit_len: 1 << 20,
            crcs: vec![0; 4],
        };
        let meta = object_meta(&job(&[("path", &long), ("mode", "644")]), &units);
        assert!(!meta.user.contains_key("path"));
        assert!(meta.user.contains_key("mode") && meta.user.contains_key(META_NAME));
    }
}
