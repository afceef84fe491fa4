use super::*;
use crate::read::fetch;
use crate::reap;
use crate::tests::{Node, State, cluster, set_of};
use bytes::Bytes;
use lagan_types::answer::{Created, GrantedBlock, NewSession};
use lagan_types::cluster::{ArchiveConfig, ClusterMap};
use lagan_types::extent::{ChunkRef, Edit};
use lagan_types::op::{
    ArchiveFinish, ArchiveStart, Commit, Create, FileOp, FinishArchive, GrantBlock, Inline,
    OpenSession, SessionIdentity, SetAttr, SetAttrs, SetConfig, StartArchive, SystemOp,
};
use lagan_types::{Answer, BlockId, Kind, SessionId, VolumeId, chunk};
use std::time::Duration;

/// What [`Node::put`] writes.
const LEN: u32 = 3000;

/// A session with a file, whose chunks are on nodes 1 and 2.
struct File {
    state: Arc<State>,
    session: SessionId,
    seq: u64,
    ino: Ino,
    block: BlockId,
    map: ClusterMap,
}

impl File {
    fn new(state: &Arc<State>, nodes: &[Node]) -> File {
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
        let Ok(Answer::Session(NewSession { session, .. })) =
            state.apply(SessionId::SYSTEM, 0, open)
        else {
            panic!("no session");
        };
        let Ok(Answer::Block(GrantedBlock { block, .. })) = state.apply(session, 1, GrantBlock)
        else {
            panic!("no block");
        };
        let create = Create {
            parent: Ino::ROOT,
            name: b"f".to_vec(),
            kind: Kind::File,
            mode: 0o644,
            umask: 0,
            uid: 0,
            gid: 0,
            rdev: 0,
            target: Vec::new(),
            exclusive: true,
        };
        let Ok(Answer::Created(Created { attr, .. })) = state.apply(session, 2, create) else {
            panic!("no file");
        };
        let map = state.map();
        nodes.iter().for_each(|node| node.map.put(map.clone()));
        File {
            state: state.clone(),
            session,
            seq: 2,
            ino: attr.ino,
            block,
            map,
        }
    }

    fn id(&self, index: u16) -> ChunkId {
        ChunkId::new(VolumeId::ONLY, set_of(&self.map, [1, 2]), self.block, index)
    }

    /// The bytes that [`Node::put`] gives that chunk.
    fn data(index: u16) -> Bytes {
        Bytes::from(vec![index as u8; LEN as usize])
    }

    fn session_op(&mut self, op: impl Into<FileOp>) -> Answer {
        self.seq += 1;
        let op = op.into();
        self.state.apply(self.session, self.seq, op).unwrap()
    }

    /// The file names the chunk at a place of its own.
    fn name(&mut self, index: u16) -> Suspect {
        let id = self.id(index);
        let offset = u64::from(index) * u64::from(LEN);
        let chunk = ChunkRef {
            id,
            set_epoch: self.map.set(id.set()).unwrap().epoch,
            skip: 0,
            chunk_len: LEN,
            chunk_crc: crc32fast::hash(&File::data(index)),
        };
        let edit = Edit {
            offset,
            len: LEN.into(),
            content: Some(chunk),
        };
        self.session_op(Commit {
            ino: self.ino,
            edits: vec![edit],
            append: false,
            size_min: 0,
            expect_version: None,
            kill_suid: false,
            mtime: None,
            inline: Inline::Stored,
        });
        self.at(index)
    }

    fn at(&self, index: u16) -> Suspect {
        Suspect {
            id: self.id(index),
            named: Some((self.ino, u64::from(index) * u64::from(LEN))),
        }
    }

    fn truncate(&mut self) {
        let set = SetAttr {
            size: Some(0),
            ..SetAttr::default()
        };
        let ino = self.ino;
        self.session_op(SetAttrs { ino, set });
    }

    fn archive(&mut self) {
        let mut config = self.state.map().config;
        config.archive = Some(ArchiveConfig {
            endpoint: None,
            region: "r".into(),
            bucket: "bucket".into(),
            prefix: "p".into(),
        });
        let system = |op: SystemOp| self.state.apply(SessionId::SYSTEM, 0, op).unwrap();
        system(SetConfig { config }.into());
        let (ino, version) = (self.ino, self.version());
        let file = ArchiveStart {
            ino,
            version,
            node: NodeId(1),
        };
        let Answer::Attempts(attempts) = system(StartArchive { files: vec![file] }.into()) else {
            panic!("no attempt");
        };
        let attempt = attempts[0].clone().unwrap();
        let file = ArchiveFinish {
            ino,
            version,
            attempt: attempt.number,
            key: attempt.key,
            size: attempt.size,
            crc: 1,
        };
        system(FinishArchive { files: vec![file] }.into());
    }

    fn extents(&self) -> (u64, Vec<Content>) {
        let query = Extents {
            ino: self.ino,
            offset: 0,
            limit: 100,
        };
        let page = self.state.read(query);
        let contents = page.extents.into_iter().map(|e| e.content);
        (page.version, contents.collect())
    }

    fn version(&self) -> u64 {
        self.extents().0
    }
}

