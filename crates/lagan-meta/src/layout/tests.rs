use super::rows::*;
use super::*;
use crate::kv::Write;
use crate::memory::MemoryStore;
use lagan_types::attr::{Kind, Time};
use lagan_types::cluster::{ArchiveConfig, Config, NodeInfo, NodeRole, NodeState, ReplicaSet};
use lagan_types::op::{LockKind, SessionIdentity};
use lagan_types::query::ReapChunks;
use lagan_types::{
    Answer, BlockId, ChunkId, ClusterId, Content, Epoch, FsError, Incarnation, Ino, NodeId,
    SessionId, SetId, StoreId, VolumeId,
};

mod versions;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// The bytes of a row never change under its version.
#[track_caller]
fn golden<T: Versioned + PartialEq + std::fmt::Debug>(row: &T, wanted: &str) {
    let bytes = encode(row);
    assert_eq!(hex(&bytes), wanted);
    assert_eq!(&decode::<T>(Table::Inode, &bytes).unwrap(), row);
}

fn chunk() -> ChunkId {
    ChunkId::new(VolumeId::ONLY, SetId(2), BlockId(3), 4)
}

#[test]
fn keys_are_big_endian() {
    assert_eq!(hex(&key1(258)), "0000000000000102");
    assert_eq!(hex(&key2(1, 2)), "00000000000000010000000000000002");
    assert_eq!(hex(&key_name(1, b"ab")), "00000000000000016162");
    assert_eq!(hex(&key_set(7)), "00000007");
    let lock = "00000000000000000100000000000000020000000000000003";
    assert_eq!(hex(&key_lock(1, 2, 3)), lock);
    let index = "01000000000000000200000000000000010000000000000003";
    assert_eq!(hex(&key_session_lock(2, 1, 3)), index);
    let due = "0100000000000000020000000000000007";
    assert_eq!(hex(&key_due(DueKey::After(2), 7)), due);
    assert!(key_due(DueKey::At(u64::MAX), 9) < key_due(DueKey::After(0), 1));
    assert!(key_due(DueKey::After(u64::MAX), 9) < key_due(DueKey::TooLarge, 1));
    assert!(key2(1, u64::MAX) < key2(2, 0));
    assert_eq!(prefix(u64::MAX).1, None);
    assert_eq!(part(Table::Due, &key2(5, 6), 8).unwrap(), 6);
    assert!(part(Table::Due, &key1(5), 8).is_err());
}

#[test]
fn numbers_of_tables_never_change() {
    let numbers: Vec<u8> = Table::ALL.iter().map(|t| *t as u8).collect();
    let wanted: Vec<u8> = [1, 2, 3].into_iter().chain(10..=29).collect();
    assert_eq!(numbers, wanted);
    assert_eq!((Table::Inode as u8, Table::Lock as u8), (10, 25));
}

#[test]
fn inode_row_bytes() {
    let time = Time {
        secs: 1000,
        nanos: 5,
    };
    let mut row = InodeRow::new(Kind::File, 0o644, (1, 2), time);
    row.parent = Ino(1);
    row.name = b"a".to_vec();
    row.size = 70_000;
    row.chunk_bytes = 70_000;
    row.archive.due = Some(Due::After(9));
    row.archive.object = Some(3);
    golden(&row, GOLDEN_INODE);
}

#[test]
fn name_row_bytes() {
    let (ino, kind) = (Ino(5), Kind::Directory);
    let cookie = 6;
    golden(&DentryRow { ino, kind, cookie }, "02050106");
    let name = b"ab".to_vec();
    golden(&CookieRow { ino, kind, name }, "020501026162");
}

#[test]
fn extent_row_bytes() {
    let content = Content::Chunk {
        id: chunk(),
        skip: 1,
        chunk_len: 300,
        chunk_crc: 0xdead_beef,
    };
    golden(&ExtentRow { len: 299, content }, GOLDEN_EXTENT);
    let content = Content::Object {
        version: 2,
        offset: 3,
    };
    golden(&ExtentRow { len: 1, content }, "0201010203");
    let content = Content::Lost;
    golden(&ExtentRow { len: 1, content }, "020102");
}

#[test]
fn queue_row_bytes() {
    let key = "k".to_string();
    let (ino, version, node) = (Ino(1), 2, NodeId(3));
    let object = ObjectRow {
        key: key.clone(),
        size: 1,
        crc: 2,
    };
    golden(&object, "02016b0102");
    let attempt = AttemptRow {
        ino,
        version,
        node,
        key: key.clone(),
        started_ms: 4,
    };
    golden(&attempt, "02010203016b04");
    golden(&ReapObjectRow { ready_ms: 7, key }, "0207016b");
    let what = ReapChunks::UnnamedOf {
        block: BlockId(3),
        named: vec![1],
    };
    golden(&ReapChunkRow { ready_ms: 7, what }, "020701030101");
    let what = ReapChunks::Chunks(vec![chunk()]);
    golden(&ReapChunkRow { ready_ms: 7, what }, GOLDEN_REAP);
}

