//! Replica sets on one node: replicated writes, reads, healing, filling, reaping.
//!
//! ```text
//!  mounts, other nodes --> service --> store     (write, read, list, verify)
//!                             | \----> peers     (forwarded writes)
//!                             v suspects
//!                     heal, fill, reap           (background work, see Work)
//!                             \--> read --> store, or else peers
//! ```
//!
//! What must hold (INV-1): [`ChunkService`] acknowledges a chunk only when it is on
//! disk on every member of its set. The leader plans which sets are filled anew;
//! [`fill`] carries out the part of the plan that concerns this node.
//!
//! A crash loses nothing but the healer's queue: all other work begins again from the
//! replicated state and does nothing twice.

mod compare;
mod copy;
mod doubt;
pub mod fill;
pub mod heal;
mod listing;
pub mod metrics;
mod peers;
mod read;
pub mod reap;
mod service;
mod work;

pub use doubt::Doubt;
pub use peers::{PeerError, Peers};
pub use read::{NoCopy, ReadError, read};
pub use service::ChunkService;
pub use work::{Meta, OwnState, Work};

#[cfg(test)]
mod tests;
