//! Multipart uploads.
//!
//! `DATA/uploads/ID/info` says what it becomes; each part is a file of its own
//! (`1`, `2`, ...) in the format of an object, and replaced when sent again.
//! Completing copies the parts into one object, then removes the folder: after
//! a crash in between the object is there and the upload can be aborted.

use crate::body::{Expected, Received, base64, blocking, hex, receive, s3_error};
use crate::record::{Attributes, Checksums, Record};
use crate::store::{Store, StoreError, record};
use lagan_host::wall::wall_ms;
use s3s::crypto::{Checksum as _, Crc32, Md5};
use s3s::dto::StreamingBlob;
use s3s::{S3Error, S3Result, s3_error};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::Arc;

/// Bytes of a part but the last, at least (S3).
const PART_LEN_MIN: u64 = 5 * 1024 * 1024;
/// Parts, at most (S3).
const PARTS_MAX: i32 = 10_000;

/// The object that an upload becomes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Upload {
    pub bucket: String,
    pub key: String,
    pub begun_ms: u64,
    pub attributes: Attributes,
}

/// A part that a completion names.
#[derive(Debug, Clone)]
pub(crate) struct NamedPart {
    pub number: i32,
    pub e_tag: Option<String>,
    pub crc32: Option<String>,
}

/// Begins an upload; returns its id.
pub(crate) fn begin(
    store: &Store,
    bucket: String,
    key: String,
    attributes: Attributes,
) -> Result<String, StoreError> {
    store.check_bucket(&bucket)?;
    let failed = || StoreError::io("begin upload");
    // random keys of each RandomState make this unlike any other
    let id = format!(
        "{:016x}{:016x}",
        RandomState::new().hash_one(&key),
        wall_ms()
    );
    let dir = store.uploads_dir().join(&id);
    fs::create_dir(&dir).map_err(failed())?;
    let upload = Upload {
        bucket,
        key,
        begun_ms: wall_ms(),
        attributes,
    };
    let json = serde_json::to_vec(&upload)
        .map_err(io::Error::from)
        .map_err(failed())?;
    fs::write(dir.join("info"), json).map_err(failed())?;
    Ok(id)
}

/// The folder of an upload, if the id is one that could have been given.
fn dir(store: &Store, id: &str) -> S3Result<PathBuf> {
    if id.len() != 32 || !id.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(s3_error!(NoSuchUpload));
    }
    Ok(store.uploads_dir().join(id))
}

/// Finds an upload, which must be of that bucket and key.
fn find(store: &Store, bucket: &str, key: &str, id: &str) -> S3Result<(PathBuf, Upload)> {
    let dir = dir(store, id)?;
    let json = match fs::read(dir.join("info")) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(s3_error!(NoSuchUpload)),
        other => other.map_err(S3Error::internal_error)?,
    };
    let upload: Upload = serde_json::from_slice(&json).map_err(S3Error::internal_error)?;
    if upload.bucket != bucket || upload.key != key {
        return Err(s3_error!(NoSuchUpload));
    }
    Ok((dir, upload))
}

/// Names a part of an upload.
#[derive(Debug, Clone)]
pub(crate) struct PartOf {
    pub bucket: String,
    pub key: String,
    pub upload_id: String,
    pub number: i32,
}

/// Receives a part; returns its ETag and CRC-32.
pub(crate) async fn put_part(
    store: &Arc<Store>,
    part: PartOf,
    body: Option<StreamingBlob>,
    expected: Expected,
) -> S3Result<(String, Option<String>)> {
    if !(1..=PARTS_MAX).contains(&part.number) {
        return Err(s3_error!(InvalidArgument, "part number must be 1 to 10000"));
    }
    let (found, wanted) = (store.clone(), part.clone());
    let find = move || find(&found, &wanted.bucket, &wanted.key, &wanted.upload_id);
    let (dir, _) = blocking(find).await?;
    let Received {
        mut draft,
        md5,
        checksums,
    } = receive(store, body, expected).await?;
    let (e_tag, crc32, sync) = (hex(&md5), checksums.crc32.clone(), store.syncs());
    let shown = e_tag.clone();
    blocking(move || {
        let record = record(
            &part.key,
            draft.len(),
            e_tag,
            checksums,
            Attributes::default(),
        );
        draft
            .finish(&record, sync)
            .map_err(S3Error::internal_error)?;
        if !dir.exists() {
            return Err(s3_error!(NoSuchUpload));
        }
        draft
            .rename(&dir.join(part.number.to_string()))
            .map_err(S3Error::internal_error)
    })
    .await?;
    Ok((shown, crc32))
}

