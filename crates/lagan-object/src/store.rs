//! The calls of an object store that the mover makes.

use crate::{Body, ObjectError};
use async_trait::async_trait;
use bytes::Bytes;
use std::collections::BTreeMap;

/// Metadata that is stored with an object's bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ObjectMeta {
    /// MIME type, by which other tools show the object.
    pub content_type: Option<String>,
    /// Name under which a browser saves the object, any UTF-8.
    pub file_name: Option<String>,
    /// User metadata: names lower case ASCII, values printable ASCII, 2 KiB in all.
    pub user: BTreeMap<String, String>,
}

/// Answer of [`ObjectStore::head`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectInfo {
    /// Bytes.
    pub len: u64,
    /// CRC-32 (IEEE) of all bytes, if the put gave it.
    pub crc32: Option<u32>,
    /// User metadata.
    pub user: BTreeMap<String, String>,
}

/// One object of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedObject {
    /// Key.
    pub key: String,
    /// Bytes.
    pub len: u64,
}

/// A multipart upload that was begun and neither completed nor aborted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedUpload {
    /// Key of the object that it was to become.
    pub key: String,
    /// Name that the endpoint gave the upload.
    pub upload_id: String,
    /// Time at which it began, in seconds since 1970 on the endpoint's clock; 0 if unknown.
    pub begun_s: u64,
}

/// One bucket of an object store.
///
/// # Cancel safety
/// Dropping a call's future leaves it undecided: it may still happen.
#[async_trait]
pub trait ObjectStore: Send + Sync + std::fmt::Debug {
    /// Stores an object, all or nothing, replacing one of that key. With
    /// `crc32` (of all bytes) the endpoint verifies what it received.
    ///
    /// # Errors
    /// `ChecksumMismatch` if the bytes are not those of `crc32`, `Source` if
    /// the body could not be read, else the endpoint's.
    async fn put(
        &self,
        key: &str,
        body: Body,
        meta: &ObjectMeta,
        crc32: Option<u32>,
    ) -> Result<(), ObjectError>;

    /// The bytes `offset..offset + len`, exactly; `len` is at least 1. They
    /// are not verified: the caller has checksums of its own.
    ///
    /// # Errors
    /// `NotFound`; `Transient` if fewer bytes came.
    async fn get_range(&self, key: &str, offset: u64, len: u64) -> Result<Bytes, ObjectError>;

    /// An object's length and metadata.
    ///
    /// # Errors
    /// `NotFound`, and the endpoint's.
    async fn head(&self, key: &str) -> Result<ObjectInfo, ObjectError>;

    /// Deletes objects; those that are not there count as deleted.
    ///
    /// # Errors
    /// The first failure; others of the keys may be gone. May be repeated.
    async fn delete(&self, keys: &[String]) -> Result<(), ObjectError>;

    /// Objects whose key begins with `prefix` and is above `after`, in key
    /// order, at most `limit`. Fewer than `limit` means that there are no more.
    ///
    /// # Errors
    /// The endpoint's.
    async fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<ListedObject>, ObjectError>;

    /// Unfinished multipart uploads of keys with that prefix, at most `limit`.
    ///
    /// # Errors
    /// The endpoint's; `Permanent` where it does not know the call.
    async fn list_uploads(
        &self,
        prefix: &str,
        limit: usize,
    ) -> Result<Vec<ListedUpload>, ObjectError>;

    /// Ends an unfinished upload; one that is not there counts as ended.
    ///
    /// # Errors
    /// The endpoint's.
    async fn abort_upload(&self, key: &str, upload_id: &str) -> Result<(), ObjectError>;

    /// Asks whether the bucket is there and may be used: the cheapest probe.
    ///
    /// # Errors
    /// `Permanent` if it is not there or refused.
    async fn check_bucket(&self) -> Result<(), ObjectError>;
}
