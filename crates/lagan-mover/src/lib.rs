//! The mover: archive to S3, recall, delete.
//!
//! One [`Mover`] runs on each storage node. It asks the leader for files whose
//! time has come, uploads them from the chunks, and reports each end; the
//! leader's mover also deletes objects that nothing names. Reading a released
//! file goes through [`Mover::recall`] of any node.
//!
//! It reaches the rest of the server through the traits [`Meta`] and [`Chunks`].
//!
//! # What must hold
//! - A file is reported archived only after the endpoint verified the bytes
//!   by the CRC-32 that the metadata has of them, or, where the endpoint
//!   verifies nothing, after they were read back (INV-3, INV-4).
//! - An upload counts only for the data version that it read: the upload of an
//!   older version than the file's has no effect.
//! - Objects are deleted only from the replicated queue, only while the owner
//!   object names this incarnation (INV-13).
//! - Recalled bytes are verified before they are served (INV-12).
//! - S3 in trouble costs nothing but the backlog: no queue here grows with
//!   it: jobs wait in the replicated state (INV-10).
//!
//! # What a defect does
//! An upload that ends by a panic is a failure of its file. If one of the mover's
//! own tasks ends so, the whole mover ends, [`Mover::defect`] says so, and its
//! owner starts another: nothing in its memory is needed.
//!
//! # What a crash leaves
//! Recorded attempts, which this node fails when it starts again, and perhaps
//! objects or unfinished uploads of theirs, which are deleted after it.

mod attempts;
mod commit;
mod content;
mod crcs;
mod delete;
mod edge;
mod error;
mod gate;
mod health;
mod inspect;
pub mod metrics;
mod mime;
mod mover;
mod options;
mod queue;
mod recall;
mod report;
mod upload;

pub use edge::{Chunks, Meta};
pub use error::{MoverError, RecallError, RecallFailure};
pub use health::S3Health;
pub use mover::Mover;
pub use options::Options;

#[cfg(test)]
mod tests;
