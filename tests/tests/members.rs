//! Servers leave for good, move, and new ones come.

use crate::shorthands::s;
use lagan_tests::cluster::{COMMAND_LIMIT, Cluster, PATIENCE};
use lagan_tests::processes::{Start, wait_gone};
use lagan_tests::run::LONG;
use lagan_tests::s3::free_addr;
use lagan_tests::wait::until;
use lagan_tests::writer::Writers;
use lagan_tests::{Options, binary, command, http, sys, with_cluster};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// The longest that writers may stand still; against hangs only.
const GO_ON: Duration = s(2 * PATIENCE.as_secs());

/// The servers in the answer of a leader.
fn servers(json: &Value) -> &[Value] {
    json["servers"].as_array().map_or(&[], Vec::as_slice)
}

fn wait_down(cluster: &Cluster, name: &str) {
    let down = |x: &Value| x["name"] == name && x["state"] == "down";
    cluster.status_when("it is seen as down", |_, json| {
        servers(json).iter().any(down)
    });
}

fn voters(json: &Value) -> Vec<String> {
    let voters = servers(json).iter().filter(|x| x["voter"] == true);
    voters
        .filter_map(|x| x["name"].as_str().map(str::to_owned))
        .collect()
}

/// Names of the voters, once all is well and there are that many.
fn wait_voters(cluster: &Cluster, count: usize) -> Vec<String> {
    let json = cluster.status_when("enough vote", |status, json| {
        status == 0 && voters(json).len() == count
    });
    voters(&json)
}

#[test]
fn dead_server_is_removed_and_a_new_one_takes_its_place() {
    let why = "a server is killed for good";
    let options = Options {
        servers: 4,
        ..Options::default()
    };
    with_cluster(options.with_faults(why), LONG, |cluster| {
        let (a, b) = (cluster.a().join("work"), cluster.b().join("work"));
        fs::create_dir(&a).expect("make a directory");
        let writers = Writers::start(&a, 2, 51);
        writers.wait_more(60, GO_ON);
        // a voter, so that its seat has to go to somebody
        let victim = wait_voters(cluster, 3).pop().expect("three vote");

        let done = cluster.lagan(&["remove", &victim]).expect(1);
        assert!(done.err.contains("it is up"), "{done}");
        let done = cluster.lagan(&["remove", "nobody"]).expect(1);
        assert!(done.err.contains("no server"), "{done}");
        cluster.kill(&victim);
        wait_down(cluster, &victim);
        writers.wait_more(30, GO_ON);
        let done = cluster.lagan(&["remove", &victim]).expect(0);
        assert!(done.out.contains("is removed"), "{done}");

        let other = |x: &Value| x["name"] != victim.as_str();
        cluster.status_when("the others are up, and three vote", |status, json| {
            status == 0 && servers(json).iter().all(other) && voters(json).len() == 3
        });
        writers.wait_more(30, GO_ON);
        removed_server_stays_out(cluster, &victim);
        let new = new_server(cluster);
        cluster.wait_healthy();
        // the writers go on: mounts learn of the new one with their next heartbeat
        let filled = |x: &Value| x["name"] == "server-new" && x["chunks"].as_u64() > Some(0);
        cluster.status_when("the new one has chunks", |_, json| {
            servers(json).iter().any(filled)
        });
        let written = writers.stop();
        assert!(written.errors.is_empty(), "{:?}", written.errors);
        written.check(&b);
        cluster.check();
        sys::kill(new, libc::SIGTERM).expect("stop the new server");
        wait_gone(new, cluster.children(), PATIENCE);
        // each chunk has a replica besides
        written.check(&b);
    });
}

/// The server says that its store is of no use any more.
fn removed_server_stays_out(cluster: &Cluster, name: &str) {
    let pid = cluster.launch(name);
    wait_gone(pid, cluster.children(), PATIENCE);
    let log = fs::read_to_string(cluster.process(name).log).expect("read its log");
    assert!(log.contains("or removed it"), "{log}");
    cluster.wait_healthy();
}

