//! Decisions about replica sets that only the leader takes, as pure functions of
//! the map: which sets to fill anew (`plan`), and whether a node can be removed
//! (`removal`).

mod plan;
mod removal;

pub(crate) use plan::{Circumstances, plan};
pub(crate) use removal::{Verdict, judge};
