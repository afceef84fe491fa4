//! Linearizable reads of the metadata.

use crate::attr::{Attr, Kind};
use crate::codec::{Decode, Encode};
use crate::extent::Extent;
use crate::id::{BlockId, ChunkId, Ino, NodeId, SessionId, SetId};
use crate::op::{LockRange, SessionIdentity};

/// A read.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Query {
    /// The inode of a name. Answer: `Attr`.
    Lookup { parent: Ino, name: Vec<u8> },
    /// Answer: `Attr`.
    GetAttr { ino: Ino },
    /// Attributes and the first `OPEN_EXTENTS` extents; `Stale` for an orphan. Answer: `Opened`.
    Open { ino: Ino },
    /// Extents that end after `offset`, at most `limit` (`EXTENTS_PAGE_MAX`). Answer: `Extents`.
    Extents { ino: Ino, offset: u64, limit: u32 },
    /// Entries with a cookie above `cookie` (0: from the start; `.` and `..`
    /// are the mount's to add), in order of cookie. Answer: `Entries`.
    ReadDir {
        ino: Ino,
        cookie: u64,
        limit: u32,
        attrs: bool,
    },
    /// Answer: `Bytes`.
    ReadLink { ino: Ino },
    /// Answer: `Bytes`.
    GetXattr { ino: Ino, name: Vec<u8> },
    /// Answer: `Names`.
    ListXattr { ino: Ino },
    /// F_GETLK: a lock that conflicts; of kind `Unlock`: one of the owner's own.
    /// Answer: `Lock`.
    GetLock { ino: Ino, lock: LockRange },
    /// Answer: `StatFs`.
    StatFs,
    /// The parent and name of a directory, or any name of a file (by its hint). Answer: `Parent`.
    Parent { ino: Ino },
    /// Where a file is. Answer: `File`.
    File { ino: Ino },
    /// Every inode's extents, in order of (ino, offset), from there on. Answer: `AllExtents`.
    AllExtents { from: (Ino, u64), limit: u32 },
    /// Files due for the archive at `now` (milliseconds), oldest first. Answer: `Due`.
    Due { now_ms: u64, limit: u32 },
    /// Attempts that are recorded as under way, from that number on. Answer: `Attempts`.
    Attempts { from: u64, limit: u32 },
    /// Counters for `lagan status`. Answer: `Counters`.
    Counters,
    /// Reap rows of a node that are ready at `now_ms`. Answer: `Reap`.
    ChunkReap {
        node: NodeId,
        now_ms: u64,
        limit: u32,
    },
    /// Objects to delete that are ready at `now_ms`. Answer: `ObjectReap`.
    ObjectReap { now_ms: u64, limit: u32 },
    /// Orphans, from there on. Answer: `Inos`.
    Orphans { from: Ino, limit: u32 },
    /// Live sessions. Answer: `Sessions`.
    Sessions,
    /// Archived files that still have chunks, least recently archived first. Answer: `Releasable`.
    Releasable { from: (u64, Ino), limit: u32 },
    /// Whether blocks are open, and which of their ids are named. Answer: `Blocks`.
    Blocks { blocks: Vec<BlockId> },
    /// How many extents name chunks of each set. Answer: `SetUses`.
    SetUses,
    /// Attributes of several inodes, `ATTRS_PAGE_MAX` at most. Answer: `Attrs`.
    Attrs { inos: Vec<Ino> },
    /// Files that S3 cannot take as they are. Answer: `Inos`.
    TooLarge { limit: u32 },
    /// The object of every archived file, in order of (ino, data version), from there
    /// on. Answer: `Objects`.
    Objects { from: (Ino, u64), limit: u32 },
    /// Objects to delete, ready or not, from that row on. Answer: `ObjectReap`.
    ObjectsToDelete { from: u64, limit: u32 },
}

impl Query {
    /// The inode, named by number, that it is about.
    pub fn inode(&self) -> Option<Ino> {
        match self {
            Query::GetAttr { ino }
            | Query::Open { ino }
            | Query::Extents { ino, .. }
            | Query::ReadDir { ino, .. }
            | Query::ReadLink { ino }
            | Query::GetXattr { ino, .. }
            | Query::ListXattr { ino }
            | Query::GetLock { ino, .. }
            | Query::Parent { ino }
            | Query::File { ino } => Some(*ino),
            _ => None,
        }
    }
}

