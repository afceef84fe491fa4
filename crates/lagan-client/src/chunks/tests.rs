use super::*;
use crate::chunks::fetch::{ATTEMPT, HEDGE};
use crate::chunks::piece::Piece;
use crate::chunks::range::{Ask, UNREACHABLE_PAUSE};
use crate::chunks::spec::{ChunkSpec, Missing};
use crate::leader::fake::{self, Said, Served, Servers};
use blocks::UNIT_LEN;
use bytes::{Bytes, BytesMut};
use lagan_types::answer::GrantedBlock;
use lagan_types::attr::{ArchiveState, Attr};
use lagan_types::chunk::block_crcs;
use lagan_types::cluster::ClusterMap;
use lagan_types::limits::BLOCK_LEN;
use lagan_types::message::{
    ArchiveReply, ArchiveRequest, Blocks, ChunkRefusal, ChunkReply, ChunkRequest, LeaderRefusal,
    MetaReply, MetaRequest, Mutate, Recalled,
};
use lagan_types::op::GrantBlock;
use lagan_types::query::{FileInfo, Object};
use lagan_types::{
    Answer, BlockId, ChunkId, Epoch, FsError, Ino, Kind, NodeId, Query, QueryAnswer, SetId, Time,
    VolumeId,
};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::time::Instant;

const INO: Ino = Ino(7);
const VERSION: u64 = 3;
/// The place in the file of what [`Cluster::read`] reads.
const TEN: Option<(Ino, u64)> = Some((INO, BLOCK_LEN as u64));

/// How a node treats the chunk.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Replica {
    Good,
    /// Has other bytes than it should.
    Flipped,
    /// Says that it is damaged.
    Damaged,
    Absent,
    /// The connection ends.
    Refuses,
    Silent,
    /// Takes no chunk for want of space.
    Full,
}

use Replica::{Absent, Damaged, Flipped, Full, Good, Refuses, Silent};

/// Everything that answers, and what it was asked.
#[derive(Debug)]
struct World {
    data: Bytes,
    replicas: BTreeMap<u64, Replica>,
    /// The leader's map; the mount starts with its first state.
    map: ClusterMap,
    /// The leader says nothing.
    no_leader: bool,
    /// The object of that version of the file, if it is archived.
    archived: Option<u64>,
    /// Nodes that were asked to read, in order.
    asked: Vec<u64>,
    /// Nodes that were told of a bad replica, and what names it.
    reports: Vec<(u64, Option<(Ino, u64)>)>,
    /// Sets and epochs of chunks that were written.
    written: Vec<(SetId, Epoch)>,
    recalls: u32,
}

#[derive(Debug)]
struct Fake(Mutex<World>);

impl Servers for Fake {
    fn meta(&self, request: &MetaRequest) -> Said<Result<MetaReply, LeaderRefusal>> {
        let world = self.0.lock();
        if world.no_leader {
            return Said::Nothing;
        }
        Said::This(Ok(match request {
            MetaRequest::GetMap(ask) => {
                MetaReply::Map((world.map.version > ask.known).then(|| world.map.clone()))
            }
            MetaRequest::ReadState(ask) => {
                assert!(matches!(ask.query, Query::File(_)), "{ask:?}");
                MetaReply::Read(Ok(QueryAnswer::File(world.file())).into())
            }
            MetaRequest::Mutate(Mutate { command, .. }) => {
                assert_eq!(command.op, GrantBlock.into());
                let (block, count) = (BlockId(1), 100);
                MetaReply::Mutated(Ok(Answer::Block(GrantedBlock { block, count })).into())
            }
            other => panic!("{other:?}"),
        }))
    }

