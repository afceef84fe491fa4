//! Nodes that reach each other by function calls, and can be cut off.

use super::staging::Shelf;
use crate::{BoxFuture, Options, Raft, Transport, TransportError, View};
use bytes::Bytes;
use lagan_meta::kv::Table;
use lagan_types::answer::NewSession;
use lagan_types::cluster::Config;
use lagan_types::op::{Create, Init, OpenSession, SessionIdentity};
use lagan_types::query::Lookup;
use lagan_types::{
    Answer, Command, FsError, Ino, Kind, NodeId, Op, QueryAnswer, Refusal, SessionId, Time,
    VolumeId,
};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};
use tokio::sync::{OwnedRwLockWriteGuard, RwLock};

/// Tests wait this long for what must happen.
pub const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Default)]
struct Wires {
    nodes: BTreeMap<NodeId, Weak<Raft>>,
    cut: BTreeSet<NodeId>,
    calls: u64,
}

/// Connects all nodes of a test.
#[derive(Default, Clone)]
pub struct Net {
    wires: Arc<Mutex<Wires>>,
    /// Each message waits for a place to read.
    gate: Arc<RwLock<()>>,
}

struct Port {
    net: Net,
    from: NodeId,
}

impl Transport for Port {
    fn call(
        &self,
        to: NodeId,
        _addr: &str,
        head: Vec<u8>,
        data: Bytes,
        deadline: Duration,
    ) -> BoxFuture<'_, Result<(Bytes, Bytes), TransportError>> {
        Box::pin(async move {
            let target = {
                let mut wires = self.net.wires.lock();
                wires.calls += 1;
                if wires.cut.contains(&to) || wires.cut.contains(&self.from) {
                    None
                } else {
                    wires.nodes.get(&to).and_then(Weak::upgrade)
                }
            };
            let Some(target) = target else {
                return Err(TransportError::Unreachable(format!("{to}")));
            };
            drop(self.net.gate.read().await);
            let answer = tokio::time::timeout(deadline, target.handle(head.into(), data)).await;
            let answer = answer.map_err(|_| TransportError::NoAnswer("late".into()))?;
            let (head, data) = answer.expect("peers send messages of ours");
            if self.net.wires.lock().cut.contains(&to) {
                return Err(TransportError::NoAnswer("cut".into()));
            }
            Ok((head.into(), data))
        })
    }
}

impl Net {
    pub fn cut(&self, node: NodeId) {
        self.wires.lock().cut.insert(node);
    }

    /// Lets no message arrive as long as the guard lives.
    pub async fn hold(&self) -> OwnedRwLockWriteGuard<()> {
        self.gate.clone().write_owned().await
    }

    /// Messages so far.
    pub fn calls(&self) -> u64 {
        self.wires.lock().calls
    }

    pub fn mend(&self, node: NodeId) {
        self.wires.lock().cut.remove(&node);
    }
}

pub fn options(dir: &std::path::Path, node: u64) -> Options {
    Options {
        segment_bytes: 256 * 1024,
        cache_bytes: 4 << 20,
        ..Options::new(dir.join(format!("n{node}")), NodeId(node))
    }
}

/// Some nodes in a directory of their own.
pub struct Cluster {
    pub dir: tempfile::TempDir,
    pub net: Net,
    pub nodes: BTreeMap<NodeId, Arc<Raft>>,
    shelves: BTreeMap<NodeId, Shelf>,
    tune: fn(&mut Options),
}

