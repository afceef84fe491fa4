//! A cluster in memory that the tests talk to.

use crate::kv::Table;
use crate::layout::versions_at;
use crate::memory::MemoryStore;
use crate::{apply, cluster_map, invariants, query};
use lagan_types::answer::{Answer, Created, Renamed, Unlinked};
use lagan_types::ask::{Ask, Part};
use lagan_types::attr::{Attr, Kind, Time};
use lagan_types::cluster::{ArchiveConfig, ClusterMap, Config, NodeInfo, NodeRole, NodeState};
use lagan_types::extent::{ChunkRef, Edit};
use lagan_types::id::{ClusterId, Incarnation, StoreId};
use lagan_types::op::{
    CloseBlock, Commit, CopyRange, Create, GrantBlock, Init, Inline, OpenSession, RegisterNode,
    Rename, Rmdir, SessionIdentity, Unlink,
};
use lagan_types::query::{
    ChunkReap, Counters, Extents, GetAttr, GetCounters, Lookup, ObjectReap, ReadDir, ReapChunks,
};
use lagan_types::{
    BlockId, ChunkId, Command, Epoch, Extent, Ino, NodeId, Op, Query, QueryAnswer, Refusal,
    SessionId, SetId, VolumeId,
};

pub const START_MS: u64 = 1_000_000;

/// A cluster, and one session with an open block.
#[derive(Clone)]
pub struct World {
    pub store: MemoryStore,
    pub session: SessionId,
    pub block: BlockId,
    pub seq: u64,
    pub index: u16,
    pub now_ms: u64,
    /// Mutations that were given since the test last looked.
    pub given: Vec<Op>,
}

pub fn config(copies: u8) -> Config {
    Config {
        cluster: ClusterId(7),
        incarnation: Incarnation(0xabc << 100),
        copies,
        archive: Some(ArchiveConfig {
            endpoint: None,
            region: "r".into(),
            bucket: "b".into(),
            prefix: "pre".into(),
        }),
        ..Config::default()
    }
}

pub fn node_info(store: u128) -> NodeInfo {
    NodeInfo {
        id: NodeId(0),
        name: format!("server-{store}"),
        store: StoreId(store),
        boot: 1,
        addr: format!("127.0.0.{store}:1"),
        peer_addr: format!("127.0.0.{store}:2"),
        http: format!("127.0.0.{store}:3"),
        role: NodeRole::Storage,
        state: NodeState::Up,
        voter: false,
    }
}

pub fn identity(instance: u128) -> SessionIdentity {
    SessionIdentity {
        machine: "machine".into(),
        boot: "boot".into(),
        mount_point: "/mnt".into(),
        instance,
    }
}

impl World {
    /// Three nodes, two copies, a session with a block.
    pub fn new() -> Self {
        Self::with(3, 2)
    }

    pub fn with(nodes: u128, copies: u8) -> Self {
        let mut world = World {
            store: MemoryStore::new(),
            session: SessionId::SYSTEM,
            block: BlockId(0),
            seq: 0,
            index: 0,
            now_ms: START_MS,
            given: Vec::new(),
        };
        let config = config(copies);
        world.system(Init { config }).unwrap();
        for store in 1..=nodes {
            let info = node_info(store);
            world.system(RegisterNode { info }).unwrap();
        }
        world.session = world.open_session(1, None);
        world.block = world.grant();
        world
    }

    pub fn command(&mut self, session: SessionId, op: impl Into<Op>) -> Command {
        let op = op.into();
        self.given.push(op.clone());
        self.now_ms += 1;
        if session != SessionId::SYSTEM {
            self.seq += 1;
        }
        Command {
            volume: VolumeId::ONLY,
            session,
            seq: self.seq,
            unanswered: self.seq,
            time: Time::from_millis(self.now_ms),
            op,
        }
    }

    pub fn apply(&mut self, command: &Command) -> Result<Answer, Refusal> {
        apply(&mut self.store, command).unwrap()
    }

    /// Carries out a command of whatever kind.
    pub fn give(&mut self, session: SessionId, op: impl Into<Op>) -> Result<Answer, Refusal> {
        let command = self.command(session, op);
        self.apply(&command)
    }

