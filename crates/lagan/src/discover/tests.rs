use super::*;
use crate::layout::Role;
use crate::record::{MountEntry, Process};
use std::collections::BTreeMap;

struct Machine {
    dir: tempfile::TempDir,
    places: Places,
}

fn machine() -> Machine {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().canonicalize().unwrap();
    std::fs::create_dir_all(root.join("cwd")).unwrap();
    std::fs::create_dir_all(root.join("run")).unwrap();
    Machine {
        places: Places {
            cwd: root.join("cwd"),
            client_toml: root.join("client.toml"),
            run_lagan: root.join("run"),
            mounts: vec![Mount {
                device: "0:30".into(),
                point: "/".into(),
                fs_type: "ext4".into(),
                source: "/dev/vda".into(),
            }],
        },
        dir,
    }
}

impl Machine {
    fn root(&self) -> PathBuf {
        self.dir.path().canonicalize().unwrap()
    }

    fn cluster_in(&self, dir: &Path, addr: &str, mount: Option<&Path>) {
        std::fs::create_dir_all(dir).unwrap();
        let process = Process {
            name: "server-1".into(),
            role: Role::Server,
            pid: 1,
            argv: vec![],
            env: BTreeMap::new(),
            cwd: "/".into(),
            log: "/l".into(),
            addr: Some(addr.into()),
            peer_addr: None,
            http: None,
            data: "/d".into(),
            config: "/c".into(),
        };
        let record = Record {
            schema: 1,
            cluster_id: "1".into(),
            volume: "vol".into(),
            processes: vec![process],
            mounts: mount
                .map(|m| MountEntry {
                    name: "mount-1".into(),
                    path: m.into(),
                    pid: 2,
                })
                .into_iter()
                .collect(),
            s3: None,
        };
        record.store(&dir.join("cluster.json")).unwrap();
    }

    fn mounted(&mut self, point: &Path, source: &str) {
        std::fs::create_dir_all(point).unwrap();
        self.places.mounts.push(Mount {
            device: "0:30".into(),
            point: point.into(),
            fs_type: "fuse.lagan".into(),
            source: source.into(),
        });
    }

    fn find(&self, cluster: Option<&str>, path: Option<&Path>) -> Outcome<Vec<String>> {
        find(cluster, path, &self.places).map(|f| f.servers)
    }
}

#[test]
fn named_cluster_comes_first() {
    let mut m = machine();
    let mnt = m.root().join("mnt");
    m.mounted(&mnt, "10.0.0.9:7700:/vol");
    assert_eq!(
        m.find(Some("10.0.0.1:7700,10.0.0.2:7700"), Some(&mnt)),
        Ok(vec!["10.0.0.1:7700".into(), "10.0.0.2:7700".into()])
    );
    let dir = m.root().join("c");
    m.cluster_in(&dir, "127.77.1.1:7700", None);
    assert_eq!(
        m.find(dir.to_str(), Some(&mnt)),
        Ok(vec!["127.77.1.1:7700".into()])
    );
}

#[test]
fn mount_of_the_path_comes_before_that_of_the_working_directory() {
    let mut m = machine();
    let (a, b) = (m.root().join("a"), m.root().join("cwd/b"));
    m.mounted(&a, "10.0.0.1:1,10.0.0.2:1:/vol");
    m.mounted(&b, "10.0.0.3:1:/vol");
    m.places.cwd = b.clone();
    assert_eq!(m.find(None, Some(&a)).unwrap().len(), 2);
    assert_eq!(m.find(None, None), Ok(vec!["10.0.0.3:1".into()]));
}

#[test]
fn mount_by_host_names_is_found_by_these() {
    let mut m = machine();
    let mnt = m.root().join("mnt");
    m.mounted(&mnt, "store1:7700,store2.example:7700:/vol");
    let names = ["store1:7700", "store2.example:7700"].map(str::to_owned);
    assert_eq!(m.find(None, Some(&mnt)).unwrap(), names);
    assert_eq!(m.find(Some("store1:7700"), None).unwrap(), names[..1]);
}

#[test]
fn mount_without_addresses_is_known_by_its_session_file_or_record() {
    let mut m = machine();
    let mnt = m.root().join("c/mnt");
    m.mounted(&mnt, "lagan:vol");
    assert_eq!(m.find(None, Some(&mnt)).unwrap_err().status, 1);
    m.cluster_in(&m.root().join("c"), "127.77.2.1:7700", Some(&mnt));
    assert_eq!(m.find(None, Some(&mnt)), Ok(vec!["127.77.2.1:7700".into()]));
    std::fs::create_dir(m.root().join("run/x")).unwrap();
    let json = serde_json::json!({"mount_point": mnt, "servers": ["10.1.1.1:5"]});
    std::fs::write(m.root().join("run/x/mount.json"), json.to_string()).unwrap();
    assert_eq!(m.find(None, Some(&mnt)), Ok(vec!["10.1.1.1:5".into()]));
}

#[test]
fn demo_directory_comes_before_the_machine_wide_file() {
    let m = machine();
    assert_eq!(m.find(None, None).unwrap_err().status, 2);
    std::fs::write(&m.places.client_toml, "servers = ['10.0.0.7:7700']\n").unwrap();
    assert_eq!(m.find(None, None), Ok(vec!["10.0.0.7:7700".into()]));
    m.cluster_in(&m.places.cwd.join("lagan-demo"), "127.77.4.1:7700", None);
    assert_eq!(m.find(None, None), Ok(vec!["127.77.4.1:7700".into()]));
}

#[test]
fn mistakes_are_named() {
    let m = machine();
    let error = m.find(Some("nowhere"), None).unwrap_err();
    assert_eq!(error.status, 2);
    std::fs::write(&m.places.client_toml, "\nserver = 1\n").unwrap();
    let error = m.find(None, None).unwrap_err();
    assert!(error.message.contains("client.toml:2"), "{error}");
    let error = m.find(None, Some(Path::new("missing"))).unwrap_err();
    assert_eq!(error.status, 1);
}