    fn chunk(&self, addr: SocketAddr, request: &ChunkRequest) -> Said<Served<ChunkRequest>> {
        let mut world = self.0.lock();
        let node = (1..).find(|&n| addr == fake::address(n).parse().unwrap());
        let node = node.unwrap();
        let replica = world.replicas.get(&node).copied().unwrap_or(Absent);
        match request {
            ChunkRequest::ReadChunk(ask) => {
                world.asked.push(node);
                world.read(replica, ask.offset, ask.len)
            }
            ChunkRequest::ReportBad(_) => {
                world.reports.push((node, None));
                done()
            }
            ChunkRequest::ReportReplica(report) => {
                world
                    .reports
                    .push((node, Some((report.ino, report.offset))));
                done()
            }
            ChunkRequest::WriteChunk(ask) => world.write(ask.id.set(), ask.set_epoch),
            other => panic!("{other:?}"),
        }
    }

    fn archive(&self, _: SocketAddr, request: &ArchiveRequest) -> Said<Served<ArchiveRequest>> {
        let ArchiveRequest::Recall(ask) = request else {
            panic!("{request:?}");
        };
        let mut world = self.0.lock();
        world.recalls += 1;
        assert_eq!((ask.ino, Some(ask.version)), (INO, world.archived));
        let from = ask.offset as usize;
        let data = world.data.slice(from..from + ask.len as usize);
        let crc = crc32fast::hash(&data);
        Said::This((Ok(ArchiveReply::Recalled(Recalled { crc })), data))
    }
}

fn done() -> Said<Served<ChunkRequest>> {
    Said::This((Ok(ChunkReply::Done(())), Bytes::new()))
}

impl World {
    fn read(&self, replica: Replica, offset: u32, len: u32) -> Said<Served<ChunkRequest>> {
        let first = offset / BLOCK_LEN;
        let from = (first * BLOCK_LEN) as usize;
        let to = (offset + len).next_multiple_of(BLOCK_LEN) as usize;
        let mut data = self.data.slice(from..to.min(self.data.len()));
        let blocks = Blocks {
            chunk_len: self.data.len() as u32,
            first_block: first,
            crcs: block_crcs(&data),
        };
        match replica {
            Good | Full => {}
            Flipped => {
                let mut other = BytesMut::from(&data[..]);
                other[0] ^= 1;
                data = other.freeze();
            }
            Damaged => return Said::This((Err(ChunkRefusal::Damaged), Bytes::new())),
            Absent => return Said::This((Err(ChunkRefusal::NotFound), Bytes::new())),
            Refuses => return Said::Closed,
            Silent => return Said::Nothing,
        }
        Said::This((Ok(ChunkReply::Blocks(blocks)), data))
    }

    fn write(&mut self, set: SetId, epoch: Epoch) -> Said<Served<ChunkRequest>> {
        let row = self.map.set(set).unwrap();
        let members = |of: Replica| {
            let is = |n: &&NodeId| self.replicas.get(&n.0) == Some(&of);
            row.nodes.iter().filter(is).copied().collect::<Vec<_>>()
        };
        let reply = if row.epoch != epoch {
            Err(ChunkRefusal::StaleEpoch)
        } else if !members(Full).is_empty() {
            Err(ChunkRefusal::Full)
        } else if !members(Silent).is_empty() {
            Err(ChunkRefusal::MembersFailed(members(Silent)))
        } else {
            self.written.push((set, epoch));
            Ok(ChunkReply::Done(()))
        };
        Said::This((reply, Bytes::new()))
    }

    fn file(&self) -> FileInfo {
        let time = Time::default();
        FileInfo {
            attr: Attr {
                ino: INO,
                kind: Kind::File,
                mode: 0o644,
                uid: 0,
                gid: 0,
                nlink: 1,
                size: self.data.len() as u64,
                allocated: 0,
                rdev: 0,
                atime: time,
                mtime: time,
                ctime: time,
                btime: time,
                version: VERSION,
                archive: ArchiveState::Local,
            },
            extents: Vec::new(),
            extent_count: 0,
            object: self.archived.map(|version| Object {
                version,
                key: "key".into(),
                size: self.data.len() as u64,
                crc: 0,
            }),
            path: None,
        }
    }
}