/// The answer to a read.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum QueryAnswer {
    /// An inode.
    Attr(Attr),
    /// An inode and its first extents.
    Opened {
        /// The inode.
        attr: Attr,
        /// The first extents.
        extents: Vec<Extent>,
        /// There are more.
        more: bool,
    },
    /// Extents of a file at one data version.
    Extents {
        /// The data version.
        version: u64,
        /// File size.
        size: u64,
        /// In order of offset.
        extents: Vec<Extent>,
        /// There are more.
        more: bool,
    },
    /// Directory entries.
    Entries {
        /// In order of cookie.
        entries: Vec<Entry>,
        /// No more follow.
        end: bool,
        /// The directory's parent (itself for the root), for `..`.
        parent: Ino,
    },
    /// Uninterpreted bytes.
    Bytes(Vec<u8>),
    /// Names of extended attributes.
    Names(Vec<Vec<u8>>),
    /// A conflicting lock.
    Lock(Option<(SessionId, LockRange)>),
    /// What statfs needs from the metadata.
    StatFs {
        /// Inodes.
        files: u64,
    },
    /// A name of an inode: parent and name.
    Parent(Option<(Ino, Vec<u8>)>),
    /// Where a file is.
    File {
        /// The inode.
        attr: Attr,
        /// All extents up to `EXTENTS_PAGE_MAX`.
        extents: Vec<Extent>,
        /// Extents in all.
        extent_count: u64,
        /// The object of the newest archived version.
        object: Option<Object>,
        /// Path from the root, best effort.
        path: Option<Vec<u8>>,
    },
    /// Extents of many files.
    AllExtents {
        /// In order.
        extents: Vec<(Ino, Extent)>,
        /// Where to go on; `None`: that was all.
        next: Option<(Ino, u64)>,
    },
    /// Files due for the archive.
    Due(Vec<DueFile>),
    /// Attempts.
    Attempts(Vec<AttemptRow>),
    /// Counters.
    Counters(Counters),
    /// Reap rows: sequence, what to delete.
    Reap(Vec<(u64, ReapChunks)>),
    /// Objects to delete: sequence, key.
    ObjectReap(Vec<(u64, String)>),
    /// Inode numbers.
    Inos(Vec<Ino>),
    /// Sessions.
    Sessions(Vec<(SessionId, SessionIdentity)>),
    /// Files that can be released: archive time (ms), ino, version, bytes.
    Releasable(Vec<(u64, Ino, u64, u64)>),
    /// For each asked block, whether it is open and a bitmap of its named ids;
    /// `None`: closed and forgotten, so an id that no extent names is garbage.
    Blocks(Vec<Option<(bool, Vec<u8>)>>),
    /// Sets with extents, and how many; `None`: this cluster was begun by a build
    /// that did not count them.
    SetUses(Option<Vec<(SetId, u64)>>),
    /// The attributes of each asked inode; `None`: it is gone.
    Attrs(Vec<Option<Attr>>),
    /// Objects that the metadata names.
    Objects {
        /// In order.
        objects: Vec<(Ino, Object)>,
        /// Where to go on; `None`: that was all.
        next: Option<(Ino, u64)>,
    },
}

/// A directory entry.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Entry {
    /// Its name.
    pub name: Vec<u8>,
    /// Its inode.
    pub ino: Ino,
    /// The inode's kind.
    pub kind: Kind,
    /// Its offset for readdir: rises within the directory, never reused.
    pub cookie: u64,
    /// Its attributes, if asked for.
    pub attr: Option<Attr>,
}

/// An archived version of a file.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, serde::Serialize, serde::Deserialize)]
pub struct Object {
    /// The data version.
    pub version: u64,
    /// Its key in the bucket.
    pub key: String,
    /// Bytes.
    pub size: u64,
    /// CRC-32 of all of it.
    pub crc: u32,
}

/// A file whose time for the archive has come.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct DueFile {
    /// The file.
    pub ino: Ino,
    /// Its data version.
    pub version: u64,
    /// Bytes.
    pub size: u64,
    /// Since when it is due, milliseconds.
    pub due_ms: u64,
    /// The set of its first chunk, to choose who uploads.
    pub chunk: Option<ChunkId>,
}

/// An upload that may be under way.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct AttemptRow {
    /// Its number.
    pub number: u64,
    /// The file.
    pub ino: Ino,
    /// The data version.
    pub version: u64,
    /// The node that uploads.
    pub node: NodeId,
    /// The object's key.
    pub key: String,
    /// When it was recorded, milliseconds.
    pub started_ms: u64,
}

/// Numbers that the state keeps up to date with each command.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode, serde::Serialize, serde::Deserialize,
)]
pub struct Counters {
    /// Inodes.
    pub inodes: u64,
    /// Files in the due queue.
    pub due_files: u64,
    /// Their bytes.
    pub due_bytes: u64,
    /// When the oldest became or becomes due, milliseconds; 0: none.
    pub oldest_due_ms: u64,
    /// Files whose content is in S3.
    pub archived_files: u64,
    /// Files whose upload failed and waits for its retry.
    pub failed_files: u64,
    /// Orphans.
    pub orphans: u64,
    /// Attempts under way.
    pub attempts: u64,
    /// Rows that wait for nodes to delete chunks.
    pub reap_chunks: u64,
    /// Objects that wait for deletion.
    pub reap_objects: u64,
    /// Extents marked lost.
    pub lost_extents: u64,
    /// Files that wait for nothing, since S3 cannot take them.
    pub too_large_files: u64,
    /// When the file that waits longest was changed, milliseconds; 0: none waits.
    pub oldest_change_ms: u64,
}

/// What a node has to delete.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum ReapChunks {
    /// These chunks.
    Chunks(Vec<ChunkId>),
    /// Every chunk of the block whose id is not in the bitmap (bit `i` of byte
    /// `i / 8`, least significant first).
    UnnamedOf {
        /// The closed block.
        block: BlockId,
        /// The ids that were named.
        named: Vec<u8>,
    },
}
