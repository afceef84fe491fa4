//! Answers to mutations.

use crate::ask::answers;
use crate::attr::Attr;
use crate::codec::{Decode, Encode};
use crate::id::{BlockId, Incarnation, Ino, NodeId, SessionId};

answers! {
    /// What a mutation that succeeded says.
    #[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
    pub enum Answer {
        /// Nothing but that it is done.
        Done(()),
        /// The inode after the change.
        Attr(Attr),
        /// A created inode.
        Created(Created),
        /// A removed name.
        Unlinked(Unlinked),
        /// A moved name.
        Renamed(Renamed),
        /// A commit's outcome.
        Committed(Committed),
        /// A new session.
        Session(NewSession),
        /// A granted block of chunk ids.
        Block(GrantedBlock),
        /// A registered node's number.
        Node(NodeId),
        /// The recorded attempts, in the order asked; `None` where nothing is to be done.
        Attempts(Vec<Option<Attempt>>),
        /// Files that were released.
        Released(ReleasedFiles),
        /// Inode numbers that nobody else gets.
        Inos(GrantedInos),
        /// What a copy did.
        Copied(Copied),
    }
}

/// A created inode.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Created {
    /// The inode.
    pub attr: Attr,
    /// False if the file was there before (only without `exclusive`).
    pub created: bool,
}

/// A removed name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Unlinked {
    /// The inode that the name pointed to.
    pub ino: Ino,
    /// Links that are left. At 0 the inode is an orphan or, if a directory, gone.
    pub nlink: u32,
}

/// A moved name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Renamed {
    /// The moved inode.
    pub ino: Ino,
    /// The inode that lost the new name, or was exchanged.
    pub replaced: Option<Ino>,
}

/// A commit's outcome.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Committed {
    /// Data version before it. If it is not the cached one, the cache is wrong.
    pub before: u64,
    /// First byte of an append; otherwise 0.
    pub appended_at: u64,
    /// The inode after it.
    pub attr: Attr,
}

/// A new session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct NewSession {
    /// Its number.
    pub session: SessionId,
    /// This life of the cluster.
    pub incarnation: Incarnation,
}

/// A granted block of chunk ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct GrantedBlock {
    /// The block.
    pub block: BlockId,
    /// Its ids have the indexes `0..count`.
    pub count: u16,
}

/// An upload that may begin.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Attempt {
    /// The attempt's number, never used again.
    pub number: u64,
    /// The object's key.
    pub key: String,
    /// The file's size.
    pub size: u64,
}

/// Files that were released.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode)]
pub struct ReleasedFiles {
    /// How many.
    pub files: u64,
    /// Bytes that chunks held.
    pub bytes: u64,
}

/// Inode numbers that nobody else gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct GrantedInos {
    /// The first.
    pub first: Ino,
    /// How many.
    pub count: u32,
}

/// What a copy did.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Copied {
    /// Bytes that the target has now, from its offset on; 0 at the source's end.
    pub len: u64,
    /// The next bytes of the source that are only in the archive: whoever asked
    /// reads and writes these.
    pub through: u64,
    /// The target's data version before the copy.
    pub before: u64,
    /// The target after the copy.
    pub attr: Attr,
}
