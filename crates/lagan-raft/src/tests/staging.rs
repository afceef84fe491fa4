//! Chunks that come with commands, on nodes whose chunk stores may stand still: what a crash or
//! a snapshot leaves of them.

use super::cluster::{Cluster, command, create, id_of, open_session, wait_until};
use crate::{BoxFuture, InlineChunk, NoChunks, Raft, Staging};
use bytes::Bytes;
use lagan_types::answer::{Created, GrantedBlock, NewSession};
use lagan_types::cluster::{Config, NodeInfo, NodeRole, NodeState};
use lagan_types::extent::{ChunkRef, Edit};
use lagan_types::op::{Commit, GrantBlock, Init, Inline, RegisterNode};
use lagan_types::{
    Answer, BlockId, ChunkId, Command, Data, Epoch, Ino, NodeId, SessionId, SetId, StoreId,
    VolumeId,
};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

const DEADLINE: Duration = Duration::from_secs(20);
/// Time for things to happen that must not happen.
const MEANWHILE: Duration = Duration::from_millis(300);

#[derive(Debug, Default)]
struct Chunks {
    /// They outlive a crash.
    on_disk: BTreeSet<ChunkId>,
    held: BTreeMap<u64, Vec<ChunkId>>,
    staged: BTreeMap<u64, Vec<ChunkId>>,
    still: bool,
    doubts: u32,
}

/// A chunk store that outlives its node.
#[derive(Debug, Clone)]
pub struct Shelf(NodeId, Arc<Mutex<Chunks>>);

impl Shelf {
    pub fn new(node: NodeId) -> Shelf {
        Shelf(node, Arc::default())
    }

    /// Loses what is in memory.
    pub fn crash(&self) {
        let mut chunks = self.1.lock();
        chunks.held.clear();
        chunks.staged.clear();
    }

    fn stand_still(&self, still: bool) {
        self.1.lock().still = still;
    }

    fn has_on_disk(&self, id: ChunkId) -> bool {
        self.1.lock().on_disk.contains(&id)
    }

    /// Whether the bytes are here, wherever.
    fn has(&self, id: ChunkId) -> bool {
        let chunks = self.1.lock();
        let mut memory = chunks.held.values().chain(chunks.staged.values()).flatten();
        chunks.on_disk.contains(&id) || memory.any(|found| *found == id)
    }

    fn is_staged(&self, id: ChunkId) -> bool {
        let chunks = self.1.lock();
        chunks.staged.values().flatten().any(|found| *found == id)
    }
}

fn ids(chunks: &[InlineChunk]) -> Vec<ChunkId> {
    chunks.iter().map(|chunk| chunk.id).collect()
}

impl Staging for Shelf {
    fn node(&self) -> NodeId {
        self.0
    }
    fn hold(&self, index: u64, chunks: Vec<InlineChunk>) {
        self.1.lock().held.insert(index, ids(&chunks));
    }
    fn cut(&self, since: u64) {
        self.1.lock().held.split_off(&since);
    }
    fn stage(&self, index: u64, chunks: Vec<InlineChunk>) {
        let mut all = self.1.lock();
        all.held.remove(&index);
        if !chunks.is_empty() {
            all.staged.insert(index, ids(&chunks));
        }
    }
    fn stage_held(&self, through: u64, is_own: &dyn Fn(&InlineChunk) -> bool) {
        let mut all = self.1.lock();
        let later = all.held.split_off(&(through + 1));
        let held = std::mem::replace(&mut all.held, later);
        let own = |id: &ChunkId| {
            is_own(&InlineChunk {
                id: *id,
                data: Bytes::new(),
                crc: 0,
            })
        };
        assert!(held.values().flatten().all(own), "all sets are everybody's");
        all.staged.extend(held);
    }
    fn give_up(&self, before: u64) {
        let mut all = self.1.lock();
        all.staged = all.staged.split_off(&before);
    }
    fn lacks(&self) -> Result<(), String> {
        self.1.lock().doubts += 1;
        Ok(())
    }
    fn is_crowded(&self) -> bool {
        false
    }
    fn unsettled(&self) -> Option<u64> {
        self.1.lock().staged.keys().next().copied()
    }
    fn has_work(&self) -> bool {
        self.unsettled().is_some()
    }
    fn settle(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            let mut all = self.1.lock();
            if !all.still {
                let staged = std::mem::take(&mut all.staged);
                all.on_disk.extend(staged.into_values().flatten());
            }
        })
    }
}

/// A session with a block of ids, in a cluster whose sets are made.
struct Writer {
    session: SessionId,
    block: BlockId,
    set: (SetId, Epoch),
    seq: u64,
    index: u16,
}

