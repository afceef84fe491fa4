//! Identifiers, formats, limits and messages that all of Lagan shares.
//!
//! This crate has no I/O, no clock and no randomness. Types encoded here
//! travel on the wire or lie on disk; see [`codec`] for how, and [`limits`]
//! for every bound of a format or a protocol.

pub mod access;
pub mod answer;
pub mod ask;
pub mod attr;
pub mod chunk;
pub mod cluster;
pub mod codec;
pub mod data;
pub mod error;
pub mod extent;
pub mod id;
pub mod lease;
pub mod limits;
#[allow(missing_docs, reason = "a variant's text explains its fields")]
pub mod message;
pub mod mistake;
#[allow(missing_docs, reason = "a variant's text explains its fields")]
pub mod op;
pub mod percent;
#[allow(missing_docs, reason = "a variant's text explains its fields")]
pub mod query;
pub mod time;

pub use answer::Answer;
pub use ask::{Ask, Asker, Part, answer_to};
pub use attr::{Attr, Kind};
pub use data::Data;
pub use error::{FsError, Refusal};
pub use extent::{Content, Extent};
pub use id::{
    BlockId, ChunkId, ClusterId, Epoch, Incarnation, Ino, NodeId, SessionId, SetId, StoreId,
    VolumeId,
};
pub use mistake::Mistake;
pub use op::{Command, FileOp, Op, SystemOp};
pub use query::{Query, QueryAnswer};
pub use time::Time;
