//! Uploads of large objects in parts.
//!
//! Parts are 16 MiB, larger only where 10,000 of them would not do, and at
//! most [`PART_BUFFER_MAX`] of one is in memory: larger parts are read twice,
//! for their CRC and for the sending. Some parts are in flight at a time. The
//! CRCs of all parts must combine to the one that the caller expects, else
//! the upload is aborted: so a part that was read wrongly here is found too.

use super::put::{disposition, user_meta};
use super::stream::stream;
use super::{S3Store, classify};
use crate::body::source_error;
use crate::{Body, Checksum, ErrorKind, ObjectError, ObjectMeta};
use aws_sdk_s3::types::{ChecksumAlgorithm, CompletedMultipartUpload, CompletedPart};
use tokio::task::JoinSet;

/// Parts of an upload, at most (S3).
const PARTS_MAX: u64 = 10_000;
/// Bytes of a part: what a line sends in a second or so.
const PART_LEN: u64 = 16 * 1024 * 1024;
/// Bytes of a part that are kept in memory while it is sent.
const PART_BUFFER_MAX: u64 = 32 * 1024 * 1024;
/// Bytes of an object, at most (S3).
const OBJECT_LEN_MAX: u64 = 5 << 40;

const _: () = assert!(PART_LEN >= 5 * 1024 * 1024, "S3 refuses smaller parts");

/// One part of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Part {
    /// 1 and up.
    number: i32,
    offset: u64,
    len: u64,
}

/// A part that the endpoint has.
#[derive(Debug)]
struct Sent {
    part: Part,
    crc32: u32,
    e_tag: Option<String>,
}

/// The parts of an object of that length.
fn parts(len: u64) -> impl Iterator<Item = Part> {
    let least = len.div_ceil(PARTS_MAX).next_multiple_of(1024 * 1024);
    let part_len = PART_LEN.max(least);
    (0..len.div_ceil(part_len)).map(move |i| {
        let offset = i * part_len;
        Part {
            number: (i + 1) as i32,
            offset,
            len: part_len.min(len - offset),
        }
    })
}

/// The CRC of the parts one after the other.
fn combined(sent: &[Sent]) -> u32 {
    let mut all = crc32fast::Hasher::new();
    for s in sent {
        all.combine(&crc32fast::Hasher::new_with_initial_len(
            s.crc32, s.part.len,
        ));
    }
    all.finalize()
}

impl S3Store {
    /// Puts a body in parts; on any failure the upload is aborted.
    pub(super) async fn put_multipart(
        &self,
        key: &str,
        body: Body,
        meta: &ObjectMeta,
        crc32: Option<u32>,
    ) -> Result<(), ObjectError> {
        if body.len() > OBJECT_LEN_MAX {
            let message = "larger than the largest object";
            return Err(ObjectError::new(ErrorKind::Source, "put", key, message));
        }
        let upload_id = self.begin(key, meta, crc32).await?;
        let result = self.send_and_complete(key, &upload_id, &body, crc32).await;
        if result.is_err()
            && let Err(error) = self.abort(key, &upload_id).await
        {
            tracing::debug!(key, %error, "unfinished upload stays");
        }
        result
    }

    async fn begin(
        &self,
        key: &str,
        meta: &ObjectMeta,
        crc32: Option<u32>,
    ) -> Result<String, ObjectError> {
        let named = (self.checksum != Checksum::None).then_some(ChecksumAlgorithm::Crc32);
        let request = self
            .client
            .create_multipart_upload()
            .bucket(&self.bucket)
            .key(key)
            .set_content_type(meta.content_type.clone())
            .set_content_disposition(meta.file_name.as_deref().map(disposition))
            .set_metadata(Some(user_meta(meta, crc32)))
            .set_checksum_algorithm(named);
        let sent = request
            .customize()
            .config_override(self.timed(0))
            .send()
            .await;
        let answer = sent.map_err(|e| classify::error("begin upload", key, e))?;
        answer.upload_id.ok_or_else(|| {
            ObjectError::new(
                ErrorKind::Transient,
                "begin upload",
                key,
                "answer names no upload",
            )
        })
    }

    async fn send_and_complete(
        &self,
        key: &str,
        upload_id: &str,
        body: &Body,
        crc32: Option<u32>,
    ) -> Result<(), ObjectError> {
        let mut sent = self.send_parts(key, upload_id, body).await?;
        sent.sort_by_key(|s| s.part.number);
        let found = combined(&sent);
        if let Some(expected) = crc32.filter(|expected| *expected != found) {
            let message = format!("read bytes of CRC {found:08x} instead of {expected:08x}");
            return Err(ObjectError::new(
                ErrorKind::ChecksumMismatch,
                "put",
                key,
                message,
            ));
        }
        self.complete(key, upload_id, sent).await
    }

    /// Sends all parts, a few at a time; the first failure ends the others.
    async fn send_parts(
        &self,
        key: &str,
        upload_id: &str,
        body: &Body,
    ) -> Result<Vec<Sent>, ObjectError> {
        let mut tasks = JoinSet::new();
        let mut sent = Vec::new();
        let mut parts = parts(body.len());
        loop {
            while tasks.len() < self.part_concurrency {
                let Some(part) = parts.next() else { break };
                let sender = self.part_sender(key, upload_id, body);
                tasks.spawn(async move { sender.send(part).await });
            }
            match tasks.join_next().await {
                None => return Ok(sent),
                Some(Ok(result)) => sent.push(result?),
                Some(Err(error)) => {
                    let message = format!("part's task ended: {error}");
                    return Err(ObjectError::new(ErrorKind::Source, "put", key, message));
                }
            }
        }
    }

