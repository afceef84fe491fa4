//! `lagan up` and `lagan down`: what scripts depend on.

use crate::shorthands::names;
use lagan_tests::cluster::{COMMAND_LIMIT, Cluster, PATIENCE, mount_answers};
use lagan_tests::command;
use lagan_tests::leftover;
use lagan_tests::processes::Start;
use lagan_tests::run::LONG;
use lagan_tests::wait::until;
use lagan_tests::{Options, binary, http, sys, with_cluster};
use serde_json::Value;
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path)
        .expect("look at a file")
        .permissions()
        .mode()
        & 0o7777
}

#[test]
fn up_gives_a_cluster_as_promised() {
    with_cluster(Options::default(), LONG, |cluster| {
        let record = cluster.record();
        assert_eq!(record.schema, 1);
        assert!(!record.cluster_id.is_empty() && !record.volume.is_empty());
        let roles = |role| record.processes.iter().filter(|p| p.role == role).count();
        assert_eq!((roles("server"), roles("mount"), roles("s3")), (3, 2, 1));
        assert_eq!(record.mounts.len(), 2);
        check_modes(&cluster.dir());
        for process in &record.processes {
            check_process(process);
        }
        for mount in &record.mounts {
            assert!(
                mount_answers(&mount.path),
                "{} is mounted",
                mount.path.display()
            );
        }
        let s3 = record.s3.expect("the embedded store is named");
        assert!(s3.endpoint.starts_with("http://127.77."), "{}", s3.endpoint);
        assert!(!s3.secret_key.is_empty());
        keys_are_shown_nowhere(cluster, &s3.secret_key);
        check_status(cluster);
    });
}

/// Whatever holds data, configuration or logs is root's alone; other users must
/// get through to the default mount point.
fn check_modes(dir: &Path) {
    assert_eq!(mode(dir) & 0o011, 0o011, "the way to the mount point");
    let kept = names(dir).into_iter().filter(|n| n != "bin" && n != "mnt");
    for path in kept.map(|name| dir.join(name)) {
        let wanted = if path.is_dir() { 0o700 } else { 0o600 };
        assert_eq!(mode(&path), wanted, "{}", path.display());
    }
    for dir in ["etc", "log"].map(|name| dir.join(name)) {
        for path in names(&dir).into_iter().map(|name| dir.join(name)) {
            assert_eq!(mode(&path), 0o600, "{}", path.display());
        }
    }
}

fn check_process(process: &lagan_tests::record::Process) {
    let name = std::fs::read_to_string(format!("/proc/{}/comm", process.pid));
    let name = name.unwrap_or_else(|e| panic!("{}: {e}", process.name));
    assert_eq!(name.trim(), format!("lagan-{}", process.role));
    assert_eq!(mode(&process.config), 0o600, "{}", process.config.display());
    assert!(process.log.is_file(), "{}", process.log.display());
    assert!(process.cwd.is_dir() && process.data.is_dir());
    if process.role == "server" {
        for addr in [&process.addr, &process.peer_addr, &process.http] {
            let addr = addr.as_ref().expect("a server has three addresses");
            assert!(addr.starts_with("127.77."), "{addr}");
        }
        let http_addr = process.http.as_ref().expect("as above");
        // 503 while it knows no leader, or is silent for a second
        let get = |path: &str| {
            until(path, PATIENCE, || match http::get(http_addr, path) {
                Ok((200, text)) => Some(text),
                _ => None,
            })
        };
        get("/health");
        let text = get("/metrics");
        assert!(text.lines().any(|l| l.starts_with("lagan_")), "{text}");
    }
}

fn keys_are_shown_nowhere(cluster: &Cluster, secret: &str) {
    for found in leftover::processes(cluster.root()) {
        assert!(!found.line.contains(secret), "in arguments: {}", found.line);
    }
    for name in names(&cluster.dir().join("log")) {
        let text = std::fs::read(cluster.dir().join("log").join(&name)).expect("read a log");
        assert!(
            !String::from_utf8_lossy(&text).contains(secret),
            "in {name}"
        );
    }
    let status = cluster.lagan(&["status", "--json"]);
    assert!(!status.out.contains(secret), "in the status");
}