/// The chunks storey over servers that are not there.
struct Cluster {
    fake: Arc<Fake>,
    chunks: Arc<Chunks>,
}

impl Cluster {
    /// A chunk of 3.5 units in set 1, whose members are nodes 1, 2, ... in that order.
    fn new(replicas: &[Replica]) -> Self {
        let members: Vec<u64> = (1..=replicas.len() as u64).collect();
        Self::with_sets(replicas, &[&members])
    }

    fn with_sets(replicas: &[Replica], sets: &[&[u64]]) -> Self {
        let data: Vec<u8> = (0..3 * UNIT_LEN + UNIT_LEN / 2)
            .map(|i| (i / 7) as u8)
            .collect();
        let fake = Arc::new(Fake(Mutex::new(World {
            data: data.into(),
            replicas: (1..).zip(replicas.iter().copied()).collect(),
            map: fake::map(sets),
            no_leader: false,
            archived: None,
            asked: Vec::new(),
            reports: Vec::new(),
            written: Vec::new(),
            recalls: 0,
        })));
        let joined = fake::joined(fake.clone(), fake.0.lock().map.clone());
        let tasks = Arc::new(Tasks::new());
        let files = Weak::<fake::Nobody>::new();
        let leader = Leader::new(joined, fake::options(), tasks.clone(), files);
        let chunks = Chunks::new(leader, tasks, 32 << 20);
        Cluster { fake, chunks }
    }

    fn world(&self) -> parking_lot::MutexGuard<'_, World> {
        self.fake.0.lock()
    }

    fn data(&self) -> Bytes {
        self.world().data.clone()
    }

    fn spec(&self) -> ChunkSpec {
        let data = self.data();
        ChunkSpec {
            id: ChunkId::new(VolumeId::ONLY, SetId(1), BlockId(1), 1),
            len: data.len() as u32,
            crc: crc32fast::hash(&data),
            named: Some((INO, 0)),
        }
    }

    /// Ten bytes from the second block on; [`TEN`] names them.
    async fn read(&self, ask: Ask) -> Result<Bytes, Missing> {
        let chunk = self.spec().further(u64::from(BLOCK_LEN));
        self.chunks.bytes(ask, chunk, BLOCK_LEN, 10).await
    }

    fn ten(&self) -> Bytes {
        let from = BLOCK_LEN as usize;
        self.data().slice(from..from + 10)
    }

    /// Everything that was reported, by node, once no report is under way.
    async fn reports(&self) -> Vec<(u64, Option<(Ino, u64)>)> {
        self.chunks.tasks.idle().await;
        let mut reports = self.world().reports.clone();
        reports.sort();
        reports
    }
}

/// A first look, by a map that may be old.
fn first() -> Ask {
    within(Duration::from_secs(60))
}

fn within(time: Duration) -> Ask {
    Ask {
        version: VERSION,
        whole: false,
        sure: false,
        until: Instant::now() + time,
    }
}

/// A look by a map that was fetched just now.
fn sure() -> Ask {
    let sure = true;
    Ask { sure, ..first() }
}

#[tokio::test]
async fn a_replica_that_refuses_is_followed_by_the_next_and_asked_last_after_that() {
    let cluster = Cluster::new(&[Refuses, Good, Good]);
    assert_eq!(cluster.read(first()).await, Ok(cluster.ten()));
    assert_eq!(cluster.world().asked, [1, 2]);
    // Other units, since what was read is kept; the order turns with each.
    for unit in 1..4 {
        let at = unit * UNIT_LEN;
        let other = cluster.chunks.bytes(first(), cluster.spec(), at, 10);
        assert!(other.await.is_ok());
    }
    assert_eq!(cluster.world().asked, [1, 2, 2, 3, 2]);
    assert_eq!(cluster.reports().await, []);
}

