//! A first server on loopback, stopped in the middle of its birth.

mod hostile;
mod inline;
mod mount;

use super::*;
use crate::birth::{BIRTH_DEADLINE, COMPLETION_LOOK, FIRST, init};
use crate::identity::Membership;
use bytes::Bytes;
use lagan_net::{Hello, Pool, PoolOptions, Role, Service};
use lagan_replica::Meta as _;
use lagan_types::cluster::Config as ClusterConfig;
use lagan_types::message::{
    ArchiveRefusal, ArchiveRequest, CheckObjects, ChunkRequest, DropRecallCache, GetJobs,
    InitCluster, Join, JoinVia, LeaderRequest, ListChunks, ListObjects, Message, MetaRequest,
    NodeHeartbeat, NodeRequest, Ping, ReadState, Recall, RefusalOf, ReleaseFiles, Remove,
    VerifyChunks,
};
use lagan_types::op::{Init, LockKind, LockRange, RegisterNode};
use lagan_types::query::GetLock;
use lagan_types::{ClusterId, Command, Incarnation, Ino, Refusal, SessionId};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Instant;

const LONG: Duration = Duration::from_secs(30);

/// An address of this process alone, at which no connection goes out.
fn free_addr() -> SocketAddr {
    static PORT: AtomicU16 = AtomicU16::new(7_700);
    let [.., high, low] = std::process::id().to_be_bytes();
    let ip = [127, 78, high, low.clamp(1, 254)];
    (ip, PORT.fetch_add(1, Ordering::Relaxed)).into()
}

fn config(data: &Path) -> Config {
    let text = format!(
        "name = \"one\"\ndata = {:?}\nlisten = \"{}\"\npeer_listen = \"{}\"\nhttp = \"{}\"\n\
         segment_len = \"8MiB\"\nlog_segment_len = \"1MiB\"\nprewrite = false\n",
        data.display().to_string(),
        free_addr(),
        free_addr(),
        free_addr()
    );
    Config::parse(&text).expect("configuration")
}

fn node(config: &Arc<Config>) -> Arc<Node> {
    let data = DataDir::open(&config.data, || StoreId(7)).expect("data directory");
    Node::new(config.clone(), data, tokio::runtime::Handle::current())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn doors_open_when_the_last_owner_of_an_address_has_gone() {
    let addrs: [fn(&Config) -> SocketAddr; 3] = [|c| c.listen, |c| c.peer_listen, |c| c.http];
    for addr in addrs {
        let dir = tempfile::tempdir().expect("temp dir");
        let config = Arc::new(config(dir.path()));
        let taken = std::net::TcpListener::bind(addr(&config)).expect("take an address");
        let node = node(&config);
        let refused = open_doors(&node, Duration::ZERO).await.expect_err("taken");
        let text = format!("{refused:#}");
        assert!(text.contains("is the port taken?"), "{text}");
        assert!(text.contains(&addr(&config).to_string()), "{text}");
        node.parts.cancel.cancel();
        drop(node);
        let node = self::node(&config);
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(100)).await;
            drop(taken);
        });
        let doors = open_doors(&node, LONG).await.expect("doors");
        stop(node, doors).await;
    }
}

async fn stop(node: Arc<Node>, doors: Vec<Server>) {
    shutdown::stop(&node, doors).await;
}

fn wanted() -> ClusterConfig {
    ClusterConfig {
        cluster: ClusterId(5),
        incarnation: Incarnation(6),
        ..ClusterConfig::default()
    }
}

