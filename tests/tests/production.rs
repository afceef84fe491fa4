//! A cluster made by hand, as the documentation says.

use crate::shorthands::s;
use lagan_tests::cluster::{COMMAND_LIMIT, PATIENCE, mount_answers};
use lagan_tests::command::{Done, run};
use lagan_tests::processes::{Children, Start};
use lagan_tests::run::{LONG, make_root, remove_root, show_logs};
use lagan_tests::s3::{BUCKET, Store, free_addr};
use lagan_tests::wait::{Ended, attempt, until};
use lagan_tests::{Manifest, Options, binary, corpus, http, leftover, slots, with_cluster};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

/// The servers and mounts that were made by hand.
struct Hand {
    root: PathBuf,
    children: Children,
}

impl Drop for Hand {
    fn drop(&mut self) {
        let left = leftover::remove(&self.root);
        self.children.reap();
        if !std::thread::panicking() {
            assert!(left.is_empty(), "left behind: {left:#?}");
        }
        remove_root(&self.root);
    }
}

struct Server {
    config: PathBuf,
    addr: String,
    pid: u32,
}

impl Hand {
    fn server(&self, n: usize) -> Server {
        let (addr, peer, http_addr) = (free_addr(), free_addr(), free_addr());
        let config = self.root.join(format!("server{n}.toml"));
        let data = self.root.join(format!("data{n}"));
        let text = format!(
            "name = \"store{n}\"\ndata = \"{}\"\nlisten = \"{addr}\"\npeer_listen = \"{peer}\"\n\
             http = \"{http_addr}\"\n\n[log]\nformat = \"json\"\n",
            data.display()
        );
        fs::write(&config, text).expect("write the configuration");
        let program = binary::link(&self.root, "lagan-server");
        let argv = [&program, Path::new("--config"), &config];
        let argv = argv.map(|word| word.to_string_lossy().into_owned());
        let start = Start {
            argv: &argv,
            env: &BTreeMap::from(["AWS_REGION"].map(|k| (k.to_owned(), "us-east-1".to_owned()))),
            cwd: &self.root,
            log: &self.root.join("log").join(format!("server{n}.log")),
        };
        let pid = self.children.start(start).expect("start a server");
        until("the server listens", PATIENCE, || {
            http::get(&http_addr, "/health").ok()
        });
        Server { config, addr, pid }
    }

    fn lagan(&self, args: &[&str]) -> Done {
        let mut lagan = Command::new(binary::lagan());
        run(lagan.args(args).current_dir(&self.root), COMMAND_LIMIT).expect("the command ends")
    }

    fn mount(&self, source: &str, point: &Path) {
        fs::create_dir(point).expect("make a mount point");
        let mut mount = Command::new(binary::link(&self.root, "mount.lagan"));
        let options = format!("rw,noatime,run_dir={}/run", self.root.display());
        mount.arg(source).arg(point).args(["-o", &options]);
        // it returns when the mount answers
        let done = run(&mut mount, COMMAND_LIMIT).expect("mount.lagan ends");
        done.expect(0);
        assert!(mount_answers(point), "the mount answers");
    }

    /// Unmounts, and waits for the mount's process.
    fn unmount(&self, point: &Path) {
        // a program that another test just starts may have a copy of an open file still
        until("it is unmounted", PATIENCE, || {
            let umount = run(Command::new("umount").arg(point), PATIENCE);
            (umount.expect("umount ends").status == Some(0)).then_some(())
        });
        // a server of another test that is in a namespace of its own (`ip netns exec`) may
        // have a copy of the mount as long as it lives
        until("the mount's process has left", LONG, || {
            leftover::processes(point).is_empty().then_some(())
        });
    }
}

#[test]
fn cluster_made_by_hand_works() {
    let _slot = slots::take();
    let hand = Arc::new(Hand {
        root: make_root(),
        children: Children::default(),
    });
    fs::create_dir(hand.root.join("log")).expect("make a directory");
    let body = hand.clone();
    let ended = attempt("by hand", 3 * LONG, move || make_and_use(&body));
    if !matches!(ended, Ended::Well(())) {
        show_logs(&hand.root.join("log"));
        leftover::remove(&hand.root);
        panic!("failed: {ended:?}");
    }
}