impl Writer {
    /// The cluster's first commands: as many storage nodes as it has voters.
    async fn start(cluster: &Cluster) -> Writer {
        let config = Config {
            copies: cluster.nodes.len() as u8,
            ..Config::default()
        };
        let init = command(SessionId::SYSTEM, 0, Init { config });
        cluster.insist(init).await.unwrap();
        for node in cluster.nodes.keys() {
            let info = NodeInfo {
                id: NodeId(0),
                name: format!("server-{}", node.0),
                store: StoreId(u128::from(node.0)),
                boot: 1,
                addr: format!("10.0.0.{}:1", node.0),
                peer_addr: format!("10.0.0.{}:2", node.0),
                http: String::new(),
                role: NodeRole::Storage,
                state: NodeState::Up,
                voter: true,
            };
            let register = command(SessionId::SYSTEM, 0, RegisterNode { info });
            cluster.insist(register).await.unwrap();
        }
        let answer = cluster.insist(open_session(1)).await.unwrap();
        let Answer::Session(NewSession { session, .. }) = answer else {
            panic!("{answer:?}");
        };
        let granted = cluster.insist(command(session, 1, GrantBlock)).await;
        let Ok(Answer::Block(GrantedBlock { block, .. })) = granted else {
            panic!("{granted:?}");
        };
        let view = cluster.leader().await.local_view();
        let map = lagan_meta::cluster_map(&view).unwrap().unwrap();
        let all = map.sets.iter().filter(|s| !s.sealed);
        let set = all.max_by_key(|s| s.nodes.len()).expect("an open set");
        assert_eq!(set.nodes.len(), cluster.nodes.len());
        Writer {
            session,
            block,
            set: (set.id, set.epoch),
            seq: 1,
            index: 0,
        }
    }

    fn next(&mut self) -> u64 {
        self.seq += 1;
        self.seq
    }

    /// Makes a file; returns a commit with its bytes, and their chunk.
    async fn file(&mut self, cluster: &Cluster) -> (Command, ChunkId) {
        let seq = self.next();
        let made = cluster.insist(create(self.session, seq, &format!("f{seq}")));
        let Answer::Created(Created { attr, .. }) = made.await.unwrap() else {
            panic!("not created");
        };
        let seq = self.next();
        self.commit(attr.ino, seq)
    }

    fn commit(&mut self, ino: Ino, seq: u64) -> (Command, ChunkId) {
        let id = ChunkId::new(VolumeId::ONLY, self.set.0, self.block, self.index);
        self.index += 1;
        let data = vec![seq as u8; 300];
        let chunk = ChunkRef {
            id,
            set_epoch: self.set.1,
            skip: 0,
            chunk_len: 300,
            chunk_crc: crc32fast::hash(&data),
        };
        let commit = Commit {
            ino,
            edits: vec![Edit {
                offset: 0,
                len: 300,
                content: Some(chunk),
            }],
            append: false,
            size_min: 0,
            expect_version: None,
            kill_suid: false,
            mtime: None,
            inline: Inline::Data(Data(data.into())),
        };
        assert!(commit.is_whole());
        (command(self.session, seq, commit), id)
    }
}

