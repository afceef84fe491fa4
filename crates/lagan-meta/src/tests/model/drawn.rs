//! Which mutations the model test draws.

use lagan_types::op::{FileOp, Op, SystemOp};

/// Whether the steps draw that mutation. The others have tests of their own: a new mutation
/// gets its place here first.
pub fn is_drawn(op: &Op) -> bool {
    match op {
        Op::File(op) => match op {
            FileOp::GrantBlock(_)
            | FileOp::CloseBlock(_)
            | FileOp::Create(_)
            | FileOp::Link(_)
            | FileOp::Unlink(_)
            | FileOp::Rmdir(_)
            | FileOp::Rename(_)
            | FileOp::SetAttrs(_)
            | FileOp::NoteAccesses(_)
            | FileOp::Commit(_)
            | FileOp::CopyRange(_)
            | FileOp::Rewrite(_) => true,
            // tests::sessions
            FileOp::CloseSession(_) => false,
            // tests::promise
            FileOp::CreatePromised(_) | FileOp::CreateCommit(_) => false,
            // tests::acl, tests::capabilities
            FileOp::SetXattr(_) | FileOp::SetListAsOther(_) | FileOp::RemoveXattr(_) => false,
            // tests::locks
            FileOp::SetLock(_) | FileOp::DropLocks(_) => false,
        },
        Op::System(op) => match op {
            SystemOp::SetNodeState(_)
            | SystemOp::OpenSession(_)
            | SystemOp::EndSession(_)
            | SystemOp::ReapOrphans(_)
            | SystemOp::StartArchive(_)
            | SystemOp::FinishArchive(_)
            | SystemOp::FailArchive(_)
            | SystemOp::Release(_)
            | SystemOp::ReleaseExtent(_)
            | SystemOp::MarkLost(_) => true,
            // tests::cluster, sets::tests
            SystemOp::Init(_)
            | SystemOp::SetConfig(_)
            | SystemOp::RegisterNode(_)
            | SystemOp::SetVoter(_)
            | SystemOp::RemoveNode(_)
            | SystemOp::ChangeSets(_) => false,
            // tests::promise
            SystemOp::GrantInos(_) | SystemOp::MakePromised(_) => false,
            // tests::sessions, tests::archive
            SystemOp::ChunksReaped(_) | SystemOp::ObjectsDeleted(_) | SystemOp::ArchiveNow(_) => {
                false
            }
        },
    }
}
