use super::*;
use lagan_types::cluster::{ArchiveConfig, ClusterMap, Config, NodeRole};
use lagan_types::message::LeaseStatus;
use lagan_types::op::SessionIdentity;
use lagan_types::query::Counters;
use lagan_types::{ClusterId, Incarnation, NodeId, SessionId, StoreId};

fn node(id: u64, state: NodeState) -> NodeInfo {
    NodeInfo {
        id: NodeId(id),
        name: format!("server-{id}"),
        store: StoreId(id.into()),
        boot: 1,
        addr: format!("127.77.1.{id}:7700"),
        peer_addr: format!("127.77.1.{id}:7701"),
        http: format!("127.77.1.{id}:7702"),
        role: NodeRole::Storage,
        state,
        voter: true,
    }
}

fn said(id: u64, s3_error: &str, s3_permanent: bool) -> NodeStatus {
    NodeStatus {
        node: NodeId(id),
        silent_ms: 120,
        used_bytes: 1 << 20,
        free_bytes: 5 << 30,
        chunks: 12,
        s3_error: s3_error.into(),
        s3_permanent,
        s3_ready: s3_error.is_empty(),
        damaged_chunks: 0,
        clock_skew_ms: 3,
    }
}

fn healthy() -> Status {
    Status {
        leader: Some(NodeId(2)),
        term: 4,
        map: ClusterMap {
            version: 9,
            nodes: vec![node(1, NodeState::Up), node(2, NodeState::Up)],
            sets: vec![],
            config: Config {
                cluster: ClusterId(0xc1),
                incarnation: Incarnation(1),
                archive: Some(ArchiveConfig {
                    endpoint: Some("http://127.77.1.250:7700".into()),
                    region: "us-east-1".into(),
                    bucket: "lagan".into(),
                    prefix: String::new(),
                }),
                ..Config::default()
            },
        },
        nodes: vec![said(1, "", false), said(2, "", false)],
        degraded_chunks: 0,
        counters: Counters {
            inodes: 7,
            due_files: 3,
            due_bytes: 4096,
            oldest_due_ms: 1_000_000,
            oldest_change_ms: 400_000,
            failed_files: 1,
            ..Counters::default()
        },
        sessions: vec![(
            SessionId(5),
            SessionIdentity {
                machine: "m".into(),
                boot: "b".into(),
                mount_point: "/mnt".into(),
                instance: 1,
            },
        )],
        time_ms: 700_000,
        leases: LeaseStatus::default(),
    }
}

#[test]
fn json_has_the_documented_names() {
    let value = serde_json::to_value(Report::new(&healthy(), Vec::new())).unwrap();
    assert_eq!(value["schema"], 1);
    assert_eq!(value["leader"], "server-2");
    assert_eq!(value["term"], 4);
    let server = &value["servers"][0];
    for (key, expected) in [
        ("name", "server-1".into()),
        ("state", "up".into()),
        ("role", "storage".into()),
        ("used_bytes", serde_json::json!(1 << 20)),
        ("free_bytes", serde_json::json!(5u64 << 30)),
    ] {
        assert_eq!(server[key], expected, "{key}");
    }
    assert_eq!(value["degraded_chunks"], 0);
    let archive = &value["archive"];
    assert_eq!(archive["waiting"], 3);
    assert_eq!(archive["bytes"], 4096);
    // Changed at 400 s, now it is 700 s.
    assert_eq!(archive["oldest_s"], 300);
    assert_eq!(archive["failed"], 1);
    assert_eq!(value["s3"]["state"], "ok");
    assert!(value["s3"]["error"].is_null());
    assert_eq!(value["sessions"], 1);
}

#[test]
fn what_nobody_knows_is_null_and_no_number() {
    let mut status = healthy();
    status.nodes[0].silent_ms = NodeStatus::NOT_HEARD;
    let report = Report::new(&status, Vec::new());
    let value = serde_json::to_value(&report).unwrap();
    for key in ["used_bytes", "free_bytes", "chunks", "silent_ms"] {
        assert!(value["servers"][0][key].is_null(), "{key} in {value}");
        assert!(value["servers"][1][key].is_u64(), "{key} in {value}");
    }
    let found = Found {
        servers: Vec::new(),
        by: String::new(),
        record: None,
    };
    let report = without_quorum(&Vec::new(), &found);
    assert_eq!(report.exit_status(), NO_QUORUM);
    let value = serde_json::to_value(&report).unwrap();
    for key in ["waiting", "bytes", "oldest_s", "failed", "uploading"] {
        let number = value["archive"].get(key);
        assert!(number.is_some_and(|n| n.is_null()), "{key} in {value}");
    }
    assert!(value["degraded_chunks"].is_null() && value["sessions"].is_null());
    assert!(!report.text().contains("0 files wait"), "{}", report.text());
}

#[test]
fn exit_status_follows_health() {
    let check = |change: fn(&mut Status), expected| {
        let mut status = healthy();
        change(&mut status);
        assert_eq!(Report::new(&status, Vec::new()).exit_status(), expected);
    };
    check(|_| {}, OK);
    check(|s| s.degraded_chunks = 1, DEGRADED);
    check(|s| s.map.nodes[0].state = NodeState::Down, DEGRADED);
    check(|s| s.counters.lost_extents = 1, DEGRADED);
    check(|s| s.nodes[1] = said(2, "access denied", true), DEGRADED);
    // Tried again by itself: nobody has to do anything.
    check(|s| s.nodes[1] = said(2, "connection refused", false), OK);
    check(|s| s.leader = None, NO_QUORUM);
}

#[test]
fn worst_error_of_s3_is_shown() {
    let mut status = healthy();
    status.nodes = vec![said(1, "slow down", false), said(2, "no such bucket", true)];
    let report = Report::new(&status, Vec::new());
    assert_eq!(report.s3.state, "refused");
    assert_eq!(report.s3.error.as_deref(), Some("no such bucket"));
    assert!(report.text().contains("no such bucket"));
    status.map.config.archive = None;
    assert_eq!(Report::new(&status, Vec::new()).s3.state, "none");
}

#[test]
fn text_names_servers_backlog_and_mounts() {
    let text = Report::new(&healthy(), Vec::new()).text();
    for word in [
        "server-1",
        "leader  server-2",
        "3 files wait",
        "5 min 0 s",
        "/mnt on m",
    ] {
        assert!(text.contains(word), "{word} in {text}");
    }
}

#[test]
fn files_that_s3_cannot_take_are_named_with_the_reason() {
    let mut status = healthy();
    status.counters.too_large_files = 3;
    let file = TooLarge {
        path: "/disk.img".into(),
        reason: "holes of over 64 GiB",
    };
    let report = Report::new(&status, vec![file]);
    let text = report.text();
    assert!(text.contains("3 cannot go to S3"), "{text}");
    assert!(text.contains("/disk.img: holes of over 64 GiB"), "{text}");
    let value = serde_json::to_value(&report).unwrap();
    assert_eq!(value["archive"]["too_large"], 3);
}