fn make_and_use(hand: &Hand) {
    let servers = [1, 2, 3].map(|n| hand.server(n));
    let config = |n: usize| servers[n].config.to_str().expect("text").to_owned();
    let first = config(0);
    let init = ["init", "--config", &first, "copies=2", "archive_after=1s"];
    hand.lagan(&init).expect(0);
    for n in [1, 2] {
        hand.lagan(&["join", &servers[0].addr, "--config", &config(n)])
            .expect(0);
    }
    let addrs = servers
        .each_ref()
        .map(|server| server.addr.clone())
        .join(",");
    until("all three serve", PATIENCE, || {
        let done = hand.lagan(&["status", "--json", "--cluster", &addrs]);
        let up = done.status == Some(0) && done.json()["servers"].as_array()?.len() == 3;
        up.then_some(())
    });
    // init again, or for a member, is refused
    assert_ne!(hand.lagan(&init).status, Some(0));

    let point = hand.root.join("mnt");
    hand.mount(&format!("{addrs}:/vol"), &point);
    let table = fs::read_to_string("/proc/mounts").expect("read the mount table");
    let line = table
        .lines()
        .find(|l| l.contains(point.to_str().expect("text")));
    assert!(line.is_some_and(|l| l.contains("fuse.lagan")), "{line:?}");
    let manifest = corpus::make(&point.join("mail"), 100, 5).expect("make mail");
    manifest.check(&point.join("mail"));
    changed_settings_are_shared(hand, &addrs);
    commands_find_the_cluster_by_the_mount(hand, &point);

    hand.unmount(&point);
    remount_and_stop(hand, &servers, &addrs, &manifest);
}

fn changed_settings_are_shared(hand: &Hand, addrs: &str) {
    hand.lagan(&["set", "archive_after=2h", "--cluster", addrs])
        .expect(0);
    let done = hand.lagan(&["set", "--cluster", addrs]).expect(0);
    assert!(done.out.contains("archive_after=7200s"), "{done}");
    let done = hand
        .lagan(&["set", "colour=red", "--cluster", addrs])
        .expect(2);
    assert!(done.err.contains("colour"), "{done}");
}

fn commands_find_the_cluster_by_the_mount(hand: &Hand, point: &Path) {
    until("they are healthy", PATIENCE, || {
        let mut lagan = Command::new(binary::lagan());
        let done = run(lagan.arg("status").current_dir(point), COMMAND_LIMIT);
        (done.expect("status ends").status == Some(0)).then_some(())
    });
    let file = point.join("mail/2026-01/user00/00000.eml");
    hand.lagan(&["file", file.to_str().expect("text")])
        .expect(0);
    let servers = point_servers(point);
    until("check finds nothing", PATIENCE, || {
        let done = hand.lagan(&["check", "--cluster", &servers]);
        (done.status == Some(0)).then_some(())
    });
}

/// The addresses in the mount's source, as /proc/mounts has it.
fn point_servers(point: &Path) -> String {
    let table = fs::read_to_string("/proc/mounts").expect("read the mount table");
    let line = table
        .lines()
        .find(|l| l.contains(point.to_str().expect("text")));
    let source = line
        .and_then(|l| l.split(' ').next())
        .expect("it is mounted");
    source
        .rsplit_once(":/")
        .expect("addresses:/volume")
        .0
        .to_owned()
}

fn remount_and_stop(hand: &Hand, servers: &[Server; 3], addrs: &str, manifest: &Manifest) {
    let point = hand.root.join("again");
    hand.mount(&format!("{addrs}:/vol"), &point);
    manifest.check(&point.join("mail"));
    hand.unmount(&point);
    for server in servers {
        lagan_tests::sys::kill(server.pid, libc::SIGTERM).expect("stop a server");
    }
    for server in servers {
        let status = until("a server ends", PATIENCE, || {
            hand.children.status(server.pid)
        });
        assert_eq!(status, Some(0));
    }
}

/// By fstab and by hand, in a mount namespace of its own, where /sbin has the helper.
/// Arguments: the directory, the source for `mount -t lagan`, and its options.
///
/// The namespace begins with a copy of every mount, and a copy keeps the process of a
/// mount that its own test unmounts: so they go first, here only.
const MOUNT_AND_UMOUNT: &str = r#"
if grep -E ' (shared|master):' /proc/self/mountinfo; then exit 12; fi
awk '$3 == "fuse.lagan" { print $2 }' /proc/self/mounts | while read -r copy; do umount --lazy --no-canonicalize "$copy"; done
mount --bind "$1/helpers" /sbin
mount --fstab "$1/fstab" "$1/point"
grep -q " $1/point fuse.lagan rw," /proc/self/mounts
cat "$1/point/outside"
echo inside > "$1/point/inside"
umount "$1/point"
mount -t lagan "$2" "$1/point" -o "ro,$3"
grep -q " $1/point fuse.lagan ro," /proc/self/mounts
cat "$1/point/inside"
if touch "$1/point/refused" 2> /dev/null; then exit 10; fi
umount "$1/point"
if mount -t lagan "$2" "$1/point" -o "$3,colour=red"; then exit 11; fi
"#;