fn check_status(cluster: &Cluster) {
    let json = cluster.status_when("all are up", |status, json| {
        let up = |x: &Value| x["state"] == "up" && x["used_bytes"].is_u64();
        let servers = json["servers"].as_array();
        status == 0 && json["sessions"] == 2 && servers.is_some_and(|all| all.iter().all(up))
    });
    assert_eq!(json["schema"], 1);
    assert!(
        json["leader"]
            .as_str()
            .is_some_and(|l| l.starts_with("server-")),
        "{json}"
    );
    assert!(json["term"].is_u64(), "{json}");
    assert_eq!(json["degraded_chunks"], 0, "{json}");
    for key in ["waiting", "bytes", "oldest_s", "failed"] {
        assert!(json["archive"][key].is_u64(), "archive.{key}: {json}");
    }
    assert_eq!(json["s3"]["state"], "ok", "{json}");
    let servers = json["servers"].as_array().expect("a list of servers");
    assert_eq!(servers.len(), 3);
    for server in servers {
        assert!(
            server["name"].is_string() && server["role"].is_string(),
            "{server}"
        );
        assert!(
            server["used_bytes"].is_u64() && server["free_bytes"].is_u64(),
            "{server}"
        );
    }
}

#[test]
fn up_goes_on_with_the_data_that_is_there() {
    with_cluster(Options::default(), LONG, |cluster| {
        std::fs::write(cluster.a().join("kept"), b"written before").expect("write");
        let ports = |c: &Cluster| c.process("server-1").addr;
        let first = ports(cluster);
        let done = cluster.try_up(&[]).expect(1);
        assert!(done.lines() <= 2, "one clear line: {done}");
        cluster.try_down().expect(0);
        assert!(leftover::processes(cluster.root()).is_empty());
        assert!(leftover::mounts(cluster.root()).is_empty());

        let dir = cluster.dir();
        let up = |args: &[&str]| {
            let mut lagan = Command::new(binary::lagan());
            command::run(
                lagan.arg("up").arg(&dir).args(args).arg("--detach"),
                COMMAND_LIMIT,
            )
        };
        for other in [["--servers", "4"], ["--copies", "3"]] {
            let done = up(&other).expect("up ends").expect(2);
            assert!(done.err.contains(other[0]), "names the option: {done}");
        }
        up(&[]).expect("up ends").expect(0);
        assert_eq!(ports(cluster), first, "ports are kept");
        assert_eq!(
            std::fs::read(cluster.b().join("kept")).expect("read"),
            b"written before"
        );
    });
}

/// `lagan up` without any options but these.
fn up_again(cluster: &Cluster, args: &[&str]) -> command::Done {
    let mut lagan = Command::new(binary::lagan());
    lagan
        .arg("up")
        .arg(cluster.dir())
        .args(args)
        .arg("--detach");
    command::run(&mut lagan, COMMAND_LIMIT)
        .expect("up ends")
        .expect(0)
}

#[test]
fn what_was_set_stays_unless_a_later_start_is_told_otherwise() {
    let options = Options {
        servers: 1,
        copies: 1,
        mounts: 1,
        ..Options::default()
    };
    with_cluster(options.with(&["--s3", "none"]), LONG, |cluster| {
        let after =
            || cluster.lagan(&["set", "--json"]).json()["config"]["archive_after_ms"].clone();
        cluster.lagan(&["set", "archive_after=17s"]).expect(0);
        cluster.try_down().expect(0);
        up_again(cluster, &[]);
        assert_eq!(after(), 17_000);
        cluster.try_down().expect(0);
        up_again(cluster, &["--archive-after", "18s"]);
        assert_eq!(after(), 18_000);
    });
}

#[test]
fn mounts_and_archive_time_can_be_changed_at_a_later_start() {
    with_cluster(Options::default(), LONG, |cluster| {
        std::fs::write(cluster.a().join("kept"), b"x").expect("write");
        cluster.try_down().expect(0);
        let third = cluster.root().join("mnt-new");
        std::fs::create_dir(&third).expect("make a mount point");
        let point = third.to_str().expect("paths of tests are text");
        up_again(cluster, &["--mount", point, "--archive-after", "1s"]);
        assert_eq!(std::fs::read(third.join("kept")).expect("read"), b"x");
        assert!(mount_answers(&third));
        // the new time counts for what waited before, too
        std::fs::write(third.join("new"), b"y").expect("write");
        cluster.status_when("both are archived", |_, json| {
            json["archive"]["archived"] == 2
        });
    });
}

