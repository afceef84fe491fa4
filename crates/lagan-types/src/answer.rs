//! Answers to mutations.

use crate::attr::Attr;
use crate::codec::{Decode, Encode};
use crate::id::{BlockId, Incarnation, Ino, NodeId, SessionId};

/// The answer to a mutation that succeeded.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Answer {
    /// Nothing but that it is done.
    Done,
    /// The inode after the change.
    Attr(Attr),
    /// The inode, and whether this command made it; the parent's attributes after it.
    Created {
        /// The inode.
        attr: Attr,
        /// False: it was there (only without `exclusive`).
        created: bool,
    },
    /// The inode that lost the name.
    Unlinked {
        /// The inode.
        ino: Ino,
        /// Links that are left; 0: it is an orphan, or (a directory) gone.
        nlink: u32,
    },
    /// The inode that was moved, and the one that was replaced or exchanged.
    Renamed {
        /// The moved inode.
        ino: Ino,
        /// The inode that was replaced (or exchanged).
        replaced: Option<Ino>,
    },
    /// A commit's outcome.
    Committed {
        /// Data version before it: if it is not the cached one, the cache is wrong.
        before: u64,
        /// Where an append was placed; otherwise 0.
        appended_at: u64,
        /// The inode after it.
        attr: Attr,
    },
    /// A new session.
    Session {
        /// Its number.
        session: SessionId,
        /// This life of the cluster.
        incarnation: Incarnation,
    },
    /// A granted block of chunk ids.
    Block {
        /// The block.
        block: BlockId,
        /// Its ids: indexes `0..count`.
        count: u16,
    },
    /// A registered node.
    Node {
        /// Its number.
        node: NodeId,
    },
    /// The recorded attempts, in the order asked; `None` where nothing is to be done.
    Attempts(Vec<Option<Attempt>>),
    /// How many files were released.
    Released {
        /// Files.
        files: u64,
        /// Bytes that chunks held.
        bytes: u64,
    },
    /// Inode numbers that nobody else gets.
    Inos {
        /// The first.
        first: Ino,
        /// How many.
        count: u32,
    },
    /// The outcome of a copy.
    Copied {
        /// Bytes that the target has now, from its offset on; 0 at the source's end.
        len: u64,
        /// Bytes after `len` that are in S3 only; the asker reads and writes
        /// them itself.
        through: u64,
        /// The target's data version before it.
        before: u64,
        /// The target after it.
        attr: Attr,
    },
}

/// An upload that may begin.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Attempt {
    /// Never used again.
    pub number: u64,
    /// The object's key.
    pub key: String,
    /// The file's size.
    pub size: u64,
}