/// Makes the object of the parts named; returns its ETag.
pub(crate) fn complete(
    store: &Store,
    bucket: &str,
    key: &str,
    id: &str,
    parts: &[NamedPart],
    only_new: bool,
) -> S3Result<String> {
    let (dir, upload) = find(store, bucket, key, id)?;
    let opened = open_parts(&dir, parts)?;
    let mut draft = store.begin().map_err(s3_error)?;
    let mut crc32 = Crc32::new();
    let mut md5s = Md5::new();
    for (file, record) in opened {
        md5s.update(&unhex(&record.e_tag));
        let mut bytes = file.take(record.len);
        let mut piece = vec![0; 256 * 1024];
        loop {
            let n = bytes.read(&mut piece).map_err(S3Error::internal_error)?;
            let Some(read) = piece.get(..n).filter(|r| !r.is_empty()) else {
                break;
            };
            crc32.update(read);
            draft.write(read).map_err(S3Error::internal_error)?;
        }
    }
    let e_tag = format!("{}-{}", hex(&md5s.finalize()), parts.len());
    let checksums = Checksums {
        crc32: Some(base64(&crc32.finalize())),
        ..Default::default()
    };
    let record = record(
        key,
        draft.len(),
        e_tag.clone(),
        checksums,
        upload.attributes,
    );
    store
        .commit(bucket, draft, record, only_new)
        .map_err(s3_error)?;
    fs::remove_dir_all(dir).map_err(S3Error::internal_error)?;
    Ok(e_tag)
}

/// Opens the parts of a completion and checks that they are those meant.
fn open_parts(dir: &std::path::Path, parts: &[NamedPart]) -> S3Result<Vec<(File, Record)>> {
    if parts.is_empty() {
        return Err(s3_error!(InvalidRequest, "at least one part must be named"));
    }
    if parts
        .windows(2)
        .any(|pair| matches!(pair, [a, b] if a.number >= b.number))
    {
        return Err(s3_error!(InvalidPartOrder));
    }
    let mut opened = Vec::with_capacity(parts.len());
    for (i, part) in parts.iter().enumerate() {
        let missing = |_| s3_error!(InvalidPart, "part {} is not there", part.number);
        let file = File::open(dir.join(part.number.to_string())).map_err(missing)?;
        let record = Record::read(&file).map_err(S3Error::internal_error)?;
        let other_tag = part.e_tag.as_ref().is_some_and(|tag| *tag != record.e_tag);
        let crc = record.checksums.crc32.as_ref();
        if other_tag || part.crc32.as_ref().is_some_and(|given| Some(given) != crc) {
            return Err(s3_error!(
                InvalidPart,
                "part {} is another one",
                part.number
            ));
        }
        if i + 1 < parts.len() && record.len < PART_LEN_MIN {
            return Err(s3_error!(EntityTooSmall));
        }
        opened.push((file, record));
    }
    Ok(opened)
}

/// Removes an upload and its parts.
pub(crate) fn abort(store: &Store, bucket: &str, key: &str, id: &str) -> S3Result<()> {
    let (dir, _) = find(store, bucket, key, id)?;
    fs::remove_dir_all(dir).map_err(S3Error::internal_error)
}

/// All uploads of a bucket, by key: (id, upload).
pub(crate) fn all(store: &Store, bucket: &str) -> Result<Vec<(String, Upload)>, StoreError> {
    store.check_bucket(bucket)?;
    let mut found = Vec::new();
    for entry in fs::read_dir(store.uploads_dir()).map_err(StoreError::io("list uploads"))? {
        let entry = entry.map_err(StoreError::io("list uploads"))?;
        let Ok(id) = entry.file_name().into_string() else {
            continue;
        };
        // one that is just being begun or ended has no info
        let Ok(json) = fs::read(entry.path().join("info")) else {
            continue;
        };
        let Ok(upload) = serde_json::from_slice::<Upload>(&json) else {
            continue;
        };
        if upload.bucket == bucket {
            found.push((id, upload));
        }
    }
    found.sort_by(|a, b| (&a.1.key, &a.0).cmp(&(&b.1.key, &b.0)));
    Ok(found)
}

/// The bytes that hex digits stand for; other characters are left out.
fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text
        .chars()
        .filter_map(|c| c.to_digit(16))
        .map(|d| d as u8)
        .collect();
    digits
        .chunks(2)
        .map(|pair| pair.iter().fold(0, |n, d| n << 4 | d))
        .collect()
}
