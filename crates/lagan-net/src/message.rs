//! Requests and responses as frames carry them: an encoded head, and bulk bytes beside it.

use bytes::Bytes;
use lagan_types::codec::{self, CodecError, Decode, Encode};

/// A call, on its receiver's side.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Request {
    /// The encoded message.
    pub head: Bytes,
    /// Bulk bytes, which the codec does not touch.
    pub data: Bytes,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Response {
    /// The encoded message.
    pub head: Bytes,
    /// Bulk bytes, which the codec does not touch.
    pub data: Bytes,
}

impl Request {
    /// Decodes the head.
    ///
    /// # Errors
    /// [`CodecError`] for bytes that are no `T`.
    pub fn decode<T: Decode<()>>(&self) -> Result<T, CodecError> {
        codec::decode(&self.head)
    }

    /// Bytes of both parts.
    pub fn len(&self) -> usize {
        self.head.len() + self.data.len()
    }

    /// True if both parts are empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Response {
    /// An answer without data.
    pub fn encode<T: Encode>(head: &T) -> Self {
        Response::encode_with(head, Bytes::new())
    }

    /// An answer with data.
    pub fn encode_with<T: Encode>(head: &T, data: Bytes) -> Self {
        Response {
            head: codec::encode(head).into(),
            data,
        }
    }

    /// Decodes the head.
    ///
    /// # Errors
    /// [`CodecError`] for bytes that are no `T`.
    pub fn decode<T: Decode<()>>(&self) -> Result<T, CodecError> {
        codec::decode(&self.head)
    }
}
