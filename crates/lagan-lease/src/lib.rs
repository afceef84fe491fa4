//! Leases on metadata: a mount answers by itself what nobody else has changed.
//!
//! A mount that asked for attributes, a name or a whole directory may keep the answer while
//! it holds a *lease*: the leader of the term knows that it does, and lets nobody change
//! what was kept before the mount has dropped it or its lease has ended. So each read sees
//! what was there when it began, or later, whether the leader was asked or not (INV-7).
//!
//! Two state machines, pure: no I/O, no clock, no chance. Times are milliseconds of the
//! monotonic clock of the machine that each of them runs on.
//!
//! | | who | what |
//! | --- | --- | --- |
//! | [`Table`] | the leader, one for each term | who may keep what; claims of changes; recalls |
//! | [`Holder`] | each mount | what is kept, and whether it may be used |
//!
//! A mount keeps values in its own process, and lends attributes to its kernel for a fifth of
//! a second ([`Holder::lend`]). So a recall is done when the loans of its keys have come back:
//! [`Table::poll`] is told its number then.
//!
//! A directory may be one mount's *alone* ([`Key::Exclusive`](lagan_types::lease::Key::Exclusive)):
//! then it makes files there by itself ([`Holder::make`]), and tells the leader when it commits
//! their content.
//!
//! # What must hold
//!
//! At the leader:
//! 1. *Register, then read.* A session's interest in a key is registered before the state
//!    is read that the answer shows, for a listing in pages before the first page; never
//!    while a claim is on the key. A deposed leader answers nothing.
//! 2. *Claim all, then wait.* A change claims all its keys at once, and is proposed when
//!    each session that held one has acknowledged the recall or has no lease any more. What
//!    a name leads to is read again then, since the inodes that change depend on it.
//! 3. *The leader's end is the later one.* A lease ends at the mount 1.0 s after a heartbeat
//!    was sent, at the leader 1.25 s after it was received; it is given only when a read
//!    barrier that began after the receipt has passed. Clocks may differ by anything, their
//!    rates by a tenth.
//! 4. *A doubtful change keeps its keys closed* until a command that was proposed later has
//!    been applied, or the term ends.
//! 5. *A change belongs to the term of its claim.* It is proposed in this term or not at all.
//! 6. *A new term holds all changes* until every session has dropped what it held of earlier
//!    terms, or for 1.25 s. Its table knows nothing of them. What was shown in an earlier term
//!    though it was not carried out yet (a promised file) may be carried out before
//!    ([`Turn::Early`]), as soon as nobody has a lease of an earlier term.
//! 7. *A session that is ended has no lease.* It is retired first, and ended or replaced when
//!    its lease has run out: a leader of a later term looks for sessions in the state alone.
//! 8. *Whoever acknowledges nothing loses the lease*: heartbeats alone do not keep it.
//! 9. *The author is spared only what it closed itself*, and only if it asked for it before
//!    the change began: a change may arrive after its mount has given it up, and a mount may
//!    not know which inode loses a name.
//! 10. *A remembered answer is no lease.* What a repeated command is answered is what was
//!     there when it was carried out first.
//! 11. *Alone is alone.* An exclusive lease is given only while nobody else knows, or is about to
//!     change, anything of the directory: its attributes, one of its names, all of them. While it
//!     lasts nobody else registers interest there.
//! 12. *Others wait, reads too.* It has come back, or its end has passed, before a change of
//!     anybody else in the directory, or a change of the directory itself, is proposed; and
//!     before anybody else is shown something of it, by a read that began afterwards
//!     ([`Table::may_show`]). Such a read waits, too, for what is being made there.
//! 13. *What was made alone waits for nobody.* The command that makes such a file for everybody
//!     comes before all those that wait for the exclusive lease, and takes nothing from its
//!     author.
//!
//! At the mount:
//! 1. *Token.* An answer is kept only if its key was not closed since the query began.
//! 2. *Own changes* close their keys before they are sent. The answer is kept if the leader
//!    says so, the change was sent once, and nothing crossed it.
//! 3. *All names.* They are known of a directory when it was listed to its end and nothing
//!    closed it meanwhile. They follow an own change only if the leader claimed it when it had
//!    registered the interest in all of them: what an older one did, others may have undone.
//! 4. *The end.* Nothing is answered after the lease's end, and a lease that had ended begins
//!    with an empty cache, as do a new term and a new session.
//! 5. *Loans.* The kernel is lent only what is leased, for a time that ends before the lease
//!    does. A loan that is out comes back before a recall is acknowledged, before an own
//!    change of the inode is sent, and before a new leader is told that nothing is held of an
//!    earlier term.
//!
//! 6. *Orphans first.* A file that was made by this mount alone is made for everybody before the
//!    recall of its directory is acknowledged, and, once the directory is its alone no more for
//!    whatever reason, before a leader is asked for anything ([`Holder::orphans`]).
//! 7. *Alone until the recall.* A grant whose recall came before it is not taken. What only this
//!    mount knows of the directory is put over what leaders show of it.
//! 8. *What was given up is not remembered.* Where a file was given up that may yet be made,
//!    nothing is remembered of its directory in this session.
//!
//! # After a crash
//! Nothing of this is on disk. A leader that comes back leads in a later term, if at all; a
//! mount that comes back has another session.
//!
//! # What costs only speed
//! Bounds, keys that others keep changing, and places of the mount's table of stamps: they
//! make a mount ask once more.

mod holder;
mod key;
mod leader;
mod rules;
mod second_chance;
#[cfg(test)]
mod simulation;
mod times;

pub use holder::{
    Ahead, Attributes, Beat, CacheBounds, Change, Fact, Holder, LOCAL_MAX, Loan, Made,
    NAME_ROW_BYTES, NEAR, Outcome, Token, Way,
};
pub use leader::{
    Author, Bounds, ClaimId, End, RECALLS_PAGE_MAX, Ready, Recalls, Size, Table, Turn,
};
pub use times::{
    HEARTBEAT_MS, HOLD_MS, KERNEL_MS, KERNEL_SLACK_MS, LEADER_LEASE_MS, LEASE_MS,
    RECALL_PATIENCE_MS,
};