async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let end = Instant::now() + LONG;
    while !condition() {
        assert!(Instant::now() < end, "never: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// What a crash leaves of `lagan init` after the consensus, with or without
/// the configuration.
async fn cut_off(node: &Arc<Node>, configured: bool) {
    let membership = Membership {
        cluster: ClusterId(5),
        incarnation: Incarnation(6),
        node: FIRST,
    };
    node.data.lock().join(membership).expect("identity");
    let member = node.start_member(membership).await.expect("stores");
    let addr = node.parts.config.peer_listen.to_string();
    member.raft.initialize(addr).await.expect("consensus");
    if configured {
        let init = Command::system(Init { config: wanted() });
        let done = member.raft.propose(init, BIRTH_DEADLINE).await;
        done.expect("leads").expect("configuration");
    }
}

async fn init_goes_on_after_a_crash(configured: bool) {
    let dir = tempfile::tempdir().expect("temp dir");
    let config = Arc::new(config(&dir.path().join("data")));
    let first = node(&config);
    cut_off(&first, configured).await;
    stop(first, Vec::new()).await;

    let second = node(&config);
    let doors = open_doors(&second, LONG).await.expect("doors");
    let membership = second.data.lock().identity().membership.expect("a member");
    // The first one's tasks let go of its files a little after its end.
    let end = Instant::now() + LONG;
    while let Err(e) = revive(&second, membership).await {
        assert!(Instant::now() < end, "{e:#}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    tokio::time::sleep(COMPLETION_LOOK * 2).await;
    assert_eq!(second.parts.failure.get(), None);

    let answer = init(&second, wanted()).await.expect("init again");
    assert_eq!(answer.node, FIRST);
    let member = second.member.get().expect("a member").clone();
    eventually("the first node is up", || {
        member
            .map
            .get()
            .node(FIRST)
            .is_some_and(|n| n.state == lagan_types::cluster::NodeState::Up)
    })
    .await;
    let again = init(&second, wanted()).await.expect_err("it has one");
    assert!(again.to_string().contains("already"), "{again}");
    stop(second, doors).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn init_that_was_cut_off_before_the_configuration_is_completed() {
    init_goes_on_after_a_crash(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn init_that_was_cut_off_before_the_first_node_is_completed() {
    init_goes_on_after_a_crash(true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn older_copy_of_a_store_stops_with_the_reason() {
    let dir = tempfile::tempdir().expect("temp dir");
    let config = Arc::new(config(&dir.path().join("data")));
    let first = node(&config);
    let doors = open_doors(&first, LONG).await.expect("doors");
    init(&first, wanted()).await.expect("init");
    let member = first.member.get().expect("a member").clone();
    // A newer boot of this store is known: this one is a copy of its past.
    let mut info = member.info();
    info.boot = lagan_types::cluster::next_boot(info.boot, 3);
    let newer = RegisterNode { info }.into();
    member.edge.mutate(newer).await.expect("registered");
    eventually("it stops by itself", || first.parts.cancel.is_cancelled()).await;
    let reason = first.parts.failure.get().cloned().unwrap_or_default();
    assert!(reason.contains("older copy"), "{reason}");
    stop(first, doors).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn task_that_panics_stops_the_server() {
    let dir = tempfile::tempdir().expect("temp dir");
    let node = node(&Arc::new(config(&dir.path().join("data"))));
    node.parts.spawn("example", async { panic!("as asked") });
    eventually("it stops by itself", || node.parts.cancel.is_cancelled()).await;
    let reason = node.parts.failure.get().cloned().unwrap_or_default();
    assert!(reason.contains("example"), "{reason}");
    stop(node, Vec::new()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn session_that_was_ended_learns_that_it_holds_no_locks() {
    let dir = tempfile::tempdir().expect("temp dir");
    let config = Arc::new(config(&dir.path().join("data")));
    let node = node(&config);
    let doors = open_doors(&node, LONG).await.expect("doors");
    init(&node, wanted()).await.expect("init");
    let member = node.member.get().expect("a member").clone();
    let query = GetLock {
        ino: Ino::ROOT,
        lock: LockRange {
            owner: 1,
            start: 0,
            end: u64::MAX,
            kind: LockKind::Write,
            pid: 1,
        },
    };
    let request = ReadState::new(SessionId(99), query);
    let answer = member.edge.ask(request).await.expect("an answer");
    assert_eq!(answer.answer, Err(Refusal::SessionEnded));
    stop(node, doors).await;
}

/// What a server says to a request that it refuses.
async fn refused<A>(pool: &Pool, addr: SocketAddr, ask: A) -> String
where
    A: Message<Answer: std::fmt::Debug>,
    RefusalOf<A>: std::fmt::Display,
{
    let (answer, _) = pool
        .ask(addr, ask, Bytes::new(), LONG)
        .await
        .expect("an answer");
    answer.expect_err("a refusal").to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mount_that_asks_what_others_may_is_refused_at_the_door() {
    let dir = tempfile::tempdir().expect("temp dir");
    let config = Arc::new(config(&dir.path().join("data")));
    let node = node(&config);
    let doors = open_doors(&node, LONG).await.expect("doors");
    let hello = Hello::client(Role::Mount, None, Service::Node);
    let (pool, addr) = (Pool::new(PoolOptions::new(hello)), config.listen);
    let operators = "only servers and the admin command ask this";
    let servers = "only servers ask this";
    let info = node.parts.node_info(FIRST);
    let beat = NodeHeartbeat {
        node: FIRST,
        boot: 1,
        time_ms: 0,
        used_bytes: 0,
        free_bytes: 0,
        full: false,
        set_chunks: Vec::new(),
        s3_error: String::new(),
        s3_permanent: false,
        s3_ready: false,
        damaged_chunks: 0,
        staged_bytes: 0,
    };
    let (slots, limit, force) = (1, 1, true);
    let told = [
        (operators, refused(&pool, addr, DropRecallCache).await),
        (operators, {
            let config = wanted();
            refused(&pool, addr, InitCluster { config }).await
        }),
        (operators, {
            let via = addr.to_string();
            refused(&pool, addr, JoinVia { via }).await
        }),
        (servers, refused(&pool, addr, beat).await),
        (servers, refused(&pool, addr, Join { info }).await),
        (servers, {
            let node = FIRST;
            refused(&pool, addr, GetJobs { node, slots }).await
        }),
        (operators, {
            let node = FIRST;
            refused(&pool, addr, Remove { node, force }).await
        }),
        (operators, {
            let files = vec![(Ino::ROOT, 1)];
            refused(&pool, addr, ReleaseFiles { files }).await
        }),
        (operators, {
            let (set, after) = (None, None);
            refused(&pool, addr, ListChunks { set, after, limit }).await
        }),
        (operators, {
            let ids = Vec::new();
            refused(&pool, addr, VerifyChunks { ids }).await
        }),
        (operators, {
            let objects = Vec::new();
            refused(&pool, addr, CheckObjects { objects }).await
        }),
        (operators, {
            let after = None;
            refused(&pool, addr, ListObjects { after, limit }).await
        }),
    ];
    for (wanted, said) in &told {
        assert_eq!(wanted, said);
    }
    // Ping; the four about the state; heartbeat, recalls, lock, status;
    // two of chunks and two reports;
    // recall. A new request is one of these or stands above.
    let of_mounts = 1 + 4 + 4 + 4 + 1;
    let tables = [
        NodeRequest::NAMES,
        MetaRequest::NAMES,
        LeaderRequest::NAMES,
        ChunkRequest::NAMES,
        ArchiveRequest::NAMES,
    ];
    assert_eq!(of_mounts + told.len(), tables.concat().len());
    // It may only be opening its stores: a reader goes on asking.
    let recall = Recall {
        ino: Ino::ROOT,
        version: 1,
        offset: 0,
        len: 1,
    };
    let asked = pool.ask(addr, recall, Bytes::new(), LONG).await;
    let refused = asked.expect("an answer").0.expect_err("refused");
    assert!(matches!(refused, ArchiveRefusal::Transient(_)), "{refused}");
    let pong = pool.ask(addr, Ping, Bytes::new(), LONG).await;
    let pong = pong.expect("an answer").0.expect("it may ask this");
    assert_eq!((pong.leader, pong.term), (None, 0));
    pool.close();
    stop(node, doors).await;
}
