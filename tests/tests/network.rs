//! Packets are dropped: no answer, no refusal, just silence.

use crate::shorthands::s;
use lagan_tests::namespaces::Namespaces;
use lagan_tests::network::Silence;
use lagan_tests::run::LONG;
use lagan_tests::writer::Writers;
use lagan_tests::{Options, with_cluster};
use std::fs;

const GO_ON: std::time::Duration = s(60);

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
        lagan_tests::wait::until("it is seen as down", s(60), || {
            let (status, json) = cluster.status();
            let servers = json["servers"].as_array().cloned().unwrap_or_default();
            let down = servers
                .iter()
                .any(|x| x["name"] == follower.as_str() && x["state"] == "down");
            (status == 3 && down).then_some(())
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
