//! Any S3 endpoint, through the AWS SDK.
//!
//! # What is sent
//! A put of up to [`SINGLE_LEN_MAX`] bytes is one request, with the CRC-32 in
//! a header where the caller knows it, so that the endpoint refuses other
//! bytes. A longer one is a multipart upload (see `multipart`). The whole
//! CRC-32 is also kept in the metadata `lagan-crc32`, since endpoints return
//! checksums in different ways or not at all.
//!
//! # What a crash leaves
//! Nothing, or an unfinished multipart upload.

mod classify;
mod client;
mod get;
mod list;
mod multipart;
mod put;
mod stream;

use crate::{
    Body, Checksum, ListedObject, ListedUpload, ObjectError, ObjectInfo, ObjectMeta, ObjectStore,
    S3Config, Timeouts,
};
use async_trait::async_trait;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::Builder;
use aws_smithy_types::timeout::TimeoutConfig;
use bytes::Bytes;
use std::time::Duration;

/// Bytes of a put in one request, at most.
pub(crate) const SINGLE_LEN_MAX: u64 = 64 * 1024 * 1024;
/// The metadata name under which an object's CRC-32 is kept, as 8 hex digits.
pub(crate) const CRC_META: &str = "lagan-crc32";

/// One bucket of an S3 endpoint. Cheap to share in an `Arc`; keeps its connections.
pub struct S3Store {
    client: Client,
    bucket: String,
    checksum: Checksum,
    timeouts: Timeouts,
    attempts_max: u32,
    part_concurrency: usize,
}

impl std::fmt::Debug for S3Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "S3Store({})", self.bucket)
    }
}

impl S3Store {
    /// Prepares a client; reads the CA file and, for the chain, where
    /// credentials come from. Does not contact the endpoint.
    ///
    /// # Errors
    /// `Permanent`, with the key of the configuration that is wrong.
    pub async fn open(config: &S3Config) -> Result<Self, ObjectError> {
        Ok(S3Store {
            client: client::build(config).await?,
            bucket: config.bucket.clone(),
            checksum: config.checksum,
            timeouts: config.timeouts,
            attempts_max: config.attempts_max,
            part_concurrency: config.part_concurrency,
        })
    }

    /// The bucket.
    pub fn bucket(&self) -> &str {
        &self.bucket
    }

    /// Settings of one call that moves `len` bytes: its time.
    fn timed(&self, len: u64) -> Builder {
        let attempt = self.timeouts.attempt(len);
        aws_sdk_s3::config::Config::builder().timeout_config(
            TimeoutConfig::builder()
                .connect_timeout(self.timeouts.connect())
                .read_timeout(Duration::from_millis(self.timeouts.attempt_ms.max(1)))
                .operation_attempt_timeout(attempt)
                .operation_timeout(attempt.saturating_mul(self.attempts_max))
                .build(),
        )
    }
}

#[async_trait]
impl ObjectStore for S3Store {
    async fn put(
        &self,
        key: &str,
        body: Body,
        meta: &ObjectMeta,
        crc32: Option<u32>,
    ) -> Result<(), ObjectError> {
        if body.len() <= SINGLE_LEN_MAX {
            self.put_single(key, body, meta, crc32).await
        } else {
            self.put_multipart(key, body, meta, crc32).await
        }
    }

    async fn get_range(&self, key: &str, offset: u64, len: u64) -> Result<Bytes, ObjectError> {
        self.fetch_range(key, offset, len).await
    }

    async fn head(&self, key: &str) -> Result<ObjectInfo, ObjectError> {
        self.fetch_info(key).await
    }

    async fn delete(&self, keys: &[String]) -> Result<(), ObjectError> {
        self.delete_all(keys).await
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<ListedObject>, ObjectError> {
        self.list_objects(prefix, after, limit).await
    }

    async fn list_uploads(
        &self,
        prefix: &str,
        limit: usize,
    ) -> Result<Vec<ListedUpload>, ObjectError> {
        self.list_unfinished(prefix, limit).await
    }

    async fn abort_upload(&self, key: &str, upload_id: &str) -> Result<(), ObjectError> {
        self.abort(key, upload_id).await
    }

    async fn check_bucket(&self) -> Result<(), ObjectError> {
        let request = self.client.head_bucket().bucket(&self.bucket);
        let sent = request
            .customize()
            .config_override(self.timed(0))
            .send()
            .await;
        sent.map_err(|e| classify::bucket_error("check bucket", &self.bucket, e))?;
        Ok(())
    }
}
