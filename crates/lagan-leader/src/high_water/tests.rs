//! The loop and its rounds over a real state machine, without its replication.

use super::*;
use lagan_meta::kv::StoreError;
use lagan_meta::memory::MemoryStore;
use lagan_types::answer::ReleasedFiles;
use lagan_types::attr::ArchiveState::{self, Archived, Released as Gone};
use lagan_types::cluster::{ArchiveConfig, NodeInfo, NodeRole, NodeState};
use lagan_types::extent::{ChunkRef, Edit};
use lagan_types::op::{
    ArchiveFinish, ArchiveStart, Commit, Create, FileOp, FinishArchive, GrantBlock, Init, Inline,
    Op, OpenSession, RegisterNode, Release, SessionIdentity, SetConfig, StartArchive, SystemOp,
};
use lagan_types::query::{File, Releasable, ReleasableFile};
use lagan_types::{
    Answer, Ask, BlockId, ChunkId, Command, Kind, NodeId, Refusal, SessionId, StoreId, Time,
    VolumeId, answer_to,
};
use parking_lot::{Mutex, MutexGuard};
use std::collections::BTreeSet;
use std::time::Instant;

/// Three nodes, two copies, an archive, and one session.
struct World {
    state: MemoryStore,
    session: SessionId,
    seq: u64,
    /// Ids for chunks that were granted and not used yet.
    ids: Vec<(BlockId, u16)>,
    now_s: i64,
    disks: Vec<Disk>,
    /// Files that the session has open.
    open: Vec<Ino>,
    /// The mount does not answer what it has open.
    silent: bool,
    /// Commands fail.
    refuses: bool,
    /// Another node leads.
    follows: bool,
    /// Reads of the state until another node leads, if it will.
    reads_left: Option<u32>,
    /// Reads of the state so far.
    reads: u32,
    /// The next look panics.
    defect: bool,
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
            ids: Vec::new(),
            now_s: 1_000,
            disks: Vec::new(),
            open: Vec::new(),
            silent: false,
            refuses: false,
            follows: false,
            reads_left: None,
            reads: 0,
            defect: false,
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
        world.session = world.system(open).session;
        world
    }

    fn apply(
        &mut self,
        session: SessionId,
        seq: u64,
        op: impl Into<Op>,
    ) -> Result<Answer, Refusal> {
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

    fn system<A>(&mut self, op: A) -> A::Answer
    where
        A: Ask<Request = SystemOp, Reply = Answer>,
    {
        let answer = self.apply(SessionId::SYSTEM, 0, op.into());
        answer_to::<A>(answer).unwrap()
    }

    fn op<A>(&mut self, op: A) -> A::Answer
    where
        A: Ask<Request = FileOp, Reply = Answer>,
    {
        self.seq += 1;
        let answer = self.apply(self.session, self.seq, op.into());
        answer_to::<A>(answer).unwrap()
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
        let attr = self.op(create).attr;
        if self.ids.is_empty() {
            let granted = self.op(GrantBlock);
            self.ids = (0..granted.count)
                .map(|index| (granted.block, index))
                .collect();
        }
        let (block, index) = self.ids.pop().unwrap();
        let map = lagan_meta::cluster_map(&self.state).unwrap().unwrap();
        let set = map.sets.iter().find(|s| map.writable(s)).unwrap();
        let chunk = ChunkRef {
            id: ChunkId::new(VolumeId::ONLY, set.id, block, index),
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
            mtime: None,
            inline: Inline::Stored,
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
        let attempts = self.system(StartArchive { files });
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
        let found = lagan_meta::read(&self.state, File { ino });
        let attr = found.unwrap().unwrap().attr;
        (attr.archive, attr.version)
    }

    fn state(&self, ino: Ino) -> ArchiveState {
        self.file(ino).0
    }
}

/// The world as the loop sees it.
struct Ground {
    world: Mutex<World>,
    turn: tokio::sync::Mutex<()>,
}

impl Ground {
    fn new(world: World) -> Arc<Self> {
        Arc::new(Ground {
            world: Mutex::new(world),
            turn: tokio::sync::Mutex::default(),
        })
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock()
    }

    /// Runs the loop, with short pauses.
    fn keep(self: &Arc<Self>, pause: Duration) -> AbortOnDropHandle<()> {
        let times = Times {
            look: Duration::from_millis(2),
            pause,
        };
        AbortOnDropHandle::new(tokio::spawn(keep(self.clone(), times)))
    }

    async fn until(&self, what: &str, ok: impl Fn(&World) -> bool) {
        let end = Instant::now() + Duration::from_secs(60);
        while !ok(&self.world()) {
            assert!(Instant::now() < end, "{what}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

impl Edge for Ground {
    type State = MemoryStore;

    fn leads(&self) -> bool {
        !self.world().follows
    }

    fn disks(&self) -> Vec<Disk> {
        let mut world = self.world();
        assert!(
            !std::mem::take(&mut world.defect),
            "the defect of this test"
        );
        world.disks.clone()
    }

    async fn state(&self) -> Result<MemoryStore, ProposeError> {
        let mut world = self.world();
        if world.reads_left == Some(0) {
            return Err(ProposeError::NotLeader { leader: None });
        }
        world.reads_left = world.reads_left.map(|left| left - 1);
        world.reads += 1;
        Ok(world.state.clone())
    }

    async fn release(&self, op: Release) -> Option<Result<ReleasedFiles, Refusal>> {
        let mut world = self.world();
        (!world.refuses).then(|| {
            let answer = world.apply(SessionId::SYSTEM, 0, SystemOp::from(op));
            answer_to::<Release>(answer)
        })
    }

    fn turn(&self) -> &tokio::sync::Mutex<()> {
        &self.turn
    }

    async fn closed(
        &self,
        inos: Vec<Ino>,
        sessions: Vec<SessionId>,
        _end: tokio::time::Instant,
    ) -> Option<BTreeSet<Ino>> {
        let world = self.world();
        assert_eq!(sessions, [world.session]);
        let closed = inos.into_iter().filter(|ino| !world.open.contains(ino));
        (!world.silent).then(|| closed.collect())
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

/// A world whose fullest disk is above the high mark, and its files.
fn full_world(low_water_percent: u8, files: usize) -> (Arc<Ground>, Vec<Ino>) {
    let mut world = World::new(85, low_water_percent);
    world.disks = vec![disk(100, 10_000), disk(8_600, 10_000)];
    let names = (0..files).map(|n| n.to_string());
    let inos = names.map(|name| world.archived_file(&name)).collect();
    (Ground::new(world), inos)
}

fn states(ground: &Ground, inos: &[Ino]) -> Vec<ArchiveState> {
    let world = ground.world();
    inos.iter().map(|ino| world.state(*ino)).collect()
}

#[tokio::test]
async fn full_disk_releases_the_oldest_until_there_is_room() {
    let (ground, inos) = full_world(76, 4);
    ground.world().disks = vec![disk(8_500, 10_000)];
    assert_eq!(release_if_full(&*ground).await.unwrap(), 0);
    ground.world().disks = vec![disk(8_600, 10_000)];
    // 3 nodes, 2 copies: 1,500 bytes of files are 1,000 bytes a node
    assert_eq!(release_if_full(&*ground).await.unwrap(), 2_000);
    assert_eq!(states(&ground, &inos), [Gone, Gone, Archived, Archived]);
    let wrong = lagan_meta::invariants::check(&ground.world().state);
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test]
async fn open_files_are_left_out_until_they_are_closed() {
    let (ground, inos) = full_world(50, 3);
    ground.world().open.push(inos[0]);
    assert_eq!(release_if_full(&*ground).await.unwrap(), 2_000);
    assert_eq!(states(&ground, &inos), [Archived, Gone, Gone]);
    ground.world().open.clear();
    assert_eq!(release_if_full(&*ground).await.unwrap(), 1_000);
    assert_eq!(states(&ground, &inos), [Gone, Gone, Gone]);
}

#[tokio::test]
async fn mount_that_does_not_answer_ends_the_round_and_the_next_one_asks_again() {
    let (ground, inos) = full_world(50, 1);
    ground.world().silent = true;
    assert_eq!(release_if_full(&*ground).await.unwrap(), 0);
    assert_eq!(states(&ground, &inos), [Archived]);
    ground.world().silent = false;
    assert_eq!(release_if_full(&*ground).await.unwrap(), 1_000);
    assert_eq!(states(&ground, &inos), [Gone]);
}

#[tokio::test]
async fn command_that_fails_ends_the_round() {
    let (ground, inos) = full_world(50, 1);
    ground.world().refuses = true;
    assert_eq!(release_if_full(&*ground).await.unwrap(), 0);
    // one for the water marks, one for the page, one for the sessions: no other page
    assert_eq!(ground.world().reads, 3);
    assert_eq!(states(&ground, &inos), [Archived]);
}

#[tokio::test]
async fn lost_leadership_ends_the_round_and_what_was_released_counts() {
    let (ground, inos) = full_world(0, PAGE as usize + 1);
    ground.world().disks = vec![disk(10_000_000, 10_000_000)];
    for (reads, released) in [(0, None), (1, None), (2, None), (3, Some(1_000 * PAGE))] {
        {
            let mut world = ground.world();
            (world.reads, world.reads_left) = (0, Some(reads));
        }
        let looked = release_if_full(&*ground).await;
        assert_eq!(looked.ok(), released.map(u64::from), "{reads} reads");
        assert_eq!(ground.world().reads, reads);
    }
    let states = states(&ground, &inos);
    let (last, first) = states.split_last().unwrap();
    assert!(first.iter().all(|state| *state == Gone));
    assert_eq!(*last, Archived);
}

#[tokio::test]
async fn cluster_without_files_or_without_an_archive_releases_nothing() {
    let (ground, _) = full_world(50, 0);
    assert_eq!(release_if_full(&*ground).await.unwrap(), 0);
    let (ground, inos) = full_world(50, 1);
    let mut config = config(2);
    config.archive = None;
    ground.world().system(SetConfig { config });
    assert_eq!(release_if_full(&*ground).await.unwrap(), 0);
    assert_eq!(states(&ground, &inos), [Archived]);
}

#[tokio::test]
async fn rounds_are_apart_and_looks_are_not() {
    // each round is to release one file
    let (ground, inos) = full_world(84, 2);
    let _kept = ground.keep(Duration::from_secs(3600));
    ground.until("a round", |w| w.state(inos[0]) == Gone).await;
    let reads = ground.world().reads;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(ground.world().reads, reads, "it pauses");
    assert_eq!(states(&ground, &inos), [Gone, Archived]);

    let (ground, inos) = full_world(84, 2);
    let _kept = ground.keep(Duration::from_millis(2));
    ground
        .until("two rounds", |w| w.state(inos[1]) == Gone)
        .await;
    // there are no more files: no round, no pause
    let (ground, _) = full_world(84, 0);
    let _kept = ground.keep(Duration::from_secs(3600));
    ground.until("looks", |w| w.reads > 10).await;
}

#[tokio::test]
async fn only_the_leader_looks() {
    let (ground, inos) = full_world(50, 1);
    ground.world().follows = true;
    let _kept = ground.keep(Duration::ZERO);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(ground.world().reads, 0);
    ground.world().follows = false;
    ground.until("a round", |w| w.state(inos[0]) == Gone).await;
}

#[tokio::test]
async fn defect_ends_one_look_and_a_pause_follows() {
    let (ground, inos) = full_world(50, 1);
    ground.world().defect = true;
    let kept = ground.keep(Duration::from_secs(3600));
    ground.until("the defect", |w| !w.defect).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(ground.world().reads, 0, "it pauses");
    assert!(!kept.is_finished());

    ground.world().defect = true;
    let _kept = ground.keep(Duration::from_millis(2));
    ground.until("a round", |w| w.state(inos[0]) == Gone).await;
}

#[tokio::test]
async fn look_ends_with_the_loop() {
    let (ground, _) = full_world(50, 1);
    let turn = ground.turn.lock().await;
    let kept = ground.keep(Duration::ZERO);
    ground.until("a look", |w| w.reads >= 2).await;
    kept.abort();
    drop(kept);
    let end = Instant::now() + Duration::from_secs(60);
    // the loop and its look have the others
    while Arc::strong_count(&ground) > 1 {
        assert!(Instant::now() < end, "the look goes on");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    drop(turn);
}

#[test]
fn failure_is_news_until_it_changes() {
    let busy = ReleaseError::Raft(ProposeError::Busy);
    let store = ReleaseError::Store(StoreError::Io("a disk".into()));
    let follows = ReleaseError::Raft(ProposeError::NotLeader { leader: None });
    let mut failures = Failures::default();
    assert!(!failures.is_news(None));
    assert!(failures.is_news(Some(&store)));
    assert!(!failures.is_news(Some(&store)));
    assert!(failures.is_news(Some(&busy)));
    assert!(!failures.is_news(Some(&follows)));
    assert!(!failures.is_news(Some(&busy)));
    assert!(!failures.is_news(None));
    assert!(failures.is_news(Some(&busy)));
}

#[test]
fn round_goes_from_page_to_page_and_ends_behind_the_last() {
    let page = |from: u64| -> Vec<ReleasableFile> {
        let rows = from..from + u64::from(PAGE);
        rows.map(|n| ReleasableFile {
            archived_ms: n,
            ino: Ino(n),
            version: 1,
            bytes: 10,
        })
        .collect()
    };
    let mut round = Round::new(u64::MAX);
    for from in [0, u64::from(PAGE)] {
        let query = round.question().expect("a page");
        assert!(matches!(query, Releasable { from: (ms, _), .. } if ms + 1 >= from));
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
