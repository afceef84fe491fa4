//! Listings and deletes.

use super::{S3Store, classify};
use crate::{ErrorKind, ListedObject, ListedUpload, ObjectError};
use aws_sdk_s3::types::{Delete, ObjectIdentifier};

/// Keys in one request, at most (S3).
const KEYS_MAX: usize = 1000;

impl S3Store {
    /// Deletes keys, 1,000 a request.
    pub(super) async fn delete_all(&self, keys: &[String]) -> Result<(), ObjectError> {
        match keys {
            [key] => self.delete_one(key).await,
            keys => {
                for batch in keys.chunks(KEYS_MAX) {
                    self.delete_batch(batch).await?;
                }
                Ok(())
            }
        }
    }

    async fn delete_one(&self, key: &str) -> Result<(), ObjectError> {
        let request = self.client.delete_object().bucket(&self.bucket).key(key);
        let sent = request
            .customize()
            .config_override(self.timed(0))
            .send()
            .await;
        match sent.map_err(|e| classify::error("delete", key, e)) {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(()),
        }
    }

    async fn delete_batch(&self, keys: &[String]) -> Result<(), ObjectError> {
        let first = keys.first().map(String::as_str).unwrap_or_default();
        let wrong =
            |message: String| ObjectError::new(ErrorKind::Permanent, "delete", first, message);
        let mut objects = Vec::with_capacity(keys.len());
        for key in keys {
            let object = ObjectIdentifier::builder().key(key).build();
            objects.push(object.map_err(|e| wrong(e.to_string()))?);
        }
        let delete = Delete::builder()
            .quiet(true)
            .set_objects(Some(objects))
            .build();
        let delete = delete.map_err(|e| wrong(e.to_string()))?;
        let request = self
            .client
            .delete_objects()
            .bucket(&self.bucket)
            .delete(delete);
        let sent = request
            .customize()
            .config_override(self.timed(0))
            .send()
            .await;
        let answer = sent.map_err(|e| classify::error("delete", first, e))?;
        let failed = answer.errors.unwrap_or_default().into_iter().find_map(|e| {
            let kind = classify::code_kind(e.code.as_deref());
            (kind != ErrorKind::NotFound).then(|| ObjectError {
                kind,
                op: "delete",
                key: e.key.unwrap_or_default(),
                code: e.code,
                message: e.message.unwrap_or_default().chars().take(300).collect(),
            })
        });
        failed.map_or(Ok(()), Err)
    }

    /// One listing, as many pages as it needs.
    pub(super) async fn list_objects(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<ListedObject>, ObjectError> {
        let mut found: Vec<ListedObject> = Vec::new();
        let mut token = None;
        while found.len() < limit {
            let page_len = (limit - found.len()).min(KEYS_MAX);
            let request = self
                .client
                .list_objects_v2()
                .bucket(&self.bucket)
                .prefix(prefix)
                .set_start_after(after.map(str::to_string))
                .set_continuation_token(token.take())
                .max_keys(page_len as i32);
            let sent = request
                .customize()
                .config_override(self.timed(0))
                .send()
                .await;
            let page = sent.map_err(|e| classify::bucket_error("list", prefix, e))?;
            let before = found.len();
            found.extend(
                page.contents
                    .unwrap_or_default()
                    .into_iter()
                    .filter_map(|o| {
                        let len = u64::try_from(o.size.unwrap_or_default()).unwrap_or_default();
                        Some(ListedObject { key: o.key?, len })
                    }),
            );
            token = page.next_continuation_token;
            if page.is_truncated != Some(true) || token.is_none() || found.len() == before {
                break;
            }
        }
        found.truncate(limit);
        Ok(found)
    }

    /// Unfinished uploads: one page, which is enough for a sweep that repeats.
    pub(super) async fn list_unfinished(
        &self,
        prefix: &str,
        limit: usize,
    ) -> Result<Vec<ListedUpload>, ObjectError> {
        let request = self
            .client
            .list_multipart_uploads()
            .bucket(&self.bucket)
            .prefix(prefix)
            .max_uploads(limit.min(KEYS_MAX) as i32);
        let sent = request
            .customize()
            .config_override(self.timed(0))
            .send()
            .await;
        let page = sent.map_err(|e| classify::bucket_error("list uploads", prefix, e))?;
        let uploads = page
            .uploads
            .unwrap_or_default()
            .into_iter()
            .filter_map(|u| {
                let begun_s = u
                    .initiated
                    .and_then(|t| u64::try_from(t.secs()).ok())
                    .unwrap_or(0);
                Some(ListedUpload {
                    key: u.key?,
                    upload_id: u.upload_id?,
                    begun_s,
                })
            });
        Ok(uploads
            .filter(|u| u.key.starts_with(prefix))
            .take(limit)
            .collect())
    }
}
