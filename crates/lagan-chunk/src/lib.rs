//! One node's store of immutable chunks.
//!
//! # What it is
//! Chunks are appended to segment files as self-describing records
//! ([`record`] has the layout). One log thread gathers waiting writes, writes
//! them with one vectored call, syncs once and then answers them all. An index
//! (`id -> segment, offset, length`) is an in-memory delta over sled; it is
//! never the only copy of anything.
//!
//! # How it is used
//! [`Store::open`] recovers and serves at once; [`Store::write`] takes a
//! callback that is called when the chunk is on disk; [`Store::read`] returns
//! whole blocks and their CRCs. All calls are synchronous and may wait for the
//! disk: asynchronous callers use threads of their own.
//!
//! # What must hold
//! - A chunk whose write was acknowledged is on disk (INV-1, INV-3).
//! - The generation of a segment is a node-wide rising number and is in each
//!   record with the record's own offset: bytes of a segment's earlier life
//!   never parse as new.
//! - A segment begins only after the one before it is sealed and synced, so
//!   only the newest segment can have a torn tail.
//! - A segment's file is reused only when the flushed index does not name it any
//!   more and no reader pins it.
//!
//! # After a crash
//! Segments beyond the position that sled covers are read again. A bad record
//! below the highest synced frontier found is rot: it is reported, and the scan
//! goes on. A bad record above it is the torn tail, which is cut. The last segment
//! is then sealed, and a new one begins.

mod append;
mod compact;
mod error;
mod files;
mod filter;
mod index;
mod inner;
mod log;
mod merge;
mod options;
mod pool;
mod queue;
mod read;
pub mod record;
mod recover;
mod scan;
mod segment;
mod staged;
mod state;
mod store;
mod sys;

pub use error::ChunkError;
pub use options::Options;
pub use queue::Done;
pub use read::BlockRange;
pub use segment::Damage;
pub use store::{Store, Usage};
