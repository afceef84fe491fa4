//! Connections between Lagan's processes: frames, handshake, calls and
//! answers, peer pools, and finding the metadata leader.
//!
//! A connection starts with a [`handshake`] that says who each side is, then
//! carries [`frame`]s both ways: calls from the side that opened it, answers
//! in any order. A call is a small encoded head and, beside it, bulk bytes
//! that no codec touches.
//!
//! - [`Server`] accepts and gives requests to a [`Handler`], which answers
//!   through a [`Reply`] from wherever it likes.
//! - [`Connection`] is one connection of a caller; [`Pool`] keeps those to
//!   many peers; [`LeaderClient`] adds where the metadata leader is.
//!
//! What must hold: no peer can make us allocate more than the limits say, nor
//! block anything but its own connection; every call ends by its deadline; an
//! error says whether the call can have been carried out
//! ([`NetError::possibly_sent`]). Nothing here binds to an address that it was
//! not given. Connections are plain TCP; module `socket` is where TLS would go.

pub mod connection;
pub mod error;
pub mod frame;
mod handler;
pub mod handshake;
pub mod leader;
mod limits;
pub mod map;
pub mod message;
pub mod metrics;
mod outbox;
mod pending;
pub mod pool;
mod reply;
mod serve;
pub mod server;
mod socket;
pub mod spent;
#[cfg(test)]
mod testing;

pub use connection::{Answered, Connection, ConnectionOptions};
pub use error::NetError;
pub use frame::FrameLimits;
pub use handler::{Handler, Peer};
pub use handshake::{Hello, Role};
pub use lagan_types::message::Service;
pub use leader::LeaderClient;
pub use limits::ServerLimits;
pub use map::MapCell;
pub use message::{Request, Response};
pub use pool::{Pool, PoolOptions};
pub use reply::Reply;
pub use server::Server;
