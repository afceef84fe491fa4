//! Mutations of the metadata: what goes through Raft.

use crate::access::Access;
use crate::attr::{Kind, Time};
use crate::cluster::{Config, NodeInfo, NodeState};
use crate::codec::{Decode, Encode};
use crate::extent::{ChunkRef, Edit, Extent};
use crate::id::{BlockId, Epoch, Ino, NodeId, SessionId, SetId, VolumeId};

/// One mutation as it is replicated.
///
/// `(session, seq)` makes it happen once: the state machine remembers the
/// answers of each session from `unanswered` on.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Command {
    /// The volume that it changes.
    pub volume: VolumeId,
    /// Who asks; `SessionId::SYSTEM` is not remembered.
    pub session: SessionId,
    /// Counts the session's mutations from 1.
    pub seq: u64,
    /// The lowest sequence whose answer the session has not seen.
    pub unanswered: u64,
    /// Leader's wall clock, filled in by the leader.
    pub time: Time,
    /// What to do.
    pub op: Op,
}

/// A mutation.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Op {
    // -- sessions ---------------------------------------------------------
    /// Opens a session; ends `predecessor` (its locks and blocks) if it has the same
    /// identity. Sent with `SessionId::SYSTEM`; `nonce` makes a retry return
    /// the same session. Answer: `Session`.
    OpenSession {
        nonce: u128,
        identity: SessionIdentity,
        predecessor: Option<SessionId>,
    },
    /// The session leaves: locks go, blocks are closed. Answer: `Done`.
    CloseSession { session: SessionId },
    /// Grants a block of chunk ids. Answer: `Block`.
    GrantBlock,
    /// No id of it will be named any more. Answer: `Done`.
    CloseBlock { block: BlockId },

    // -- names ------------------------------------------------------------
    /// Makes an inode and its name. Exists → `Exists`, unless `!exclusive` and
    /// it is a regular file: then its attributes with `created: false`.
    /// setgid of the parent is inherited. Answer: `Created`.
    Create {
        parent: Ino,
        name: Vec<u8>,
        kind: Kind,
        mode: u16,
        uid: u32,
        gid: u32,
        rdev: u32,
        /// Of a symlink; empty otherwise.
        target: Vec<u8>,
        exclusive: bool,
    },
    /// link(2). Answer: `Attr`.
    Link {
        ino: Ino,
        parent: Ino,
        name: Vec<u8>,
    },
    /// unlink(2): the inode's last name makes it an orphan. Answer: `Unlinked`.
    Unlink { parent: Ino, name: Vec<u8> },
    /// rmdir(2). Answer: `Unlinked`.
    Rmdir { parent: Ino, name: Vec<u8> },
    /// renameat2(2): `Exists` under `no_replace`, both must exist under
    /// `exchange`; a directory into itself is `Invalid`. Answer: `Renamed`.
    Rename {
        parent: Ino,
        name: Vec<u8>,
        new_parent: Ino,
        new_name: Vec<u8>,
        no_replace: bool,
        exchange: bool,
    },

    // -- attributes -------------------------------------------------------
    /// chmod, chown, truncate, utimens. Answer: `Attr`.
    SetAttr { ino: Ino, set: SetAttr },
    /// setxattr(2); `Exists`/`NoAttribute` by `mode`. Answer: `Done`.
    SetXattr {
        ino: Ino,
        name: Vec<u8>,
        value: Vec<u8>,
        mode: XattrMode,
    },
    /// removexattr(2). Answer: `Done`.
    RemoveXattr { ino: Ino, name: Vec<u8> },

    // -- content ----------------------------------------------------------
    /// Switches parts of the file's map in one step. Answer: `Committed`.
    Commit(Commit),

    // -- locks ------------------------------------------------------------
    /// Takes, changes or (kind `Unlock`) drops an advisory lock; `WouldBlock`
    /// if another owner holds a conflicting one. Answer: `Done`.
    SetLock { ino: Ino, lock: LockRange },
    /// Drops all locks of that owner on the inode. Answer: `Done`.
    DropLocks { ino: Ino, owner: u64 },

    // -- the cluster's own (SessionId::SYSTEM) ------------------------------
    /// The first command of a cluster: configuration and root directory.
    /// Refused (`Exists`) in one that has them. Answer: `Done`.
    Init { config: Config },
    /// `lagan set`: replaces the configuration; identity cannot change. Another
    /// `archive_after_ms` counts for files that wait already too. Answer: `Done`.
    SetConfig { config: Config },
    /// Adds a node (id 0: draws the next one) or registers a new boot, address
    /// or name of one. `Stale` if store or boot is not the registered
    /// one or newer. Answer: `Node`.
    RegisterNode { info: NodeInfo },
    /// The leader saw a node go silent, come back or fill up. Sets with a node that
    /// went down are sealed; with all members up again they are unsealed.
    /// Answer: `Done`.
    SetNodeState { node: NodeId, state: NodeState },
    /// The node becomes, or is no longer, a voter. Answer: `Done`.
    SetVoter { node: NodeId, voter: bool },
    /// Changes rows of the set table, each by compare-and-set on its epoch. Answer: `Done`.
    ChangeSets { changes: Vec<SetChange> },
    /// The session was silent for too long. Answer: `Done`.
    EndSession { session: SessionId },
    /// The orphans are open nowhere: their chunks and objects go to the reap queue. Answer: `Done`.
    ReapOrphans { inos: Vec<Ino> },
    /// A node deleted the chunks of its reap rows up to that one. Answer: `Done`.
    ChunksReaped { node: NodeId, through: u64 },

    // -- the archive (SessionId::SYSTEM) ------------------------------------
    /// Records attempts before their uploads start. Skips inodes that are
    /// gone, archived or of another version. Answer: `Attempts`.
    StartArchive { files: Vec<ArchiveStart> },
    /// Uploads ended well: compare-and-set on the data version; an object that lost is
    /// queued for deletion. Answer: `Done`.
    FinishArchive { files: Vec<ArchiveFinish> },
    /// Uploads ended badly, no object can appear any more: due again at `retry_at`. Answer: `Done`.
    FailArchive { files: Vec<ArchiveFail> },
    /// Makes files due at once (`lagan archive now`). Answer: `Done`.
    ArchiveNow { inos: Vec<Ino> },
    /// Swaps chunk extents of archived files for object extents: compare-and-set on
    /// the version; skips what is not archived. Does not know which files are open: a
    /// handle goes on through the archive, by recall. Answer: `Released`.
    Release { files: Vec<(Ino, u64)> },
    /// Objects of that queue row were deleted. Answer: `Done`.
    ObjectsDeleted { rows: Vec<u64> },
    /// An extent's chunk has no healthy replica: marks it `Lost` if it is still named.
    /// Answer: `Done`.
    MarkLost {
        ino: Ino,
        offset: u64,
        chunk: crate::id::ChunkId,
    },

    // -- reserved names -----------------------------------------------------
    /// The leader takes inode numbers for files that it reserves names for
    /// (`SessionId::SYSTEM`); those it does not use stay unused. Answer: `Inos`.
    GrantInos { count: u32 },
    /// Makes a file whose name the leader reserved, unless it is there already.
    /// Sent by the session, or by the leader (`SessionId::SYSTEM`) before it lets
    /// anybody else see the name; `asked` is the call that was answered
    /// with the reservation: a retry of it finds its answer. `Exists`, `NotFound`: the name was
    /// lost with the leader that reserved it. Answer: `Created`.
    CreateReserved {
        file: NewFile,
        asked: Option<(SessionId, u64)>,
    },
    /// `CreateReserved` and its first `Commit` in one step: one replicated
    /// command a file. Answer: `Committed`.
    CreateCommit { file: NewFile, commit: Commit },

    /// A node goes for good: its row, its reap rows, and its place in sets that no
    /// file uses. `Busy` unless it is down and no used set needs it; with
    /// `force` it goes in any case, and what only it had is gone. `Invalid` for the
    /// last node. Answer: `Done`.
    RemoveNode { node: NodeId, force: bool },

    // -- content, by whom a mount is used -----------------------------------
    /// copy_file_range(2): the target's range gets the source's extents; chunks
    /// are shared, no bytes move. Answer: `Copied`.
    CopyRange(CopyRange),
    /// One chunk takes the place of many with the same bytes: neither version
    /// nor times change. `VersionChanged` if the range is no longer as it was
    /// read. Answer: `Done`.
    Rewrite(Rewrite),
    /// `Create` in a directory that has a default ACL, after `Create` said
    /// `DefaultAcl`: that limits `mode`, and `umask` counts only where there
    /// is none (any more). Answer: `Created`.
    CreateMasked {
        parent: Ino,
        name: Vec<u8>,
        kind: Kind,
        /// Without the umask.
        mode: u16,
        uid: u32,
        gid: u32,
        rdev: u32,
        exclusive: bool,
        umask: u16,
    },

    /// No member of its set has a good copy of an extent's chunk: the extent is pointed
    /// at the object if the file is archived, in that version, and still names the chunk.
    /// (`SessionId::SYSTEM`.) Answer: `Released`, of one file or none.
    ReleaseExtent {
        ino: Ino,
        version: u64,
        offset: u64,
        chunk: crate::id::ChunkId,
    },

    /// setxattr(2) of an access list by somebody who is neither in the inode's group
    /// nor privileged: takes set-group-id away. Answer: `Done`.
    SetListAsOther { ino: Ino, value: Vec<u8> },
    /// Inodes were read on a mount, at most `ACCESSES_MAX`: access times move where
    /// nothing changed since and they still would ([`crate::access`]). Nothing else does,
    /// neither ctime nor version. What is gone is passed over. Answer: `Done`.
    Accesses(Vec<Access>),
}

