//! Arguments and answers of the calls of [`crate::Client`].

use lagan_types::op::SessionIdentity;
use lagan_types::query::Entry;
use lagan_types::{Ino, Kind, SessionId};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// Options of a mount.
#[derive(Debug, Clone)]
pub struct Options {
    /// Servers of the cluster, each `ip:port` or `name:port`; one that is alive is enough.
    pub servers: Vec<String>,
    /// The volume's name.
    pub volume: String,
    /// The identity of this mount.
    pub identity: SessionIdentity,
    /// The session of this mount point's dead predecessor, to be ended at once.
    pub predecessor: Option<SessionId>,
    /// Local address of all outgoing connections.
    pub bind_from: Option<IpAddr>,
    /// Every call ends within this time.
    pub timeout: Duration,
    /// Bytes of written data that all files together hold until they are committed.
    pub write_buffer_bytes: usize,
    /// Bytes that a sequential reader is ahead of the kernel; 0: none.
    pub read_ahead_bytes: usize,
    /// Bytes of chunks kept for readers, all files together.
    pub read_cache_bytes: usize,
    /// The mount remembers names and attributes while nobody else changes them; else it asks
    /// the leader each time.
    pub leases: bool,
    /// Advisory locks hold in this mount only (the kernel keeps them).
    pub local_locks: bool,
    /// The inodes whose access times reads through this mount move.
    pub access_times: AccessTimes,
}

/// Inodes whose access times reads move, if these are older than the last change or a
/// day old (relatime).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AccessTimes {
    /// All inodes.
    #[default]
    All,
    /// All but directories (nodiratime).
    NoDirectories,
    /// None (noatime).
    None,
}

impl Options {
    /// Options with every default.
    pub fn new(servers: Vec<String>, volume: String, identity: SessionIdentity) -> Self {
        Options {
            servers,
            volume,
            identity,
            predecessor: None,
            bind_from: None,
            timeout: Duration::from_secs(120),
            write_buffer_bytes: 64 * 1024 * 1024,
            read_ahead_bytes: 8 * 1024 * 1024,
            read_cache_bytes: 32 * 1024 * 1024,
            leases: true,
            local_locks: false,
            access_times: AccessTimes::All,
        }
    }
}

/// How a file is opened: open(2)'s flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OpenOptions {
    /// O_RDONLY or O_RDWR.
    pub read: bool,
    /// O_WRONLY or O_RDWR.
    pub write: bool,
    /// O_APPEND: the true end at commit decides, the offset of a write is ignored.
    pub append: bool,
    /// O_TRUNC.
    pub truncate: bool,
    /// O_TRUNC clears setuid and setgid: the caller is not privileged.
    pub kill_suid: bool,
    /// O_DIRECT.
    pub direct: bool,
    /// O_SYNC or O_DSYNC: each write is committed before it is answered.
    pub sync: bool,
    /// O_NOATIME: reads do not move the access time.
    pub no_atime: bool,
}

/// An open file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opened {
    /// The handle's number.
    pub fh: u64,
    /// FOPEN_DIRECT_IO.
    pub direct_io: bool,
    /// FOPEN_KEEP_CACHE: the kernel's pages of the inode are still right, and a
    /// read of them would not move the access time.
    pub keep_cache: bool,
}

/// The process that makes a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Caller {
    /// User; 0 is privileged.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Process, or 0.
    pub pid: u32,
}

impl Caller {
    /// Whether setuid and setgid survive this caller's writes.
    pub fn privileged(self) -> bool {
        self.uid == 0
    }
}

/// An inode to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewInode {
    /// The kind of inode.
    pub kind: Kind,
    /// Permission bits, umask not applied.
    pub mode: u16,
    /// The caller's umask: counts where the directory has no default ACL.
    pub umask: u16,
    /// Owner.
    pub uid: u32,
    /// Group, unless the parent's is inherited.
    pub gid: u32,
    /// Device number of a device node, otherwise 0.
    pub rdev: u32,
    /// Target of a symlink, otherwise empty.
    pub target: Vec<u8>,
}

/// Has the kernel forget attributes that it was lent. It returns at once; what it returns
/// receives the inodes that the kernel did not know when it was told.
pub type Forget = Arc<dyn Fn(Vec<Ino>) -> oneshot::Receiver<Vec<Ino>> + Send + Sync>;

/// A thing that the kernel holds and must forget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Invalidate {
    /// Pages of that inode are stale although its size and mtime did not change.
    Data(Ino),
}

/// Some entries of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirPage {
    /// The entries, in order of cookie; `.` and `..` are not among them.
    pub entries: Vec<Entry>,
    /// No entry follows these.
    pub end: bool,
    /// The directory's parent; the root's is itself.
    pub parent: Ino,
}

/// The answer to statfs(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StatFs {
    /// Bytes that files may have in all: capacity divided by copies.
    pub total_bytes: u64,
    /// Bytes that files may still take.
    pub free_bytes: u64,
    /// Inodes.
    pub files: u64,
    /// Inodes that may still be made.
    pub free_files: u64,
    /// Bytes of a name, at most.
    pub name_len_max: u32,
}

/// The target of lseek(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seek {
    /// SEEK_DATA.
    Data,
    /// SEEK_HOLE; the end of the file counts as one.
    Hole,
}
