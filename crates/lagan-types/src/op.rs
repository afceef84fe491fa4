//! Mutations of the metadata: what goes through Raft.
//!
//! To add one: a row in the table of [`FileOp`] or [`SystemOp`], and its bytes in the
//! golden test (`tests/decode`). The compiler lists what else it needs, for a row has the type
//! of its answer, and these are matches without a `_` arm: its names, inodes and effect on
//! promises, whether its answer is remembered or is that of another call, who may send it,
//! what the leader notes when it was carried out, its place in `lagan-meta`'s `apply`, the
//! model test. What it does not list are the versions of what it is encoded in: the log's
//! `FORMAT_VERSION` and `PROTOCOL_VERSIONS`. A row's place is its number, so a row that is put
//! in before others changes theirs.

mod attrs;
mod file;
mod system;

pub use attrs::{NewFile, SetAttr, SetTime};
pub use file::{
    CloseBlock, CloseSession, Commit, CopyRange, Create, CreateCommit, CreatePromised, DropLocks,
    FileOp, GrantBlock, Inline, Link, LockKind, LockRange, NameEffect, NoteAccesses, RemoveXattr,
    Rename, Rewrite, Rmdir, SetAttrs, SetListAsOther, SetLock, SetXattr, Unlink, XattrMode,
};
pub use system::{
    ArchiveFail, ArchiveFinish, ArchiveNow, ArchiveStart, ChangeSets, ChunksReaped, EndSession,
    FailArchive, FinishArchive, GrantInos, Init, MakePromised, MarkLost, ObjectsDeleted,
    OpenSession, ReapOrphans, RegisterNode, Release, ReleaseExtent, RemoveNode, SessionIdentity,
    SetChange, SetConfig, SetNodeState, SetVoter, StartArchive, SystemOp,
};

use crate::attr::Time;
use crate::codec::{Decode, Encode};
use crate::id::{Ino, SessionId, VolumeId};
use crate::lease::Key;

/// One mutation as it is replicated.
///
/// `(session, seq)` makes it happen once: the state machine remembers the
/// answers of each session from `unanswered` on.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Command {
    /// The volume that a [`FileOp`] changes.
    pub volume: VolumeId,
    /// The session that asks; answers to `SessionId::SYSTEM` are not remembered.
    pub session: SessionId,
    /// Counts the session's mutations from 1.
    pub seq: u64,
    /// The lowest sequence whose answer the session has not seen.
    pub unanswered: u64,
    /// The leader's wall clock; the leader fills it in.
    pub time: Time,
    /// What to do.
    pub op: Op,
}

impl Command {
    /// A command of the cluster's own.
    pub fn system(op: impl Into<SystemOp>) -> Self {
        Command {
            volume: VolumeId::ONLY,
            session: SessionId::SYSTEM,
            seq: 0,
            unanswered: 0,
            time: Time::default(),
            op: Op::System(op.into()),
        }
    }
}

/// A mutation.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Op {
    /// One that a session asks for.
    File(FileOp),
    /// One of the cluster's own, sent with `SessionId::SYSTEM`: not remembered, so
    /// it is idempotent.
    System(SystemOp),
}

impl Op {
    /// What mounts may remember of what it changes, as far as it names it.
    pub fn touches(&self) -> Vec<Key> {
        match self {
            Op::File(op) => op.touches(),
            Op::System(op) => op.touches(),
        }
    }

    /// The inodes that it changes quietly.
    pub fn quiet(&self) -> Vec<Ino> {
        match self {
            Op::File(op) => op.quiet(),
            Op::System(op) => op.quiet(),
        }
    }
}

impl From<FileOp> for Op {
    fn from(op: FileOp) -> Self {
        Op::File(op)
    }
}

impl From<SystemOp> for Op {
    fn from(op: SystemOp) -> Self {
        Op::System(op)
    }
}
