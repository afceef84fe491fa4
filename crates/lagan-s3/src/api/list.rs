//! Listings.

use super::service::{Api, timestamp};
use crate::body::s3_error as answer;
use crate::store::{Entry, ListQuery, Page};
use crate::upload::Upload;
use s3s::dto::*;
use s3s::{S3Response, S3Result};

/// Keys in one answer, at most (S3).
const PAGE_MAX: usize = 1000;

fn limit(asked: Option<i32>) -> usize {
    asked
        .and_then(|n| usize::try_from(n).ok())
        .unwrap_or(PAGE_MAX)
        .min(PAGE_MAX)
}

fn object((key, entry): (String, Entry)) -> Object {
    Object {
        key: Some(key),
        size: i64::try_from(entry.len).ok(),
        e_tag: Some(ETag::Strong(entry.e_tag)),
        last_modified: Some(timestamp(entry.modified_ms)),
        ..Default::default()
    }
}

fn prefixes(page: &Page) -> Vec<CommonPrefix> {
    let all = page.common_prefixes.iter().cloned();
    all.map(|prefix| CommonPrefix {
        prefix: Some(prefix),
    })
    .collect()
}

impl Api {
    pub(super) fn list_v2(
        &self,
        input: ListObjectsV2Input,
    ) -> S3Result<S3Response<ListObjectsV2Output>> {
        let limit = limit(input.max_keys);
        let query = ListQuery {
            prefix: input.prefix.as_deref().unwrap_or_default(),
            delimiter: input.delimiter.as_deref(),
            after: input
                .continuation_token
                .as_deref()
                .or(input.start_after.as_deref()),
            limit,
        };
        let page = self.store.list(&input.bucket, query).map_err(answer)?;
        let common_prefixes = prefixes(&page);
        Ok(S3Response::new(ListObjectsV2Output {
            key_count: i32::try_from(page.objects.len() + common_prefixes.len()).ok(),
            is_truncated: Some(page.next.is_some()),
            next_continuation_token: page.next,
            contents: Some(page.objects.into_iter().map(object).collect()),
            common_prefixes: Some(common_prefixes),
            max_keys: i32::try_from(limit).ok(),
            name: Some(input.bucket),
            prefix: input.prefix,
            delimiter: input.delimiter,
            start_after: input.start_after,
            continuation_token: input.continuation_token,
            ..Default::default()
        }))
    }

    pub(super) fn list_v1(
        &self,
        input: ListObjectsInput,
    ) -> S3Result<S3Response<ListObjectsOutput>> {
        let limit = limit(input.max_keys);
        let query = ListQuery {
            prefix: input.prefix.as_deref().unwrap_or_default(),
            delimiter: input.delimiter.as_deref(),
            after: input.marker.as_deref(),
            limit,
        };
        let page = self.store.list(&input.bucket, query).map_err(answer)?;
        let common_prefixes = prefixes(&page);
        Ok(S3Response::new(ListObjectsOutput {
            is_truncated: Some(page.next.is_some()),
            next_marker: page.next,
            contents: Some(page.objects.into_iter().map(object).collect()),
            common_prefixes: Some(common_prefixes),
            max_keys: i32::try_from(limit).ok(),
            name: Some(input.bucket),
            prefix: input.prefix,
            delimiter: input.delimiter,
            marker: input.marker,
            ..Default::default()
        }))
    }
}

/// One page of unfinished uploads, which come in order of their keys.
pub(super) fn uploads(
    all: Vec<(String, Upload)>,
    input: ListMultipartUploadsInput,
) -> ListMultipartUploadsOutput {
    let limit = limit(input.max_uploads);
    let prefix = input.prefix.as_deref().unwrap_or_default();
    let marker = (
        input.key_marker.as_deref(),
        input.upload_id_marker.as_deref(),
    );
    let behind = |(id, upload): &&(String, Upload)| match marker {
        (None, _) => true,
        (Some(key), None) => upload.key.as_str() > key,
        (Some(key), Some(after)) => (upload.key.as_str(), id.as_str()) > (key, after),
    };
    let matching = all
        .iter()
        .filter(|(_, u)| u.key.starts_with(prefix))
        .filter(behind);
    let found: Vec<_> = matching.take(limit + 1).collect();
    let is_truncated = found.len() > limit;
    let shown = found.into_iter().take(limit);
    let uploads: Vec<MultipartUpload> = shown
        .map(|(id, upload)| MultipartUpload {
            key: Some(upload.key.clone()),
            upload_id: Some(id.clone()),
            initiated: Some(timestamp(upload.begun_ms)),
            ..Default::default()
        })
        .collect();
    let last = uploads.last().filter(|_| is_truncated);
    ListMultipartUploadsOutput {
        next_key_marker: last.and_then(|u| u.key.clone()),
        next_upload_id_marker: last.and_then(|u| u.upload_id.clone()),
        is_truncated: Some(is_truncated),
        uploads: Some(uploads),
        max_uploads: i32::try_from(limit).ok(),
        bucket: Some(input.bucket),
        prefix: input.prefix,
        key_marker: input.key_marker,
        upload_id_marker: input.upload_id_marker,
        ..Default::default()
    }
}
