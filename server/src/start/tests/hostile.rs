//! Mounts that break the rules of leases: they harm nobody but themselves, and cost a bounded
//! amount of memory and time.

use super::mount::{Mount, file};
use super::*;
use lagan_types::lease::{CLOSED_MAX, Closed, EXCLUSIVE_INOS_MAX, Exclusive, Key, Leased, Wish};
use lagan_types::limits::{ATTRS_PAGE_MAX, OPENS_PAGE_MAX};
use lagan_types::message::{
    CreateFile, CreateOutcome, GetStatus, LeaseStatus, Mutate, PollRecalls, Recalls, SessionHeard,
    SessionHeartbeat, StateRead,
};
use lagan_types::op::{Create, CreatePromised, FileOp, NewFile, SetAttr, SetAttrs, Unlink};
use lagan_types::query::{GetAttr, Lookup, LookupAll, OpenAll};
use lagan_types::{FsError, Kind, Query, Time};

/// A change that waits for somebody has not ended after this.
const MOMENT: Duration = Duration::from_millis(300);
/// Most names that one session may hold (`lagan_lease::Bounds`).
const NAMES_MAX: u64 = 32_768;

impl Mount {
    async fn heartbeat(&self, term: u64) -> SessionHeard {
        let beat = SessionHeartbeat {
            session: self.session,
            check: 0,
            open: Vec::new(),
            term,
            promised: 0,
            renews: true,
        };
        let asked = self.pool.ask(self.addr, beat, Bytes::new(), LONG);
        asked.await.expect("an answer").0.expect("it leads")
    }

