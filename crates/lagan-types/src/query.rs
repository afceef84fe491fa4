//! Linearizable reads of the metadata.
//!
//! To add one: a row in the table. The compiler asks for the rest: which promised files
//! stand in its way, and its place in `lagan-meta`'s `query`.

mod answer;

pub use answer::{
    AllExtentsPage, AttemptRow, Counters, DirPage, DueFile, Entry, ExtentPage, FileInfo, FsStat,
    Object, ObjectsPage, Opened, QueryAnswer, ReapChunks, ReleasableFile,
};

use crate::ask::asks;
use crate::attr::Attr;
use crate::codec::{Decode, Encode};
use crate::error::{FsError, Refusal};
use crate::id::{BlockId, Ino, NodeId, SessionId, SetId};
use crate::lease::Key;
use crate::op::{LockRange, SessionIdentity};

asks! {
    /// A read.
    #[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
    pub enum Query -> QueryAnswer {
        // -- names, attributes, content -----------------------------------------
        /// The inode of a name.
        Lookup { parent: Ino, name: Vec<u8> } -> Attr,
        /// The inodes of several names of a directory, `ATTRS_PAGE_MAX` at most, in the order
        /// asked; `None` for one of which nothing is said.
        LookupAll { parent: Ino, names: Vec<Vec<u8>> } -> Vec<Option<Attr>>,
        /// The inode of a number.
        GetAttr { ino: Ino } -> Attr,
        /// The inodes of several numbers, `ATTRS_PAGE_MAX` at most, in the order asked;
        /// `None` for one that is gone.
        GetAttrs { inos: Vec<Ino> } -> Vec<Option<Attr>>,
        /// Attributes and the first `OPEN_EXTENTS` extents; `Stale` for an orphan.
        Open { ino: Ino } -> Opened,
        /// The same of several inodes, `OPENS_PAGE_MAX` at most, in the order asked; `None` for
        /// one that is gone, an orphan or no regular file.
        OpenAll { inos: Vec<Ino> } -> Vec<Option<Opened>>,
        /// Extents that end after `offset`, at most `limit` (`EXTENTS_PAGE_MAX`).
        Extents { ino: Ino, offset: u64, limit: u32 } -> ExtentPage,
        /// Entries with a cookie above `cookie` (0: from the start), in order of cookie. `.` and
        /// `..` are the mount's to add.
        ReadDir {
            ino: Ino,
            cookie: u64,
            limit: u32,
            /// Gives the entries' attributes too.
            attrs: bool,
        } -> DirPage,
        /// A symlink's target.
        ReadLink { ino: Ino } -> Vec<u8>,
        /// An extended attribute's value.
        GetXattr { ino: Ino, name: Vec<u8> } -> Vec<u8>,
        /// The names of all extended attributes.
        ListXattr { ino: Ino } -> Vec<Vec<u8>>,
        /// F_GETLK: a lock that conflicts and whose it is. Asked with kind `Unlock`, one of
        /// the owner's own.
        GetLock { ino: Ino, lock: LockRange } -> Option<(SessionId, LockRange)>,
        /// What statfs(2) needs from the metadata.
        StatFs -> FsStat,
        /// Parent and name of a directory, or of one of a file's names.
        Parent { ino: Ino } -> Option<(Ino, Vec<u8>)>,
        /// Where a file's bytes are.
        File { ino: Ino } -> FileInfo,

        // -- all files ------------------------------------------------------------
        /// Every inode's extents, in order of (ino, offset), from there on.
        AllExtents { from: (Ino, u64), limit: u32 } -> AllExtentsPage,
        /// The object of every archived file, in order of (ino, data version), from there on.
        Objects { from: (Ino, u64), limit: u32 } -> ObjectsPage,
        /// Counters for `lagan status`.
        GetCounters -> Counters,

        // -- the archive ----------------------------------------------------------
        /// Files due for the archive at `now_ms`, oldest first.
        Due { now_ms: u64, limit: u32 } -> Vec<DueFile>,
        /// Files that S3 cannot take as they are.
        TooLarge { limit: u32 } -> Vec<Ino>,
        /// Attempts that are recorded as under way, from that number on.
        Attempts { from: u64, limit: u32 } -> Vec<AttemptRow>,
        /// Archived files that still have chunks, in order of (archive time, ino), from
        /// there on: least recently archived first.
        Releasable { from: (u64, Ino), limit: u32 } -> Vec<ReleasableFile>,

        // -- deletion -------------------------------------------------------------
        /// Orphans, from there on.
        Orphans { from: Ino, limit: u32 } -> Vec<Ino>,
        /// Reap rows of a node that are ready at `now_ms`, from that sequence on: sequence, what
        /// to delete.
        ChunkReap { node: NodeId, from: u64, now_ms: u64, limit: u32 } -> Vec<(u64, ReapChunks)>,
        /// Objects to delete that are ready at `now_ms`: row, key.
        ObjectReap { now_ms: u64, limit: u32 } -> Vec<(u64, String)>,
        /// Objects to delete, ready or not, from that row on: row, key.
        ObjectsToDelete { from: u64, limit: u32 } -> Vec<(u64, String)>,

        // -- sessions and sets ----------------------------------------------------
        /// Live sessions.
        Sessions -> Vec<(SessionId, SessionIdentity)>,
        /// For each block, if it is open, a bitmap of its ids that extents name. Of a block
        /// that is closed and forgotten, every id that no extent names is garbage.
        Blocks { blocks: Vec<BlockId> } -> Vec<Option<Vec<u8>>>,
        /// How many extents name chunks of each set, for the sets that have some; `None` in a
        /// cluster that was begun by a build that did not count them.
        SetUses -> Option<Vec<(SetId, u64)>>,
    }
}

