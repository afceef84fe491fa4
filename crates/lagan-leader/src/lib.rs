//! The metadata leader: what it keeps in memory, and what it decides on its own.
//!
//! ```text
//!  requests --> service --> promises --> leases --> raft   (mutations, creates, reads)
//!                  |------> along                          (bytes of small files, with opens)
//!                  \------> leader --> status, removal, waits, release, archive
//!  eight times a second: tick --> liveness, open_check, sets, membership
//!  once a second:  high_water --> release
//! ```
//!
//! # What it keeps in memory
//! - when each session and each node was heard of last, and what nodes said of themselves
//!   (`liveness`, `leader`);
//! - what every mount may remember of names and attributes, and the changes that wait until
//!   it is forgotten (`leases`);
//! - names of created files that are not replicated yet (`promises`), and how far the mounts have
//!   had their answers, so that a create that comes late is not promised again (`floors`);
//! - which files every mount was asked about before they are reaped or released, and the
//!   answers (`open_check`);
//! - who waits for which lock (`waits`);
//! - where the next search for uploads or orphans continues.
//!
//! # Why none of it is needed to be right
//! Every decision becomes a command that the state machine checks again, on the replicated
//! state, at its place in the log: a leader that is wrong, or does not know yet that another
//! one leads, is refused. Promises and leases are what others rely on. The mount that holds a
//! promise can make the file at any leader, and a lease ends by itself before a later leader
//! changes anything. That a late create is refused holds within a term: a new leader knows of a
//! mount's answers from its first command on.
//!
//! # What a crash leaves
//! Nothing here is on disk. A new leader begins with everybody heard of lately, so that a
//! change of leader ends no session early; checks, searches and rounds of release begin
//! again; for a moment it lets nobody change anything, until the mounts have forgotten what
//! the old leader let them remember, and made the files that it promised. Commands that were
//! under way happened or did not: their askers ask again.

mod after;
mod along;
mod archive;
pub mod clock;
mod floors;
mod high_water;
mod inline;
mod leader;
mod leases;
mod liveness;
mod membership;
pub mod metrics;
mod no_answer;
mod open_check;
mod promises;
mod release;
mod removal;
mod service;
mod sessions;
mod sets;
mod status;
mod tick;
mod waits;

pub use along::ChunksHere;
pub use high_water::keep_water_marks;
pub use leader::Leader;
pub use membership::wanted_voters;
pub use service::MetaService;
pub use tick::run;
