//! The questions and the news of the leader storey for the storey that has files open.

use crate::leader::brought::Brought;
use lagan_types::{Attr, Ino};
use std::collections::HashSet;

/// The one way upwards: questions of heartbeats, and news of the session.
///
/// No method waits, and none is called while a lock of a table of this storey is
/// held: an implementation may call [`crate::leader::Leader`] again.
pub(crate) trait OpenFiles: Send + Sync {
    /// Whether the inode is open, or being opened.
    fn is_open(&self, ino: Ino) -> bool;

    /// Counts the inode as open, until [`OpenFiles::let_go`].
    fn hold(&self, ino: Ino);

    /// Undoes one [`OpenFiles::hold`].
    fn let_go(&self, ino: Ino);

    /// A promised file became part of the replicated state: `made` counts, `promised` does not any more.
    fn promise_made(&self, promised: &Attr, made: &Attr);

    /// A promised file will never be made: its handles fail, and its data is dropped.
    fn promise_lost(&self, ino: Ino);

    /// The kernel is about to be told to forget attributes that it was lent; answers on their
    /// way to it may be discarded.
    fn attributes_forgotten(&self, ino: Ino);

    /// Bytes of chunks came along with an answer.
    fn brought(&self, chunks: Vec<Brought>);

    /// The session was ended and a new one is open. `lost` are the inodes whose lock or
    /// promise is gone. Handles of these, and of inodes with data that is not
    /// committed, fail from now on; the data is dropped. The handles must fail
    /// before the data is dropped: what is written later must be refused.
    fn session_lost(&self, lost: &HashSet<Ino>);
}
