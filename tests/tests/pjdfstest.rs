//! The POSIX test suite pjdfstest on a mount.

use lagan_tests::cluster::PATIENCE;
use lagan_tests::processes::{Children, Start};
use lagan_tests::run::{LONG, make_root, remove_root};
use lagan_tests::wait::until;
use lagan_tests::{Cluster, Options, binary, command, leftover, with_cluster};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

const CONFIG: &str = r#"
[features]
posix_fallocate = {}
rename_ctime = {}
utimensat = {}
utime_now = {}
[dummy_auth]
entries = [["nobody", "nogroup"], ["daemon", "daemon"], ["bin", "bin"]]
"#;

/// Cases that the suite has, at least: fewer mean that it did not run.
const CASES: usize = 390;

#[test]
fn posix_suite_passes_but_for_what_is_excluded() {
    let options = Options {
        mounts: 1,
        ..Options::default()
    };
    with_cluster(options, 3 * LONG, |cluster| {
        let dir = work_dir(&cluster.a());
        std::fs::create_dir(&dir).expect("make a directory");
        open_for_all(cluster.root());
        let done = suite(cluster.root(), &dir, false, &[]);
        let mut cases = results(&done.out);
        assert!(cases.len() >= CASES, "only {} cases: {done}", cases.len());
        pass_read_only(cluster, &dir, &mut cases);
        judge(&cases);
    });
}

/// Runs the cases that mount read-only until each has passed once, or half of `LONG` has
/// gone: whatever else the mount does, such as letting go of a file that was unlinked,
/// makes the kernel refuse that.
fn pass_read_only(cluster: &Cluster, dir: &Path, cases: &mut BTreeMap<String, Option<String>>) {
    let began = Instant::now();
    while began.elapsed() < LONG / 2 {
        let open = cases
            .iter()
            .filter(|(name, why)| name.contains("erofs") && why.is_some());
        let open: Vec<String> = open.map(|(name, _)| name.clone()).collect();
        if open.is_empty() {
            return;
        }
        wait_until_idle(&cluster.a());
        let open: Vec<&str> = open.iter().map(String::as_str).collect();
        let mut again = results(&suite(cluster.root(), dir, true, &open).out);
        // a name may be part of another one that has passed
        again.retain(|name, _| cases.get(name) != Some(&None));
        cases.extend(again);
    }
}

/// A case is excluded only where FUSE or the C library is the reason: on a file system
/// of FUSE that has nothing of ours in it, the suite says the same of it.
#[test]
fn what_is_excluded_fails_on_a_trivial_fuse_file_system_too() {
    let excluded = excluded();
    let trivial = Trivial::mount();
    let names: Vec<&str> = excluded.keys().map(String::as_str).collect();
    if names.is_empty() {
        return;
    }
    let done = suite(&trivial.root, &trivial.point, false, &names);
    let cases = results(&done.out);
    for (name, says) in &excluded {
        let result = cases.get(name).unwrap_or_else(|| panic!("{name}: {done}"));
        assert_eq!(result.as_ref(), Some(says), "{name}: {done}");
    }
}

/// A mount of `trivial-fs`; gone when this is dropped.
struct Trivial {
    root: PathBuf,
    point: PathBuf,
    process: Children,
}

impl Trivial {
    fn mount() -> Self {
        let root = make_root();
        let trivial = Trivial {
            point: root.join("mnt"),
            process: Children::default(),
            root,
        };
        std::fs::create_dir(&trivial.point).expect("make a mount point");
        let argv = [env!("CARGO_BIN_EXE_trivial-fs"), path(&trivial.point)].map(str::to_owned);
        let started = trivial.process.start(Start {
            argv: &argv,
            env: &BTreeMap::new(),
            cwd: &trivial.root,
            log: &trivial.root.join("log"),
        });
        let pid = started.expect("start trivial-fs");
        // the table of mounts tells, without a call on the mount itself
        until("the trivial file system is mounted", PATIENCE, || {
            let ended = trivial.process.status(pid);
            assert!(ended.is_none(), "trivial-fs ended with {ended:?}");
            leftover::mounts(&trivial.root).first().map(|_| ())
        });
        trivial
    }
}

impl Drop for Trivial {
    fn drop(&mut self) {
        leftover::remove(&self.root);
        self.process.reap();
        remove_root(&self.root);
    }
}

fn path(path: &Path) -> &str {
    path.to_str().expect("paths of tests are text")
}