#[tokio::test]
async fn a_damaged_replica_is_followed_by_the_next_and_reported() {
    for kind in [Damaged, Flipped] {
        let cluster = Cluster::new(&[kind, Good]);
        assert_eq!(cluster.read(first()).await, Ok(cluster.ten()), "{kind:?}");
        assert_eq!(cluster.world().asked, [1, 2]);
        assert_eq!(cluster.reports().await, [(1, TEN)]);
    }
}

#[tokio::test]
async fn a_replica_that_one_node_lacks_is_reported_once_another_gave_it() {
    let cluster = Cluster::new(&[Absent, Refuses, Good]);
    assert_eq!(cluster.read(first()).await, Ok(cluster.ten()));
    assert_eq!(cluster.world().asked, [1, 2, 3]);
    assert_eq!(cluster.reports().await, [(1, TEN)]);
}

#[tokio::test]
async fn a_silent_replica_is_not_waited_for() {
    let cluster = Cluster::new(&[Silent, Good, Good]);
    let start = Instant::now();
    assert_eq!(cluster.read(first()).await, Ok(cluster.ten()));
    assert!((HEDGE..ATTEMPT).contains(&start.elapsed()));
    assert_eq!(cluster.world().asked, [1, 2]);
    assert!(cluster.chunks.leader.cluster().suspects() == [NodeId(1)]);
}

#[tokio::test]
async fn one_has_it_not_and_another_is_silent_means_look_at_the_map() {
    let cluster = Cluster::new(&[Absent, Silent]);
    let start = Instant::now();
    let everywhere = false;
    let missing = Err(Missing::NotFound { everywhere });
    assert_eq!(cluster.read(first()).await, missing);
    assert!(start.elapsed() < ATTEMPT);
}

#[tokio::test]
async fn what_no_replica_has_is_missing_by_an_old_map_and_read_from_the_object_by_a_new_one() {
    let cluster = Cluster::new(&[Absent, Absent]);
    cluster.world().archived = Some(VERSION);
    let everywhere = true;
    let missing = Err(Missing::NotFound { everywhere });
    assert_eq!(cluster.read(first()).await, missing);
    assert_eq!(cluster.world().recalls, 0);
    assert_eq!(cluster.read(sure()).await, Ok(cluster.ten()));
    assert_eq!(cluster.reports().await, [(1, TEN), (2, TEN)]);
}

#[tokio::test]
async fn damaged_everywhere_is_read_from_the_object_of_that_version_only() {
    let cluster = Cluster::new(&[Damaged, Flipped]);
    let corrupt = Err(Missing::Failed(FsError::Corrupt));
    assert_eq!(cluster.read(first()).await, corrupt);
    cluster.world().archived = Some(VERSION - 1);
    assert_eq!(cluster.read(first()).await, corrupt);
    assert_eq!(cluster.world().recalls, 0);
    cluster.world().archived = Some(VERSION);
    assert_eq!(cluster.read(first()).await, Ok(cluster.ten()));
}

#[tokio::test]
async fn a_chunk_whose_replicas_moved_is_found_by_the_newer_map() {
    let cluster = Cluster::new(&[Refuses, Refuses]);
    {
        let mut world = cluster.world();
        world.replicas.insert(5, Good);
        world.map.version += 1;
        world.map.sets[0].nodes = vec![NodeId(5)];
    }
    assert_eq!(cluster.read(first()).await, Ok(cluster.ten()));
    assert_eq!(cluster.world().asked, [1, 2, 5]);
}

#[tokio::test]
async fn a_set_that_is_gone_from_the_newest_map_is_not_found() {
    let cluster = Cluster::new(&[Refuses]);
    {
        let mut world = cluster.world();
        world.map.version += 1;
        world.map.sets.clear();
    }
    let everywhere = true;
    let missing = Err(Missing::NotFound { everywhere });
    assert_eq!(cluster.read(first()).await, missing);
}

