//! Packets are dropped: no answer, no refusal, just silence.

use crate::shorthands::s;
use lagan_tests::cluster::PATIENCE;
use lagan_tests::namespaces::Namespaces;
use lagan_tests::network::Silence;
use lagan_tests::run::LONG;
use lagan_tests::wait::until;
use lagan_tests::writer::Writers;
use lagan_tests::{Cluster, Options, with_cluster};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

/// The longest that writers may stand still; against hangs only.
const GO_ON: Duration = s(2 * PATIENCE.as_secs());
/// A mount that waits until the servers are back, however long a cut lasts.
const WAITS: &str = "600s";

#[test]
fn writers_and_readers_go_on_while_servers_are_cut_off() {
    let why = "servers are cut off";
    with_cluster(Options::default().with_faults(why), LONG, |cluster| {
        let (a, b) = (cluster.a().join("work"), cluster.b().join("work"));
        fs::create_dir(&a).expect("make the writers' directory");
        let writers = Writers::start(&a, 4, 21);
        let leader = cluster.leader();
        let mut victims = vec![leader.clone()];
        victims.extend(cluster.servers().into_iter().filter(|name| *name != leader));
        for victim in victims {
            writers.wait_more(30, GO_ON);
            let first = fs::read_dir(&b).expect("list").count();
            let addr = cluster
                .process(&victim)
                .addr
                .expect("a server has an address");
            let silence = Silence::of(&addr);
            writers.wait_more(60, GO_ON);
            assert_eq!(
                fs::read_dir(&b).expect("list").count(),
                first,
                "still served"
            );
            drop(silence);
            cluster.wait_healthy();
        }
        let written = writers.stop();
        eprintln!(
            "{} files, slowest {:?}",
            written.acknowledged.0.len(),
            written.slowest
        );
        assert!(
            written.errors.is_empty(),
            "writers got errors: {:?}",
            written.errors
        );
        written.check(&b);
        cluster.check();
    });
}

#[test]
fn cut_off_server_is_seen_as_down_and_catches_up() {
    let why = "a server is cut off";
    with_cluster(Options::default().with_faults(why), LONG, |cluster| {
        let follower = cluster
            .servers()
            .into_iter()
            .find(|s| *s != cluster.leader());
        let follower = follower.expect("there are three");
        let addr = cluster
            .process(&follower)
            .addr
            .expect("a server has an address");
        let silence = Silence::of(&addr);
        let down = |x: &Value| x["name"] == follower.as_str() && x["state"] == "down";
        cluster.status_when("it is seen as down", |status, json| {
            let servers = json["servers"].as_array();
            status == 3 && servers.is_some_and(|all| all.iter().any(down))
        });
        for n in 0..50 {
            fs::write(cluster.a().join(format!("{n}")), vec![n as u8; 20_000]).expect("write");
        }
        drop(silence);
        cluster.wait_healthy();
        // the others may go now: it has what was committed without it
        let others = cluster
            .servers()
            .into_iter()
            .filter(|name| *name != follower);
        for other in others {
            cluster.kill(&other);
            for n in 0..50 {
                let bytes = fs::read(cluster.b().join(format!("{n}"))).expect("read");
                assert!(bytes == vec![n as u8; 20_000], "file {n} without {other}");
            }
            cluster.start(&other);
            cluster.wait_healthy();
        }
        cluster.check();
    });
}

#[test]
fn servers_in_namespaces_survive_a_cut_link() {
    let net = Namespaces::new(3);
    let options = Options {
        args: [net.args(), vec!["--s3".into(), "none".into()]].concat(),
        ..Options::default()
    };
    let why = "links are cut";
    let net = std::sync::Arc::new(net);
    let links = net.clone();
    with_cluster(options.with_faults(why), LONG, move |cluster| {
        for server in cluster
            .record()
            .processes
            .iter()
            .filter(|p| p.role == "server")
        {
            let comm = fs::read_to_string(format!("/proc/{}/comm", server.pid));
            assert_eq!(
                comm.expect("it runs").trim(),
                "lagan-server",
                "the pid is the server's"
            );
            let addr = server.addr.as_ref().expect("a server has an address");
            assert!(addr.starts_with("10."), "{addr}");
        }
        let (a, b) = (cluster.a().join("work"), cluster.b().join("work"));
        fs::create_dir(&a).expect("make the writers' directory");
        let writers = Writers::start(&a, 4, 22);
        for n in 1..=3 {
            writers.wait_more(30, GO_ON);
            links.set_link(n, false);
            writers.wait_more(60, GO_ON);
            links.set_link(n, true);
            cluster.wait_healthy();
        }
        let written = writers.stop();
        assert!(
            written.errors.is_empty(),
            "writers got errors: {:?}",
            written.errors
        );
        written.check(&b);
        cluster.check();
    });
    drop(net);
}

