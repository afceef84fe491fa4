//! Wrong options, configurations and stores: one clear line, the right status,
//! and nothing half-started.

use crate::shorthands::s;
use lagan_tests::cluster::Cluster;
use lagan_tests::command::{Done, run};
use lagan_tests::run::{LONG, make_root, remove_root};
use lagan_tests::{Options, binary, leftover, with_cluster};
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

struct Root(PathBuf);

impl Root {
    fn new() -> Self {
        Root(make_root())
    }

    /// Runs `lagan up ROOT/cluster ARGS`, which must be refused.
    #[track_caller]
    fn refused(&self, status: i32, args: &[&str], says: &[&str]) {
        self.refused_at(&self.0.join("cluster"), status, args, says);
    }

    #[track_caller]
    fn refused_at(&self, dir: &Path, status: i32, args: &[&str], says: &[&str]) {
        let mut lagan = Command::new(binary::lagan());
        lagan
            .arg("up")
            .arg(dir)
            .args(args)
            .arg("--detach")
            .current_dir(&self.0);
        let done = run(&mut lagan, s(120)).expect("up ends").expect(status);
        for word in says {
            assert!(done.err.contains(word), "does not say {word:?}: {done}");
        }
        assert!(!done.err.contains("panicked"), "{done}");
        self.expect_nothing_started(&done);
    }

    #[track_caller]
    fn expect_nothing_started(&self, done: &Done) {
        let left = leftover::processes(&self.0);
        assert!(left.is_empty(), "half-started: {left:?}: {done}");
        let mounts = leftover::mounts(&self.0);
        assert!(
            mounts.iter().all(|m| m.ends_with("tmpfs")),
            "mounted: {mounts:?}: {done}"
        );
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        leftover::remove(&self.0);
        remove_root(&self.0);
    }
}

#[test]
fn wrong_options_are_refused_before_anything_starts() {
    let root = Root::new();
    root.refused(2, &["--no-such-option"], &["--no-such-option"]);
    root.refused(2, &["--servers", "0"], &["--servers"]);
    root.refused(2, &["--servers", "many"], &["--servers"]);
    root.refused(2, &["--servers", "2", "--copies", "3"], &["--copies"]);
    root.refused(
        2,
        &["--copies", "2", "--min-copies", "3"],
        &["--min-copies"],
    );
    root.refused(2, &["--archive-after", "soon"], &["--archive-after"]);
    root.refused(
        2,
        &["--servers", "3", "--addrs", "127.77.1.1,127.77.1.2"],
        &["--addrs"],
    );
    root.refused(2, &["--addrs", "somewhere"], &["--addrs"]);
    root.refused(2, &["--s3", "ftp://x"], &["--s3"]);
    root.refused(2, &["--bucket", "no bucket"], &["--bucket"]);
    let unknown = run(Command::new(binary::lagan()).arg("raise"), s(30)).expect("it ends");
    assert!(unknown.expect(2).err.contains("raise"));
}

#[test]
fn wrong_mount_points_are_refused() {
    let root = Root::new();
    let path = |name: &str| root.0.join(name).to_str().expect("text").to_owned();
    root.refused(1, &["--mount", &path("missing")], &["missing"]);
    fs::write(root.0.join("file"), b"").expect("write");
    root.refused(1, &["--mount", &path("file")], &["file", "directory"]);
    fs::create_dir(root.0.join("tmpfs")).expect("make a directory");
    let mount = ["-t", "tmpfs", "none", &path("tmpfs")];
    lagan_tests::command::must("mount", &mount, s(10));
    root.refused(1, &["--mount", &path("tmpfs")], &["tmpfs", "mount"]);
}

#[test]
fn directories_that_cannot_be_used_are_refused() {
    let root = Root::new();
    fs::write(root.0.join("file"), b"").expect("write");
    root.refused_at(&root.0.join("file"), 1, &[], &["file"]);
    root.refused_at(&root.0.join("file/below"), 1, &[], &["file"]);
    root.refused_at(Path::new("/proc/lagan"), 1, &[], &["/proc/lagan"]);
}

#[test]
fn taken_port_is_refused_and_named() {
    with_cluster(Options::default(), LONG, |cluster| {
        cluster.try_down().expect(0);
        let addr = cluster
            .process("server-2")
            .addr
            .expect("a server has an address");
        let taken = TcpListener::bind(&addr).expect("take the port");
        let done = cluster.try_up(&[]).expect(1);
        assert!(done.err.contains(&addr), "names {addr}: {done}");
        assert!(
            leftover::processes(cluster.root()).is_empty(),
            "half-started"
        );
        drop(taken);
        cluster.try_up(&[]).expect(0);
    });
}

#[test]
fn endpoint_without_the_bucket_is_refused() {
    let root = Root::new();
    let store = lagan_tests::s3::Store::start(&root.0.join("store"));
    let mut lagan = Command::new(binary::lagan());
    lagan
        .arg("up")
        .arg(root.0.join("c/cluster"))
        .args(["--s3", &store.url()]);
    lagan
        .args(["--bucket", "another", "--detach"])
        .envs(store.env());
    let done = run(&mut lagan, s(150)).expect("up ends").expect(1);
    assert!(done.err.contains("another"), "names the bucket: {done}");
    assert!(
        leftover::processes(&root.0.join("c")).is_empty(),
        "half-started"
    );
}

