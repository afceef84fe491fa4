//! Rounds over a real state machine without its replication, and without a mover.

use super::*;
use lagan_meta::memory::MemoryStore;
use lagan_types::attr::ArchiveState;
use lagan_types::cluster::{ArchiveConfig, NodeInfo, NodeRole, NodeState};
use lagan_types::extent::{ChunkRef, Edit};
use lagan_types::op::{
    ArchiveFinish, ArchiveStart, Commit, Create, FileOp, FinishArchive, GrantBlock, Init, Op,
    OpenSession, RegisterNode, Release, SessionIdentity, StartArchive, SystemOp,
};
use lagan_types::{Answer, ChunkId, Command, FsError, Kind, NodeId, StoreId, Time};

/// Three nodes, two copies, an archive, and one session.
struct World {
    state: MemoryStore,
    session: SessionId,
    seq: u64,
    now_s: i64,
    /// Files that the session has open.
    open: Vec<Ino>,
    /// The mount does not answer what it has open.
    silent: bool,
}

fn node(n: u64) -> NodeInfo {
    NodeInfo {
        id: NodeId(0),
        name: format!("server-{n}"),
        store: StoreId(n.into()),
        boot: 1,
        addr: format!("127.0.0.{n}:1"),
        peer_addr: format!("127.0.0.{n}:2"),
        http: format!("127.0.0.{n}:3"),
        role: NodeRole::Storage,
        state: NodeState::Up,
        voter: true,
    }
}

impl World {
    fn new(high_water_percent: u8, low_water_percent: u8) -> Self {
        let mut world = World {
            state: MemoryStore::default(),
            session: SessionId::SYSTEM,
            seq: 0,
            now_s: 1_000,
            open: Vec::new(),
            silent: false,
        };
        let archive = ArchiveConfig {
            endpoint: None,
            region: "r".into(),
            bucket: "b".into(),
            prefix: "pre".into(),
        };
        let config = Config {
            archive: Some(archive),
            high_water_percent,
            low_water_percent,
            ..Config::default()
        };
        world.system(Init { config });
        for n in 1..=3 {
            world.system(RegisterNode { info: node(n) });
        }
        let identity = SessionIdentity {
            machine: "m".into(),
            boot: "b".into(),
            mount_point: "/mnt".into(),
            instance: 1,
        };
        let open = OpenSession {
            nonce: 1,
            identity,
            predecessor: None,
        };
        let Answer::Session { session, .. } = world.system(open) else {
            panic!("no session");
        };
        world.session = session;
        world
    }

    fn apply(
        &mut self,
        session: SessionId,
        seq: u64,
        op: impl Into<Op>,
    ) -> Result<Answer, FsError> {
        let command = Command {
            volume: VolumeId::ONLY,
            session,
            seq,
            unanswered: seq,
            time: Time {
                secs: self.now_s,
                nanos: 0,
            },
            op: op.into(),
        };
        lagan_meta::apply(&mut self.state, &command).unwrap()
    }

    fn system(&mut self, op: impl Into<SystemOp>) -> Answer {
        self.apply(SessionId::SYSTEM, 0, op.into()).unwrap()
    }

    fn op(&mut self, op: impl Into<FileOp>) -> Answer {
        self.seq += 1;
        self.apply(self.session, self.seq, op.into()).unwrap()
    }

    fn ask(&self, query: &Query) -> QueryAnswer {
        let answer = lagan_meta::query(&self.state, VolumeId::ONLY, SessionId::SYSTEM, query);
        answer.unwrap().unwrap()
    }

    fn config(&self) -> Config {
        let map = lagan_meta::cluster_map(&self.state).unwrap();
        map.unwrap().config
    }

    /// Makes a file of 1,000 bytes; it is archived a second after the one before.
    fn archived_file(&mut self, name: &str) -> Ino {
        let create = Create {
            parent: Ino::ROOT,
            name: name.into(),
            kind: Kind::File,
            mode: 0o644,
            umask: 0,
            uid: 0,
            gid: 0,
            rdev: 0,
            target: Vec::new(),
            exclusive: true,
        };
        let Answer::Created { attr, .. } = self.op(create) else {
            panic!("no file");
        };
        let Answer::Block { block, .. } = self.op(GrantBlock) else {
            panic!("no block");
        };
        let map = lagan_meta::cluster_map(&self.state).unwrap().unwrap();
        let set = map.sets.iter().find(|s| map.writable(s)).unwrap();
        let chunk = ChunkRef {
            id: ChunkId::new(VolumeId::ONLY, set.id, block, 0),
            set_epoch: set.epoch,
            skip: 0,
            chunk_len: 1_000,
            chunk_crc: 1,
        };
        self.op(Commit {
            ino: attr.ino,
            edits: vec![Edit {
                offset: 0,
                len: 1_000,
                content: Some(chunk),
            }],
            append: false,
            size_min: 0,
            expect_version: None,
            kill_suid: false,
        });
        self.now_s += 1;
        self.archive(attr.ino);
        attr.ino
    }

    fn archive(&mut self, ino: Ino) {
        let version = self.file(ino).1;
        let files = vec![ArchiveStart {
            ino,
            version,
            node: NodeId(1),
        }];
        let Answer::Attempts(attempts) = self.system(StartArchive { files }) else {
            panic!("no attempts");
        };
        let attempt = attempts[0].clone().unwrap();
        let files = vec![ArchiveFinish {
            ino,
            version,
            attempt: attempt.number,
            key: attempt.key,
            size: attempt.size,
            crc: 1,
        }];
        self.system(FinishArchive { files });
        assert_eq!(self.state(ino), ArchiveState::Archived);
    }