/// What a read may see of a file that is promised and not replicated yet (INV-6a).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sees<'a> {
    /// None of it: reads that are no file system call show the replicated state.
    Nothing,
    /// Its name.
    Name(Ino, &'a [u8]),
    /// Its attributes, and nothing else.
    Attr(Ino),
    /// The inode of that number.
    Inode(Ino),
    /// All names in that directory.
    Entries(Ino),
}

impl Query {
    /// The keys that the answer shows something of which a mount may remember, beside a
    /// listing's own, which counts for the first page of it ([`crate::lease::Wish`]): for
    /// [`ReadDir`], its [`Key::Directory`] comes first.
    pub fn keys(&self, answer: &Result<QueryAnswer, Refusal>) -> Vec<Key> {
        match (self, answer) {
            (Query::Lookup(q), Ok(QueryAnswer::Attr(attr))) => {
                vec![Key::name(q.parent, &q.name), Key::Inode(attr.ino)]
            }
            (Query::Lookup(q), Err(Refusal::Fs(FsError::NotFound))) => {
                vec![Key::name(q.parent, &q.name)]
            }
            (Query::LookupAll(q), Ok(QueryAnswer::Attrs(attrs))) => {
                let found = q.names.iter().zip(attrs);
                let keys = found.filter_map(|(name, attr)| {
                    let ino = attr.as_ref()?.ino;
                    Some([Key::name(q.parent, name), Key::Inode(ino)])
                });
                keys.flatten().collect()
            }
            (Query::GetAttrs(_), Ok(QueryAnswer::Attrs(attrs))) => {
                let found = attrs.iter().flatten();
                found.map(|attr| Key::Inode(attr.ino)).collect()
            }
            (Query::OpenAll(_), Ok(QueryAnswer::AllOpened(opened))) => {
                let found = opened.iter().flatten();
                found.map(|opened| Key::Inode(opened.attr.ino)).collect()
            }
            (Query::GetAttr(q), Ok(_)) => vec![Key::Inode(q.ino)],
            (Query::Open(q), Ok(_)) => vec![Key::Inode(q.ino)],
            (Query::ReadDir(q), Ok(QueryAnswer::Entries(page))) => {
                let shown = page.entries.iter().filter(|e| e.attr.is_some());
                let inodes = shown.map(|e| Key::Inode(e.ino));
                std::iter::once(Key::Directory(q.ino))
                    .chain(inodes)
                    .collect()
            }
            _ => Vec::new(),
        }
    }

    /// What it may see of promised files.
    pub fn sees(&self) -> Sees<'_> {
        match self {
            Query::Lookup(q) => Sees::Name(q.parent, &q.name),
            Query::GetAttr(q) => Sees::Attr(q.ino),
            Query::Open(q) => Sees::Inode(q.ino),
            Query::Extents(q) => Sees::Inode(q.ino),
            Query::ReadDir(q) => Sees::Entries(q.ino),
            Query::ReadLink(q) => Sees::Inode(q.ino),
            Query::GetXattr(q) => Sees::Inode(q.ino),
            Query::ListXattr(q) => Sees::Inode(q.ino),
            Query::GetLock(q) => Sees::Inode(q.ino),
            Query::Parent(q) => Sees::Inode(q.ino),
            Query::File(q) => Sees::Inode(q.ino),
            Query::GetAttrs(_)
            | Query::LookupAll(_)
            | Query::OpenAll(_)
            | Query::StatFs(_)
            | Query::AllExtents(_)
            | Query::Objects(_)
            | Query::GetCounters(_)
            | Query::Due(_)
            | Query::TooLarge(_)
            | Query::Attempts(_)
            | Query::Releasable(_)
            | Query::Orphans(_)
            | Query::ChunkReap(_)
            | Query::ObjectReap(_)
            | Query::ObjectsToDelete(_)
            | Query::Sessions(_)
            | Query::Blocks(_)
            | Query::SetUses(_) => Sees::Nothing,
        }
    }
}