/// Starts a server on an empty directory and has it join; gives its process.
fn new_server(cluster: &Cluster) -> u32 {
    let (listen, peer, http_addr) = (free_addr(), free_addr(), free_addr());
    let config = cluster.root().join("new.toml");
    let text = format!(
        "name = \"server-new\"\ndata = \"{}\"\nlisten = \"{listen}\"\n\
         peer_listen = \"{peer}\"\nhttp = \"{http_addr}\"\n",
        cluster.root().join("new").display()
    );
    fs::write(&config, text).expect("write its configuration");
    let like = cluster.process("server-1");
    let argv: Vec<String> = like
        .argv
        .iter()
        .map(|word| match Path::new(word) == like.config {
            true => config.to_string_lossy().into_owned(),
            false => word.clone(),
        })
        .collect();
    let start = Start {
        argv: &argv,
        env: &like.env,
        cwd: &like.cwd,
        log: &cluster.root().join("new.log"),
    };
    let pid = cluster.children().start(start).expect("start a new server");
    until("it listens", PATIENCE, || {
        http::get(&http_addr, "/health").ok()
    });
    let via = like.addr.expect("a server has an address");
    let mut lagan = Command::new(binary::lagan());
    lagan.args(["join", &via, "--server", &listen]);
    command::run(&mut lagan, COMMAND_LIMIT)
        .expect("join ends")
        .expect(0);
    until("it is ready", PATIENCE, || {
        matches!(http::get(&http_addr, "/health"), Ok((200, _))).then_some(())
    });
    pid
}

#[test]
fn later_start_leaves_a_removed_server_out_until_its_directory_is_emptied() {
    let why = "a server is killed for good, and its store refused";
    let options = Options {
        mounts: 1,
        ..Options::default()
    };
    with_cluster(options.with_faults(why), LONG, |cluster| {
        let kept = cluster.a().join("kept");
        fs::write(&kept, b"kept").expect("write");
        cluster.kill("server-3");
        wait_down(cluster, "server-3");
        cluster.lagan(&["remove", "server-3"]).expect(0);
        let data = cluster.process("server-3").data;
        // at the first start the server itself finds out
        for start in ["first", "second"] {
            cluster.try_down().expect(0);
            let done = cluster.try_up(&[]).expect(0);
            assert!(done.err.contains("server-3 was removed"), "{start}: {done}");
            assert_eq!(done.err.lines().count(), 1, "{start}: {done}");
            assert_eq!(cluster.servers(), ["server-1", "server-2"], "{start}");
            wait_servers(cluster, 2);
            assert_eq!(fs::read(&kept).expect("read"), b"kept", "{start}");
        }
        cluster.try_down().expect(0);
        fs::remove_dir_all(&data).expect("empty its directory");
        let done = cluster.try_up(&[]).expect(0);
        assert_eq!(done.err, "", "{done}");
        wait_servers(cluster, 3);
        assert_eq!(fs::read(&kept).expect("read"), b"kept");
    });
}

/// All is well, with that many servers.
fn wait_servers(cluster: &Cluster, count: usize) {
    cluster.status_when("so many are up", |status, json| {
        status == 0 && servers(json).len() == count
    });
}

#[test]
fn last_replica_is_given_up_only_by_force() {
    let why = "a server is killed for good";
    let options = Options {
        copies: 1,
        mounts: 1,
        ..Options::default()
    };
    with_cluster(options.with_faults(why), LONG, |cluster| {
        let a = cluster.a();
        for n in 0..40 {
            fs::write(a.join(format!("{n}")), vec![n as u8; 20_000]).expect("write");
        }
        let leader = cluster.leader();
        let victim = cluster.servers().into_iter().find(|s| *s != leader);
        let victim = victim.expect("there are three");
        cluster.kill(&victim);
        wait_down(cluster, &victim);
        let done = cluster.lagan(&["remove", &victim]).expect(1);
        assert!(done.err.contains("no other server that is up"), "{done}");
        let done = cluster.lagan(&["remove", &victim, "--force"]).expect(0);
        assert!(done.out.contains("are lost"), "{done}");
        // what was lost says so at once, the rest is there
        let (mut lost, mut right) = (0, 0);
        for n in 0..40 {
            match fs::read(a.join(format!("{n}"))) {
                Ok(bytes) => {
                    assert!(bytes == vec![n as u8; 20_000], "file {n}");
                    right += 1;
                }
                Err(error) => {
                    assert_eq!(error.raw_os_error(), Some(libc::EIO), "file {n}: {error}");
                    lost += 1;
                }
            }
        }
        assert!(lost > 0 && right > 0, "{lost} lost, {right} right");
        cluster.status_when("what is lost is told", |status, json| {
            status == 3 && servers(json).len() == 2
        });
        fs::write(a.join("new"), b"it goes on").expect("write");
    });
}