    pub fn system<A>(&mut self, op: A) -> Result<A::Answer, Refusal>
    where
        A: Ask<Reply = Answer> + Into<Op>,
    {
        self.op_as(SessionId::SYSTEM, op)
    }

    pub fn op_as<A>(&mut self, session: SessionId, op: A) -> Result<A::Answer, Refusal>
    where
        A: Ask<Reply = Answer> + Into<Op>,
    {
        let reply = self.give(session, op)?;
        Ok(A::Answer::unwrap(reply).expect("an answer to that"))
    }

    pub fn op<A>(&mut self, op: A) -> Result<A::Answer, Refusal>
    where
        A: Ask<Reply = Answer> + Into<Op>,
    {
        self.op_as(self.session, op)
    }

    pub fn query<A>(&self, ask: A) -> Result<A::Answer, Refusal>
    where
        A: Ask<Request = Query, Reply = QueryAnswer>,
    {
        let reply = query(&self.store, VolumeId::ONLY, self.session, &ask.into()).unwrap()?;
        Ok(A::Answer::unwrap(reply).expect("an answer to that"))
    }

    pub fn check(&self) {
        for (table, key, value) in self.store.rows() {
            let (_, written) = versions_at(table, key);
            assert_eq!(value[0], written, "version of {table:?} {key:?}");
        }
        let wrong = invariants::check(&self.store);
        assert!(wrong.is_empty(), "{wrong:#?}");
    }

    // -- shorthands -------------------------------------------------------

    pub fn open_session(&mut self, instance: u128, predecessor: Option<SessionId>) -> SessionId {
        let answer = self.system(OpenSession {
            nonce: instance,
            identity: identity(instance),
            predecessor,
        });
        answer.unwrap().session
    }

    pub fn grant(&mut self) -> BlockId {
        self.index = 0;
        self.op(GrantBlock).unwrap().block
    }

    pub fn create_op(parent: Ino, name: &str, kind: Kind) -> Create {
        Create {
            parent,
            name: name.into(),
            kind,
            mode: 0o644,
            umask: 0,
            uid: 10,
            gid: 20,
            rdev: 0,
            target: match kind {
                Kind::Symlink => b"to".to_vec(),
                _ => Vec::new(),
            },
            exclusive: true,
        }
    }

    pub fn create(&mut self, parent: Ino, name: &str, kind: Kind) -> Ino {
        match self.op(Self::create_op(parent, name, kind)) {
            Ok(Created { attr, .. }) => attr.ino,
            other => panic!("{name}: {other:?}"),
        }
    }

    pub fn file(&mut self, name: &str) -> Ino {
        self.create(Ino::ROOT, name, Kind::File)
    }

    pub fn dir(&mut self, parent: Ino, name: &str) -> Ino {
        self.create(parent, name, Kind::Directory)
    }

    pub fn lookup(&self, parent: Ino, name: &str) -> Result<Attr, Refusal> {
        let name = name.into();
        self.query(Lookup { parent, name })
    }

    pub fn attr(&self, ino: Ino) -> Attr {
        self.query(GetAttr { ino }).unwrap()
    }

    pub fn names(&self, ino: Ino) -> Vec<String> {
        let q = ReadDir {
            ino,
            cookie: 0,
            limit: 1000,
            attrs: true,
        };
        let entries = self.query(q).unwrap().entries.into_iter();
        entries
            .map(|e| String::from_utf8(e.name).unwrap())
            .collect()
    }

    pub fn rename(&mut self, from: (Ino, &str), to: (Ino, &str)) -> Result<Renamed, Refusal> {
        self.rename_with(from, to, false, false)
    }

    pub fn rename_with(
        &mut self,
        from: (Ino, &str),
        to: (Ino, &str),
        no_replace: bool,
        exchange: bool,
    ) -> Result<Renamed, Refusal> {
        self.op(Rename {
            parent: from.0,
            name: from.1.into(),
            new_parent: to.0,
            new_name: to.1.into(),
            no_replace,
            exchange,
        })
    }