impl Cluster {
    pub async fn start(count: u64, tune: fn(&mut Options)) -> Cluster {
        let mut cluster = Cluster {
            dir: tempfile::tempdir().unwrap(),
            net: Net::default(),
            nodes: BTreeMap::new(),
            shelves: BTreeMap::new(),
            tune,
        };
        for node in 1..=count {
            cluster.boot(node).await;
        }
        let first = cluster.node(1);
        first.initialize("addr-1".into()).await.unwrap();
        for node in 2..=count {
            let addr = format!("addr-{node}");
            first.add_learner(NodeId(node), addr).await.unwrap();
        }
        if count > 1 {
            let voters: BTreeSet<_> = (1..=count).map(NodeId).collect();
            let until = Instant::now() + PATIENCE;
            // Half-way the others vote too, and may elect one of them.
            while let Err(e) = cluster.leader().await.set_voters(voters.clone()).await {
                assert!(Instant::now() < until, "{e}");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        cluster
    }

    pub fn node(&self, node: u64) -> Arc<Raft> {
        self.nodes[&NodeId(node)].clone()
    }

    /// A node's chunk store.
    pub fn shelf(&self, node: u64) -> Shelf {
        self.shelves[&NodeId(node)].clone()
    }

    /// Starts a node from its directory.
    pub async fn boot(&mut self, node: u64) {
        let mut options = options(self.dir.path(), node);
        (self.tune)(&mut options);
        let port = Arc::new(Port {
            net: self.net.clone(),
            from: NodeId(node),
        });
        let shelf = self.shelves.entry(NodeId(node));
        let shelf = Arc::new(shelf.or_insert_with_key(|id| Shelf::new(*id)).clone());
        let until = Instant::now() + PATIENCE;
        let raft = loop {
            match Raft::start(options.clone(), port.clone(), shelf.clone()).await {
                Ok(raft) => break raft,
                // One that was stopped in this process lets go of its files a little later.
                Err(e) => assert!(Instant::now() < until, "{e}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        let weak = Arc::downgrade(&raft);
        self.net.wires.lock().nodes.insert(NodeId(node), weak);
        self.nodes.insert(NodeId(node), raft);
    }

    /// Ends a node as a crash would.
    pub async fn kill(&mut self, node: u64) {
        self.net.wires.lock().nodes.remove(&NodeId(node));
        let Some(raft) = self.nodes.remove(&NodeId(node)) else {
            return;
        };
        raft.halt().await;
        self.shelves[&NodeId(node)].crash();
        // Dropping the database would make it durable: go on with what the
        // kernel has of the files now.
        let dir = self.dir.path();
        let (now, old) = (dir.join(format!("n{node}")), rand::random::<u64>());
        let old = dir.join(format!("old-{old}"));
        std::fs::rename(&now, &old).unwrap();
        for part in ["log", "state"] {
            std::fs::create_dir_all(now.join(part)).unwrap();
            for file in std::fs::read_dir(old.join(part)).unwrap() {
                let file = file.unwrap();
                std::fs::copy(file.path(), now.join(part).join(file.file_name())).unwrap();
            }
        }
    }

    /// Waits for a node that leads and answers, other than those cut off.
    pub async fn leader(&self) -> Arc<Raft> {
        let until = Instant::now() + PATIENCE;
        loop {
            for (id, raft) in &self.nodes {
                let cut = self.net.wires.lock().cut.contains(id);
                if !cut && raft.is_leader() && raft.read().await.is_ok() {
                    return raft.clone();
                }
            }
            assert!(Instant::now() < until, "no leader");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until a node has applied as much as another.
    pub async fn caught_up(&self, node: u64, with: &Raft) {
        let until = Instant::now() + PATIENCE;
        while self.node(node).stats().applied < with.stats().applied {
            assert!(Instant::now() < until, "node {node} does not catch up");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Proposes wherever the leader is, as a client does: what may have
    /// happened is asked again under the same sequence.
    pub async fn insist(&self, command: Command) -> Result<Answer, Refusal> {
        let until = Instant::now() + PATIENCE;
        loop {
            let leader = self.leader().await;
            let answer = leader.propose(command.clone(), Duration::from_secs(2));
            if let Ok(answer) = answer.await {
                return answer;
            }
            assert!(Instant::now() < until, "no answer");
        }
    }

    pub async fn stop(self) {
        for raft in self.nodes.values() {
            raft.shutdown().await;
        }
    }
}

/// The number of a node.
pub fn id_of(cluster: &Cluster, raft: &Arc<Raft>) -> u64 {
    let found = cluster.nodes.iter().find(|(_, r)| Arc::ptr_eq(r, raft));
    found.unwrap().0.0
}

/// No elections, and nothing told late: what moves is moved by the test.
pub fn slow_clocks(options: &mut Options) {
    options.heartbeat_ms = 4_000;
    options.election_ms = (30_000, 60_000);
}

pub async fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < until, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Waits until all nodes have the same rows as the leader.
pub async fn all_equal(cluster: &Cluster) {
    let leader = cluster.leader().await;
    let expected = rows(&leader);
    for (id, node) in &cluster.nodes {
        cluster.caught_up(id.0, &leader).await;
        assert_same(&rows(node), &expected, &id.to_string());
    }
}

/// Waits for a leader that is none of these.
pub async fn another_leads(cluster: &Cluster, not: &[u64]) -> Arc<Raft> {
    let until = Instant::now() + PATIENCE;
    loop {
        let leader = cluster.leader().await;
        if !not.contains(&id_of(cluster, &leader)) {
            return leader;
        }
        assert!(Instant::now() < until, "no other leads");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub fn command(session: SessionId, seq: u64, op: impl Into<Op>) -> Command {
    Command {
        volume: VolumeId::ONLY,
        session,
        seq,
        unanswered: seq,
        time: Time::default(),
        op: op.into(),
    }
}

pub fn init() -> Command {
    let config = Config::default();
    command(SessionId::SYSTEM, 0, Init { config })
}

pub fn open_session(nonce: u128) -> Command {
    let op = OpenSession {
        nonce,
        identity: SessionIdentity {
            machine: "m".into(),
            boot: "b".into(),
            mount_point: format!("/mnt/{nonce}"),
            instance: nonce,
        },
        predecessor: None,
    };
    command(SessionId::SYSTEM, 0, op)
}

pub fn create(session: SessionId, seq: u64, name: &str) -> Command {
    let op = Create {
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
    command(session, seq, op)
}

/// The cluster's first commands: configuration, root, a session.
pub async fn prepare(cluster: &Cluster) -> SessionId {
    cluster.insist(init()).await.unwrap();
    match cluster.insist(open_session(1)).await.unwrap() {
        Answer::Session(NewSession { session, .. }) => session,
        other => panic!("unexpected answer {other:?}"),
    }
}

/// Whether the root has that name.
pub fn exists(view: &View, session: SessionId, name: &str) -> bool {
    let query = Lookup {
        parent: Ino::ROOT,
        name: name.into(),
    };
    match lagan_meta::query(view, VolumeId::ONLY, session, &query.into()).unwrap() {
        Ok(QueryAnswer::Attr(_)) => true,
        Ok(other) => panic!("{other:?}"),
        Err(Refusal::Fs(FsError::NotFound)) => false,
        Err(e) => panic!("{e}"),
    }
}

/// Table, key, value.
pub type Rows = Vec<(u8, Vec<u8>, Vec<u8>)>;

/// All rows of a state.
pub fn rows(raft: &Raft) -> Rows {
    use lagan_meta::kv::Read;
    let view = raft.local_view();
    let mut all = Vec::new();
    for table in TABLES {
        for (key, value) in view.scan(table, &[], None, usize::MAX).unwrap() {
            all.push((table as u8, key, value));
        }
    }
    all
}

/// Fails with the rows that are only in one of two states.
pub fn assert_same(found: &Rows, expected: &Rows, what: &str) {
    let missing: Vec<_> = expected.iter().filter(|r| !found.contains(r)).collect();
    let extra: Vec<_> = found.iter().filter(|r| !expected.contains(r)).collect();
    assert!(
        missing.is_empty() && extra.is_empty(),
        "{what}: missing {missing:?}, extra {extra:?}"
    );
}

const TABLES: [Table; 21] = [
    Table::Config,
    Table::Node,
    Table::Set,
    Table::Inode,
    Table::Dentry,
    Table::Cookie,
    Table::Extent,
    Table::Xattr,
    Table::Symlink,
    Table::Due,
    Table::Object,
    Table::Attempt,
    Table::Orphan,
    Table::ReapChunk,
    Table::ReapObject,
    Table::Session,
    Table::Answer,
    Table::Block,
    Table::Lock,
    Table::Counter,
    Table::Releasable,
];
