//! The metadata state machine: pure, deterministic, without I/O.
//!
//! [`apply()`] carries out one command, [`query()`] answers one read. Both see the
//! state through [`kv`]. They depend on that state and the command alone, so that all
//! nodes reach the same bytes (INV-11).
//!
//! ```text
//! Command -> apply -> Txn (overlay: buffers, caches inodes and counters)
//!                      |  ops::*  validate, then change
//!                      v
//!            success: rows merged into the store, with the answer's row
//!            failure: only the answer's row
//! ```
//!
//! [`invariants`] has the rules that must hold between the tables, [`layout`] their keys
//! and values. A crash leaves either all rows of a command or none: the store below
//! commits whole log entries.

mod acl;
mod apply;
mod attrs;
mod extents;
mod facts;
pub mod invariants;
pub mod kv;
pub mod layout;
mod load;
pub mod memory;
mod ops;
mod query;
pub mod sets;
#[cfg(test)]
mod tests;
mod txn;
mod uses;

pub use apply::apply;
pub use facts::{
    freed, is_answered, is_member, lock_holders, node, node_boot, replica_set, session_exists,
    succeeds,
};
pub use ops::promise::{NotPromised, preview};
pub use query::{DueScan, cluster_map, map_version, query, read};