#[test]
fn line_in_fstab_mounts_through_mount8() {
    with_cluster(Options::default(), LONG, |cluster| {
        let root = cluster.root().join("mount8");
        for dir in ["helpers", "point", "run"] {
            fs::create_dir_all(root.join(dir)).expect("make a directory");
        }
        binary::link(&root.join("helpers"), "mount.lagan");
        let record = cluster.record();
        let servers = record.processes.iter().filter(|p| p.role == "server");
        let addrs: Vec<String> = servers.filter_map(|p| p.addr.clone()).collect();
        let source = format!("{}:/{}", addrs.join(","), record.volume);
        let options = format!("run_dir={}/run", root.display());
        let line = format!(
            "# servers mount-point type options\n{source}  {}/point  lagan  _netdev,nofail,{options}  0 0\n",
            root.display()
        );
        fs::write(root.join("fstab"), line).expect("write fstab");
        fs::write(cluster.a().join("outside"), "outside\n").expect("write");
        let mut shell = Command::new("unshare");
        shell.args(["--mount", "--propagation", "private"]);
        shell.args(["sh", "-euc", MOUNT_AND_UMOUNT, "sh"]);
        shell.arg(&root).arg(&source).arg(&options);
        let done = run(&mut shell, LONG).expect("it ends").expect(0);
        assert_eq!(done.out, "outside\ninside\n");
        assert!(done.err.contains("colour=red"), "{done}");
        assert_eq!(
            fs::read_to_string(cluster.b().join("inside")).expect("read"),
            "inside\n"
        );
        until("the mounts' processes have left", PATIENCE, || {
            leftover::processes(&root).is_empty().then_some(())
        });
        assert!(
            !Path::new("/sbin/mount.lagan").is_symlink(),
            "it was ours alone"
        );
    });
}

#[test]
fn unknown_volume_and_wrong_options_are_refused_by_mount() {
    let root = make_root();
    let program = binary::link(&root, "mount.lagan");
    let point = root.to_str().expect("text");
    for (args, status) in [
        (&["127.0.0.1:1:/vol", point, "-o", "colour=red"][..], 2),
        (&["no-source", point], 2),
        (&["127.0.0.1:1:/vol", "/no/such/point"], 1),
        (&["127.0.0.1:1:/vol"], 2),
    ] {
        let done = run(Command::new(&program).args(args), s(150)).expect("it ends");
        assert_eq!(done.status, Some(status), "{done}");
        assert!(done.err.lines().count() == 1, "one clear line: {done}");
    }
    remove_root(&root);
}

#[test]
fn archive_is_configured_by_hand() {
    let _slot = slots::take();
    let hand = Hand {
        root: make_root(),
        children: Children::default(),
    };
    fs::create_dir(hand.root.join("log")).expect("make a directory");
    let store = Store::start(&hand.root);
    let server = hand.server(1);
    let endpoint = format!("endpoint={}", store.url());
    let bucket = format!("bucket={BUCKET}");
    let config = server.config.to_str().expect("text").to_owned();
    let settings = ["copies=1", &endpoint, &bucket, "prefix=by-hand"];
    hand.lagan(&[&["init", "--config", &config][..], &settings].concat())
        .expect(0);
    let done = hand.lagan(&["set", "--cluster", &server.addr]).expect(0);
    assert!(done.out.contains("prefix=by-hand"), "{done}");
    // without credentials it says so, and goes on
    until("the status says what is missing", PATIENCE, || {
        let done = hand.lagan(&["status", "--json", "--cluster", &server.addr]);
        let json: serde_json::Value = serde_json::from_str(&done.out).ok()?;
        (json["s3"]["state"] != "ok" && json["s3"]["error"].is_string()).then_some(())
    });
    lagan_tests::sys::kill(server.pid, libc::SIGTERM).expect("stop the server");
    until("the server ends", PATIENCE, || {
        hand.children.status(server.pid)
    });
    drop(store);
}