#[test]
fn server_that_comes_back_elsewhere_counts_for_the_quorum() {
    let why = "servers are killed";
    with_cluster(Options::default().with_faults(why), LONG, |cluster| {
        let (a, b) = (cluster.a().join("work"), cluster.b().join("work"));
        fs::create_dir(&a).expect("make a directory");
        let writers = Writers::start(&a, 2, 52);
        let names = cluster.servers();
        for (moved, other) in [(0, 1), (1, 2)] {
            writers.wait_more(20, GO_ON);
            let moved = &names[moved];
            cluster.kill(moved);
            let addr = move_peer_listen(&cluster.process(moved).config);
            cluster.start(moved);
            wait_members_know(cluster, &addr);
            cluster.wait_healthy();
            // now the moved one and the third are the majority
            cluster.kill(&names[other]);
            writers.wait_more(30, GO_ON);
            cluster.start(&names[other]);
            cluster.wait_healthy();
        }
        let written = writers.stop();
        assert!(written.errors.is_empty(), "{:?}", written.errors);
        written.check(&b);
        cluster.check();
    });
}

/// A server that is back for a moment only counts as up before the others know where it is.
fn wait_members_know(cluster: &Cluster, addr: &str) {
    let tells = |line: &str| line.contains("members changed") && line.contains(addr);
    until("the others know where it is", PATIENCE, || {
        let names = cluster.servers();
        let logs = names.iter().map(|name| cluster.process(name).log.clone());
        let mut texts = logs.filter_map(|log| fs::read_to_string(log).ok());
        texts.any(|text| text.lines().any(tells)).then_some(())
    });
}

/// Another free port of the same address; returns both.
fn move_peer_listen(config: &Path) -> String {
    let text = fs::read_to_string(config).expect("read a configuration");
    let line = text.lines().find(|l| l.starts_with("peer_listen"));
    let line = line.expect("it says where it listens");
    let (head, _) = line.rsplit_once(':').expect("ip:port");
    let addr = free_addr();
    let (_, port) = addr.rsplit_once(':').expect("ip:port");
    let text = text.replace(line, &format!("{head}:{port}\""));
    fs::write(config, text).expect("write the configuration");
    let ip = head.rsplit_once('"').map_or(head, |(_, ip)| ip);
    format!("{ip}:{port}")
}

#[test]
fn any_server_leads_to_the_leader_also_one_that_does_not_vote() {
    let options = Options {
        servers: 2,
        mounts: 1,
        ..Options::default()
    };
    with_cluster(options, LONG, |cluster| {
        let voting = wait_voters(cluster, 1);
        for name in cluster.servers() {
            let addr = cluster.process(&name).addr.expect("a server's address");
            let done = until("it answers, and both are up", PATIENCE, || {
                let mut lagan = Command::new(binary::lagan());
                lagan.args(["status", "--json", "--cluster", &addr]);
                let done = command::run(&mut lagan, COMMAND_LIMIT).expect("it ends");
                (done.status == Some(0)).then_some(done)
            });
            assert_eq!(done.json()["leader"], voting[0].as_str(), "{name}: {done}");
            // one that is not known is passed over
            let some = format!("no-such-host.invalid:7700,{addr}");
            let mut lagan = Command::new(binary::lagan());
            lagan.args(["set", "--cluster", &some]);
            let done = command::run(&mut lagan, COMMAND_LIMIT).expect("it ends");
            done.expect(0);
        }
    });
}

#[test]
fn status_without_quorum_does_not_wait_for_long() {
    let why = "two servers are killed";
    let options = Options {
        mounts: 1,
        ..Options::default()
    };
    with_cluster(options.with_faults(why), LONG, |cluster| {
        cluster.kill("server-2");
        let frozen = cluster.freeze("server-3");
        // 3 s on a machine that has nothing else to do; one look may wait for a processor
        until("it is said soon that there is no quorum", PATIENCE, || {
            let began = Instant::now();
            let done = cluster.lagan(&["status"]);
            let took = began.elapsed();
            eprintln!("status {:?} after {took:?}", done.status);
            let said = done.status == Some(4) && done.out.contains("no quorum");
            (said && took < s(8)).then_some(())
        });
        drop(frozen);
        cluster.start("server-2");
        cluster.wait_healthy();
    });
}