/// What comes of it; a peer that has no time for an answer is asked again.
async fn healed(work: &Work, suspect: Suspect) -> Healed {
    let end = tokio::time::Instant::now() + Duration::from_secs(60);
    loop {
        match heal(work, suspect).await {
            Ok(healed) => return healed,
            Err(e) => assert!(tokio::time::Instant::now() < end, "{e}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The store's own delete stands for a record that was lost.
fn lose(node: &Node, id: ChunkId) {
    assert_eq!(node.store.delete(&[id]).unwrap(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn missing_replica_is_brought_back_only_while_the_file_names_it() {
    let (state, nodes) = cluster(2);
    let mut file = File::new(&state, &nodes);
    for index in 1..=3 {
        nodes[0].put(file.id(index));
    }
    let work = nodes[1].parts(&state);
    // Not named yet: a write that is on its way, or garbage.
    assert_eq!(healed(&work, file.at(1)).await, Healed::Nothing);
    let (one, two) = (file.name(1), file.name(2));
    assert_eq!(healed(&work, one).await, Healed::Copied);
    assert_eq!(healed(&work, one).await, Healed::Nothing, "it is good");
    nodes[1].store.verify(one.id).unwrap();
    // Without a place nothing says that it is named.
    let nowhere = Suspect {
        id: two.id,
        named: None,
    };
    assert_eq!(healed(&work, nowhere).await, Healed::Nothing);
    // A place where something else is now.
    let elsewhere = Suspect {
        named: one.named,
        ..two
    };
    assert_eq!(healed(&work, elsewhere).await, Healed::Nothing);
    assert!(!nodes[1].has(two.id));
    // Freed, and still on the other node: its row is not worked off yet.
    file.truncate();
    assert_eq!(healed(&work, two).await, Healed::Nothing);
    assert!(!nodes[1].has(two.id) && nodes[0].has(two.id));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chunk_that_is_freed_while_it_is_brought_back_goes_again() {
    let (state, nodes) = cluster(2);
    let mut file = File::new(&state, &nodes);
    nodes[0].put(file.id(1));
    let one = file.name(1);
    let work = nodes[1].parts(&state);
    let reap = tokio::spawn(reap::run(work.clone(), CancellationToken::new()));
    let held = work.reaping.lock().await;
    let name = named(&work, one.id, one.named.unwrap()).await.unwrap();
    assert!(name.is_some());
    file.truncate();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let (data, crcs) = (File::data(1), chunk::block_crcs(&File::data(1)));
    let restored = restore(&work, one.id, WholeChunk { data, crcs }).await;
    assert_eq!(restored, Ok(Healed::Copied));
    drop(held);
    let end = tokio::time::Instant::now() + Duration::from_secs(20);
    while nodes[1].has(one.id) {
        assert!(tokio::time::Instant::now() < end, "a freed chunk came back");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    reap.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replica_with_other_content_than_the_metadata_names_is_replaced() {
    let (state, nodes) = cluster(2);
    let mut file = File::new(&state, &nodes);
    nodes[0].put(file.id(1));
    let other = Bytes::from(vec![9; LEN as usize]);
    let crcs = chunk::block_crcs(&other);
    nodes[1]
        .store
        .write_blocking(file.id(1), other, &crcs)
        .unwrap();
    let one = file.name(1);
    let work = nodes[1].parts(&state);
    assert_eq!(healed(&work, one).await, Healed::Copied);
    let read = nodes[1].store.read(one.id, 0, LEN).unwrap();
    assert_eq!(read.data, File::data(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn extent_without_a_good_replica_turns_to_the_archive_if_all_members_say_so() {
    let (state, nodes) = cluster(2);
    let mut file = File::new(&state, &nodes);
    for index in 1..=2 {
        nodes[0].put(file.id(index));
        nodes[1].put(file.id(index));
    }
    let (one, two) = (file.name(1), file.name(2));
    lose(&nodes[0], one.id);
    lose(&nodes[1], one.id);
    let work = nodes[1].parts(&state);
    assert!(heal(&work, one).await.is_err(), "it is not archived");
    file.archive();
    assert_eq!(healed(&work, one).await, Healed::FromArchive);
    let (version, extents) = file.extents();
    let object = Content::Object {
        version,
        offset: LEN.into(),
    };
    assert_eq!(extents[0], object);
    assert!(matches!(extents[1], Content::Chunk { id, .. } if id == two.id));
    // A member that does not answer may have it.
    lose(&nodes[1], two.id);
    nodes[0].cancel.cancel();
    while !matches!(
        fetch(&work.peers, NodeId(1), two.id, None).await,
        Err(NoCopy::NoAnswer { .. })
    ) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let healed = heal(&work, two).await;
    assert!(healed.is_err(), "{healed:?}");
    assert!(matches!(file.extents().1[1], Content::Chunk { .. }));
}

#[test]
fn healer_takes_each_suspect_once_until_it_is_looked_at() {
    let (healer, mut queue) = Healer::new();
    let id = ChunkId::new(VolumeId::ONLY, lagan_types::SetId(1), BlockId(1), 1);
    let suspect = Suspect { id, named: None };
    let place = Suspect {
        named: Some((Ino(5), 0)),
        ..suspect
    };
    for _ in 0..3 {
        healer.suspect(suspect);
        healer.suspect(place);
    }
    assert_eq!(queue.try_recv().ok(), Some(suspect));
    assert_eq!(queue.try_recv().ok(), Some(place));
    assert!(queue.try_recv().is_err());
    for n in 0..2 * SUSPECTS_MAX as u64 {
        let named = Some((Ino(n), 0));
        healer.suspect(Suspect { id, named });
    }
    assert!(healer.waiting.lock().len() <= SUSPECTS_MAX + 2);
}