#[test]
fn session_row_bytes() {
    let row = SessionRow {
        nonce: 1,
        identity: SessionIdentity {
            machine: "m".into(),
            boot: "b".into(),
            mount_point: "/".into(),
            instance: 2,
        },
        opened_ms: 3,
        blocks: vec![BlockId(4)],
    };
    golden(&row, "0201016d0162012f02030104");
    let block = BlockRow {
        session: SessionId(1),
        count: 1024,
        named: vec![255],
    };
    golden(&block, "0201fb000401ff");
    let range = LockedRange {
        start: 1,
        end: 2,
        kind: LockKind::Write,
        pid: 3,
    };
    let row = LockRow {
        ranges: vec![range],
    };
    golden(&row, "020101020103");
}

#[test]
fn cluster_row_bytes() {
    let node = NodeInfo {
        id: NodeId(1),
        name: "a".into(),
        store: StoreId(0x0102),
        boot: 1 << 20,
        addr: "b".into(),
        peer_addr: "c".into(),
        http: "d".into(),
        role: NodeRole::Storage,
        state: NodeState::Down,
        voter: true,
    };
    golden(&node, "02010161fb0201fc00001000016201630164000101");
    let set = ReplicaSet {
        id: SetId(7),
        nodes: vec![NodeId(1), NodeId(2)],
        epoch: Epoch(3),
        sealed: true,
        joining: Some(NodeId(4)),
        leaving: None,
    };
    golden(&set, "02070201020301010400");
    let mut config = Config {
        cluster: ClusterId(1),
        incarnation: Incarnation(2),
        ..Config::default()
    };
    let plain = "02010203766f6c0201fcc0270900fcc027090000554b";
    golden(&config, plain);
    config.archive = Some(ArchiveConfig {
        endpoint: Some("e".into()),
        region: "r".into(),
        bucket: "b".into(),
        prefix: "p".into(),
    });
    let archives = "02010203766f6c0201fcc0270900fcc027090001010165017201620170554b";
    golden(&config, archives);
    golden(&MapVersion(300), "02fb2c01");
    golden(&UseCount(300), "02fb2c01");
}

#[test]
fn answer_row_bytes() {
    golden::<AnswerRow>(&Ok(Answer::Done(())), "030000");
    golden::<AnswerRow>(&Err(FsError::NotFound.into()), "03010000");
    golden(&AnswerFloor(300), "02fb2c01");
}

#[test]
fn counter_row_bytes() {
    let row = CounterRow {
        ino: 1,
        session: 2,
        block: 3,
        attempt: 4,
        reap: 5,
        node: 6,
        set: 7,
        chunks_ready_ms: 8,
        objects_ready_ms: 9,
        archive_after_ms: 10,
        ..CounterRow::default()
    };
    let wanted = "020102030405060708090a00000000000000000000000000";
    golden(&row, wanted);
}

#[test]
fn other_versions_and_cut_rows_are_malformed() {
    let good = encode(&DentryRow {
        ino: Ino(1),
        kind: Kind::File,
        cookie: 1,
    });
    let refused = |bytes: &[u8]| decode::<DentryRow>(Table::Dentry, bytes).is_err();
    assert!(!refused(&good));
    for len in 0..good.len() {
        assert!(refused(&good[..len]));
    }
    assert!(refused(&[good.as_slice(), &[0]].concat()));
    assert!(refused(&[&[1], &good[1..]].concat()));
    assert_eq!(decode_raw(Table::Xattr, encode_raw(b"x")).unwrap(), b"x");
    assert!(decode_raw(Table::Xattr, vec![]).is_err());
    assert!(decode_raw(Table::Xattr, vec![1, 3]).is_err());
}

const GOLDEN_INODE: &str = concat!(
    "0200fba40101020100fc70110100fbd00705fbd00705fbd00705fbd00705",
    "010101610000fc701101000000000101090000010300"
);
const GOLDEN_EXTENT: &str = "02fb2b0100fe0400030000000000000002000000010001fb2c01fcefbeadde";
const GOLDEN_REAP: &str = "02070001fe04000300000000000000020000000100";

#[test]
fn key_of_a_shared_chunk_is_golden() {
    let key = key_shared(0x0102 << 112 | 3, 4, 5);
    let mut wanted = [0; 32];
    (wanted[0], wanted[1], wanted[15], wanted[23], wanted[31]) = (1, 2, 3, 4, 5);
    assert_eq!(key, wanted);
}
