//! A mount's side of the protocol, at a real server, for tests that break its rules.

use super::*;
use lagan_types::answer::{Created, GrantedBlock, NewSession};
use lagan_types::lease::Closed;
use lagan_types::message::Mutate;
use lagan_types::op::{Create, FileOp, GrantBlock, Op, OpenSession, SessionIdentity};
use lagan_types::{Answer, BlockId, Kind, Time, VolumeId};

/// A session with a file and a block of ids.
pub(super) struct Mount {
    pub pool: Pool,
    pub addr: SocketAddr,
    pub session: SessionId,
    pub file: Ino,
    pub block: BlockId,
}

impl Mount {
    /// Opens the session of mount number `n`, with a file of its own.
    pub async fn open(addr: SocketAddr, n: u8) -> Mount {
        let hello = Hello::client(Role::Mount, None, Service::Meta);
        let mut mount = Mount {
            pool: Pool::new(PoolOptions::new(hello)),
            addr,
            session: SessionId::SYSTEM,
            file: Ino::ROOT,
            block: BlockId(0),
        };
        let open = OpenSession {
            nonce: n.into(),
            identity: SessionIdentity {
                machine: "m".into(),
                boot: "b".into(),
                mount_point: format!("/mnt{n}"),
                instance: 1,
            },
            predecessor: None,
        };
        let Ok(Answer::Session(NewSession { session, .. })) = mount.mutate(0, open).await else {
            panic!("no session");
        };
        mount.session = session;
        let granted = mount.mutate(1, FileOp::from(GrantBlock)).await;
        let Ok(Answer::Block(GrantedBlock { block, .. })) = granted else {
            panic!("no block");
        };
        mount.block = block;
        let create = file(&[b'f', n]);
        let created = mount.mutate(2, FileOp::from(create)).await;
        let Ok(Answer::Created(Created { attr, .. })) = created else {
            panic!("no file");
        };
        mount.file = attr.ino;
        mount
    }

    pub async fn mutate(&self, seq: u64, op: impl Into<Op>) -> Result<Answer, Refusal> {
        self.mutate_closed(seq, op, None).await
    }

    /// The same, by a mount that says what it has closed for it.
    pub async fn mutate_closed(
        &self,
        seq: u64,
        op: impl Into<Op>,
        closed: Option<Closed>,
    ) -> Result<Answer, Refusal> {
        let command = self.command(seq, op);
        let ask = Mutate { command, closed };
        let asked = self.pool.ask(self.addr, ask, Bytes::new(), LONG);
        let (answer, _) = asked.await.expect("an answer");
        answer.expect("it leads").answer
    }

    /// A command of the session, with nothing unanswered before it.
    pub fn command(&self, seq: u64, op: impl Into<Op>) -> Command {
        Command {
            volume: VolumeId::ONLY,
            session: self.session,
            seq,
            unanswered: seq,
            time: Time { secs: 0, nanos: 0 },
            op: op.into(),
        }
    }
}

/// A regular file in the root.
pub(super) fn file(name: &[u8]) -> Create {
    Create {
        parent: Ino::ROOT,
        name: name.to_vec(),
        kind: Kind::File,
        mode: 0o644,
        umask: 0,
        uid: 0,
        gid: 0,
        rdev: 0,
        target: Vec::new(),
        exclusive: true,
    }
}
