//! Replica sets on one node: replicated writes, reads, healing, and the plan
//! of which sets to refill.
//!
//! What must hold (INV-1): [`service`] acknowledges a chunk only when it is on
//! disk on every member of its set. [`plan`] is a pure function from the
//! cluster map to set changes; [`fill`] carries out the part of it that
//! concerns this node.

pub mod fill;
pub mod heal;
pub mod metrics;
pub mod peers;
pub mod plan;
pub mod reap;
pub mod removal;
pub mod service;
pub mod work;

pub use peers::{MapCell, Peers};
pub use service::ChunkService;
pub use work::Work;

#[cfg(test)]
mod tests;
