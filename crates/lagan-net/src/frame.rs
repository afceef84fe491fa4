//! Frames, which a connection carries after its handshake.
//!
//! | offset | bytes | field |
//! | --- | --- | --- |
//! | 0 | 4 | length of the head (low 24 bits), kind (high 8 bits) |
//! | 4 | 4 | length of the data |
//! | 8 | 8 | id of the call; its answer repeats it |
//! | 16 | 4 | CRC-32 of bytes 0..16 and the head |
//! | 20 | | head, then data |
//!
//! All integers are little endian. The head is a small encoded message; data
//! are bulk bytes that carry checksums of their own, so they are never touched
//! here. A length is checked before anything is allocated for it, and memory
//! grows only with the bytes that have come.
//!
//! # To change this format, or a message in it
//! - Raise the second number of `lagan_types::limits::PROTOCOL_VERSIONS`. The handshake
//!   agrees on the highest version that both sides speak; each side has it from then on
//!   (`Connection::version`, `Peer::version`).
//! - To go on with peers of the older version, encode and decode by that number: nothing
//!   does so yet, since there is one version. To refuse them, raise the first number, too:
//!   the handshake then tells both sides which versions the other one speaks.
//! - Frames are not stored and a connection does not outlive its processes: nothing old is
//!   left to read. The handshake's own layout never changes.
//! - `header_bytes_are_golden` in `frame/tests.rs` changes; for a message its golden bytes,
//!   if it has some, in `lagan-types`. Messages between voters have a version of their own
//!   in `lagan-raft`, `rpc.rs`.

use bytes::buf::Limit;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use lagan_types::limits::{FRAME_DATA_LEN_MAX, FRAME_HEAD_LEN_MAX};

#[cfg(test)]
mod tests;

/// Bytes before a frame's head.
pub const HEADER_LEN: usize = 20;
/// Bytes of the header that the CRC covers.
const CHECKED_LEN: usize = 16;
/// Bytes that one read asks for: enough for many small frames.
const READ_LEN: usize = 64 * 1024;
/// With less room than this left, a read gets a new buffer.
const READ_LEN_MIN: usize = 8 * 1024;
/// Data longer than this get a buffer of their own, of their exact length.
const BULK_LEN: usize = 32 * 1024;
/// Bytes that are allocated for bulk data before more than the header has come.
const BULK_START_LEN: usize = 1024 * 1024;
/// A buffer may be this many times the bytes that have come.
const GROWTH: usize = 4;

const _: () = assert!(FRAME_HEAD_LEN_MAX < 1 << 24);

/// The use of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum FrameKind {
    /// A request, from the side that opened the connection.
    Call = 0,
    /// The answer to the call with the same id.
    Answer = 1,
    /// Asks for a `Pong`: is anybody there?
    Ping = 2,
    /// Answers `Ping`. A server that reads nothing for a while sends it unasked.
    Pong = 3,
    /// The call with this id was received and will get no answer.
    Dropped = 4,
    /// The server is about to leave: it answers the calls that it has, and takes no new ones.
    Goodbye = 5,
}

impl FrameKind {
    fn from_wire(kind: u8) -> Result<Self, FrameError> {
        Ok(match kind {
            0 => FrameKind::Call,
            1 => FrameKind::Answer,
            2 => FrameKind::Ping,
            3 => FrameKind::Pong,
            4 => FrameKind::Dropped,
            5 => FrameKind::Goodbye,
            other => return Err(FrameError::Kind(other)),
        })
    }
}

/// One frame, received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Its use.
    pub kind: FrameKind,
    /// The call that it belongs to.
    pub id: u64,
    /// The encoded message.
    pub head: Bytes,
    /// Bulk bytes.
    pub data: Bytes,
}

/// The bytes are not a frame. The connection cannot be used any more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The kind is unknown.
    #[error("unknown kind of frame {0}")]
    Kind(u8),
    /// The head claims more bytes than it may have.
    #[error("frame head of {0} bytes")]
    HeadTooLong(u32),
    /// The data claim more bytes than they may have.
    #[error("frame data of {0} bytes")]
    DataTooLong(u32),
    /// Header or head changed on their way.
    #[error("frame checksum {got:08x}, expected {expected:08x}")]
    Checksum {
        /// The checksum in the frame.
        expected: u32,
        /// The checksum of its bytes.
        got: u32,
    },
}

/// Limits of a frame's parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameLimits {
    /// Bytes of the head, at most.
    pub head_len_max: u32,
    /// Bytes of the data, at most.
    pub data_len_max: u32,
}

impl Default for FrameLimits {
    fn default() -> Self {
        FrameLimits {
            head_len_max: FRAME_HEAD_LEN_MAX,
            data_len_max: FRAME_DATA_LEN_MAX,
        }
    }
}

/// The header of a frame. Lengths must be within [`FrameLimits::default`].
pub fn encode_header(kind: FrameKind, id: u64, head: &[u8], data_len: usize) -> [u8; HEADER_LEN] {
    let mut out = [0; HEADER_LEN];
    let first = (head.len() as u32 & 0x00ff_ffff) | (kind as u32) << 24;
    out[0..4].copy_from_slice(&first.to_le_bytes());
    out[4..8].copy_from_slice(&(data_len as u32).to_le_bytes());
    out[8..16].copy_from_slice(&id.to_le_bytes());
    let crc = checksum(&out[..CHECKED_LEN], head);
    out[16..20].copy_from_slice(&crc.to_le_bytes());
    out
}

