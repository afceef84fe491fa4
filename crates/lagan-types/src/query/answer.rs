//! Answers to reads.

use crate::ask::answers;
use crate::attr::{Attr, Kind};
use crate::codec::{Decode, Encode};
use crate::extent::Extent;
use crate::id::{BlockId, ChunkId, Ino, NodeId, SessionId, SetId};
use crate::op::{LockRange, SessionIdentity};

answers! {
    /// What a read found.
    #[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
    pub enum QueryAnswer {
        /// An inode.
        Attr(Attr),
        /// Inodes, in the order asked.
        Attrs(Vec<Option<Attr>>),
        /// An inode and its first extents.
        Opened(Opened),
        /// The same of several inodes, in the order asked.
        AllOpened(Vec<Option<Opened>>),
        /// Extents of a file.
        Extents(ExtentPage),
        /// Directory entries.
        Entries(DirPage),
        /// Uninterpreted bytes.
        Bytes(Vec<u8>),
        /// Names of extended attributes.
        Names(Vec<Vec<u8>>),
        /// A lock and whose it is.
        Lock(Option<(SessionId, LockRange)>),
        /// Figures for statfs(2).
        FsStat(FsStat),
        /// A name of an inode.
        Parent(Option<(Ino, Vec<u8>)>),
        /// Where a file's bytes are.
        File(FileInfo),
        /// Extents of many files.
        AllExtents(AllExtentsPage),
        /// Objects that the metadata names.
        Objects(ObjectsPage),
        /// Counters.
        Counters(Counters),
        /// Files due for the archive.
        Due(Vec<DueFile>),
        /// Inode numbers.
        Inos(Vec<Ino>),
        /// Attempts.
        Attempts(Vec<AttemptRow>),
        /// Files that can be released.
        Releasable(Vec<ReleasableFile>),
        /// Reap rows.
        Reap(Vec<(u64, ReapChunks)>),
        /// Objects to delete.
        ObjectReap(Vec<(u64, String)>),
        /// Sessions.
        Sessions(Vec<(SessionId, SessionIdentity)>),
        /// Blocks.
        Blocks(Vec<Option<Vec<u8>>>),
        /// Uses of sets.
        SetUses(Option<Vec<(SetId, u64)>>),
    }
}

/// An inode and its first extents.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Opened {
    /// The inode.
    pub attr: Attr,
    /// The first extents.
    pub extents: Vec<Extent>,
    /// There are more extents.
    pub more: bool,
}

/// Extents of a file at one data version.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct ExtentPage {
    /// The data version.
    pub version: u64,
    /// Bytes of the file.
    pub size: u64,
    /// In order of offset.
    pub extents: Vec<Extent>,
    /// There are more extents.
    pub more: bool,
}

/// Directory entries.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct DirPage {
    /// In order of cookie.
    pub entries: Vec<Entry>,
    /// No more follow.
    pub end: bool,
    /// The directory's parent (itself for the root), for `..`.
    pub parent: Ino,
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
    /// The inode's attributes, if asked for.
    pub attr: Option<Attr>,
}

/// Figures for statfs(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct FsStat {
    /// Inodes.
    pub files: u64,
}

/// Where a file's bytes are.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct FileInfo {
    /// The inode.
    pub attr: Attr,
    /// All extents up to `EXTENTS_PAGE_MAX`.
    pub extents: Vec<Extent>,
    /// Extents in all.
    pub extent_count: u64,
    /// The object of the newest archived version.
    pub object: Option<Object>,
    /// Path from the root, as far as it is known.
    pub path: Option<Vec<u8>>,
}

/// Extents of many files.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct AllExtentsPage {
    /// In order of (ino, offset).
    pub extents: Vec<(Ino, Extent)>,
    /// Where to go on; `None` after the last.
    pub next: Option<(Ino, u64)>,
}

/// Objects that the metadata names.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct ObjectsPage {
    /// In order of (ino, data version).
    pub objects: Vec<(Ino, Object)>,
    /// Where to go on; `None` after the last.
    pub next: Option<(Ino, u64)>,
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
    /// CRC-32 of the whole object.
    pub crc: u32,
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
    /// Bytes of the files in the due queue.
    pub due_bytes: u64,
    /// When the oldest became or becomes due, milliseconds; 0 if there is none.
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
    /// Files that S3 cannot take: they wait for a change.
    pub too_large_files: u64,
    /// When the file that waits longest was changed, milliseconds; 0 if none waits.
    pub oldest_change_ms: u64,
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
    /// Its first chunk, whose set tells who may upload.
    pub chunk: Option<ChunkId>,
}

/// An upload that may be under way.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct AttemptRow {
    /// The attempt's number.
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

/// A file that can be released.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct ReleasableFile {
    /// When it was archived, milliseconds.
    pub archived_ms: u64,
    /// The file.
    pub ino: Ino,
    /// Its data version.
    pub version: u64,
    /// Bytes that chunks hold.
    pub bytes: u64,
}

/// Chunks that a node has to delete.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum ReapChunks {
    /// These chunks.
    Chunks(Vec<ChunkId>),
    /// Every chunk of the block whose id is not in the bitmap (bit `i` of byte
    /// `i / 8`, least significant first).
    UnnamedOf {
        /// The closed block.
        block: BlockId,
        /// The ids that extents name.
        named: Vec<u8>,
    },
}

impl ReapChunks {
    /// Whether the chunk is one of them.
    pub fn frees(&self, id: ChunkId) -> bool {
        match self {
            ReapChunks::Chunks(ids) => ids.contains(&id),
            ReapChunks::UnnamedOf { block, named } => {
                let (byte, bit) = (usize::from(id.index() / 8), id.index() % 8);
                let named = named.get(byte).is_some_and(|byte| byte & (1 << bit) != 0);
                id.block() == *block && !named
            }
        }
    }
}
