//! The rows behind the keys. Fields are encoded in order; see [`super`].

use super::version::first_version;
use lagan_types::attr::{ArchiveState, Attr, HAS_XATTRS, Kind, Time, unfit_for_s3};
use lagan_types::cluster::{Config, NodeInfo, ReplicaSet};
use lagan_types::codec::{Decode, Encode};
use lagan_types::extent::{Content, Extent};
use lagan_types::id::{BlockId, ChunkId, Ino, NodeId, SessionId};
use lagan_types::limits::FILE_LEN_MAX;
use lagan_types::op::{LockKind, SessionIdentity};
use lagan_types::query::{Counters, ReapChunks};
use lagan_types::{Answer, Refusal};

first_version!(2:
    Config, MapVersion, NodeInfo, ReplicaSet, UseCount,
    InodeRow, DentryRow, CookieRow, ExtentRow,
    ObjectRow, AttemptRow, ReapChunkRow, ReapObjectRow,
    SessionRow, AnswerFloor, BlockRow, LockRow, CounterRow,
);
first_version!(3: AnswerRow);

/// The version of the cluster map.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode)]
#[bincode(crate = "lagan_types::codec::bincode")]
pub struct MapVersion(pub u64);

/// How many extents name chunks of a set; never 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode)]
#[bincode(crate = "lagan_types::codec::bincode")]
pub struct UseCount(pub u64);

/// The lowest sequence of a session whose answer is remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[bincode(crate = "lagan_types::codec::bincode")]
pub struct AnswerFloor(pub u64);

/// The answer to a command.
pub type AnswerRow = Result<Answer, Refusal>;

/// An inode: attributes, one of its names, sums over its extents, archive state.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[bincode(crate = "lagan_types::codec::bincode")]
pub struct InodeRow {
    /// File, directory or another kind.
    pub kind: Kind,
    /// Permission bits, 12 bits, and `HAS_CAPABILITY` beside a row of that attribute.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Hard links; 0: an orphan.
    pub nlink: u32,
    /// Device number.
    pub rdev: u32,
    /// Bytes.
    pub size: u64,
    /// Last access.
    pub atime: Time,
    /// Last change of content.
    pub mtime: Time,
    /// Last change; strictly rises.
    pub ctime: Time,
    /// Creation.
    pub btime: Time,
    /// Data version; strictly rises.
    pub version: u64,
    /// A directory's parent; a file's name hint. 0: none is known.
    pub parent: Ino,
    /// Its name there: valid whenever `parent` is not 0 (but the root's is empty).
    pub name: Vec<u8>,
    /// Directories: the last cookie that was given out.
    pub cookie: u64,
    /// Bytes of all xattr names, each with one more: what listxattr returns.
    pub xattr_len: u32,
    /// Bytes in extents that name chunks.
    pub chunk_bytes: u64,
    /// Bytes in extents that name objects.
    pub object_bytes: u64,
    /// Bytes in lost extents.
    pub lost_bytes: u64,
    /// Lost extents.
    pub lost_extents: u64,
    /// The archive's view of it.
    pub archive: ArchiveRow,
}

/// Where an inode is in the archive's cycle. A live regular file is in exactly
/// one of: due, being uploaded, archived (object of the current version).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode)]
#[bincode(crate = "lagan_types::codec::bincode")]
pub struct ArchiveRow {
    /// The time since which it waits for its upload, or until which.
    pub due: Option<Due>,
    /// Whether the last upload failed, so that it waits for its retry.
    pub failed: bool,
    /// The attempt that uploads the current version.
    pub attempt: Option<u64>,
    /// Data version of its row in Object.
    pub object: Option<u64>,
    /// Time at which that object was recorded, milliseconds.
    pub archived_ms: u64,
}

/// The time at which a file is due for the archive. `archive_after`, for which a file is
/// left in peace, is added when the queue is read, so that a new value counts for files
/// that wait already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[bincode(crate = "lagan_types::codec::bincode")]
pub enum Due {
    /// At that time, milliseconds: somebody asked for it, or it is tried again.
    At(u64),
    /// `archive_after` from that change on, milliseconds.
    After(u64),
}

/// A file's place in the table Due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum DueKey {
    /// The same as [`Due::At`].
    At(u64),
    /// The same as [`Due::After`].
    After(u64),
    /// S3 cannot take the file as it is.
    TooLarge,
}

