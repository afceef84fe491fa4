use super::*;
use lagan_types::cluster::{NodeInfo, NodeRole, ReplicaSet};
use lagan_types::{BlockId, ChunkId, Epoch, NodeId, SetId, StoreId, Time, VolumeId};

fn map() -> ClusterMap {
    let node = |id: u64, state| NodeInfo {
        id: NodeId(id),
        name: format!("server-{id}"),
        store: StoreId(1),
        boot: 1,
        addr: "127.0.0.1:1".into(),
        peer_addr: "127.0.0.1:2".into(),
        http: "127.0.0.1:3".into(),
        role: NodeRole::Storage,
        state,
        voter: true,
    };
    ClusterMap {
        nodes: vec![node(1, NodeState::Up), node(2, NodeState::Down)],
        sets: vec![ReplicaSet {
            id: SetId(4),
            nodes: vec![NodeId(1), NodeId(2)],
            epoch: Epoch(1),
            sealed: true,
            joining: None,
            leaving: None,
        }],
        ..ClusterMap::default()
    }
}

fn attr() -> Attr {
    Attr {
        ino: Ino(12),
        kind: Kind::File,
        mode: 0o644,
        uid: 0,
        gid: 0,
        nlink: 1,
        size: 30,
        allocated: 30,
        rdev: 0,
        atime: Time::default(),
        mtime: Time::default(),
        ctime: Time::default(),
        btime: Time::default(),
        version: 3,
        archive: ArchiveState::Dirty,
    }
}

#[test]
fn report_shows_replicas_and_that_the_object_is_old() {
    let extents = [
        Extent {
            offset: 0,
            len: 10,
            content: Content::Chunk {
                id: ChunkId::new(VolumeId::ONLY, SetId(4), BlockId(9), 0),
                skip: 0,
                chunk_len: 10,
                chunk_crc: 1,
            },
        },
        Extent {
            offset: 10,
            len: 20,
            content: Content::Object {
                version: 2,
                offset: 10,
            },
        },
    ];
    let object = Object {
        version: 2,
        key: "p/x/f".into(),
        size: 30,
        crc: 0xab,
    };
    let mut tally = Tally::default();
    tally.add(&extents, &map());
    // what a page that is not shown says
    let lost = Extent {
        content: Content::Lost,
        ..extents[1].clone()
    };
    tally.add(&[lost.clone(), extents[1].clone(), lost], &map());
    let report = FileReport::new(
        Path::new("mnt/f"),
        &map(),
        &attr(),
        &extents,
        tally,
        Some(&object),
    );
    assert_eq!(report.copies.healthy, Some(1));
    assert_eq!(report.extents[1].place, "object");
    let text = report.text();
    for words in [
        "1/2",
        "dirty",
        "p/x/f (an older version)",
        "server-2(down)",
        "extents  5, 1 with fewer copies, 2 lost",
        "and 3 extents more",
    ] {
        assert!(text.contains(words), "{words} in {text}");
    }
    let value = serde_json::to_value(&report).unwrap();
    assert_eq!(value["state"], "dirty");
    assert_eq!(value["object_crc32"], "000000ab");
    assert_eq!(value["extents"][0]["replicas"][1]["up"], false);
}