#[tokio::test]
async fn while_no_node_answers_the_object_stands_in_and_nobody_is_reported() {
    let cluster = Cluster::new(&[Refuses, Refuses]);
    cluster.world().archived = Some(VERSION);
    assert_eq!(cluster.read(first()).await, Ok(cluster.ten()));
    assert_eq!(cluster.world().recalls, 1);
    assert_eq!(cluster.reports().await, []);
}

#[tokio::test]
async fn nodes_that_come_back_are_asked_again() {
    let cluster = Cluster::new(&[Refuses, Refuses]);
    let (back, bytes) = tokio::join!(
        async {
            while cluster.world().asked.len() < 2 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            cluster.world().replicas.insert(2, Good);
        },
        cluster.read(first())
    );
    assert_eq!((back, bytes), ((), Ok(cluster.ten())));
}

#[tokio::test]
async fn nodes_are_not_asked_again_at_once_where_no_object_can_stand_in() {
    let cluster = Cluster::new(&[Refuses, Refuses]);
    let (spec, mut out) = (cluster.spec(), BytesMut::new());
    let unnamed = ChunkSpec {
        named: None,
        ..spec
    };
    // There is time for the two rounds that find out, and not for the pause.
    let ask = Ask::replicas(Instant::now() + UNREACHABLE_PAUSE);
    let read = cluster.chunks.range(ask, unnamed, 0, 10, &mut out).await;
    assert_eq!(read, Err(Missing::Failed(FsError::Io)));
    assert!(cluster.world().asked.len() <= 4);
}

#[tokio::test]
async fn what_cannot_be_had_in_time_is_an_error_at_the_deadline() {
    let cluster = Cluster::new(&[Refuses, Refuses]);
    let time = Duration::from_millis(1200);
    // Without a leader the old map must do.
    for no_leader in [false, true] {
        cluster.world().no_leader = no_leader;
        let start = Instant::now();
        let read = cluster.read(within(time)).await;
        assert_eq!(read, Err(Missing::Failed(FsError::Io)));
        // Or before it, if the next pause would not end in time. A busy machine wakes
        // its tasks late.
        assert!(start.elapsed() < time + Duration::from_secs(2));
    }
}

#[tokio::test]
async fn a_unit_is_fetched_once_for_all_that_ask_for_it() {
    let cluster = Cluster::new(&[Silent, Good]);
    let (whole, spec) = (true, cluster.spec());
    let ask = Ask { whole, ..first() };
    let (a, b, c) = tokio::join!(
        cluster.chunks.bytes(ask, spec, 0, 10),
        cluster.chunks.bytes(first(), spec, 100, 10),
        cluster.chunks.bytes(ask, spec, UNIT_LEN - 10, 10)
    );
    assert!(a.is_ok() && b.is_ok() && c.is_ok());
    assert_eq!(cluster.world().asked, [1, 2]);
    assert!(!cluster.chunks.units.is_under_way((spec.id, 0)));
}

#[tokio::test]
async fn a_range_is_read_by_units_each_named_where_it_lies() {
    // The order turns with each unit, and each finds a bad one first.
    let cluster = Cluster::new(&[Flipped, Flipped, Flipped, Good]);
    let spec = cluster.spec().further(5000);
    let (at, len) = (UNIT_LEN - 10, UNIT_LEN + 20);
    let mut out = BytesMut::new();
    let read = cluster.chunks.range(first(), spec, at, len, &mut out);
    assert_eq!(read.await, Ok(()));
    assert!(out == cluster.data()[at as usize..(at + len) as usize]);
    assert_eq!(cluster.world().asked, [1, 2, 3, 4, 2, 3, 4, 3, 4]);
    let [first, second, third] =
        [5000, 5010, 5010 + u64::from(UNIT_LEN)].map(|offset| Some((INO, offset)));
    let reports = [
        (1, first),
        (2, first),
        (2, second),
        (3, first),
        (3, second),
        (3, third),
    ];
    assert_eq!(cluster.reports().await, reports);
}

