//! Bodies: from the wire to a draft, and from a file to the wire.

use crate::record::Checksums;
use crate::store::{Draft, Store, StoreError};
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Frame, SizeHint};
use s3s::checksum::ChecksumHasher;
use s3s::crypto::{Checksum as _, Md5};
use s3s::dto::StreamingBlob;
use s3s::{Body, S3Error, S3Result, TrailingHeaders, s3_error};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::sync::mpsc;

/// Bytes gathered before they go to the disk.
const WRITE_LEN: usize = 1024 * 1024;
/// Bytes read from the disk at once.
const READ_LEN: u64 = 256 * 1024;
/// Pieces read ahead of the socket.
const READ_AHEAD: usize = 2;

/// Runs disk work where it may block.
pub(crate) async fn blocking<T, F>(work: F) -> S3Result<T>
where
    T: Send + 'static,
    F: FnOnce() -> S3Result<T> + Send + 'static,
{
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(S3Error::internal_error(error)),
    }
}

/// The store's errors as S3 answers them.
pub(crate) fn s3_error(error: StoreError) -> S3Error {
    match error {
        StoreError::NoSuchBucket => s3_error!(NoSuchBucket),
        StoreError::Exists => s3_error!(PreconditionFailed, "object exists"),
        other => {
            tracing::error!(error = %other, "disk");
            S3Error::internal_error(other)
        }
    }
}

/// The checksums that a client gives for the bytes it sends.
#[derive(Debug, Default)]
pub(crate) struct Expected {
    pub md5: Option<String>,
    pub checksums: Checksums,
    /// The name in `x-amz-sdk-checksum-algorithm`; the checksum comes in a trailer.
    pub algorithm: Option<String>,
    pub trailers: Option<TrailingHeaders>,
}

/// Bytes on disk, verified, not yet an object.
#[derive(Debug)]
pub(crate) struct Received {
    pub draft: Draft,
    pub md5: [u8; 16],
    pub checksums: Checksums,
}

/// Writes a body to a draft and verifies it by all that the client sent.
///
/// # Errors
/// `BadDigest` if it is not what the client meant; nothing stays.
pub(crate) async fn receive(
    store: &Arc<Store>,
    body: Option<StreamingBlob>,
    expected: Expected,
) -> S3Result<Received> {
    let opened = store.clone();
    let mut draft = blocking(move || opened.begin().map_err(s3_error)).await?;
    let mut hashes = Hashes::new(&expected);
    let mut body = body.map(Body::from).unwrap_or_else(Body::empty);
    let mut pending: Vec<u8> = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|e| s3_error!(IncompleteBody, "{e}"))?;
        let Ok(bytes) = frame.into_data() else {
            continue;
        };
        hashes.update(&bytes);
        pending.extend_from_slice(&bytes);
        if pending.len() >= WRITE_LEN {
            let full = std::mem::take(&mut pending);
            draft = write(draft, full).await?;
        }
    }
    if !pending.is_empty() {
        draft = write(draft, pending).await?;
    }
    let expected = match store.verify {
        true => expected,
        false => Expected::default(),
    };
    let (md5, checksums) = hashes.verify(expected)?;
    Ok(Received {
        draft,
        md5,
        checksums,
    })
}

async fn write(mut draft: Draft, bytes: Vec<u8>) -> S3Result<Draft> {
    blocking(move || {
        draft.write(&bytes).map_err(S3Error::internal_error)?;
        Ok(draft)
    })
    .await
}

struct Hashes {
    md5: Md5,
    others: ChecksumHasher,
}

impl Hashes {
    fn new(expected: &Expected) -> Self {
        let mut others = ChecksumHasher {
            crc32: Some(Default::default()),
            ..Default::default()
        };
        let named = |name: &str| expected.algorithm.as_deref() == Some(name);
        let given = &expected.checksums;
        if given.crc32c.is_some() || named("CRC32C") {
            others.crc32c = Some(Default::default());
        }
        if given.crc64nvme.is_some() || named("CRC64NVME") {
            others.crc64nvme = Some(Default::default());
        }
        if given.sha1.is_some() || named("SHA1") {
            others.sha1 = Some(Default::default());
        }
        if given.sha256.is_some() || named("SHA256") {
            others.sha256 = Some(Default::default());
        }
        Hashes {
            md5: Md5::new(),
            others,
        }
    }