impl Op {
    /// The names (directory and name) that it takes, removes or makes.
    pub fn names(&self) -> Vec<(Ino, &[u8])> {
        match self {
            Op::Create { parent, name, .. }
            | Op::CreateMasked { parent, name, .. }
            | Op::Link { parent, name, .. }
            | Op::Unlink { parent, name }
            | Op::Rmdir { parent, name } => vec![(*parent, name)],
            Op::Rename {
                parent,
                name,
                new_parent,
                new_name,
                ..
            } => vec![(*parent, name), (*new_parent, new_name)],
            Op::CreateReserved { file, .. } | Op::CreateCommit { file, .. } => {
                vec![(file.parent, &file.name)]
            }
            _ => Vec::new(),
        }
    }

    /// The inodes, named by number, that it reads or changes.
    pub fn inodes(&self) -> Vec<Ino> {
        match self {
            Op::Link { ino, .. }
            | Op::SetAttr { ino, .. }
            | Op::SetXattr { ino, .. }
            | Op::SetListAsOther { ino, .. }
            | Op::RemoveXattr { ino, .. }
            | Op::SetLock { ino, .. }
            | Op::DropLocks { ino, .. } => vec![*ino],
            Op::Commit(commit) => vec![commit.ino],
            Op::CopyRange(copy) => vec![copy.from, copy.to],
            Op::Rewrite(rewrite) => vec![rewrite.ino],
            _ => Vec::new(),
        }
    }
}

