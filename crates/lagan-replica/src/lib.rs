//! Replica sets on one node: replicated writes, reads, healing, and filling.
//!
//! What must hold (INV-1): [`service`] acknowledges a chunk only when it is on
//! disk on every member of its set. The leader plans which sets are to be
//! refilled; [`fill`] carries out the part of it that concerns this node.

pub mod fill;
pub mod heal;
pub mod metrics;
pub mod peers;
pub mod reap;
pub mod service;
pub mod work;

pub use peers::Peers;
pub use service::ChunkService;
pub use work::Work;

#[cfg(test)]
mod tests;
