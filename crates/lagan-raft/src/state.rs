//! The replicated state on disk: one redb database, `state/state.redb`.
//!
//! One table of byte keys: a table's number from `lagan-meta` and its key. Key
//! `00 61` holds how far the state is ([`Applied`]): log id, membership, time
//! of the last command. It changes in the transaction that has the rows of the
//! entries, so that the state is always exactly at one entry.
//!
//! ```text
//!  apply -> overlay (memory, shown at once) -> redb, some tens of entries a
//!           transaction without durability -> one a second that is durable
//! ```
//!
//! Whoever reads sees redb as of a transaction and over it the overlay of what
//! was applied since, both replaced as one: never an entry in part, never less
//! than was answered. Entries are applied while a transaction runs; what it has
//! leaves the overlay when it is done. The durable one raises the
//! [`Floor`](crate::log::Floor); it has redb's quick-repair set: opening after a
//! crash reads no more than after a clean end.
//!
//! A crash leaves the state of the last durable commit; the log has the rest. A
//! received snapshot is a file of its own, `incoming-*.redb`, until it is whole
//! and synced; then a rename makes it the state. What is left of an unfinished
//! one goes at the next start.

mod db;
mod machine;
mod overlay;
mod rows;
mod store;
#[cfg(test)]
mod tests;
mod view;

pub use store::{Applied, StateStore};
pub use view::View;

pub use db::Incoming;
