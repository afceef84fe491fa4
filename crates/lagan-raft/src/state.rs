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
//! A reader sees redb as of one transaction, and over it the overlay of the entries that
//! were applied since. Both are replaced as one: no reader sees an entry in part, or less
//! than was answered. Entries are applied while a transaction runs; its rows leave the
//! overlay when it is done. A durable transaction raises the
//! [`Floor`](crate::log::Floor). It sets redb's quick-repair, so that opening after a
//! crash reads no more than after a clean end.
//!
//! A crash leaves the state of the last durable commit; the log has the rest. A received
//! snapshot is a file of its own, `incoming-*.redb`, until it is whole and synced; then a
//! rename makes it the state. The next start removes an unfinished one.

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
