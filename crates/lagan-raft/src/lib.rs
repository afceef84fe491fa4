//! Replication of the metadata: log, state store, snapshots, consensus.
//!
//! Others see only [`Raft`]. Commands go in by [`Raft::propose`] (or, if they must happen in
//! a certain term or never, [`Raft::propose_in`]); `lagan-meta` applies
//! them on every voter in the same order; a [`View`] reads the state. openraft decides,
//! this crate gives it a disk and a way to its peers:
//!
//! ```text
//!  propose -> batcher -> openraft core -+-> log (one sync a group)
//!                             |         +-> peers, meanwhile
//!                             +-> state machine -> overlay -> redb (a durable commit a second)
//!  read -> read gate (ReadIndex) -> View = redb's rows under the overlay's
//! ```
//!
//! What must hold:
//! * an entry is answered only when a quorum has it on disk ([`log`]);
//! * a command gets into the log in the term that it was proposed in, or never happens
//!   ([`Batch`]);
//! * the log is never purged beyond what a durable commit of the state covers;
//! * the state and the index it was applied to change in one transaction ([`state`]).
//!
//! A crash loses at most the state of the last second, which the log replays.

mod batcher;
mod error;
mod future;
mod holds;
mod leader;
pub mod log;
mod network;
mod options;
mod peer;
mod raft;
mod read;
mod restage;
mod rpc;
mod snapshot;
mod staging;
pub mod state;
mod stats;
#[cfg(test)]
mod tests;
mod types;

pub use batcher::Carried;
pub use error::{Malformed, ProposeError, RaftError, TransportError};
pub use future::BoxFuture;
pub use leader::LeaderInfo;
pub use options::Options;
pub use peer::Transport;
pub use raft::Raft;
pub use staging::{InlineChunk, NoChunks, Staging};
pub use state::View;
pub use stats::Stats;
pub use types::{Batch, BatchAnswer, TypeConfig};
