//! What the leader keeps in memory and does on its own: who is alive, which
//! orphans are open nowhere, which sets to fill, who votes, who uploads what.
//!
//! Nothing here is needed to be right: a new leader begins with everybody
//! heard of lately and finds the rest in the replicated state. Every decision
//! becomes a command that the state machine checks again.

mod archive;
pub mod clock;
mod high_water;
mod leader;
mod liveness;
mod membership;
pub mod metrics;
mod open_check;
mod promises;
mod release;
mod removal;
mod service;
mod sets;
mod status;
mod tick;
mod waits;

pub use high_water::keep_water_marks;
pub use leader::Leader;
pub use membership::wanted_voters;
pub use service::MetaService;
pub use tick::run;