impl InodeRow {
    /// A new inode without name or content.
    pub fn new(kind: Kind, mode: u16, owner: (u32, u32), time: Time) -> Self {
        let directory = kind == Kind::Directory;
        InodeRow {
            kind,
            mode: mode & 0o7777,
            uid: owner.0,
            gid: owner.1,
            nlink: if directory { 2 } else { 1 },
            rdev: 0,
            size: if directory { 4096 } else { 0 },
            atime: time,
            mtime: time,
            ctime: time,
            btime: time,
            version: 1,
            parent: Ino(0),
            name: Vec::new(),
            cookie: 0,
            xattr_len: 0,
            chunk_bytes: 0,
            object_bytes: 0,
            lost_bytes: 0,
            lost_extents: 0,
            archive: ArchiveRow::default(),
        }
    }

    /// Whether the object in S3 has the current content.
    pub fn archived(&self) -> bool {
        self.archive.object == Some(self.version)
    }

    /// A regular file that has a name.
    pub fn live_file(&self) -> bool {
        self.kind == Kind::File && self.nlink > 0
    }

    /// Its place in Due.
    pub fn due_key(&self) -> Option<DueKey> {
        let due = self.archive.due?;
        Some(match due {
            _ if self.is_too_large() => DueKey::TooLarge,
            Due::At(ms) => DueKey::At(ms),
            Due::After(ms) => DueKey::After(ms),
        })
    }

    /// Whether S3 cannot take the file as it is.
    pub fn is_too_large(&self) -> bool {
        unfit_for_s3(self.size, self.held_bytes()).is_some()
    }

    /// Bytes that extents hold, wherever they are.
    pub fn held_bytes(&self) -> u64 {
        self.chunk_bytes
            .saturating_add(self.object_bytes)
            .saturating_add(self.lost_bytes)
    }

    /// Its key time in Releasable.
    pub fn releasable_ms(&self) -> Option<u64> {
        (self.live_file() && self.archived() && self.chunk_bytes > 0)
            .then_some(self.archive.archived_ms)
    }

    /// Where the content is.
    pub fn archive_state(&self) -> ArchiveState {
        if self.archive.attempt.is_some() {
            ArchiveState::Archiving
        } else if self.archived() {
            if self.object_bytes > 0 {
                ArchiveState::Released
            } else {
                ArchiveState::Archived
            }
        } else if self.archive.object.is_some() {
            ArchiveState::Dirty
        } else {
            ArchiveState::Local
        }
    }

    /// The attributes that stat(2) shows.
    pub fn attr(&self, ino: Ino) -> Attr {
        Attr {
            ino,
            kind: self.kind,
            mode: match self.xattr_len {
                0 => self.mode,
                _ => self.mode | HAS_XATTRS,
            },
            uid: self.uid,
            gid: self.gid,
            nlink: self.nlink,
            size: self.size,
            allocated: self.held_bytes(),
            rdev: self.rdev,
            atime: self.atime,
            mtime: self.mtime,
            ctime: self.ctime,
            btime: self.btime,
            version: self.version,
            archive: self.archive_state(),
        }
    }
}

/// The inode that a name points to.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[bincode(crate = "lagan_types::codec::bincode")]
pub struct DentryRow {
    /// The inode.
    pub ino: Ino,
    /// The inode's kind.
    pub kind: Kind,
    /// The cookie of its row in Cookie.
    pub cookie: u64,
}

/// A directory entry in order of cookie: all that a plain readdir needs.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[bincode(crate = "lagan_types::codec::bincode")]
pub struct CookieRow {
    /// The inode.
    pub ino: Ino,
    /// The inode's kind.
    pub kind: Kind,
    /// The name.
    pub name: Vec<u8>,
}

/// One range of a file; its offset is in the key.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[bincode(crate = "lagan_types::codec::bincode")]
pub struct ExtentRow {
    /// Bytes; never 0.
    pub len: u64,
    /// Where they are.
    pub content: Content,
}

impl ExtentRow {
    /// The extent at that offset, if its numbers make sense.
    pub fn at(self, offset: u64) -> Option<Extent> {
        let end = offset
            .checked_add(self.len)
            .filter(|&e| e <= FILE_LEN_MAX)?;
        let sane = match self.content {
            Content::Chunk {
                skip, chunk_len, ..
            } => skip as u64 + self.len <= chunk_len as u64,
            Content::Object { offset, .. } => offset.checked_add(self.len).is_some(),
            Content::Lost => true,
        };
        (end > offset && sane).then_some(Extent {
            offset,
            len: self.len,
            content: self.content,
        })
    }
}

