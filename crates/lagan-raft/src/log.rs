//! The replicated log on disk.
//!
//! Segment files `log/NNNNNNNNNNNNNNNN.seg` of one fixed size, written with
//! zeros before use and recycled after it, so that a sync changes no file
//! metadata. One stream of records goes through them; see [`record`] for the
//! layout. Votes, truncation and purging are records as well, so that there is
//! one order and one sync for all of it.
//!
//! What must hold:
//! * A record is acknowledged after the sync that follows it. Only openraft is told of
//!   entries before; nobody else hears of them until then ([`Syncs`]). A failed write or
//!   sync poisons the log: nothing is acknowledged any more, nothing is retried.
//! * A segment is begun only after all before it is synced. So a break in the
//!   chain of CRCs is the torn tail of a crash only in the last segment; with
//!   another one after it, it is rot, and the log refuses to open.
//! * Each record says how far its segment was on disk when it was written
//!   (`frontier`). A break before that is rot, too. Nothing behind the bytes of the last
//!   sync says so of them.
//! * Every segment begins with a checkpoint (vote, purged): older segments can
//!   go as soon as their entries may.
//! * Entries go only when a durable commit of the state covers them ([`Floor`]),
//!   whatever openraft asks for; its request is remembered until then.
//!
//! A crash in the middle leaves a torn tail, over which the next append writes; or a
//! recycled file with its new name and its old content. Its header does not fit the name,
//! so it is taken for a spare file.

mod files;
mod frontier;
mod index;
pub mod record;
mod recover;
mod segment;
mod store;
mod syncs;
#[cfg(test)]
mod tests;
mod writer;

pub use index::Floor;
pub use store::{LogOptions, LogReader, LogStore};
pub(crate) use store::{encode_payload, payload_of};
pub use syncs::{NotSynced, Syncs};
pub use writer::LogStats;