/// A mount whose packets come from an address of its own, and which gives up after `timeout`.
fn rebind(cluster: &Cluster, name: &str, bind: &str, timeout: &str) {
    cluster.kill(name);
    let config = cluster.process(name).config;
    let text = fs::read_to_string(&config).expect("read a configuration");
    let old = |line: &&str| line.starts_with("bind =") || line.starts_with("timeout =");
    let rest: Vec<&str> = text.lines().filter(|line| !old(line)).collect();
    let rest = rest.join("\n");
    let text = format!("bind = \"{bind}\"\ntimeout = \"{timeout}\"\n{rest}\n");
    fs::write(&config, text).expect("write the configuration");
    cluster.start(name);
}

/// The leader and the first mount on one side, all others on the other.
fn partition(cluster: &Cluster) -> (Vec<String>, Vec<String>) {
    let leader = cluster.leader();
    let addr = |name: &String| cluster.process(name).addr.expect("a server has an address");
    let here = vec![addr(&leader), "127.78.0.1".into()];
    let others = cluster.servers().into_iter().filter(|name| *name != leader);
    let there = others.map(|name| addr(&name));
    (here, there.chain(["127.78.0.2".into()]).collect())
}

#[test]
fn mount_cut_off_with_the_minority_waits_and_goes_on() {
    let why = "a server and a mount are cut off";
    with_cluster(Options::default().with_faults(why), LONG, |cluster| {
        rebind(cluster, "mount-1", "127.78.0.1", WAITS);
        rebind(cluster, "mount-2", "127.78.0.2", WAITS);
        let (a, b) = (cluster.a(), cluster.b());
        fs::create_dir(a.join("few")).expect("make a directory");
        fs::create_dir(a.join("many")).expect("make a directory");
        let few = Writers::start(&a.join("few"), 2, 61);
        let many = Writers::start(&b.join("many"), 2, 62);
        few.wait_more(20, GO_ON);
        let (here, there) = partition(cluster);
        let cut = Silence::between(&here, &there);
        many.wait_more(20, GO_ON);
        let before = few.count();
        many.wait_more(10, GO_ON);
        assert!(few.count() <= before + 2, "a minority commits nothing");
        drop(cut);
        // what waited goes on, without an error
        few.wait_more(20, GO_ON);
        let few = few.stop();
        assert!(few.errors.is_empty(), "{:?}", few.errors);
        cluster.wait_healthy();

        rebind(cluster, "mount-1", "127.78.0.1", "8s");
        let (here, there) = partition(cluster);
        let cut = Silence::between(&here, &there);
        // others lead now
        many.wait_more(20, GO_ON);
        calls_end_after_the_timeout(&a);
        many.wait_more(20, GO_ON);
        drop(cut);
        until("the mount serves again", PATIENCE, || {
            fs::write(a.join("after"), b"after").ok()
        });
        let many = many.stop();
        assert!(many.errors.is_empty(), "{:?}", many.errors);
        // with 8 s a read of what is right could end with an error
        rebind(cluster, "mount-1", "127.78.0.1", WAITS);
        for top in [&a, &b] {
            few.check(&top.join("few"));
            many.check(&top.join("many"));
            assert_eq!(fs::read(top.join("after")).expect("read"), b"after");
        }
        cluster.wait_healthy();
        cluster.check();
    });
}

/// Each call is answered after the mount's 8 s.
fn calls_end_after_the_timeout(top: &Path) {
    let began = Instant::now();
    let stat = fs::metadata(top.join("few"));
    let made = fs::write(top.join("never"), b"never");
    let took = began.elapsed();
    for result in [stat.map(drop), made] {
        let errno = result.expect_err("nobody can know").raw_os_error();
        let waited = [libc::ETIMEDOUT, libc::EIO].map(Some).contains(&errno);
        assert!(waited, "errno {errno:?}");
    }
    assert!(took > s(10) && took < s(90), "{took:?}");
}