fn checksum(header: &[u8], head: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(header);
    hasher.update(head);
    hasher.finalize()
}

/// A header, its lengths within the limits.
struct Header {
    kind: FrameKind,
    id: u64,
    head_len: usize,
    data_len: usize,
    crc: u32,
}

impl Header {
    fn decode(mut bytes: &[u8], limits: &FrameLimits) -> Result<Self, FrameError> {
        let first = bytes.get_u32_le();
        let data_len = bytes.get_u32_le();
        let id = bytes.get_u64_le();
        let crc = bytes.get_u32_le();
        let kind = FrameKind::from_wire((first >> 24) as u8)?;
        let head_len = first & 0x00ff_ffff;
        if head_len > limits.head_len_max {
            return Err(FrameError::HeadTooLong(head_len));
        }
        if data_len > limits.data_len_max {
            return Err(FrameError::DataTooLong(data_len));
        }
        Ok(Header {
            kind,
            id,
            head_len: head_len as usize,
            data_len: data_len as usize,
            crc,
        })
    }

    /// Bytes that must be in the buffer before the frame is cut off it.
    fn wanted_len(&self) -> usize {
        let data_len = if self.data_len > BULK_LEN {
            0
        } else {
            self.data_len
        };
        HEADER_LEN + self.head_len + data_len
    }
}

/// A frame whose data come into a buffer of their own.
#[derive(Debug)]
struct Bulk {
    kind: FrameKind,
    id: u64,
    head: Bytes,
    data: BytesMut,
    data_len: usize,
}

/// Turns a stream of bytes into frames. Pure: the caller reads into
/// [`Decoder::space`], then takes frames until there is none.
#[derive(Debug)]
pub struct Decoder {
    limits: FrameLimits,
    buffer: BytesMut,
    bulk: Option<Bulk>,
}

impl Decoder {
    /// A decoder at the start of a stream.
    pub fn new(limits: FrameLimits) -> Self {
        Decoder {
            limits,
            buffer: BytesMut::new(),
            bulk: None,
        }
    }

    /// True if part of a frame has come.
    pub fn is_partial(&self) -> bool {
        self.bulk.is_some() || !self.buffer.is_empty()
    }

    /// Space for the next bytes of the stream. Call [`Decoder::next_frame`] until it
    /// returns none before asking for space again.
    pub fn space(&mut self) -> Limit<&mut BytesMut> {
        let wanted = self.missing_len();
        if let Some(bulk) = &mut self.bulk {
            let missing = bulk.data_len - bulk.data.len();
            if bulk.data.capacity() == bulk.data.len() {
                let grow = bulk.data.len().saturating_mul(GROWTH - 1);
                bulk.data.reserve(missing.min(grow.max(BULK_START_LEN)));
            }
            return (&mut bulk.data).limit(missing);
        }
        let buffer = &mut self.buffer;
        if buffer.capacity() - buffer.len() < READ_LEN_MIN {
            let grow = buffer.len().saturating_mul(GROWTH - 1);
            buffer.reserve(READ_LEN.max(wanted.min(grow)));
        }
        buffer.limit(usize::MAX)
    }

    /// Bytes that the frame at the front of the buffer still lacks, 0 if unknown.
    fn missing_len(&self) -> usize {
        self.buffer
            .get(..HEADER_LEN)
            .and_then(|bytes| Header::decode(bytes, &self.limits).ok())
            .map_or(0, |h| h.wanted_len().saturating_sub(self.buffer.len()))
    }

    /// Returns the next frame, if all of it has come.
    ///
    /// # Errors
    /// [`FrameError`]: no frame can be told from here on; drop the connection.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        if self.bulk.is_some() {
            return Ok(self.take_bulk());
        }
        let Some(bytes) = self.buffer.get(..HEADER_LEN) else {
            return Ok(None);
        };
        let header = Header::decode(bytes, &self.limits)?;
        if self.buffer.len() < header.wanted_len() {
            return Ok(None);
        }
        let got = checksum(
            &self.buffer[..CHECKED_LEN],
            &self.buffer[HEADER_LEN..HEADER_LEN + header.head_len],
        );
        if got != header.crc {
            return Err(FrameError::Checksum {
                expected: header.crc,
                got,
            });
        }
        self.buffer.advance(HEADER_LEN);
        let head = self.buffer.split_to(header.head_len).freeze();
        if self.buffer.len() < header.data_len {
            self.start_bulk(&header, head);
            return Ok(None);
        }
        Ok(Some(Frame {
            kind: header.kind,
            id: header.id,
            head,
            data: self.buffer.split_to(header.data_len).freeze(),
        }))
    }

    fn start_bulk(&mut self, header: &Header, head: Bytes) {
        let have = self.buffer.len();
        let capacity = header.data_len.min(BULK_START_LEN.max(have * GROWTH));
        let mut data = BytesMut::with_capacity(capacity);
        data.extend_from_slice(&self.buffer);
        self.buffer.clear();
        self.bulk = Some(Bulk {
            kind: header.kind,
            id: header.id,
            head,
            data,
            data_len: header.data_len,
        });
    }

    fn take_bulk(&mut self) -> Option<Frame> {
        let bulk = self.bulk.take_if(|b| b.data.len() == b.data_len)?;
        Some(Frame {
            kind: bulk.kind,
            id: bulk.id,
            head: bulk.head,
            data: bulk.data.freeze(),
        })
    }
}
