use super::*;
use std::time::Duration;

/// Ports by server number, no questions asked.
struct Paper;

impl Machine for Paper {
    fn own_ip(&self, n: usize) -> IpAddr {
        format!("127.77.9.{}", if n == 0 { 250 } else { n })
            .parse()
            .unwrap()
    }

    fn ports(&self, _: IpAddr, n: usize, count: usize, _: bool) -> Outcome<Vec<u16>> {
        Ok((7000 + n as u16 * 10..).take(count).collect())
    }

    fn random_key(&self, len: usize) -> String {
        "K".repeat(len)
    }

    fn aws_region(&self) -> String {
        "eu-west-1".into()
    }
}

type Change = Box<dyn Fn(&mut UpArgs)>;

fn layout() -> Layout {
    Layout { root: "/d".into() }
}

fn args(change: impl FnOnce(&mut UpArgs)) -> UpArgs {
    let mut args = UpArgs::default();
    change(&mut args);
    args
}

fn first(change: impl FnOnce(&mut UpArgs)) -> Outcome<Plan> {
    Plan::first(&args(change), &layout(), &Paper)
}

#[test]
fn defaults_are_three_servers_two_copies_and_the_embedded_store() {
    let plan = first(|_| {}).unwrap();
    assert_eq!(plan.servers.len(), 3);
    assert_eq!((plan.copies, plan.min_copies), (2, 1));
    assert_eq!(plan.servers[1].listen.to_string(), "127.77.9.2:7020");
    assert_eq!(plan.servers[1].peer_listen.port(), 7021);
    assert_eq!(plan.mounts, [PathBuf::from("/d/mnt")]);
    assert_eq!(plan.archive_after_ms, 600_000);
    let archive = plan.s3.config().unwrap();
    assert_eq!(
        archive.endpoint.as_deref(),
        Some("http://127.77.9.250:7000")
    );
    assert_eq!(
        plan.s3.keys().map(|(a, s)| (a.len(), s.len())),
        Some((20, 40))
    );
}

#[test]
fn addresses_and_namespaces_count_the_servers() {
    let plan = first(|a| {
        a.addrs = vec!["10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap()];
        a.netns = vec!["x".into(), "y".into()];
    })
    .unwrap();
    assert_eq!(plan.servers.len(), 2);
    assert_eq!(plan.servers[1].netns.as_deref(), Some("y"));
    // The store runs where the servers can reach it.
    let endpoint = plan.s3.config().unwrap().endpoint.unwrap();
    assert_eq!(endpoint, "http://10.0.0.1:7000");
}

#[test]
fn contradictions_are_refused_with_status_2() {
    let ip = |s: &str| s.parse::<IpAddr>().unwrap();
    let cases: Vec<Change> = vec![
        Box::new(|a| a.servers = Some(0)),
        Box::new(|a| a.servers = Some(51)),
        Box::new(|a| a.copies = Some(4)),
        Box::new(|a| a.copies = Some(0)),
        Box::new(|a| a.min_copies = Some(3)),
        Box::new(move |a| a.addrs = vec![ip("10.0.0.1"), ip("10.0.0.1"), ip("0.0.0.0")]),
        Box::new(|a| a.netns = vec!["x".into(), "y".into(), "z".into()]),
        Box::new(move |a| {
            a.servers = Some(3);
            a.addrs = vec![ip("10.0.0.1")];
        }),
        Box::new(|a| a.s3 = Some("ftp://x".into())),
        Box::new(|a| a.s3 = Some("http://key:secret@x".into())),
        Box::new(|a| a.bucket = Some("../x".into())),
        Box::new(|a| {
            a.s3 = Some("none".into());
            a.bucket = Some("b".into());
        }),
        Box::new(|a| a.mount = vec!["/m".into(), "/m".into()]),
    ];
    for (i, case) in cases.iter().enumerate() {
        let failure = first(|a| case(a)).unwrap_err();
        assert_eq!(failure.status, 2, "case {i}: {failure}");
    }
}

#[test]
fn later_start_takes_only_mounts_and_archive_time() {
    let stored = first(|a| a.copies = Some(3)).unwrap();
    let again = |change: fn(&mut UpArgs)| stored.clone().again(&args(change));
    assert_eq!(again(|_| {}).unwrap(), stored);
    let changed = again(|a| {
        a.servers = Some(3);
        a.copies = Some(3);
        a.s3 = Some("embedded".into());
        a.bucket = Some("lagan".into());
        a.mount = vec!["/m1".into(), "/m2".into()];
        a.archive_after = Some(Duration::from_secs(5));
    })
    .unwrap();
    assert_eq!(changed.mounts.len(), 2);
    assert_eq!(changed.archive_after_ms, 5000);
    let refused: [fn(&mut UpArgs); 6] = [
        |a| a.servers = Some(5),
        |a| a.copies = Some(2),
        |a| a.min_copies = Some(1),
        |a| a.s3 = Some("none".into()),
        |a| a.bucket = Some("other".into()),
        |a| a.s3_prefix = Some("p".into()),
    ];
    for (i, change) in refused.into_iter().enumerate() {
        let failure = again(change).unwrap_err();
        assert_eq!(failure.status, 2, "case {i}");
    }
}

#[test]
fn plan_is_kept_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let layout = Layout::new(dir.path()).unwrap();
    assert_eq!(Plan::load(&layout).unwrap(), None);
    for s3 in ["none", "embedded", "http://10.0.0.9:9000/"] {
        let mut plan = first(|a| a.s3 = Some(s3.into())).unwrap();
        plan.cluster = Some(ClusterId(7));
        plan.store(&layout).unwrap();
        assert_eq!(Plan::load(&layout).unwrap(), Some(plan));
    }
    std::fs::write(layout.up_json(), "{}").unwrap();
    assert!(Plan::load(&layout).is_err());
}

#[test]
fn configuration_files_have_what_the_daemons_read() {
    let plan = first(|_| {}).unwrap();
    let parse = |text: String| text.parse::<toml::Table>().unwrap();
    let server = crate::up::config::server(&layout(), &plan, &plan.servers[0]).unwrap();
    let server = parse(server);
    assert_eq!(server["listen"].as_str(), Some("127.77.9.1:7010"));
    assert_eq!(server["bind"].as_str(), Some("127.77.9.1"));
    assert_eq!(server["data"].as_str(), Some("/d/server-1"));
    assert!(server["s3"]["secret_key"].is_str());
    let mount = crate::up::config::mount(&layout(), &plan, "mount-1", Path::new("/m")).unwrap();
    let mount = parse(mount);
    assert_eq!(mount["servers"].as_array().map(Vec::len), Some(3));
    assert_eq!(mount["run_dir"].as_str(), Some("/d/run/mount-1"));
    let s3 = crate::up::config::s3(&layout(), &plan).unwrap().unwrap();
    assert_eq!(parse(s3)["buckets"][0].as_str(), Some("lagan"));
}