#[test]
fn missing_credentials_are_said_in_a_line_that_helps() {
    let root = Root::new();
    let store = lagan_tests::s3::Store::start(&root.0.join("store"));
    let mut lagan = Command::new(binary::lagan());
    for (name, _) in store.env() {
        lagan.env_remove(name);
    }
    for name in ["AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"] {
        lagan.env(name, root.0.join("none"));
    }
    lagan
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .arg("up")
        .arg(root.0.join("c/cluster"))
        .args(["--s3", &store.url(), "--bucket", "test", "--detach"]);
    let done = run(&mut lagan, s(150)).expect("up ends").expect(1);
    for part in ["no S3 credentials", "secret_key", "AWS_SECRET_ACCESS_KEY"] {
        assert!(done.err.contains(part), "says {part}: {done}");
    }
    let logs = lagan_tests::manifest::files(&root.0.join("c/cluster/log")).unwrap_or_default();
    for path in logs {
        let text = fs::read_to_string(&path).expect("read a log");
        let longest = text.lines().map(str::len).max().unwrap_or(0);
        assert!(longest < 1000, "{}: a line of {longest}", path.display());
    }
    assert!(
        leftover::processes(&root.0.join("c")).is_empty(),
        "half-started"
    );
}

#[test]
fn commands_without_a_cluster_say_so() {
    let root = Root::new();
    for args in [
        &["status"][..],
        &["check"],
        &["down", "nowhere"],
        &["file", "/etc/passwd"],
    ] {
        let mut lagan = Command::new(binary::lagan());
        let done = run(lagan.args(args).current_dir(&root.0), s(60)).expect("it ends");
        assert!(matches!(done.status, Some(1 | 2)), "{done}");
        assert!(
            done.err.lines().count() <= 3 && !done.err.is_empty(),
            "{done}"
        );
    }
    let mut lagan = Command::new(binary::lagan());
    let done = run(lagan.args(["status", "--cluster", "127.0.0.1:1"]), s(120)).expect("it ends");
    assert_eq!(done.status, Some(4), "{done}");
}

/// Runs a daemon of the cluster with a changed configuration; it must end by itself.
#[track_caller]
fn daemon(cluster: &Cluster, name: &str, change: impl Fn(&str) -> String) -> Done {
    let process = cluster.process(name);
    let text = fs::read_to_string(&process.config).expect("read a configuration");
    let changed = cluster.root().join(format!("{name}-changed.toml"));
    fs::write(&changed, change(&text)).expect("write a configuration");
    let program = process
        .argv
        .iter()
        .find(|word| word.contains("/bin/lagan-"));
    let mut command = Command::new(program.expect("the program's link"));
    command.arg("--config").arg(changed);
    run(&mut command, s(150)).expect("the daemon ends by itself")
}

#[test]
fn wrong_configuration_names_line_and_key() {
    with_cluster(Options::default(), LONG, |cluster| {
        cluster.try_down().expect(0);
        for name in ["server-1", "mount-1", "s3"] {
            let done = daemon(cluster, name, |text| format!("no_such_key = 1\n{text}")).expect(2);
            assert!(
                done.err.contains("no_such_key") && done.err.contains('1'),
                "{done}"
            );
            let done = daemon(cluster, name, |text| format!("{text}\n= broken")).expect(2);
            assert!(done.err.contains("-changed.toml"), "names the file: {done}");
            assert_eq!(done.err.lines().count(), 1, "one line: {done}");
        }
        let wrong = |text: &str| text.replace("\nlisten = \"127", "\nlisten = \"not-an-address");
        let done = daemon(cluster, "server-1", wrong).expect(2);
        assert!(done.err.contains(".toml:3: listen: "), "{done}");
    });
}

#[test]
fn second_server_on_a_store_is_refused() {
    let why = "a second server is refused, in its own output";
    with_cluster(Options::default().with_faults(why), LONG, |cluster| {
        let done = daemon(cluster, "server-1", |text| text.to_owned()).expect(1);
        assert!(done.err.contains("server-1"), "names the store: {done}");
        cluster.wait_healthy();
    });
}

#[test]
fn store_without_its_past_is_refused_under_its_old_name() {
    let why = "stores are emptied";
    with_cluster(Options::default().with_faults(why), LONG, |cluster| {
        fs::write(cluster.a().join("x"), b"bytes").expect("write");
        let data = cluster.process("server-3").data;
        let aside = cluster.root().join("aside");
        cluster.kill("server-3");
        fs::rename(&data, &aside).expect("take the store away");
        fs::create_dir(&data).expect("an empty one in its place");
        let pid = cluster.launch("server-3");
        std::thread::sleep(s(5));
        lagan_tests::wait::until("an empty store is no member", s(120), || {
            (cluster.status().0 == 3).then_some(())
        });
        assert_eq!(fs::read(cluster.b().join("x")).expect("read"), b"bytes");
        if leftover::is_alive(pid) {
            lagan_tests::sys::kill(pid, libc::SIGKILL).expect("end it");
            lagan_tests::processes::wait_gone(pid, cluster.children(), s(60));
        }
        fs::remove_dir_all(&data).expect("remove the empty one");
        fs::rename(&aside, &data).expect("put the store back");
        cluster.start("server-3");
        cluster.wait_healthy();
        cluster.check();
    });
}

#[test]
fn store_of_a_newer_format_is_refused() {
    with_cluster(Options::default(), LONG, |cluster| {
        cluster.try_down().expect(0);
        let data = cluster.process("server-1").data;
        let file = data.join("identity.toml");
        let text = fs::read_to_string(&file).expect("read the identity");
        fs::write(&file, text.replace("format = 1", "format = 99")).expect("write it");
        let done = daemon(cluster, "server-1", |text| text.to_owned()).expect(1);
        assert!(done.err.contains("99"), "names the format: {done}");
        fs::write(&file, text).expect("put it back");
        cluster.try_up(&[]).expect(0);
    });
}