async fn store(cluster: &Cluster, time: Duration) -> Result<(), FsError> {
    let piece = Piece::new(0, Bytes::from_static(b"bytes"));
    let until = Instant::now() + time;
    let stored = cluster
        .chunks
        .store_all(std::slice::from_ref(&piece), until)
        .await;
    assert_eq!(stored, piece.stored().map(|_| ()));
    stored
}

const LONG: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_chunk_goes_to_another_set_when_a_member_fails_or_is_full() {
    for kind in [Silent, Full] {
        let cluster = Cluster::with_sets(&[Good, kind, Good, Good], &[&[1, 2], &[3, 4]]);
        for _ in 0..2 {
            assert_eq!(store(&cluster, LONG).await, Ok(()), "{kind:?}");
        }
        let second = (SetId(2), Epoch(1));
        assert_eq!(cluster.world().written, [second, second]);
    }
}

#[tokio::test]
async fn a_chunk_for_a_set_that_changed_is_written_by_the_newer_map() {
    let cluster = Cluster::new(&[Good, Good]);
    {
        let mut world = cluster.world();
        world.map.version += 1;
        world.map.sets[0].epoch = Epoch(2);
    }
    assert_eq!(store(&cluster, LONG).await, Ok(()));
    assert_eq!(cluster.world().written, [(SetId(1), Epoch(2))]);
}

#[tokio::test]
async fn no_set_with_room_is_no_space_at_once() {
    let cluster = Cluster::new(&[Good, Full]);
    assert_eq!(store(&cluster, LONG).await, Err(FsError::NoSpace));
}

#[tokio::test]
async fn a_piece_is_sent_once_and_its_error_stays() {
    let cluster = Cluster::new(&[Good]);
    let piece = Piece::new(0, Bytes::from_static(b"bytes"));
    assert_eq!(piece.stored().err(), Some(FsError::Io), "nobody has tried");
    let until = Instant::now() + LONG;
    let (a, b) = tokio::join!(
        cluster.chunks.store_piece(&piece, until),
        cluster.chunks.store_piece(&piece, until)
    );
    assert_eq!((a, b), (Ok(()), Ok(())));
    assert_eq!(cluster.world().written.len(), 1);
    cluster.world().replicas.insert(1, Full);
    let (lost, other) = (
        Piece::new(0, Bytes::from_static(b"lost")),
        Piece::new(9, Bytes::from_static(b"other")),
    );
    let pieces = [lost.clone(), other];
    let stored = cluster.chunks.store_all(&pieces, until).await;
    assert_eq!(stored, Err(FsError::NoSpace));
    cluster.world().replicas.insert(1, Good);
    let again = cluster.chunks.store_piece(&lost, until).await;
    assert_eq!(again, Err(FsError::NoSpace));
}

#[tokio::test]
async fn bytes_that_came_along_are_kept_if_they_are_right() {
    let cluster = Cluster::new(&[Good]);
    let id = |n| ChunkId::new(VolumeId::ONLY, SetId(1), BlockId(1), n);
    let right = Bytes::from_static(b"right");
    let long = Bytes::from(vec![7; ALONG_LEN_MAX as usize + 1]);
    let came = [
        (id(1), right.clone(), &right[..]),
        (id(2), Bytes::from_static(b"wrong"), &right[..]),
        (id(3), long.clone(), &long[..]),
    ];
    let came = came.map(|(id, bytes, said)| Brought {
        id,
        crc: crc32fast::hash(said),
        bytes,
    });
    cluster.chunks.keep_brought(came.to_vec());
    let kept = |n| cluster.chunks.blocks.get(id(n), 0, 5);
    assert_eq!(kept(1), Some(right.clone()));
    assert_eq!((kept(2), kept(3)), (None, None), "they are read again");
}