/// An object in S3.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[bincode(crate = "lagan_types::codec::bincode")]
pub struct ObjectRow {
    /// Its key.
    pub key: String,
    /// Bytes.
    pub size: u64,
    /// CRC-32 of all of it.
    pub crc: u32,
}

/// An upload that may be under way.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[bincode(crate = "lagan_types::codec::bincode")]
pub struct AttemptRow {
    /// The file.
    pub ino: Ino,
    /// Its data version.
    pub version: u64,
    /// The node that uploads.
    pub node: NodeId,
    /// The object's key.
    pub key: String,
    /// Time at which it was recorded, milliseconds.
    pub started_ms: u64,
}

/// Chunks for a node to delete.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[bincode(crate = "lagan_types::codec::bincode")]
pub struct ReapChunkRow {
    /// Time before which nothing is deleted, milliseconds; never falls with the sequence.
    pub ready_ms: u64,
    /// The chunks.
    pub what: ReapChunks,
}

/// An object to delete.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[bincode(crate = "lagan_types::codec::bincode")]
pub struct ReapObjectRow {
    /// Time before which nothing is deleted, milliseconds; never falls with the sequence.
    pub ready_ms: u64,
    /// Its key.
    pub key: String,
}

/// A live session.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[bincode(crate = "lagan_types::codec::bincode")]
pub struct SessionRow {
    /// The nonce of the call that opened it, so that a retry finds it.
    pub nonce: u128,
    /// The mount's identity.
    pub identity: SessionIdentity,
    /// Time at which it was opened, milliseconds.
    pub opened_ms: u64,
    /// Its open blocks.
    pub blocks: Vec<BlockId>,
}

/// An open block of chunk ids. A closed one has no row.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[bincode(crate = "lagan_types::codec::bincode")]
pub struct BlockRow {
    /// The session that it was granted to.
    pub session: SessionId,
    /// The indexes of its ids are `0..count`.
    pub count: u16,
    /// A bit for each id that was named: bit `i` of byte `i / 8`, least significant
    /// first; no longer than needed.
    pub named: Vec<u8>,
}

impl BlockRow {
    /// Whether that id was named.
    pub fn is_named(&self, id: ChunkId) -> bool {
        let index = id.index();
        self.named
            .get(index as usize / 8)
            .is_some_and(|byte| byte & (1 << (index % 8)) != 0)
    }

    /// Notes that the id is named.
    pub fn set_named(&mut self, id: ChunkId) {
        let at = id.index() as usize / 8;
        if self.named.len() <= at {
            self.named.resize(at + 1, 0);
        }
        self.named[at] |= 1 << (id.index() % 8);
    }

    /// Whether every id was named, so that closing leaves no garbage.
    pub fn full(&self) -> bool {
        self.named.iter().map(|b| b.count_ones()).sum::<u32>() >= self.count as u32
    }
}

/// The locks of one owner on one inode: disjoint, in order.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[bincode(crate = "lagan_types::codec::bincode")]
pub struct LockRow {
    /// The locked ranges.
    pub ranges: Vec<LockedRange>,
}

/// One locked range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[bincode(crate = "lagan_types::codec::bincode")]
pub struct LockedRange {
    /// First byte.
    pub start: u64,
    /// Last byte, inclusive.
    pub end: u64,
    /// Read or Write.
    pub kind: LockKind,
    /// Process of the owner.
    pub pid: u32,
}

/// Numbers that are given out once, and sums over the tables.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode)]
#[bincode(crate = "lagan_types::codec::bincode")]
pub struct CounterRow {
    /// The last inode number.
    pub ino: u64,
    /// The last session.
    pub session: u64,
    /// The last block.
    pub block: u64,
    /// The last upload attempt.
    pub attempt: u64,
    /// The last sequence in ReapChunk and ReapObject.
    pub reap: u64,
    /// The last node.
    pub node: u64,
    /// The last set.
    pub set: u32,
    /// The latest ready time in ReapChunk, milliseconds.
    pub chunks_ready_ms: u64,
    /// The latest ready time in ReapObject, milliseconds.
    pub objects_ready_ms: u64,
    /// `archive_after_ms` of the configuration, so that a look at the queue need not read
    /// that row.
    pub archive_after_ms: u64,
    /// Sums; the times of the oldest are always 0 here.
    pub stats: Counters,
}
