//! Put, get and head of one object.

use super::service::{Api, check_key, none_match, timestamp};
use crate::body::{Expected, hex, receive, s3_error as answer, send};
use crate::record::{Attributes, Checksums, Record};
use crate::store::record;
use s3s::dto::*;
use s3s::{S3Request, S3Response, S3Result, s3_error};
use std::fs::File;

impl Api {
    pub(super) async fn put(
        &self,
        req: S3Request<PutObjectInput>,
    ) -> S3Result<S3Response<PutObjectOutput>> {
        let input = req.input;
        check_key(&input.key)?;
        self.store.check_bucket(&input.bucket).map_err(answer)?;
        let only_new = none_match(input.if_none_match.as_ref());
        let expected = Expected {
            md5: input.content_md5,
            checksums: Checksums {
                crc32: input.checksum_crc32,
                crc32c: input.checksum_crc32c,
                crc64nvme: input.checksum_crc64nvme,
                sha1: input.checksum_sha1,
                sha256: input.checksum_sha256,
            },
            algorithm: input.checksum_algorithm.map(|a| a.as_str().to_string()),
            trailers: req.trailing_headers,
        };
        let attributes = Attributes {
            cache_control: input.cache_control,
            content_disposition: input.content_disposition,
            content_encoding: input.content_encoding,
            content_language: input.content_language,
            content_type: input.content_type,
            user: input.metadata.unwrap_or_default(),
        };
        let received = receive(&self.store, input.body, expected).await?;
        let e_tag = hex(&received.md5);
        let sums = received.checksums.clone();
        let (bucket, key, tag) = (input.bucket, input.key, e_tag.clone());
        self.on_disk(move |store| {
            let draft = received.draft;
            let record = record(&key, draft.len(), tag, received.checksums, attributes);
            store
                .commit(&bucket, draft, record, only_new)
                .map_err(answer)
        })
        .await?;
        Ok(S3Response::new(PutObjectOutput {
            e_tag: Some(ETag::Strong(e_tag)),
            checksum_crc32: sums.crc32,
            checksum_crc32c: sums.crc32c,
            checksum_crc64nvme: sums.crc64nvme,
            checksum_sha1: sums.sha1,
            checksum_sha256: sums.sha256,
            ..Default::default()
        }))
    }

    async fn open(&self, bucket: String, key: String) -> S3Result<(File, Record)> {
        let opened = self.on_disk(move |s| s.open_object(&bucket, &key).map_err(answer));
        opened.await?.ok_or_else(|| s3_error!(NoSuchKey))
    }

    pub(super) async fn get(
        &self,
        req: S3Request<GetObjectInput>,
    ) -> S3Result<S3Response<GetObjectOutput>> {
        let GetObjectInput {
            bucket, key, range, ..
        } = req.input;
        let (file, record) = self.open(bucket, key).await?;
        let (part, content_range) = match range {
            None => (0..record.len, None),
            Some(range) => {
                let part = range.check(record.len)?;
                let shown = format!("bytes {}-{}/{}", part.start, part.end - 1, record.len);
                (part, Some(shown))
            }
        };
        // a checksum of the whole says nothing about a part of it
        let whole = part.end - part.start == record.len;
        let sums = if whole {
            record.checksums
        } else {
            Checksums::default()
        };
        let attributes = record.attributes;
        Ok(S3Response::new(GetObjectOutput {
            body: Some(send(file, part.start, part.end).await?),
            content_length: i64::try_from(part.end - part.start).ok(),
            content_range,
            accept_ranges: Some("bytes".into()),
            last_modified: Some(timestamp(record.modified_ms)),
            e_tag: Some(ETag::Strong(record.e_tag)),
            cache_control: attributes.cache_control,
            content_disposition: attributes.content_disposition,
            content_encoding: attributes.content_encoding,
            content_language: attributes.content_language,
            content_type: attributes.content_type,
            metadata: Some(attributes.user),
            checksum_crc32: sums.crc32,
            checksum_crc32c: sums.crc32c,
            checksum_crc64nvme: sums.crc64nvme,
            checksum_sha1: sums.sha1,
            checksum_sha256: sums.sha256,
            ..Default::default()
        }))
    }

    pub(super) async fn head(
        &self,
        req: S3Request<HeadObjectInput>,
    ) -> S3Result<S3Response<HeadObjectOutput>> {
        let HeadObjectInput { bucket, key, .. } = req.input;
        let (_, record) = self.open(bucket, key).await?;
        let (sums, attributes) = (record.checksums, record.attributes);
        Ok(S3Response::new(HeadObjectOutput {
            content_length: i64::try_from(record.len).ok(),
            accept_ranges: Some("bytes".into()),
            last_modified: Some(timestamp(record.modified_ms)),
            e_tag: Some(ETag::Strong(record.e_tag)),
            cache_control: attributes.cache_control,
            content_disposition: attributes.content_disposition,
            content_encoding: attributes.content_encoding,
            content_language: attributes.content_language,
            content_type: attributes.content_type,
            metadata: Some(attributes.user),
            checksum_crc32: sums.crc32,
            checksum_crc32c: sums.crc32c,
            checksum_crc64nvme: sums.crc64nvme,
            checksum_sha1: sums.sha1,
            checksum_sha256: sums.sha256,
            ..Default::default()
        }))
    }
}
