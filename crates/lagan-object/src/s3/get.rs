//! Reading objects and what is known of them.

use super::{CRC_META, S3Store, classify};
use crate::{ErrorKind, ObjectError, ObjectInfo};
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::ChecksumMode;
use bytes::{Bytes, BytesMut};
use std::collections::{BTreeMap, HashMap};

impl S3Store {
    /// Exactly `offset..offset + len` of an object.
    pub(super) async fn fetch_range(
        &self,
        key: &str,
        offset: u64,
        len: u64,
    ) -> Result<Bytes, ObjectError> {
        let fail = |kind, message: String| Err(ObjectError::new(kind, "get", key, message));
        let Some(last) = len.checked_sub(1).and_then(|l| offset.checked_add(l)) else {
            return fail(ErrorKind::Source, format!("no such range: {offset}+{len}"));
        };
        let request = self
            .client
            .get_object()
            .bucket(&self.bucket)
            .key(key)
            .range(format!("bytes={offset}-{last}"));
        // the SDK's own limits end with the head of the answer
        let whole = async {
            let sent = request
                .customize()
                .config_override(self.timed(len))
                .send()
                .await;
            let answer = sent.map_err(|e| get_error(key, e))?;
            collect(key, answer.body, len).await
        };
        let limit = self.timeouts.attempt(len).saturating_mul(self.attempts_max);
        match tokio::time::timeout(limit, whole).await {
            Ok(result) => result,
            Err(_) => fail(ErrorKind::Transient, format!("no answer within {limit:?}")),
        }
    }

    /// Length and metadata of an object.
    pub(super) async fn fetch_info(&self, key: &str) -> Result<ObjectInfo, ObjectError> {
        let request = self
            .client
            .head_object()
            .bucket(&self.bucket)
            .key(key)
            .checksum_mode(ChecksumMode::Enabled);
        let sent = request
            .customize()
            .config_override(self.timed(0))
            .send()
            .await;
        let answer = sent.map_err(|e| classify::error("head", key, e))?;
        let len = answer
            .content_length
            .and_then(|len| u64::try_from(len).ok());
        let Some(len) = len else {
            let message = "answer has no length";
            return Err(ObjectError::new(ErrorKind::Transient, "head", key, message));
        };
        let crc32 = known_crc(answer.metadata.as_ref(), answer.checksum_crc32.as_deref());
        let user: BTreeMap<_, _> = answer.metadata.unwrap_or_default().into_iter().collect();
        Ok(ObjectInfo { len, crc32, user })
    }
}

/// Reads a body of exactly `len` bytes; never keeps more.
async fn collect(key: &str, mut body: ByteStream, len: u64) -> Result<Bytes, ObjectError> {
    let transient = |message: String| ObjectError::new(ErrorKind::Transient, "get", key, message);
    let len = usize::try_from(len).map_err(|e| transient(e.to_string()))?;
    let mut all = BytesMut::new();
    while let Some(piece) = body.next().await {
        let piece = piece.map_err(|e| transient(format!("after {} bytes: {e}", all.len())))?;
        if all.len() + piece.len() > len {
            return Err(transient(format!("more than {len} bytes came")));
        }
        if all.is_empty() && piece.len() == len {
            return Ok(piece);
        }
        all.extend_from_slice(&piece);
    }
    if all.len() < len {
        return Err(transient(format!("{} bytes of {len} came", all.len())));
    }
    Ok(all.freeze())
}

/// A range outside of the object means that the object is not the one we put.
fn get_error<E>(key: &str, error: aws_sdk_s3::error::SdkError<E>) -> ObjectError
where
    E: aws_sdk_s3::error::ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
{
    let mut error = classify::error("get", key, error);
    if error.code.as_deref() == Some("InvalidRange") {
        error.kind = ErrorKind::Transient;
    }
    error
}

/// The CRC of all bytes: ours, or the endpoint's if it is of the whole object
/// (that of a multipart upload ends in `-N`).
fn known_crc(meta: Option<&HashMap<String, String>>, header: Option<&str>) -> Option<u32> {
    let ours = meta
        .and_then(|m| m.get(CRC_META))
        .filter(|hex| hex.len() == 8);
    if let Some(crc) = ours.and_then(|hex| u32::from_str_radix(hex, 16).ok()) {
        return Some(crc);
    }
    let bytes = aws_smithy_types::base64::decode(header?).ok()?;
    Some(u32::from_be_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crc_is_taken_from_either_place() {
        let meta = HashMap::from([(CRC_META.to_string(), "cbf43926".to_string())]);
        assert_eq!(known_crc(Some(&meta), None), Some(0xcbf4_3926));
        assert_eq!(known_crc(None, Some("y/Q5Jg==")), Some(0xcbf4_3926));
        assert_eq!(known_crc(None, Some("y/Q5Jg==-3")), None);
        let garbage = HashMap::from([(CRC_META.to_string(), "+bf43926zz".to_string())]);
        assert_eq!(known_crc(Some(&garbage), None), None);
    }

    #[tokio::test]
    async fn a_body_must_have_the_length_asked_for() {
        let body = || ByteStream::from_static(b"abc");
        assert_eq!(collect("k", body(), 3).await.unwrap(), "abc");
        assert!(collect("k", body(), 4).await.unwrap_err().kind == ErrorKind::Transient);
        assert!(collect("k", body(), 2).await.unwrap_err().kind == ErrorKind::Transient);
    }
}