fn shelf(cluster: &Cluster, raft: &Arc<Raft>) -> Shelf {
    cluster.shelf(id_of(cluster, raft))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_on_disk_is_staged_again_after_a_crash() {
    let mut cluster = Cluster::start(1, |o| {
        o.durable_every_ms = 50;
        o.snapshot_every = 20;
        o.keep_entries = 0;
    })
    .await;
    let mut writer = Writer::start(&cluster).await;
    let shelf = cluster.shelf(1);
    shelf.stand_still(true);
    let (commit, id) = writer.file(&cluster).await;
    cluster.insist(commit).await.unwrap();
    assert!(shelf.is_staged(id));
    // The state is durable far beyond it, and the consensus would like to forget the entry.
    for _ in 0..60 {
        let seq = writer.next();
        let made = create(writer.session, seq, &format!("x{seq}"));
        cluster.insist(made).await.unwrap();
    }
    let raft = cluster.node(1);
    let durable = || raft.stats().durable == raft.stats().applied;
    wait_until("the state is durable", durable).await;
    drop(raft);
    for _ in 0..2 {
        cluster.kill(1).await;
        assert!(!shelf.has(id), "it was in memory");
        cluster.boot(1).await;
        assert!(shelf.is_staged(id), "the log has it");
    }
    shelf.stand_still(false);
    wait_until("it is on disk", || shelf.has_on_disk(id)).await;
    let settled = || async { cluster.leader().await.settle().await };
    settled().await.unwrap();
    cluster.kill(1).await;
    cluster.boot(1).await;
    assert!(!shelf.is_staged(id), "it is on disk and known to be there");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_counts_as_settled_while_a_chunk_store_stands_still() {
    let cluster = Cluster::start(1, |o| o.durable_every_ms = 50).await;
    let mut writer = Writer::start(&cluster).await;
    let raft = cluster.node(1);
    raft.settle().await.unwrap();
    cluster.shelf(1).stand_still(true);
    let (commit, _) = writer.file(&cluster).await;
    cluster.insist(commit).await.unwrap();
    assert!(raft.settle().await.is_err());
    cluster.shelf(1).stand_still(false);
    raft.settle().await.unwrap();
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn followers_have_the_bytes_before_and_after_they_carry_it_out() {
    let cluster = Cluster::start(3, |o| o.election_ms = (30_000, 60_000)).await;
    let mut writer = Writer::start(&cluster).await;
    for _ in 0..20 {
        let (commit, id) = writer.file(&cluster).await;
        let leader = cluster.leader().await;
        let term = leader.leading().unwrap();
        let carried = leader.carry_in(term, commit, DEADLINE).await.unwrap();
        assert!(carried.answer.is_ok());
        let nodes: Vec<NodeId> = cluster.nodes.keys().copied().collect();
        leader.held(term, carried.index, &nodes).await.unwrap();
        for raft in cluster.nodes.values() {
            assert!(shelf(&cluster, raft).has(id));
        }
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_and_repeated_commands_stage_what_they_must() {
    let cluster = Cluster::start(1, |_| {}).await;
    let mut writer = Writer::start(&cluster).await;
    let shelf = cluster.shelf(1);
    shelf.stand_still(true);
    let (_, unused) = writer.file(&cluster).await;
    let (commit, id) = {
        let seq = writer.next();
        writer.commit(Ino(999_999), seq)
    };
    assert!(cluster.insist(commit).await.is_err());
    assert!(!shelf.has(id) && !shelf.has(unused), "nothing names them");
    let (commit, id) = writer.file(&cluster).await;
    let first = cluster.insist(commit.clone()).await.unwrap();
    shelf.crash();
    assert_eq!(cluster.insist(commit).await, Ok(first), "the same answer");
    assert!(
        shelf.is_staged(id),
        "with the bytes for whom it finds without"
    );
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn snapshot_does_not_count_as_bytes() {
    let mut cluster = Cluster::start(3, |o| {
        o.election_ms = (30_000, 60_000);
        o.snapshot_every = 50;
        o.keep_entries = 10;
        o.durable_every_ms = 50;
    })
    .await;
    let mut writer = Writer::start(&cluster).await;
    let leader = cluster.leader().await;
    let term = leader.leading().unwrap();
    let away = (1..=3).find(|&n| n != id_of(&cluster, &leader)).unwrap();
    let (held_commit, held_id) = writer.file(&cluster).await;
    let (lost_commit, lost_id) = writer.file(&cluster).await;
    // This one the follower has in its log, and carries it out by the snapshot only.
    let carried = leader.carry_in(term, held_commit, DEADLINE).await.unwrap();
    leader
        .held(term, carried.index, &[NodeId(away)])
        .await
        .unwrap();
    cluster.kill(away).await;
    let doubts = cluster.shelf(away).1.lock().doubts;
    let lost = leader.carry_in(term, lost_commit, DEADLINE).await.unwrap();
    for _ in 0..200 {
        let seq = writer.next();
        let made = create(writer.session, seq, &format!("x{seq}"));
        cluster.insist(made).await.unwrap();
    }
    wait_until("the log is purged", || leader.stats().purged > lost.index).await;
    cluster.boot(away).await;
    cluster.caught_up(away, &leader).await;
    assert!(cluster.node(away).stats().snapshot > 0);
    tokio::time::sleep(MEANWHILE).await;
    assert!(!leader.is_held(term, lost.index, NodeId(away)));
    let shelf = cluster.shelf(away);
    assert!(shelf.has(held_id), "its own log had it");
    assert!(!shelf.has(lost_id), "nobody brought it");
    assert!(
        shelf.1.lock().doubts > doubts,
        "it knows that it lacks some"
    );
    // What comes now it has again.
    let (commit, id) = writer.file(&cluster).await;
    let carried = leader.carry_in(term, commit, DEADLINE).await.unwrap();
    leader
        .held(term, carried.index, &[NodeId(away)])
        .await
        .unwrap();
    assert!(shelf.has(id) && leader.is_near(NodeId(away)));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entry_that_a_follower_has_not_got_is_not_held() {
    let cluster = Cluster::start(3, |o| o.election_ms = (30_000, 60_000)).await;
    let mut writer = Writer::start(&cluster).await;
    let leader = cluster.leader().await;
    let term = leader.leading().unwrap();
    let away = NodeId((1..=3).find(|&n| n != id_of(&cluster, &leader)).unwrap());
    cluster.net.cut(away);
    let (commit, id) = writer.file(&cluster).await;
    let carried = leader.carry_in(term, commit, DEADLINE).await.unwrap();
    let nodes = [away];
    let held = leader.held(term, carried.index, &nodes);
    assert!(tokio::time::timeout(MEANWHILE, held).await.is_err());
    cluster.net.mend(away);
    leader.held(term, carried.index, &[away]).await.unwrap();
    assert!(cluster.shelf(away.0).has(id));
    cluster.stop().await;
}

#[test]
fn node_without_chunks_has_nothing_to_settle() {
    let none = NoChunks(NodeId(4));
    none.hold(1, Vec::new());
    none.stage_held(1, &|_| true);
    assert_eq!((none.node(), none.unsettled()), (NodeId(4), None));
}
