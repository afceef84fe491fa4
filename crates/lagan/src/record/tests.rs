use super::*;

fn sample() -> Record {
    let process = |name: &str, role: Role, argv: &[&str], addr: Option<&str>| Process {
        name: name.into(),
        role,
        pid: 41,
        argv: argv.iter().map(|a| a.to_string()).collect(),
        env: BTreeMap::new(),
        cwd: "/d".into(),
        log: format!("/d/log/{name}.log").into(),
        addr: addr.map(str::to_owned),
        peer_addr: addr.map(|a| a.replace(":7700", ":7701")),
        http: addr.map(|a| a.replace(":7700", ":7702")),
        data: format!("/d/{name}").into(),
        config: format!("/d/etc/{name}.toml").into(),
    };
    Record {
        schema: 1,
        cluster_id: "0f".into(),
        volume: "vol".into(),
        processes: vec![
            process(
                "server-1",
                Role::Server,
                &["/d/bin/lagan-server", "--config", "/d/etc/server-1.toml"],
                Some("127.77.3.1:7700"),
            ),
            process("mount-1", Role::Mount, &["/d/bin/lagan-mount"], None),
        ],
        mounts: vec![MountEntry {
            name: "mount-1".into(),
            path: "/d/mnt".into(),
            pid: 41,
        }],
        s3: None,
    }
}

/// Scripts read these names: they stay as they are.
const GOLDEN: &str = r#"{
  "schema": 1,
  "cluster_id": "0f",
  "volume": "vol",
  "processes": [
    {
      "name": "server-1",
      "role": "server",
      "pid": 41,
      "argv": [
        "/d/bin/lagan-server",
        "--config",
        "/d/etc/server-1.toml"
      ],
      "env": {},
      "cwd": "/d",
      "log": "/d/log/server-1.log",
      "addr": "127.77.3.1:7700",
      "peer_addr": "127.77.3.1:7701",
      "http": "127.77.3.1:7702",
      "data": "/d/server-1",
      "config": "/d/etc/server-1.toml"
    },
    {
      "name": "mount-1",
      "role": "mount",
      "pid": 41,
      "argv": [
        "/d/bin/lagan-mount"
      ],
      "env": {},
      "cwd": "/d",
      "log": "/d/log/mount-1.log",
      "data": "/d/mount-1",
      "config": "/d/etc/mount-1.toml"
    }
  ],
  "mounts": [
    {
      "name": "mount-1",
      "path": "/d/mnt",
      "pid": 41
    }
  ]
}
"#;

#[test]
fn record_has_the_documented_names() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cluster.json");
    sample().store(&path).unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), GOLDEN);
    assert_eq!(Record::load(&path).unwrap(), sample());
}

#[test]
fn process_started_by_hand_replaces_its_pid_only() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cluster.json");
    sample().store(&path).unwrap();
    let entry = Record::set_pid(&path, "mount-1", 99).unwrap();
    assert_eq!(entry.map(|p| p.pid), Some(99));
    let record = Record::load(&path).unwrap();
    assert_eq!(record.processes[0].pid, 41);
    assert_eq!(record.processes[1].pid, 99);
    assert_eq!(record.mounts[0].pid, 99);
    assert_eq!(Record::set_pid(&path, "mount-7", 1).unwrap(), None);
}

#[test]
fn newer_schema_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cluster.json");
    let record = Record {
        schema: 2,
        ..sample()
    };
    record.store(&path).unwrap();
    let error = Record::load(&path).unwrap_err();
    assert!(error.message.contains("schema 2"), "{error}");
}
