//! The reasons why a call over the network gave no answer.

use std::net::SocketAddr;

/// A call that got no answer, or a connection that could not be made.
///
/// A caller must know next whether the other side may have acted: see
/// [`NetError::possibly_sent`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NetError {
    /// No connection could be made; nothing was sent.
    #[error("connect to {addr}: {reason}")]
    Connect {
        /// The address that was tried.
        addr: SocketAddr,
        /// The reason, in words.
        reason: String,
        /// True if nothing came back at all (dropped packets): another try is likely to
        /// cost its whole deadline.
        silent: bool,
    },
    /// The other side answered the handshake with a refusal, or is another server than
    /// the wanted one; nothing was sent.
    #[error("refused by {addr}: {reason}")]
    Refused {
        /// The address of the side that refused.
        addr: SocketAddr,
        /// Its reason, in words.
        reason: String,
    },
    /// The connection ended before the answer came.
    #[error("connection closed{}", if *.sent { ", outcome unknown" } else { "" })]
    Closed {
        /// False only if no byte of the call can have left.
        sent: bool,
    },
    /// The deadline passed before the answer came.
    #[error("timed out{}", if *.sent { ", outcome unknown" } else { "" })]
    TimedOut {
        /// False only if no byte of the call can have left.
        sent: bool,
    },
    /// The other side sent what the protocol does not allow.
    #[error("protocol: {0}")]
    Protocol(String),
    /// The server understood the call and declines it.
    #[error("{0}")]
    Declined(String),
    /// The call is larger than a frame may be; nothing was sent.
    #[error("message of {len} bytes, at most {max} allowed")]
    TooLarge {
        /// Bytes of the part that is too long, head or data.
        len: usize,
        /// Bytes that this part may have.
        max: usize,
    },
}

impl NetError {
    /// True if the other side may have received the call, so that its outcome
    /// is unknown.
    pub fn possibly_sent(&self) -> bool {
        match self {
            NetError::Connect { .. }
            | NetError::Refused { .. }
            | NetError::Declined(_)
            | NetError::TooLarge { .. } => false,
            NetError::Closed { sent } | NetError::TimedOut { sent } => *sent,
            NetError::Protocol(_) => true,
        }
    }

    /// True if the call fails wherever it is sent, so that no repeat helps.
    pub fn is_final(&self) -> bool {
        match self {
            NetError::Connect { .. }
            | NetError::Refused { .. }
            | NetError::Closed { .. }
            | NetError::TimedOut { .. }
            | NetError::Protocol(_) => false,
            NetError::Declined(_) | NetError::TooLarge { .. } => true,
        }
    }
}
