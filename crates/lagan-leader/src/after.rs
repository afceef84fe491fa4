//! What the leader notes in its memory when it has carried out somebody's command.

use lagan_types::op::LockRange;
use lagan_types::{Command, FileOp, Ino, Op, SessionId, SystemOp};

/// The effect of a command on the leader's memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum After {
    /// It has none.
    Nothing,
    /// The session is over.
    SessionEnded(SessionId),
    /// A session begins, and this one is over.
    SessionOpened { predecessor: Option<SessionId> },
    /// The session has that lock, or gave it back: nobody waits for it any more.
    LockTaken(SessionId, Ino, LockRange),
    /// Files may be due for the archive before their time.
    FilesDue,
}

impl After {
    /// Returns the effect that the command will have.
    pub fn of(command: &Command) -> Self {
        match &command.op {
            Op::File(op) => After::file(command.session, op),
            Op::System(op) => After::system(op),
        }
    }

    fn file(session: SessionId, op: &FileOp) -> Self {
        match op {
            FileOp::CloseSession(_) => After::SessionEnded(session),
            FileOp::SetLock(op) => After::LockTaken(session, op.ino, op.lock),
            FileOp::GrantBlock(_)
            | FileOp::CloseBlock(_)
            | FileOp::Create(_)
            | FileOp::CreatePromised(_)
            | FileOp::CreateCommit(_)
            | FileOp::Link(_)
            | FileOp::Unlink(_)
            | FileOp::Rmdir(_)
            | FileOp::Rename(_)
            | FileOp::SetAttrs(_)
            | FileOp::SetXattr(_)
            | FileOp::SetListAsOther(_)
            | FileOp::RemoveXattr(_)
            | FileOp::NoteAccesses(_)
            | FileOp::Commit(_)
            | FileOp::CopyRange(_)
            | FileOp::Rewrite(_)
            | FileOp::DropLocks(_) => After::Nothing,
        }
    }

    fn system(op: &SystemOp) -> Self {
        match op {
            SystemOp::OpenSession(op) => After::SessionOpened {
                predecessor: op.predecessor,
            },
            SystemOp::SetConfig(_) | SystemOp::ArchiveNow(_) => After::FilesDue,
            // `EndSession` is the leader's own: whoever proposes it notes it.
            SystemOp::Init(_)
            | SystemOp::RegisterNode(_)
            | SystemOp::SetNodeState(_)
            | SystemOp::SetVoter(_)
            | SystemOp::RemoveNode(_)
            | SystemOp::ChangeSets(_)
            | SystemOp::EndSession(_)
            | SystemOp::GrantInos(_)
            | SystemOp::MakePromised(_)
            | SystemOp::ReapOrphans(_)
            | SystemOp::ChunksReaped(_)
            | SystemOp::ObjectsDeleted(_)
            | SystemOp::StartArchive(_)
            | SystemOp::FinishArchive(_)
            | SystemOp::FailArchive(_)
            | SystemOp::Release(_)
            | SystemOp::ReleaseExtent(_)
            | SystemOp::MarkLost(_) => After::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lagan_types::cluster::Config;
    use lagan_types::op::{
        ArchiveNow, CloseSession, EndSession, LockKind, OpenSession, SessionIdentity, SetConfig,
        SetLock,
    };
    use lagan_types::{Time, VolumeId};

    fn of(op: impl Into<Op>) -> After {
        After::of(&Command {
            volume: VolumeId::ONLY,
            session: SessionId(4),
            seq: 1,
            unanswered: 1,
            time: Time::default(),
            op: op.into(),
        })
    }

    #[test]
    fn commands_that_the_leader_remembers_something_of() {
        let lock = LockRange {
            owner: 1,
            start: 0,
            end: 9,
            kind: LockKind::Write,
            pid: 2,
        };
        let ino = Ino(7);
        let taken = After::LockTaken(SessionId(4), ino, lock);
        assert_eq!(of(SetLock { ino, lock }), taken);
        assert_eq!(of(CloseSession), After::SessionEnded(SessionId(4)));
        let identity = SessionIdentity {
            machine: "m".into(),
            boot: "b".into(),
            mount_point: "/mnt".into(),
            instance: 1,
        };
        let predecessor = Some(SessionId(3));
        let open = OpenSession {
            nonce: 1,
            identity,
            predecessor,
        };
        assert_eq!(of(open), After::SessionOpened { predecessor });
        assert_eq!(of(ArchiveNow { inos: vec![ino] }), After::FilesDue);
        let config = Config::default();
        assert_eq!(of(SetConfig { config }), After::FilesDue);
        // Its proposer notes it.
        let session = SessionId(9);
        assert_eq!(of(EndSession { session }), After::Nothing);
    }
}