/// Runs the suite, or the cases whose names contain one of these words.
fn suite(root: &Path, dir: &Path, remounts: bool, words: &[&str]) -> command::Done {
    let config = root.join("pjdfstest.toml");
    let text = format!("{CONFIG}[settings]\nnaptime = 0.02\nallow_remount = {remounts}\n");
    std::fs::write(&config, text).expect("write the configuration");
    let mut suite = Command::new(binary::tool("pjdfstest"));
    suite.env("PATH", path_without_helpers(root));
    suite.arg("-c").arg(config).arg("-p").arg(dir).arg("-s");
    suite.arg(root).args(words);
    command::run(&mut suite, LONG).expect("run pjdfstest (tests/run installs it)")
}

/// The path of commands with a mount(8) before it that calls no helper. Where fuse3 is installed it
/// has one for each type `fuse.*`, which takes what comes behind the dot for a program.
fn path_without_helpers(root: &Path) -> OsString {
    let dir = root.join("bin");
    let script = "#!/bin/sh\nPATH=${PATH#*:} exec mount -i \"$@\"\n";
    std::fs::create_dir_all(&dir).expect("make a directory");
    std::fs::write(dir.join("mount"), script).expect("write a script");
    let mode = Permissions::from_mode(0o755);
    std::fs::set_permissions(dir.join("mount"), mode).expect("make it executable");
    let mut path = dir.into_os_string();
    path.push(":");
    path.push(std::env::var_os("PATH").unwrap_or_default());
    path
}

/// Waits until the mount can be made read-only; it is writable again afterwards.
fn wait_until_idle(mount: &Path) {
    let mount = path(mount);
    let remount = |how| {
        let mut command = Command::new("mount");
        command.args(["-i", "-o", how, mount]);
        command::run(&mut command, PATIENCE).expect("run mount")
    };
    until("the mount can be made read-only", PATIENCE, || {
        (remount("remount,ro").status == Some(0)).then_some(())
    });
    remount("remount,rw").expect(0);
}

/// The suite overflows on paths of one length in 127 (`create_path_max`).
fn work_dir(mount: &Path) -> PathBuf {
    let dir = mount.join("pjdfstest");
    match dir.as_os_str().len() % 127 {
        9 => mount.join("pjdfstest-"),
        _ => dir,
    }
}

/// The suite's other users must get through the directory above.
fn open_for_all(dir: &Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(dir, PermissionsExt::from_mode(0o755)).expect("open a directory");
}

/// Each case, and why it did not pass.
fn results(out: &str) -> BTreeMap<String, Option<String>> {
    let mut cases = BTreeMap::new();
    for line in out.lines() {
        let mut words = line.split_whitespace();
        let (Some(name), Some(result), None) = (words.next(), words.next(), words.next()) else {
            continue;
        };
        let why = match result {
            "ok" => None,
            "FAILED" | "skipped" => Some(format!("{result}, {}", reason(out, line))),
            _ => continue,
        };
        cases.insert(name.to_owned(), why);
    }
    cases
}

fn judge(cases: &BTreeMap<String, Option<String>>) {
    let excluded = excluded();
    let mut wrong = Vec::new();
    for (name, why) in cases {
        match (why, excluded.get(name)) {
            (None, Some(_)) => wrong.push(format!("{name} passes: take it off the list")),
            (Some(why), None) => wrong.push(format!("{name}: {why}")),
            (Some(why), Some(says)) if why != says => {
                wrong.push(format!("{name}: {why}, and not {says}"));
            }
            _ => {}
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {} cases: {wrong:#?}",
        wrong.len(),
        cases.len()
    );
}

/// The line below a case: what it says.
fn reason(out: &str, line: &str) -> String {
    let mut lines = out.lines().skip_while(|l| *l != line).skip(1);
    lines.next().unwrap_or_default().trim().to_owned()
}

/// Names, and what the suite says of each; a name without a reason is refused.
fn excluded() -> BTreeMap<String, String> {
    let lines = include_str!("../pjdfstest.exclude").lines();
    let entries = lines.filter(|l| !l.starts_with('#') && !l.trim().is_empty());
    entries
        .map(|line| {
            let (case, reason) = line.split_once('#').expect("a case, #, a reason");
            assert!(!reason.trim().is_empty(), "{case} needs a reason");
            let (name, says) = case
                .split_once('|')
                .expect("a name, |, what the suite says");
            (name.trim().to_owned(), says.trim().to_owned())
        })
        .collect()
}