    /// Renews the lease until there is one; returns the term.
    async fn lease(&self) -> u64 {
        let end = Instant::now() + LONG;
        let mut term = 0;
        loop {
            let heard = self.heartbeat(term).await;
            term = heard.term;
            if heard.leased {
                return term;
            }
            assert!(Instant::now() < end, "no lease");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Goes on to renew it.
    fn beat(self: &Arc<Self>, term: u64) -> tokio::task::JoinHandle<()> {
        let mount = self.clone();
        tokio::spawn(async move {
            loop {
                mount.heartbeat(term).await;
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        })
    }

    /// Has an inode leased. Its lease has just been renewed then: returns when.
    async fn remembers(&self, term: u64, ino: Ino) -> Instant {
        for asked in 1.. {
            let began = Instant::now();
            let leased = self.heartbeat(term).await.leased;
            let may = may(&self.read(GetAttr { ino }, Some(asked)).await);
            // A machine that stalls here leaves too little of the lease.
            if leased && may && began.elapsed() < MOMENT {
                return began;
            }
            assert!(asked < 100, "it is not leased");
        }
        unreachable!("it gives up before")
    }

    async fn read(&self, query: impl Into<Query>, asked: Option<u64>) -> StateRead {
        let listing = true;
        let ask = ReadState {
            wish: asked.map(|asked| Wish { asked, listing }),
            along: u32::MAX,
            ..ReadState::new(self.session, query)
        };
        let asked = self.pool.ask(self.addr, ask, Bytes::new(), LONG);
        asked.await.expect("an answer").0.expect("it leads")
    }

    async fn poll(&self, term: u64, acked: u64) -> Recalls {
        let ask = PollRecalls {
            session: self.session,
            term,
            acked,
        };
        let asked = self.pool.ask(self.addr, ask, Bytes::new(), LONG);
        asked.await.expect("an answer").0.expect("it leads")
    }

    async fn leases(&self) -> LeaseStatus {
        let asked = self.pool.ask(self.addr, GetStatus, Bytes::new(), LONG);
        let status = asked.await.expect("an answer").0.expect("it leads");
        status.leases
    }

    /// Asks for a regular file as that mutation, and for a promise of it.
    async fn create(&self, seq: u64, name: &[u8]) -> Result<CreateOutcome, Refusal> {
        let command = self.command(seq, FileOp::from(file(name)));
        let closed = None;
        let ask = CreateFile { command, closed };
        let asked = self.pool.ask(self.addr, ask, Bytes::new(), LONG);
        let answer = asked.await.expect("an answer").0;
        answer.expect("it leads").outcome
    }

    /// Makes a directory in the root as that mutation, to use it alone, with more inode numbers
    /// than there may be.
    async fn mkdir_alone(&self, seq: u64, name: &[u8]) -> Exclusive {
        let make = Create {
            kind: Kind::Directory,
            ..file(name)
        };
        let closed = Some(Closed {
            began: seq,
            keys: vec![Key::name(Ino::ROOT, name), Key::Inode(Ino::ROOT)],
            exclusive: Some(u32::MAX),
        });
        let command = self.command(seq, FileOp::from(make));
        let ask = Mutate { command, closed };
        let asked = self.pool.ask(self.addr, ask, Bytes::new(), LONG);
        let made = asked.await.expect("an answer").0.expect("it leads");
        let exclusive = made.proof.and_then(|proof| proof.exclusive);
        exclusive.expect("nobody else knows the directory")
    }

    fn chmod(&self, mode: u16) -> SetAttrs {
        SetAttrs {
            ino: self.file,
            set: SetAttr {
                mode: Some(mode),
                ..SetAttr::default()
            },
        }
    }
}

fn may(read: &StateRead) -> bool {
    let all = |leased: &Leased| !leased.keys.is_empty() && leased.keys.iter().all(|may| *may);
    read.leased.as_ref().is_some_and(all)
}

/// A server with an honest mount and one that will break rules.
struct Cluster {
    node: Arc<Node>,
    doors: Vec<Server>,
    honest: Arc<Mount>,
    hostile: Arc<Mount>,
    _dir: tempfile::TempDir,
}

impl Cluster {
    async fn new() -> Self {
        let dir = tempfile::tempdir().expect("temp dir");
        let config = Arc::new(config(&dir.path().join("data")));
        let node = node(&config);
        let doors = open_doors(&node, LONG).await.expect("doors");
        init(&node, wanted()).await.expect("init");
        Cluster {
            honest: Arc::new(Mount::open(config.listen, 1).await),
            hostile: Arc::new(Mount::open(config.listen, 2).await),
            node,
            doors,
            _dir: dir,
        }
    }

    /// Changes the honest mount's file.
    async fn change(&self, seq: u64, mode: u16) {
        let change = self.honest.chmod(mode);
        let changed = self.honest.mutate(seq, change).await;
        changed.expect("carried out");
    }

    async fn end(self) {
        self.honest.pool.close();
        self.hostile.pool.close();
        stop(self.node, self.doors).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_mount_says_to_have_closed_is_still_recalled_from_others() {
    let cluster = Cluster::new().await;
    let (honest, hostile) = (&cluster.honest, &cluster.hostile);
    let term = honest.lease().await;
    let beating = honest.beat(term);
    let ino = honest.file;
    assert!(may(&honest.read(GetAttr { ino }, Some(1)).await));
    // Without a lease nothing is leased, whatever is wished.
    assert!(!may(&hostile.read(GetAttr { ino }, Some(u64::MAX)).await));

    let keys = vec![Key::Inode(ino), Key::Directory(Ino::ROOT)];
    let began = u64::MAX;
    let closed = Some(Closed {
        began,
        keys,
        exclusive: None,
    });
    let (author, change) = (hostile.clone(), honest.chmod(0o600));
    let changed = tokio::spawn(async move { author.mutate_closed(3, change, closed).await });
    tokio::time::sleep(MOMENT).await;
    assert!(
        !changed.is_finished(),
        "the honest mount still remembers it"
    );
    let recalls = honest.poll(term, 0).await;
    assert_eq!(recalls.keys, [Key::Inode(ino)]);
    let (poller, number) = (honest.clone(), recalls.number);
    let acknowledges = tokio::spawn(async move { poller.poll(term, number).await });
    changed.await.expect("a task").expect("carried out");
    acknowledges.abort();
    beating.abort();

    // More than one mutation can have is refused as a whole.
    let keys = (0..=CLOSED_MAX as u64)
        .map(|n| Key::Inode(Ino(n)))
        .collect();
    let closed = Some(Closed {
        began,
        keys,
        exclusive: None,
    });
    let refused = hostile.mutate_closed(4, honest.chmod(0o644), closed).await;
    assert_eq!(refused, Err(Refusal::Malformed));
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_mount_was_never_told_it_cannot_acknowledge() {
    let cluster = Cluster::new().await;
    let (honest, hostile) = (&cluster.honest, &cluster.hostile);
    let term = hostile.lease().await;
    let mut polls = Vec::new();
    for (term, acked) in [(term, u64::MAX), (term + 7, 1)] {
        let poller = hostile.clone();
        polls.push(tokio::spawn(async move { poller.poll(term, acked).await }));
    }
    let began = hostile.remembers(term, honest.file).await;
    cluster.change(3, 0o600).await;
    assert!(began.elapsed() >= 2 * MOMENT, "it was not waited for");
    polls.iter().for_each(tokio::task::JoinHandle::abort);
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mount_that_never_acknowledges_is_waited_for_until_its_lease_ends() {
    let cluster = Cluster::new().await;
    let (honest, hostile) = (&cluster.honest, &cluster.hostile);
    let term = hostile.lease().await;
    let beating = hostile.beat(term);
    let began = hostile.remembers(term, honest.file).await;
    // Its heartbeats go on, and renew nothing.
    cluster.change(3, 0o600).await;
    assert!(began.elapsed() >= 2 * MOMENT, "it was not waited for");
    beating.abort();
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mount_that_keeps_its_directory_is_waited_for_until_its_lease_ends() {
    let cluster = Cluster::new().await;
    let (honest, hostile) = (&cluster.honest, &cluster.hostile);
    let term = hostile.lease().await;
    let beating = hostile.beat(term);
    hostile.remembers(term, hostile.file).await;
    let began = Instant::now();
    let alone = hostile.mkdir_alone(3, b"d").await;
    assert!(alone.count <= EXCLUSIVE_INOS_MAX);
    let (parent, name) = (Ino::ROOT, b"d".to_vec());
    let found = honest.read(Lookup { parent, name }, None).await.answer;
    assert!(found.is_ok(), "{found:?}");
    assert!(began.elapsed() >= 2 * MOMENT, "it was not waited for");
    let before = Instant::now();
    let found = honest.read(GetAttr { ino: alone.dir }, None).await.answer;
    assert!(
        found.is_ok() && before.elapsed() < 2 * MOMENT,
        "once is enough"
    );
    beating.abort();
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mount_that_goes_on_to_make_files_does_not_keep_its_directory() {
    let cluster = Cluster::new().await;
    let (honest, hostile) = (&cluster.honest, &cluster.hostile);
    let term = hostile.lease().await;
    let beating = hostile.beat(term);
    // The leader gives numbers as soon as it has some.
    let mut seq = 3;
    let alone = loop {
        let alone = hostile.mkdir_alone(seq, format!("d{seq}").as_bytes()).await;
        seq += 1;
        if alone.count > 0 {
            break alone;
        }
        assert!(seq < 500, "no numbers come");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let maker = hostile.clone();
    let making = tokio::spawn(async move {
        for n in 0..u64::from(alone.count) {
            let file = NewFile {
                ino: Ino(alone.first.0 + n),
                parent: alone.dir,
                name: format!("f{n}").into_bytes(),
                mode: 0o644,
                uid: 0,
                gid: 0,
                time: Time::default(),
                set: None,
            };
            let made = maker.mutate(seq + n, FileOp::from(CreatePromised { file }));
            made.await.expect("it was made");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let seen = honest.read(GetAttr { ino: alone.dir }, None).await.answer;
    assert!(seen.is_ok(), "{seen:?}");
    assert!(!making.is_finished(), "it gave up first");
    making.abort();
    beating.abort();
    cluster.end().await;
}

/// A promise is no command, so that the state remembers no answer to its create.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn late_copy_of_a_create_does_not_bring_a_removed_file_back() {
    let cluster = Cluster::new().await;
    let (mount, other) = (&cluster.honest, &cluster.hostile);
    // Before the leader has inode numbers to promise it has each file made at once.
    let mut seq = 2;
    let name = loop {
        seq += 1;
        let name = format!("lock{seq}").into_bytes();
        let created = mount.create(seq, &name).await.expect("an answer");
        match created {
            CreateOutcome::Promised { .. } => break name,
            CreateOutcome::Replicated(_) => assert!(seq < 500, "nothing is promised"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    // Whoever looks for it has it made.
    let (parent, look) = (Ino::ROOT, name.clone());
    let found = other.read(Lookup { parent, name: look }, None).await;
    assert!(found.answer.is_ok(), "{found:?}");
    let unlink = Unlink {
        parent,
        name: name.clone(),
    };
    let removed = mount.mutate(seq + 1, FileOp::from(unlink)).await;
    removed.expect("removed");
    let late = mount.create(seq, &name).await;
    assert_eq!(late, Err(Refusal::OutsideWindow));
    let look = Lookup { parent, name };
    let found = other.read(look, None).await.answer;
    assert_eq!(found, Err(FsError::NotFound.into()));
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mount_that_asks_for_everything_gets_a_bounded_share() {
    const ASKED: u64 = 80_000;
    let cluster = Cluster::new().await;
    let (honest, hostile) = (&cluster.honest, &cluster.hostile);
    let term = honest.lease().await;
    hostile.lease().await;
    let ino = honest.file;
    let beats = [honest, hostile].map(|mount| mount.beat(term));
    assert!(may(&honest.read(GetAttr { ino }, Some(1)).await));
    let mut tasks = tokio::task::JoinSet::new();
    for part in 0..16 {
        let mount = hostile.clone();
        tasks.spawn(async move {
            for n in (part..ASKED).step_by(16) {
                let (parent, name) = (Ino::ROOT, format!("none{n}").into_bytes());
                mount.read(Lookup { parent, name }, Some(n)).await;
            }
        });
    }
    tasks.join_all().await;
    let held = honest.leases().await.held;
    assert!((1..NAMES_MAX + 100).contains(&held), "{held} keys are held");

    // Too many at once are refused, and nothing of that is remembered.
    let inos = vec![ino; OPENS_PAGE_MAX + 1];
    let refused = hostile.read(OpenAll { inos }, Some(1)).await.answer;
    assert_eq!(refused, Err(FsError::Invalid.into()));
    let (parent, names) = (Ino::ROOT, vec![b"x".to_vec(); ATTRS_PAGE_MAX + 1]);
    let refused = hostile
        .read(LookupAll { parent, names }, Some(1))
        .await
        .answer;
    assert_eq!(refused, Err(FsError::Invalid.into()));

    // The honest one is served as before.
    let read = honest.read(GetAttr { ino: Ino::ROOT }, Some(2)).await;
    assert!(read.answer.is_ok());
    cluster.change(3, 0o600).await;
    beats.iter().for_each(tokio::task::JoinHandle::abort);
    cluster.end().await;
}
