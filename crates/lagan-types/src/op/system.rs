//! Mutations of the cluster's own: of the leader, the other servers and the admin command.

use super::NewFile;
use super::Op;
use crate::answer::{Answer, Attempt, Created, GrantedInos, NewSession, ReleasedFiles};
use crate::ask::{Asker, asks};
use crate::attr::Time;
use crate::cluster::{Config, NodeInfo, NodeState};
use crate::codec::{Decode, Encode};
use crate::id::{ChunkId, Epoch, Ino, NodeId, SessionId, SetId};
use crate::lease::Key;

asks! {
    /// A mutation of the cluster's own.
    #[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
    pub enum SystemOp in Op -> Answer {
        // -- the cluster --------------------------------------------------------
        /// The first command of a cluster: configuration and root directory. A cluster
        /// that has them refuses it (`Exists`).
        Init { config: Config } -> (),
        /// `lagan set`: replaces the configuration; identity cannot change. A new
        /// `archive_after_ms` counts for files that wait already too.
        SetConfig { config: Config } -> (),
        /// Adds a node (id 0: draws the next one), or registers a new boot, address or name of
        /// one. `Stale` unless store and boot are the registered ones or newer.
        RegisterNode { info: NodeInfo } -> NodeId,
        /// The leader saw a node go silent, come back or fill up. Sets with a node that
        /// went down are sealed; with all members up again they are unsealed.
        SetNodeState { node: NodeId, state: NodeState } -> (),
        /// The node becomes, or is no longer, a voter.
        SetVoter { node: NodeId, voter: bool } -> (),
        /// A node goes for good: its row, its reap rows, and its place in sets that no file
        /// uses. `Busy` unless it is down and no used set needs it; with `force` it goes in
        /// any case, and bytes that only it had are gone. `Invalid` for the last node.
        RemoveNode { node: NodeId, force: bool } -> (),
        /// Changes rows of the set table, each by compare-and-set on its epoch.
        ChangeSets { changes: Vec<SetChange> } -> (),

        // -- sessions -----------------------------------------------------------
        /// Opens a session, and ends `predecessor` (its locks and blocks) if that has the same
        /// machine and mount point. `nonce` makes a retry return the same session.
        OpenSession {
            nonce: u128,
            identity: SessionIdentity,
            predecessor: Option<SessionId>,
        } -> NewSession,
        /// The session was silent for too long.
        EndSession { session: SessionId } -> (),

        // -- promises -----------------------------------------------------------
        /// The leader takes inode numbers for files that it promises; those that it does
        /// not use stay unused.
        GrantInos { count: u32 } -> GrantedInos,
        /// The leader makes a file that it promised, before anybody but the owner looks at it,
        /// unless it is there already. `asked` is the call that the promise
        /// answered: a retry of it finds its answer.
        MakePromised { file: NewFile, asked: (SessionId, u64) } -> Created,

        // -- deletion -----------------------------------------------------------
        /// The orphans are open nowhere: their chunks and objects go to the reap queues.
        ReapOrphans { inos: Vec<Ino> } -> (),
        /// A node deleted the chunks of its reap rows up to and with `through`.
        ChunksReaped { node: NodeId, through: u64 } -> (),
        /// The objects of these queue rows were deleted.
        ObjectsDeleted { rows: Vec<u64> } -> (),

        // -- the archive --------------------------------------------------------
        /// Records attempts before their uploads start. Skips inodes that are gone, archived or
        /// of another version.
        StartArchive { files: Vec<ArchiveStart> } -> Vec<Option<Attempt>>,
        /// Uploads ended well. Each counts only if the data version is still the uploaded one;
        /// the object of one that lost is queued for deletion.
        FinishArchive { files: Vec<ArchiveFinish> } -> (),
        /// Uploads ended badly, and their objects cannot appear any more: the files are due
        /// again at `retry_at`.
        FailArchive { files: Vec<ArchiveFail> } -> (),
        /// Makes files due at once (`lagan archive now`).
        ArchiveNow { inos: Vec<Ino> } -> (),
        /// Swaps chunk extents of archived files (inode, data version) for object extents; skips
        /// files that are not archived in that version. It does not know which files are open: a
        /// handle goes on through the archive, by recall.
        Release { files: Vec<(Ino, u64)> } -> ReleasedFiles,
        /// No member of its set has a good copy of an extent's chunk: points the extent at
        /// the object, if the file is archived in that version and the extent still names the
        /// chunk: one file is released or none.
        ReleaseExtent { ino: Ino, version: u64, offset: u64, chunk: ChunkId } -> ReleasedFiles,
        /// An extent's chunk has no healthy replica: an extent that still names it is pointed at
        /// the object of the current version, or marked `Lost` where there is none.
        MarkLost { ino: Ino, offset: u64, chunk: ChunkId } -> (),
    }
}

impl SystemOp {
    /// The processes that may send it.
    pub fn asker(&self) -> Asker {
        match self {
            SystemOp::OpenSession(_) => Asker::Anybody,
            SystemOp::SetConfig(_) | SystemOp::ArchiveNow(_) | SystemOp::MarkLost(_) => {
                Asker::Operator
            }
            SystemOp::RegisterNode(_)
            | SystemOp::SetNodeState(_)
            | SystemOp::SetVoter(_)
            | SystemOp::RemoveNode(_)
            | SystemOp::ChangeSets(_)
            | SystemOp::EndSession(_)
            | SystemOp::GrantInos(_)
            | SystemOp::ReapOrphans(_)
            | SystemOp::ChunksReaped(_)
            | SystemOp::ObjectsDeleted(_)
            | SystemOp::StartArchive(_)
            | SystemOp::FinishArchive(_)
            | SystemOp::FailArchive(_)
            | SystemOp::ReleaseExtent(_) => Asker::Server,
            // The first command of a cluster.
            SystemOp::Init(_) => Asker::Leader,
            // Only the leader knows what it promised.
            SystemOp::MakePromised(_) => Asker::Leader,
            // Only the leader knows what is open.
            SystemOp::Release(_) => Asker::Leader,
        }
    }