/// A regular file whose name is reserved, but not in the replicated state yet.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct NewFile {
    /// Its number, granted to the leader by `GrantInos` and given to nobody else.
    pub ino: Ino,
    /// Its directory.
    pub parent: Ino,
    /// Its name there.
    pub name: Vec<u8>,
    /// Permission bits.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group, unless the directory's setgid bit gives another.
    pub gid: u32,
    /// When the name was reserved: its times, and its directory's.
    pub time: Time,
}

/// Who a session is. A mount that starts may take over only the session with
/// the same machine and mount point whose instance is dead.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, serde::Serialize, serde::Deserialize)]
pub struct SessionIdentity {
    /// `/etc/machine-id`, or what stands for it.
    pub machine: String,
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot: String,
    /// Absolute path of the mount point.
    pub mount_point: String,
    /// Drawn when the mount process starts.
    pub instance: u128,
}

/// Which attributes to change.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode)]
pub struct SetAttr {
    /// Permission bits.
    pub mode: Option<u16>,
    /// Owner; clears setuid and setgid of files.
    pub uid: Option<u32>,
    /// Group; clears setuid and setgid of files.
    pub gid: Option<u32>,
    /// truncate(2): cuts extents, raises the data version.
    pub size: Option<u64>,
    /// Last access.
    pub atime: Option<SetTime>,
    /// Last change.
    pub mtime: Option<SetTime>,
    /// Clear setuid and setgid (a write or truncate by an unprivileged caller, a
    /// chown that names no owner).
    pub kill_suid: bool,
}

/// A time to set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum SetTime {
    /// The command's time.
    Now,
    /// That one.
    At(Time),
}

