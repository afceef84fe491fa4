//! Bytes that travel within a message or a command.

use crate::codec::{Decode, Encode, bincode};
use bincode::de::Decoder;
use bincode::enc::Encoder;
use bincode::error::{DecodeError, EncodeError};
use bytes::Bytes;

/// Bytes that are shared, not copied, by all who hold them; encoded as a `Vec<u8>` is.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Data(pub Bytes);

impl std::fmt::Debug for Data {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Data({} bytes)", self.0.len())
    }
}

impl Encode for Data {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        self.0[..].encode(encoder)
    }
}

impl<Context> Decode<Context> for Data {
    fn decode<D: Decoder<Context = Context>>(decoder: &mut D) -> Result<Self, DecodeError> {
        Vec::<u8>::decode(decoder).map(|bytes| Data(bytes.into()))
    }
}

bincode::impl_borrow_decode!(Data);