    fn update(&mut self, bytes: &[u8]) {
        self.md5.update(bytes);
        self.others.update(bytes);
    }

    fn verify(self, expected: Expected) -> S3Result<([u8; 16], Checksums)> {
        let md5 = self.md5.finalize();
        let sums = self.others.finalize();
        let found = Checksums {
            crc32: sums.checksum_crc32,
            crc32c: sums.checksum_crc32c,
            crc64nvme: sums.checksum_crc64nvme,
            sha1: sums.checksum_sha1,
            sha256: sums.checksum_sha256,
        };
        let mut given = expected.checksums;
        if let Some(trailers) = expected.trailers.and_then(|t| t.take()) {
            let trailer = |name| {
                trailers
                    .get(name)
                    .and_then(|v| v.to_str().ok())
                    .map(String::from)
            };
            given.crc32 = given.crc32.or_else(|| trailer("x-amz-checksum-crc32"));
            given.crc32c = given.crc32c.or_else(|| trailer("x-amz-checksum-crc32c"));
            given.crc64nvme = given
                .crc64nvme
                .or_else(|| trailer("x-amz-checksum-crc64nvme"));
            given.sha1 = given.sha1.or_else(|| trailer("x-amz-checksum-sha1"));
            given.sha256 = given.sha256.or_else(|| trailer("x-amz-checksum-sha256"));
        }
        let pairs = [
            (&given.crc32, &found.crc32),
            (&given.crc32c, &found.crc32c),
            (&given.crc64nvme, &found.crc64nvme),
            (&given.sha1, &found.sha1),
            (&given.sha256, &found.sha256),
        ];
        if pairs
            .iter()
            .any(|(given, found)| given.is_some() && given != found)
        {
            return Err(s3_error!(
                BadDigest,
                "checksum differs from the bytes received"
            ));
        }
        if expected.md5.is_some_and(|given| given != base64(&md5)) {
            return Err(s3_error!(
                BadDigest,
                "Content-MD5 differs from the bytes received"
            ));
        }
        Ok((md5, found))
    }
}

/// Standard base64 with padding.
pub(crate) fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let bits = (0..3).fold(0u32, |n, i| n << 8 | u32::from(*group.get(i).unwrap_or(&0)));
        for i in 0..4 {
            if i <= group.len() {
                text.push(DIGITS[(bits >> (18 - 6 * i) & 63) as usize] as char);
            } else {
                text.push('=');
            }
        }
    }
    text
}

/// Lower-case hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The bytes `start..end` of an object as a body.
pub(crate) async fn send(file: File, start: u64, end: u64) -> S3Result<StreamingBlob> {
    if end - start <= READ_LEN {
        let bytes =
            blocking(move || read(&file, start, end - start).map_err(S3Error::internal_error))
                .await?;
        return Ok(StreamingBlob::from(Body::from(bytes)));
    }
    let (sender, receiver) = mpsc::channel(READ_AHEAD);
    tokio::task::spawn_blocking(move || {
        let mut at = start;
        while at < end {
            let len = READ_LEN.min(end - at);
            let piece = read(&file, at, len);
            let failed = piece.is_err();
            if sender.blocking_send(piece).is_err() || failed {
                return;
            }
            at += len;
        }
    });
    let body = FileBody {
        receiver,
        left: end - start,
    };
    Ok(StreamingBlob::from(Body::http_body(body)))
}

fn read(file: &File, at: u64, len: u64) -> io::Result<Bytes> {
    let mut bytes = vec![0; usize::try_from(len).map_err(io::Error::other)?];
    file.read_exact_at(&mut bytes, at)?;
    Ok(bytes.into())
}

/// Pieces of a file as they come from the disk.
struct FileBody {
    receiver: mpsc::Receiver<io::Result<Bytes>>,
    left: u64,
}

impl hyper::body::Body for FileBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        match self.receiver.poll_recv(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Some(Ok(bytes))) => {
                self.left = self.left.saturating_sub(bytes.len() as u64);
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(error))),
            Poll::Ready(None) => {
                Poll::Ready(Some(Err(io::Error::other("reading the object stopped"))))
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_and_hex_are_the_usual_ones() {
        let all = [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
        ];
        for (plain, encoded) in all {
            assert_eq!(base64(plain.as_bytes()), encoded);
        }
        assert_eq!(base64(&[0xff, 0xfe, 0xfd]), "//79");
        assert_eq!(hex(&[0, 0xab]), "00ab");
    }
}