#[test]
fn down_leaves_nothing_when_all_was_killed_and_up_cleans_dead_mounts() {
    let why = "everything is killed";
    with_cluster(Options::default().with_faults(why), LONG, |cluster| {
        std::fs::write(cluster.a().join("kept"), b"x").expect("write");
        for process in cluster.record().processes {
            cluster.kill(&process.name);
        }
        assert_eq!(
            leftover::mounts(cluster.root()).len(),
            2,
            "dead mounts stay"
        );
        cluster.try_up(&[]).expect(0);
        assert_eq!(std::fs::read(cluster.b().join("kept")).expect("read"), b"x");
        for process in cluster.record().processes {
            cluster.kill(&process.name);
        }
        cluster.try_down().expect(0);
        assert!(leftover::mounts(cluster.root()).is_empty());
        assert!(leftover::processes(cluster.root()).is_empty());
    });
}

#[test]
fn busy_mount_is_unmounted_lazily_and_said_so() {
    with_cluster(Options::default(), LONG, |cluster| {
        let held = std::fs::File::create(cluster.a().join("open")).expect("create");
        let done = cluster.try_down().expect(1);
        assert!(done.err.contains("lazily"), "{done}");
        drop(held);
        assert!(leftover::mounts(cluster.root()).is_empty());
        until("all processes are gone", PATIENCE, || {
            leftover::processes(cluster.root()).is_empty().then_some(())
        });
    });
}

#[test]
fn up_in_the_foreground_stops_everything_on_interrupt() {
    let options = Options {
        mounts: 1,
        ..Options::default()
    };
    with_cluster(options, LONG, |cluster| {
        cluster.try_down().expect(0);
        let argv = [binary::lagan(), Path::new("up"), &cluster.dir()];
        let argv = argv.map(|word| word.to_string_lossy().into_owned());
        let log = cluster.root().join("up.log");
        let start = Start {
            argv: &argv,
            env: &BTreeMap::new(),
            cwd: cluster.root(),
            log: &log,
        };
        let pid = cluster.children().start(start).expect("start up");
        until("the mount answers", COMMAND_LIMIT, || {
            mount_answers(&cluster.a()).then_some(())
        });
        until("up says how to look inside", PATIENCE, || {
            let said = std::fs::read_to_string(&log).unwrap_or_default();
            said.contains("Look inside").then_some(())
        });
        assert!(leftover::is_alive(pid), "up stays in the foreground");
        sys::kill(pid, libc::SIGINT).expect("interrupt up");
        let status = until("up ends", COMMAND_LIMIT, || cluster.children().status(pid));
        assert_eq!(
            status,
            Some(0),
            "{}",
            std::fs::read_to_string(&log).unwrap_or_default()
        );
        assert!(leftover::mounts(cluster.root()).is_empty());
        assert!(leftover::processes(cluster.root()).is_empty());
    });
}

#[test]
fn one_server_without_archive_is_enough() {
    let options = Options {
        servers: 1,
        copies: 1,
        mounts: 1,
        ..Options::default()
    };
    with_cluster(options.with(&["--s3", "none"]), LONG, |cluster| {
        std::fs::write(cluster.a().join("x"), b"alone").expect("write");
        assert_eq!(
            std::fs::read(cluster.a().join("x")).expect("read"),
            b"alone"
        );
        let json = cluster.status_when("it is healthy", |status, _| status == 0);
        assert_eq!(json["s3"]["state"], "none", "{json}");
        cluster.check();
        let path = cluster.a().join("x");
        let path = path.to_str().expect("paths of tests are text");
        let done = cluster.lagan(&["archive", "now", path]);
        assert_ne!(done.status, Some(0), "nothing can be archived: {done}");
        cluster.kill("server-1");
        cluster.start("server-1");
        assert_eq!(
            std::fs::read(cluster.a().join("x")).expect("read"),
            b"alone"
        );
    });
}
