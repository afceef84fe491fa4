//! The one place that names bincode.
//!
//! Integers are varints, everything is little endian. Every decode has a
//! limit, so that a hostile length cannot make us allocate, and refuses
//! trailing bytes. Enums only ever grow at the end.

use bincode::config::{Configuration, Limit, LittleEndian, Varint, standard};
pub use bincode::{Decode, Encode};

/// For `#[bincode(crate = "lagan_types::codec::bincode")]` on the private rows of other crates.
#[doc(hidden)]
pub use bincode;

/// The bytes were not an encoding of the wanted type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// Truncated, over the limit, or not a value of the type.
    #[error("undecodable: {0}")]
    Malformed(String),
    /// The value ended before the bytes did.
    #[error("{0} bytes after the end of the value")]
    TrailingBytes(usize),
}

/// Bytes that one decode may claim: the largest message head or log record.
pub const DECODE_LIMIT_BYTES: usize = 16 * 1024 * 1024;

/// Most messages and rows are this short or shorter.
pub const SMALL_LEN: usize = 1024;
/// Bytes that a decode of [`SMALL_LEN`] or fewer may reserve. A list reserves room for
/// all items before they are read; one encoded byte may expand to some hundred
/// bytes, not to more.
pub const SMALL_LIMIT_BYTES: usize = SMALL_LEN * 512;

const _: () = assert!(SMALL_LIMIT_BYTES < DECODE_LIMIT_BYTES);

const fn config<const N: usize>() -> Configuration<LittleEndian, Varint, Limit<N>> {
    standard().with_limit::<N>()
}

/// Encodes `value`.
///
/// # Panics
/// Never for the types of this workspace: their encoders cannot fail, and the
/// writer is a growing vector.
pub fn encode<T: Encode>(value: &T) -> Vec<u8> {
    bincode::encode_to_vec(value, standard()).expect("encoding to memory cannot fail")
}

/// Appends the encoding of `value` to `out`.
pub fn encode_into<T: Encode>(value: &T, out: &mut Vec<u8>) {
    bincode::encode_into_std_write(value, out, standard()).expect("encoding to memory cannot fail");
}

/// Decodes a `T` that fills `bytes` exactly.
///
/// # Errors
/// [`CodecError`] for anything that [`encode`] does not write.
pub fn decode<T: Decode<()>>(bytes: &[u8]) -> Result<T, CodecError> {
    let (value, used) = decode_prefix(bytes)?;
    match bytes.len() - used {
        0 => Ok(value),
        rest => Err(CodecError::TrailingBytes(rest)),
    }
}

/// Decodes a `T` at the start of `bytes` and says how many bytes it took.
///
/// # Errors
/// [`CodecError::Malformed`] when no `T` starts there.
pub fn decode_prefix<T: Decode<()>>(bytes: &[u8]) -> Result<(T, usize), CodecError> {
    let decoded = if bytes.len() <= SMALL_LEN {
        bincode::decode_from_slice(bytes, config::<SMALL_LIMIT_BYTES>())
    } else {
        bincode::decode_from_slice(bytes, config::<DECODE_LIMIT_BYTES>())
    };
    decoded.map_err(|e| CodecError::Malformed(e.to_string()))
}

/// Encodes a type that only implements serde (openraft's messages).
///
/// # Panics
/// As [`encode`].
pub fn encode_serde<T: serde::Serialize>(value: &T) -> Vec<u8> {
    bincode::serde::encode_to_vec(value, standard()).expect("encoding to memory cannot fail")
}

/// Decodes a serde type that fills `bytes` exactly.
///
/// # Errors
/// As [`decode`].
pub fn decode_serde<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    let (value, used) = bincode::serde::decode_from_slice(bytes, config::<DECODE_LIMIT_BYTES>())
        .map_err(|e| CodecError::Malformed(e.to_string()))?;
    match bytes.len() - used {
        0 => Ok(value),
        rest => Err(CodecError::TrailingBytes(rest)),
    }
}