    fn part_sender(&self, key: &str, upload_id: &str, body: &Body) -> PartSender {
        PartSender {
            store: S3Store {
                client: self.client.clone(),
                bucket: self.bucket.clone(),
                ..*self
            },
            key: key.into(),
            upload_id: upload_id.into(),
            body: body.clone(),
        }
    }

    async fn complete(
        &self,
        key: &str,
        upload_id: &str,
        sent: Vec<Sent>,
    ) -> Result<(), ObjectError> {
        let len = sent.iter().map(|s| s.part.len).sum();
        let parts = sent.into_iter().map(|s| {
            CompletedPart::builder()
                .part_number(s.part.number)
                .set_e_tag(s.e_tag)
                .set_checksum_crc32(self.header_crc(Some(s.crc32)))
                .build()
        });
        let upload = CompletedMultipartUpload::builder()
            .set_parts(Some(parts.collect()))
            .build();
        let request = self
            .client
            .complete_multipart_upload()
            .bucket(&self.bucket)
            .key(key)
            .upload_id(upload_id)
            .multipart_upload(upload);
        // the endpoint may copy the parts together before it answers
        let sent = request
            .customize()
            .config_override(self.timed(len))
            .send()
            .await;
        match sent {
            Ok(_) => Ok(()),
            Err(error) => {
                let error = classify::error("complete upload", key, error);
                self.completed_before(key, len, error).await
            }
        }
    }

    /// A repeated completion finds no upload if the first one did it and its
    /// answer was lost: the object's length tells.
    async fn completed_before(
        &self,
        key: &str,
        len: u64,
        error: ObjectError,
    ) -> Result<(), ObjectError> {
        if error.kind != ErrorKind::NotFound {
            return Err(error);
        }
        match self.fetch_info(key).await {
            Ok(info) if info.len == len => Ok(()),
            _ => Err(ObjectError {
                kind: ErrorKind::Transient,
                ..error
            }),
        }
    }

    /// Ends an unfinished upload.
    pub(super) async fn abort(&self, key: &str, upload_id: &str) -> Result<(), ObjectError> {
        let request = self
            .client
            .abort_multipart_upload()
            .bucket(&self.bucket)
            .key(key)
            .upload_id(upload_id);
        let sent = request
            .customize()
            .config_override(self.timed(0))
            .send()
            .await;
        match sent.map_err(|e| classify::error("abort upload", key, e)) {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(()),
        }
    }
}

/// Sends parts of one upload, from a task of its own.
struct PartSender {
    store: S3Store,
    key: String,
    upload_id: String,
    body: Body,
}

impl PartSender {
    async fn send(self, part: Part) -> Result<Sent, ObjectError> {
        let (crc32, (bytes, failure)) = if part.len <= PART_BUFFER_MAX {
            let bytes = self.body.collect(part.offset, part.len).await;
            let bytes = bytes.map_err(|e| source_error(&self.key, e))?;
            (
                crc32fast::hash(&bytes),
                stream(&Body::Bytes(bytes), 0, part.len),
            )
        } else {
            let crc32 = self.body.crc32(part.offset, part.len).await;
            let crc32 = crc32.map_err(|e| source_error(&self.key, e))?;
            (crc32, stream(&self.body, part.offset, part.len))
        };
        let request = self
            .store
            .client
            .upload_part()
            .bucket(&self.store.bucket)
            .key(&self.key)
            .upload_id(&self.upload_id)
            .part_number(part.number)
            .content_length(i64::try_from(part.len).unwrap_or(i64::MAX))
            .set_checksum_crc32(self.store.header_crc(Some(crc32)))
            .body(bytes);
        let mut request = request
            .customize()
            .config_override(self.store.timed(part.len));
        if self.store.checksum != Checksum::None {
            // the signed CRC header covers the bytes: no SHA-256 besides
            request = request.disable_payload_signing();
        }
        let sent = request.send().await;
        match (sent, failure.take()) {
            (Ok(answer), None) => Ok(Sent {
                part,
                crc32,
                e_tag: answer.e_tag,
            }),
            (_, Some(message)) => Err(source_error(&self.key, message)),
            (Err(error), None) => Err(part_error(&self.key, error)),
        }
    }
}

/// An upload that vanished (aborted as stale, say) is to be begun again.
fn part_error<E>(key: &str, error: aws_sdk_s3::error::SdkError<E>) -> ObjectError
where
    E: aws_sdk_s3::error::ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
{
    let mut error = classify::error("put part of", key, error);
    if error.kind == ErrorKind::NotFound {
        error.kind = ErrorKind::Transient;
    }
    error
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn parts_cover_the_object_and_are_few(len in 1..=OBJECT_LEN_MAX / 1024) {
            let mut end = 0;
            let mut count = 0;
            for part in parts(len) {
                count += 1;
                prop_assert_eq!((part.number, part.offset), (count, end));
                end += part.len;
            }
            prop_assert_eq!(end, len);
            prop_assert!(count as u64 <= PARTS_MAX);
        }
    }

    #[test]
    fn the_largest_object_fits() {
        let last = parts(OBJECT_LEN_MAX).last().unwrap();
        assert_eq!(last.offset + last.len, OBJECT_LEN_MAX);
        assert!(last.number as u64 <= PARTS_MAX);
    }

    #[test]
    fn part_crcs_combine_to_the_whole() {
        let data: Vec<u8> = (0..1000u32).map(|i| (i * 7) as u8).collect();
        let sent = |number, offset: usize, len: usize| Sent {
            part: Part {
                number,
                offset: offset as u64,
                len: len as u64,
            },
            crc32: crc32fast::hash(&data[offset..offset + len]),
            e_tag: None,
        };
        let all = [sent(1, 0, 400), sent(2, 400, 400), sent(3, 800, 200)];
        assert_eq!(combined(&all), crc32fast::hash(&data));
    }
}