    /// What mounts may remember of what it changes, as [`super::FileOp::touches`].
    pub fn touches(&self) -> Vec<Key> {
        match self {
            // Its owner was shown all of it, and nobody else anything.
            SystemOp::MakePromised(_) => Vec::new(),
            SystemOp::ReapOrphans(op) => op.inos.iter().copied().map(Key::Inode).collect(),
            SystemOp::Init(_)
            | SystemOp::SetConfig(_)
            | SystemOp::RegisterNode(_)
            | SystemOp::SetNodeState(_)
            | SystemOp::SetVoter(_)
            | SystemOp::RemoveNode(_)
            | SystemOp::ChangeSets(_)
            | SystemOp::OpenSession(_)
            | SystemOp::EndSession(_)
            | SystemOp::GrantInos(_)
            | SystemOp::ChunksReaped(_)
            | SystemOp::ObjectsDeleted(_)
            | SystemOp::StartArchive(_)
            | SystemOp::FinishArchive(_)
            | SystemOp::FailArchive(_)
            | SystemOp::ArchiveNow(_)
            | SystemOp::Release(_)
            | SystemOp::ReleaseExtent(_)
            | SystemOp::MarkLost(_) => Vec::new(),
        }
    }

    /// The inodes that it changes quietly, as [`super::FileOp::quiet`]: where the bytes are,
    /// and how far the archive is.
    pub fn quiet(&self) -> Vec<Ino> {
        match self {
            SystemOp::StartArchive(op) => op.files.iter().map(|file| file.ino).collect(),
            SystemOp::FinishArchive(op) => op.files.iter().map(|file| file.ino).collect(),
            SystemOp::FailArchive(op) => op.files.iter().map(|file| file.ino).collect(),
            SystemOp::ArchiveNow(op) => op.inos.clone(),
            SystemOp::Release(op) => op.files.iter().map(|(ino, _)| *ino).collect(),
            SystemOp::ReleaseExtent(op) => vec![op.ino],
            SystemOp::MarkLost(op) => vec![op.ino],
            SystemOp::Init(_)
            | SystemOp::SetConfig(_)
            | SystemOp::RegisterNode(_)
            | SystemOp::SetNodeState(_)
            | SystemOp::SetVoter(_)
            | SystemOp::RemoveNode(_)
            | SystemOp::ChangeSets(_)
            | SystemOp::OpenSession(_)
            | SystemOp::EndSession(_)
            | SystemOp::GrantInos(_)
            | SystemOp::MakePromised(_)
            | SystemOp::ReapOrphans(_)
            | SystemOp::ChunksReaped(_)
            | SystemOp::ObjectsDeleted(_) => Vec::new(),
        }
    }

    /// The call of a session, by its sequence, that the answer to this command answers too: a
    /// retry of that call finds it.
    pub fn answers_call(&self) -> Option<(SessionId, u64)> {
        match self {
            SystemOp::MakePromised(op) => Some(op.asked),
            SystemOp::Init(_)
            | SystemOp::SetConfig(_)
            | SystemOp::RegisterNode(_)
            | SystemOp::SetNodeState(_)
            | SystemOp::SetVoter(_)
            | SystemOp::RemoveNode(_)
            | SystemOp::ChangeSets(_)
            | SystemOp::OpenSession(_)
            | SystemOp::EndSession(_)
            | SystemOp::GrantInos(_)
            | SystemOp::ReapOrphans(_)
            | SystemOp::ChunksReaped(_)
            | SystemOp::ObjectsDeleted(_)
            | SystemOp::StartArchive(_)
            | SystemOp::FinishArchive(_)
            | SystemOp::FailArchive(_)
            | SystemOp::ArchiveNow(_)
            | SystemOp::Release(_)
            | SystemOp::ReleaseExtent(_)
            | SystemOp::MarkLost(_) => None,
        }
    }
}

/// The identity of a mount. A mount that starts may take over only the session with
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

/// A change of one row of the set table.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum SetChange {
    /// A new set of these nodes.
    Add { nodes: Vec<NodeId> },
    /// The set takes no new chunks; `joining` starts to be filled, perhaps to replace `leaving`.
    StartJoin {
        set: SetId,
        epoch: Epoch,
        joining: NodeId,
        leaving: Option<NodeId>,
    },
    /// The joining node has every chunk: it becomes a member, and the set is unsealed if all
    /// members are up.
    FinishJoin { set: SetId, epoch: Epoch },
    /// The joining node failed: the row becomes as it was before `StartJoin`.
    AbortJoin { set: SetId, epoch: Epoch },
}

/// A file whose upload is to start.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct ArchiveStart {
    /// The file.
    pub ino: Ino,
    /// The data version to upload.
    pub version: u64,
    /// The node that uploads.
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
    /// Bytes of the object: must be the file's size.
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
    /// The object's key: deleted in case the object is there after all.
    pub key: String,
    /// When the file is due again, by the leader's clock.
    pub retry_at: Time,
}
