//! The bytes of an upload, which can be read again for a retry.

use crate::{ErrorKind, ObjectError};
use async_trait::async_trait;
use bytes::Bytes;
use std::fmt;
use std::sync::Arc;

/// Bytes that are read piece by piece while they are sent. Random access, so
/// that an attempt can be repeated and parts can be sent side by side.
#[async_trait]
pub trait BodySource: Send + Sync {
    /// The bytes `offset..offset + len`, exactly. `len` is at most
    /// [`Body::PIECE_LEN_MAX`].
    ///
    /// # Errors
    /// One line that says why they cannot be read here.
    async fn read_at(&self, offset: u64, len: usize) -> Result<Bytes, String>;
}

/// The bytes of an object to be stored.
#[derive(Clone)]
pub enum Body {
    /// In memory.
    Bytes(Bytes),
    /// Read while it is sent.
    Source {
        /// Bytes in all.
        len: u64,
        /// Gives the bytes.
        source: Arc<dyn BodySource>,
    },
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Body({} bytes)", self.len())
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Body::Bytes(bytes)
    }
}

impl Body {
    /// Bytes that a source is asked for at once, at most.
    pub const PIECE_LEN_MAX: usize = 1024 * 1024;

    /// A body read from a source.
    pub fn from_source(len: u64, source: Arc<dyn BodySource>) -> Self {
        Body::Source { len, source }
    }

    /// Bytes in all.
    #[allow(
        clippy::len_without_is_empty,
        reason = "nobody asks whether a body is empty"
    )]
    pub fn len(&self) -> u64 {
        match self {
            Body::Bytes(bytes) => bytes.len() as u64,
            Body::Source { len, .. } => *len,
        }
    }

    /// The bytes `offset..offset + len` of it, which must be inside and at
    /// most [`Body::PIECE_LEN_MAX`] of a source.
    pub(crate) async fn piece(&self, offset: u64, len: usize) -> Result<Bytes, String> {
        let outside = || format!("range {offset}+{len} is outside of the body");
        match self {
            Body::Bytes(bytes) => {
                let start = usize::try_from(offset).map_err(|_| outside())?;
                let end = start.checked_add(len).filter(|end| *end <= bytes.len());
                Ok(bytes.slice(start..end.ok_or_else(outside)?))
            }
            Body::Source { source, .. } => {
                let bytes = source.read_at(offset, len).await?;
                if bytes.len() != len {
                    return Err(format!("{} bytes of {len} at {offset}", bytes.len()));
                }
                Ok(bytes)
            }
        }
    }

    /// All of a range in memory, piece by piece.
    ///
    /// # Errors
    /// The range is outside of the body, or its source cannot be read.
    pub async fn collect(&self, offset: u64, len: u64) -> Result<Bytes, String> {
        if let Body::Bytes(_) = self {
            let len = usize::try_from(len).map_err(|e| e.to_string())?;
            return self.piece(offset, len).await;
        }
        let mut all = Vec::with_capacity(usize::try_from(len).map_err(|e| e.to_string())?);
        for (at, piece_len) in pieces(offset, len) {
            all.extend_from_slice(&self.piece(at, piece_len).await?);
        }
        Ok(all.into())
    }

    /// CRC-32 of a range, reading it once.
    pub(crate) async fn crc32(&self, offset: u64, len: u64) -> Result<u32, String> {
        let mut hasher = crc32fast::Hasher::new();
        for (at, piece_len) in pieces(offset, len) {
            hasher.update(&self.piece(at, piece_len).await?);
        }
        Ok(hasher.finalize())
    }
}

/// The pieces of a range: (offset, length).
pub(crate) fn pieces(offset: u64, len: u64) -> impl Iterator<Item = (u64, usize)> {
    let step = Body::PIECE_LEN_MAX as u64;
    (0..len.div_ceil(step)).map(move |i| {
        let at = i * step;
        (offset + at, step.min(len - at) as usize)
    })
}

/// The error of a body that could not be read.
pub(crate) fn source_error(key: &str, message: String) -> ObjectError {
    ObjectError::new(ErrorKind::Source, "read", key, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_cover_the_range_once() {
        let step = Body::PIECE_LEN_MAX as u64;
        assert_eq!(pieces(5, 0).count(), 0);
        let all: Vec<_> = pieces(7, 2 * step + 3).collect();
        assert_eq!(
            all,
            [
                (7, step as usize),
                (7 + step, step as usize),
                (7 + 2 * step, 3)
            ]
        );
    }

    #[tokio::test]
    async fn a_range_outside_is_an_error() {
        let body = Body::from(Bytes::from_static(b"abc"));
        assert_eq!(body.collect(1, 2).await.unwrap(), "bc");
        assert!(body.collect(2, 2).await.is_err());
        assert!(body.collect(u64::MAX, 2).await.is_err());
    }
}
