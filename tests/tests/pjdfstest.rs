//! The POSIX test suite pjdfstest on a mount.

use crate::shorthands::s;
use lagan_tests::run::LONG;
use lagan_tests::{Options, binary, command, with_cluster};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

const CONFIG: &str = r#"
[features]
posix_fallocate = {}
rename_ctime = {}
utimensat = {}
utime_now = {}
[settings]
naptime = 0.02
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
    with_cluster(options, LONG, |cluster| {
        let config = cluster.root().join("pjdfstest.toml");
        std::fs::write(&config, CONFIG).expect("write the configuration");
        let dir = work_dir(&cluster.a());
        std::fs::create_dir(&dir).expect("make a directory");
        open_for_all(cluster.root());
        let mut suite = Command::new(binary::tool("pjdfstest"));
        suite
            .arg("-c")
            .arg(config)
            .arg("-p")
            .arg(&dir)
            .arg("-s")
            .arg(cluster.root());
        let done = command::run(&mut suite, s(400)).expect("run pjdfstest (tests/run installs it)");
        judge(&done.out, &done);
    });
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

fn judge(out: &str, done: &command::Done) {
    let excluded = excluded();
    let mut wrong = Vec::new();
    let mut cases = 0;
    for line in out.lines() {
        let mut words = line.split_whitespace();
        let (Some(name), Some(result), None) = (words.next(), words.next(), words.next()) else {
            continue;
        };
        let passed = match result {
            "ok" => true,
            "FAILED" | "skipped" => false,
            _ => continue,
        };
        cases += 1;
        match (passed, excluded.get(name)) {
            (true, Some(_)) => wrong.push(format!("{name} passes: take it off the list")),
            (false, None) => wrong.push(format!("{name}: {result}, {}", reason(out, line))),
            _ => {}
        }
    }
    assert!(cases >= CASES, "only {cases} cases: {done}");
    assert!(
        wrong.is_empty(),
        "{} of {cases} cases: {wrong:#?}",
        wrong.len()
    );
}

/// The line below a case: what it says.
fn reason(out: &str, line: &str) -> String {
    let mut lines = out.lines().skip_while(|l| *l != line).skip(1);
    lines.next().unwrap_or_default().trim().to_owned()
}

/// Names and reasons; a name without a reason is refused.
fn excluded() -> BTreeMap<String, String> {
    let lines = include_str!("../pjdfstest.exclude").lines();
    let entries = lines.filter(|l| !l.starts_with('#') && !l.trim().is_empty());
    entries
        .map(|line| {
            let (name, reason) = line.split_once('#').expect("a name, #, a reason");
            assert!(!reason.trim().is_empty(), "{name} needs a reason");
            (name.trim().to_owned(), reason.trim().to_owned())
        })
        .collect()
}