    fn file(&self, ino: Ino) -> (ArchiveState, u64) {
        match self.ask(&Query::File { ino }) {
            QueryAnswer::File { attr, .. } => (attr.archive, attr.version),
            other => panic!("{other:?}"),
        }
    }

    fn state(&self, ino: Ino) -> ArchiveState {
        self.file(ino).0
    }

    /// Releases those that are closed, as [`Leader::release_closed`] does.
    fn release_closed(&mut self, files: Vec<(Ino, u64)>) -> Released {
        let asked = files.len() as u64;
        if self.silent {
            return Released {
                unknown: asked,
                ..Released::default()
            };
        }
        let closed = files
            .into_iter()
            .filter(|(ino, _)| !self.open.contains(ino));
        let files: Vec<_> = closed.collect();
        let open = asked - files.len() as u64;
        match self.system(Release { files }) {
            Answer::Released { files, bytes } => Released {
                files,
                bytes,
                open,
                unknown: 0,
            },
            other => panic!("{other:?}"),
        }
    }

    /// Carries out a round for these disks of three nodes, if one is wanted.
    fn round(&mut self, disks: &[Disk]) -> Option<Round> {
        let mut round = Round::new(wanted(disks, &self.config(), 3)?);
        while let Some(query) = round.question() {
            let QueryAnswer::Releasable(page) = self.ask(&query) else {
                panic!("no files to release");
            };
            let files = round.choose(&page);
            if !files.is_empty() {
                let done = self.release_closed(files);
                round.note(&done);
            }
        }
        Some(round)
    }
}

fn disk(used_bytes: u64, total_bytes: u64) -> Disk {
    Disk {
        used_bytes,
        total_bytes,
    }
}

fn config(copies: u8) -> Config {
    Config {
        copies,
        high_water_percent: 80,
        low_water_percent: 60,
        ..Config::default()
    }
}

#[test]
fn nothing_below_the_high_mark() {
    let disks = [disk(80, 100), disk(10, 100), disk(5, 0)];
    assert_eq!(wanted(&disks, &config(2), 3), None);
    assert_eq!(wanted(&[], &config(2), 3), None);
}

#[test]
fn down_to_the_low_mark_of_the_fullest() {
    let disks = [disk(81, 100), disk(90, 100)];
    assert_eq!(wanted(&disks, &config(3), 3), Some(30));
    assert_eq!(wanted(&disks, &config(1), 3), Some(90));
    assert_eq!(wanted(&disks, &config(2), 1), Some(30));
}

#[test]
fn full_disk_releases_the_oldest_until_there_is_room() {
    let mut world = World::new(85, 76);
    let inos: Vec<Ino> = (0..4)
        .map(|i| world.archived_file(&i.to_string()))
        .collect();
    assert!(world.round(&[disk(8_500, 10_000)]).is_none());
    // 3 nodes, 2 copies: 1,500 bytes of files are 1,000 bytes a node
    let round = world.round(&[disk(8_600, 10_000)]).expect("a round");
    assert_eq!(round.released, 2_000);
    let states: Vec<_> = inos.iter().map(|ino| world.state(*ino)).collect();
    use ArchiveState::{Archived, Released};
    assert_eq!(states, [Released, Released, Archived, Archived]);
    let wrong = lagan_meta::invariants::check(&world.state);
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn open_files_are_left_out_until_they_are_closed() {
    let mut world = World::new(85, 50);
    let inos: Vec<Ino> = (0..3)
        .map(|i| world.archived_file(&i.to_string()))
        .collect();
    let full = [disk(8_600, 10_000)];
    world.open.push(inos[0]);
    let round = world.round(&full).expect("a round");
    assert_eq!((round.released, round.open), (2_000, 1));
    assert_eq!(world.state(inos[0]), ArchiveState::Archived);
    for ino in &inos[1..] {
        assert_eq!(world.state(*ino), ArchiveState::Released);
    }
    world.open.clear();
    let round = world.round(&full).expect("a round");
    assert_eq!((round.released, round.open), (1_000, 0));
    assert_eq!(world.state(inos[0]), ArchiveState::Released);
}

#[test]
fn mount_that_does_not_answer_ends_the_round_and_the_next_one_asks_again() {
    let mut world = World::new(85, 50);
    let ino = world.archived_file("f");
    let full = [disk(8_600, 10_000)];
    world.silent = true;
    let round = world.round(&full).expect("a round");
    assert!(round.over && round.released == 0);
    assert_eq!(world.state(ino), ArchiveState::Archived);
    world.silent = false;
    world.round(&full).expect("a round");
    assert_eq!(world.state(ino), ArchiveState::Released);
}

#[test]
fn round_goes_from_page_to_page_and_ends_behind_the_last() {
    let page = |from: u64| -> Vec<Row> {
        let rows = from..from + u64::from(PAGE);
        rows.map(|n| (n, Ino(n), 1, 10)).collect()
    };
    let mut round = Round::new(u64::MAX);
    for from in [0, u64::from(PAGE)] {
        let query = round.question().expect("a page");
        assert!(matches!(query, Query::Releasable { from: (ms, _), .. } if ms + 1 >= from));
        let files = round.choose(&page(from));
        assert_eq!(files.len(), PAGE as usize);
        round.note(&Released {
            files: files.len() as u64,
            bytes: 10 * files.len() as u64,
            ..Released::default()
        });
    }
    assert_eq!(round.choose(&[]), []);
    assert_eq!(round.question(), None);
    assert_eq!(round.released, 20 * u64::from(PAGE));
}
