//! Puts in one request, and what multipart uploads share with them.

use super::stream::stream;
use super::{CRC_META, S3Store, classify};
use crate::body::source_error;
use crate::{Body, Checksum, ObjectError, ObjectMeta};
use aws_sdk_s3::types::ChecksumAlgorithm;
use lagan_types::percent;
use std::collections::HashMap;

impl S3Store {
    /// Puts a body in one request.
    pub(super) async fn put_single(
        &self,
        key: &str,
        body: Body,
        meta: &ObjectMeta,
        crc32: Option<u32>,
    ) -> Result<(), ObjectError> {
        let len = body.len();
        let (bytes, failure) = stream(&body, 0, len);
        let request = self
            .client
            .put_object()
            .bucket(&self.bucket)
            .key(key)
            .set_content_type(meta.content_type.clone())
            .set_content_disposition(meta.file_name.as_deref().map(disposition))
            .set_metadata(Some(user_meta(meta, crc32)))
            .set_checksum_crc32(self.header_crc(crc32))
            .set_checksum_algorithm(self.trailer_algorithm(crc32))
            .content_length(i64::try_from(len).unwrap_or(i64::MAX))
            .body(bytes);
        let mut request = request.customize().config_override(self.timed(len));
        if crc32.is_some() && self.checksum != Checksum::None {
            // the signed CRC header covers the bytes: no SHA-256 besides
            request = request.disable_payload_signing();
        }
        let sent = request.send().await;
        match (sent, failure.take()) {
            (Ok(_), None) => Ok(()),
            (_, Some(message)) => Err(source_error(key, message)),
            (Err(error), None) => Err(classify::error("put", key, error)),
        }
    }

    /// A known CRC as the header that makes the endpoint verify it.
    pub(super) fn header_crc(&self, crc32: Option<u32>) -> Option<String> {
        if self.checksum == Checksum::None {
            return None;
        }
        crc32.map(|crc| aws_smithy_types::base64::encode(crc.to_be_bytes()))
    }

    /// An unknown CRC is computed while sending, where the endpoint allows it.
    fn trailer_algorithm(&self, crc32: Option<u32>) -> Option<ChecksumAlgorithm> {
        let wanted = self.checksum == Checksum::Crc32 && crc32.is_none();
        wanted.then_some(ChecksumAlgorithm::Crc32)
    }
}

/// The user metadata that is sent: the caller's, and the CRC.
pub(super) fn user_meta(meta: &ObjectMeta, crc32: Option<u32>) -> HashMap<String, String> {
    let mut user: HashMap<_, _> = meta.user.clone().into_iter().collect();
    if let Some(crc) = crc32 {
        user.insert(CRC_META.into(), format!("{crc:08x}"));
    }
    user
}

/// Content-Disposition that saves an object under its file's name (RFC 6266):
/// an ASCII form for old programs and the exact one.
pub(super) fn disposition(name: &str) -> String {
    let plain: String = name
        .chars()
        .map(|c| {
            if c.is_ascii_graphic() && !"\"\\%".contains(c) || c == ' ' {
                c
            } else {
                '_'
            }
        })
        .collect();
    let exact = percent::encode(name.as_bytes(), b"");
    format!("attachment; filename=\"{plain}\"; filename*=UTF-8''{exact}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_any_kind_become_headers() {
        assert_eq!(
            disposition("Ré\"sumé\n.pdf"),
            "attachment; filename=\"R__sum__.pdf\"; filename*=UTF-8''R%C3%A9%22sum%C3%A9%0A.pdf"
        );
    }
}