/// setxattr(2)'s flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum XattrMode {
    /// Create or replace.
    Any,
    /// XATTR_CREATE: `Exists` if it is there.
    Create,
    /// XATTR_REPLACE: `NoAttribute` if it is not.
    Replace,
}

/// One step of a file's content.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Commit {
    /// The file.
    pub ino: Ino,
    /// In order of offset, without overlap, at most `COMMIT_EDITS_MAX`.
    pub edits: Vec<Edit>,
    /// Edits' offsets count from the true end at apply (O_APPEND).
    pub append: bool,
    /// Raise the size to this if it is less (fallocate, a write that ended in a hole).
    pub size_min: u64,
    /// `VersionChanged` unless the data version is this one.
    pub expect_version: Option<u64>,
    /// The writer was unprivileged: clear setuid and setgid.
    pub kill_suid: bool,
}

/// A range of a file that becomes a copy of another range, of the same file or another.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct CopyRange {
    /// The source.
    pub from: Ino,
    /// First byte in it.
    pub from_offset: u64,
    /// The target: may be the source, but the ranges must not overlap (`Invalid`).
    pub to: Ino,
    /// First byte in it.
    pub to_offset: u64,
    /// Bytes; cut at the source's end, at what is in no chunk, and after
    /// `COPY_EXTENTS_MAX` extents.
    pub len: u64,
    /// The writer was unprivileged: clear setuid and setgid.
    pub kill_suid: bool,
}

/// A range of a file that becomes one extent.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Rewrite {
    /// The file.
    pub ino: Ino,
    /// Where its bytes were, cut to the range: chunks without a gap, at most
    /// `REWRITE_EXTENTS_MAX`. Two extents that make one are as good as that.
    pub from: Vec<Extent>,
    /// The chunk that has the bytes of exactly that range; `skip` is 0.
    pub chunk: ChunkRef,
}

/// An advisory lock, or its removal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct LockRange {
    /// The kernel's lock owner, unique in its session.
    pub owner: u64,
    /// First byte.
    pub start: u64,
    /// Last byte, inclusive; `u64::MAX`: to the end.
    pub end: u64,
    /// What it is.
    pub kind: LockKind,
    /// Process of the owner, for F_GETLK.
    pub pid: u32,
}

/// fcntl(2)'s F_RDLCK, F_WRLCK, F_UNLCK.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum LockKind {
    /// Shared.
    Read,
    /// Exclusive.
    Write,
    /// None.
    Unlock,
}

/// A change of one row of the set table.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum SetChange {
    /// A new set of these nodes.
    Add { nodes: Vec<NodeId> },
    /// No new chunks; a node starts to be filled (`joining`), perhaps for another (`leaving`).
    StartJoin {
        set: SetId,
        epoch: Epoch,
        joining: NodeId,
        leaving: Option<NodeId>,
    },
    /// The joining node has every chunk: it becomes a member; unsealed if all members are up.
    FinishJoin { set: SetId, epoch: Epoch },
    /// The joining node failed: as before `StartJoin`.
    AbortJoin { set: SetId, epoch: Epoch },
    /// Takes no new chunks. Without effect: which sets take chunks follows from the
    /// nodes' states after each change.
    Seal { set: SetId, epoch: Epoch },
    /// Takes new chunks again. Without effect, as `Seal`.
    Unseal { set: SetId, epoch: Epoch },
}

/// A file whose upload is to start.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct ArchiveStart {
    /// The file.
    pub ino: Ino,
    /// The data version to upload.
    pub version: u64,
    /// Who uploads.
    pub node: NodeId,
}

/// A file whose upload ended well.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct ArchiveFinish {
    /// The file.
    pub ino: Ino,
    /// The data version that was uploaded.
    pub version: u64,
    /// The attempt's number from `Attempts`.
    pub attempt: u64,
    /// The object's key.
    pub key: String,
    /// Its size: must be the file's.
    pub size: u64,
    /// CRC-32 of the whole object.
    pub crc: u32,
}

/// A file whose upload ended badly.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct ArchiveFail {
    /// The file.
    pub ino: Ino,
    /// The data version.
    pub version: u64,
    /// The attempt's number.
    pub attempt: u64,
    /// Its key: deleted in case the object is there after all.
    pub key: String,
    /// When it is due again, leader's time.
    pub retry_at: Time,
}
