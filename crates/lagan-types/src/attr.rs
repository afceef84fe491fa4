//! What stat(2) shows of an inode, and a little more.

use crate::access::Times;
use crate::codec::{Decode, Encode};
use crate::id::Ino;
use crate::limits::{OBJECT_HOLES_LEN_MAX, OBJECT_LEN_MAX};
use serde::{Deserialize, Serialize};

pub use crate::time::Time;

/// What an inode is (inode(7), S_IFMT).
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode, Serialize, Deserialize, PartialOrd, Ord,
)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A named pipe.
    Fifo,
    /// A UNIX socket.
    Socket,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
}

/// Where a file's bytes stand between local disks and S3 (docs/DESIGN.md "The mover's states").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ArchiveState {
    /// Only on local disks, waiting for its time.
    Local,
    /// An upload may be under way.
    Archiving,
    /// Local and in S3, the same bytes.
    Archived,
    /// In S3; no local copies, or not of everything.
    Released,
    /// An older version is in S3; the content changed since.
    Dirty,
}

impl ArchiveState {
    /// The word that `user.lagan.state` shows.
    pub fn as_str(self) -> &'static str {
        match self {
            ArchiveState::Local => "local",
            ArchiveState::Archiving => "archiving",
            ArchiveState::Archived => "archived",
            ArchiveState::Released => "released",
            ArchiveState::Dirty => "dirty",
        }
    }
}

/// Why a file cannot become an object, if it cannot: it has `size` bytes, of which
/// extents hold `held`.
pub fn unfit_for_s3(size: u64, held: u64) -> Option<&'static str> {
    if size > OBJECT_LEN_MAX {
        return Some("over 5 TiB");
    }
    let holes = size.saturating_sub(held);
    (holes > OBJECT_HOLES_LEN_MAX).then_some("holes of over 64 GiB")
}

/// In [`Attr::mode`], above the permission bits: the inode has extended
/// attributes, perhaps access control lists. None has any without it.
pub const HAS_XATTRS: u16 = 0o10000;

/// In [`Attr::mode`], above the permission bits: one of the extended attributes is
/// [`CAPABILITY`].
pub const HAS_CAPABILITY: u16 = 0o20000;

/// The extended attribute with a file's capabilities (capabilities(7)).
pub const CAPABILITY: &[u8] = b"security.capability";

/// The attributes of an inode.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct Attr {
    /// The inode's number.
    pub ino: Ino,
    /// What it is.
    pub kind: Kind,
    /// Permission bits with setuid, setgid and sticky: 12 bits, no S_IFMT, and
    /// [`HAS_XATTRS`] and [`HAS_CAPABILITY`].
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Hard links; a directory has 2 and one per subdirectory.
    pub nlink: u32,
    /// Bytes of the file, or of the symlink's target; directories: 4096.
    pub size: u64,
    /// Bytes that extents cover (what st_blocks counts, in bytes here).
    pub allocated: u64,
    /// Device number of a device node.
    pub rdev: u32,
    /// Last access: creation, utimens, or a read by the rule of
    /// [`crate::access`].
    pub atime: Time,
    /// Last change of the content.
    pub mtime: Time,
    /// Last change of content or attributes: strictly rises.
    pub ctime: Time,
    /// Creation.
    pub btime: Time,
    /// Data version: strictly rises with each change of the content (for a
    /// directory: of its entries).
    pub version: u64,
    /// Where the content is.
    pub archive: ArchiveState,
}

impl Attr {
    /// Why it cannot go to S3 as it is, if it cannot: a file that is too large.
    pub fn unfit_for_s3(&self) -> Option<&'static str> {
        let file = self.kind == Kind::File;
        unfit_for_s3(self.size, self.allocated).filter(|_| file)
    }

    /// The times that decide whether a read moves the access time.
    pub fn times(&self) -> Times {
        Times {
            atime: self.atime,
            mtime: self.mtime,
            ctime: self.ctime,
        }
    }

    /// Permission bits with setuid, setgid and sticky: 12 bits.
    pub fn permissions(&self) -> u16 {
        self.mode & 0o7777
    }

    /// Gives a directory the times that it has when a name came into it at that time: if it has
    /// changed since, its content has not.
    pub fn entry_made(&mut self, time: Time) {
        if time > self.ctime {
            self.mtime = time;
            self.ctime = time;
        } else {
            self.mtime = self.mtime.max(time);
        }
    }

    /// Whether there are extended attributes.
    pub fn has_xattrs(&self) -> bool {
        self.mode & HAS_XATTRS != 0
    }

    /// Whether there are file capabilities.
    pub fn has_capability(&self) -> bool {
        self.mode & HAS_CAPABILITY != 0
    }
}
