//! The times of a lease, in milliseconds, and how they depend on each other.
//!
//! ```text
//!  mount    sent |------- LEASE_MS -------| nothing from the cache any more
//!  leader      received |----------- LEADER_LEASE_MS -----------| counts as given back
//! ```

/// A lease ends at its holder that long after the heartbeat that renewed it was *sent*.
pub const LEASE_MS: u64 = 1_000;
/// It ends at the leader that long after this heartbeat was *received*: later than at the
/// holder, though their clocks run a little differently.
pub const LEADER_LEASE_MS: u64 = 1_250;
/// Longest wait of a new leader before anything is changed: no lease of an earlier term is
/// valid any longer.
pub const HOLD_MS: u64 = LEADER_LEASE_MS;
/// Time between heartbeats: three may be lost before a lease ends.
pub const HEARTBEAT_MS: u64 = 250;
/// A session that leaves a recall unacknowledged for longer gets no longer lease, so that
/// a mutation waits no longer than this and [`LEADER_LEASE_MS`].
pub const RECALL_PATIENCE_MS: u64 = 250;
/// The same for a session that is about to make files for everybody in a directory that it used
/// alone, since that takes a round of the log: a slow disk is not a dead mount.
pub const MAKING_PATIENCE_MS: u64 = 2_500;
/// The time-out that a mount gives its kernel with attributes: so long the kernel answers by
/// itself, and so long what it was not told is believed. What is used all the time is asked for
/// five times a second, which is little.
pub const KERNEL_MS: u64 = 200;
/// An answer may be processed that long after it was given: its program waits for a
/// processor.
pub const KERNEL_SLACK_MS: u64 = 200;

const _: () = assert!(LEADER_LEASE_MS * 100 >= LEASE_MS * 120, "clocks differ");
const _: () = assert!(HOLD_MS >= LEADER_LEASE_MS, "leases of the last term");
const _: () = assert!(
    KERNEL_MS + KERNEL_SLACK_MS + 2 * HEARTBEAT_MS <= LEASE_MS,
    "a lease that was renewed lately covers a loan"
);
const _: () = assert!(4 * HEARTBEAT_MS <= LEASE_MS, "heartbeats get lost");
