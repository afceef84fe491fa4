//! Limits of a server's connections.

use crate::frame::FrameLimits;
use std::time::Duration;

/// Limits of a server's connections.
#[derive(Debug, Clone)]
pub struct ServerLimits {
    /// Connections, at most; further ones are closed at once. A mount has up to six: two for
    /// chunks, and one for each other service but Raft.
    pub connections_max: usize,
    /// Connections in their handshake, at most: a flood of silent ones keeps nobody out
    /// for long.
    pub handshakes_max: usize,
    /// Time from accept to the end of the handshake.
    pub handshake_deadline: Duration,
    /// Bytes of one connection that are asked, being answered, or not yet taken by the
    /// peer. Nothing more is read while there are as many.
    pub in_flight_len_max: usize,
    /// The same for all connections together. Each may still have a small share of its
    /// own, so that none starves while others are slow.
    pub total_in_flight_len_max: usize,
    /// Requests of one connection without an answer.
    pub in_flight_max: usize,
    /// A frame that began must be complete within this (twice this at most).
    pub frame_deadline: Duration,
    /// Time that open requests may still take when the server stops.
    pub drain_deadline: Duration,
    /// Bytes that a frame may have.
    pub frame: FrameLimits,
}

impl Default for ServerLimits {
    fn default() -> Self {
        ServerLimits {
            connections_max: 8192,
            handshakes_max: 256,
            handshake_deadline: Duration::from_secs(3),
            in_flight_len_max: 32 * 1024 * 1024,
            total_in_flight_len_max: 128 * 1024 * 1024,
            in_flight_max: 2048,
            frame_deadline: Duration::from_secs(20),
            drain_deadline: Duration::from_secs(1),
            frame: FrameLimits::default(),
        }
    }
}