    pub fn unlink(&mut self, parent: Ino, name: &str) -> Result<Unlinked, Refusal> {
        let name = name.into();
        self.op(Unlink { parent, name })
    }

    pub fn rmdir(&mut self, parent: Ino, name: &str) -> Result<Unlinked, Refusal> {
        let name = name.into();
        self.op(Rmdir { parent, name })
    }

    pub fn map(&self) -> ClusterMap {
        cluster_map(&self.store).unwrap().unwrap()
    }

    pub fn open_set(&self) -> (SetId, Epoch) {
        let map = self.map();
        let set = map.sets.iter().find(|s| map.writable(s)).unwrap();
        (set.id, set.epoch)
    }

    /// A reference to a new chunk of that length.
    pub fn chunk(&mut self, len: u32) -> ChunkRef {
        if self.index == 1024 {
            let block = self.block;
            self.op(CloseBlock { block }).unwrap();
            self.block = self.grant();
        }
        let (set, set_epoch) = self.open_set();
        let id = ChunkId::new(VolumeId::ONLY, set, self.block, self.index);
        self.index += 1;
        ChunkRef {
            id,
            set_epoch,
            skip: 0,
            chunk_len: len,
            chunk_crc: id.index() as u32,
        }
    }

    pub fn edit(&mut self, offset: u64, len: u32) -> Edit {
        Edit {
            offset,
            len: len as u64,
            content: Some(self.chunk(len)),
        }
    }

    pub fn commit_of(ino: Ino, edits: Vec<Edit>) -> Commit {
        Commit {
            ino,
            edits,
            append: false,
            size_min: 0,
            expect_version: None,
            kill_suid: false,
            mtime: None,
            inline: Inline::Stored,
        }
    }

    /// Writes a new chunk and returns its id.
    pub fn write(&mut self, ino: Ino, offset: u64, len: u32) -> ChunkId {
        let edit = self.edit(offset, len);
        let id = edit.content.as_ref().unwrap().id;
        self.op(Self::commit_of(ino, vec![edit])).unwrap();
        id
    }

    /// Copies a range and returns the bytes copied, and the bytes behind them that the caller must copy.
    pub fn copy(
        &mut self,
        from: (Ino, u64),
        to: (Ino, u64),
        len: u64,
    ) -> Result<(u64, u64), Refusal> {
        let copy = CopyRange {
            from: from.0,
            from_offset: from.1,
            to: to.0,
            to_offset: to.1,
            len,
            kill_suid: false,
        };
        let copied = self.op(copy)?;
        Ok((copied.len, copied.through))
    }

    pub fn extents(&self, ino: Ino) -> Vec<Extent> {
        let q = Extents {
            ino,
            offset: 0,
            limit: 512,
        };
        self.query(q).unwrap().extents
    }

    /// Rows of the queue of chunks that a node has to delete.
    pub fn reap_rows(&self, node: u64) -> u64 {
        let rows = self.store.rows();
        let of_node = |t: Table, k: &[u8]| t == Table::ReapChunk && k[..8] == node.to_be_bytes();
        rows.filter(|(t, k, _)| of_node(*t, k)).count() as u64
    }

    pub fn counters(&self) -> Counters {
        self.query(GetCounters).unwrap()
    }

    /// Chunks that the queue of a node holds, whether ready or not.
    pub fn reaped(&self, node: u64) -> Vec<ChunkId> {
        let q = ChunkReap {
            node: NodeId(node),
            from: 0,
            now_ms: u64::MAX,
            limit: 1000,
        };
        let rows = self.query(q).unwrap().into_iter();
        rows.flat_map(|(_, what)| match what {
            ReapChunks::Chunks(ids) => ids,
            ReapChunks::UnnamedOf { .. } => Vec::new(),
        })
        .collect()
    }

    /// Keys of the objects that wait for deletion.
    pub fn reaped_objects(&self) -> Vec<String> {
        let q = ObjectReap {
            now_ms: u64::MAX,
            limit: 1000,
        };
        let rows = self.query(q).unwrap();
        rows.into_iter().map(|(_, key)| key).collect()
    }
}
