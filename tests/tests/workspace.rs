//! The rules of the source tree that no compiler checks.

use lagan_tests::command;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// Crates and their layers: one depends on lower layers only.
const LAYERS: [(&str, u8); 14] = [
    ("lagan-types", 0),
    ("lagan-lock", 0),
    ("lagan-meta", 1),
    ("lagan-chunk", 1),
    ("lagan-net", 1),
    ("lagan-object", 1),
    ("lagan-s3", 1),
    ("lagan-raft", 2),
    ("lagan-replica", 2),
    ("lagan-mover", 2),
    ("lagan-client", 2),
    ("lagan-leader", 3),
    ("lagan-server", 4),
    ("lagan-mount", 4),
];
/// The program over all of them.
const TOP: &str = "lagan";
/// Lines of a source file, at most.
const LINES_MAX: usize = 600;
/// One implements a trait of all the kernel's calls, which is one block.
const ONE_TRAIT: (&str, usize) = ("fuse-mount/src/fs/adapter.rs", 745);
/// Packages that nothing depends on.
const DEVELOPMENT: [&str; 2] = ["lagan-tests", "lagan-benches"];

fn packages() -> Vec<Value> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
    cargo.args([
        "metadata",
        "--offline",
        "--no-deps",
        "--format-version",
        "1",
    ]);
    cargo.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")));
    let done = command::run(&mut cargo, Duration::from_secs(60))
        .expect("run cargo")
        .expect(0);
    let mut json = done.json();
    serde_json::from_value(json["packages"].take()).expect("a list of packages")
}

#[test]
fn crates_depend_on_lower_layers_only() {
    let layers: BTreeMap<_, _> = LAYERS.into_iter().chain([(TOP, 5)]).collect();
    let mut wrong = Vec::new();
    for package in packages() {
        let name = package["name"].as_str().expect("a package has a name");
        if DEVELOPMENT.contains(&name) {
            continue;
        }
        let Some(layer) = layers.get(name) else {
            wrong.push(format!("{name} has no layer"));
            continue;
        };
        let used = package["dependencies"].as_array().expect("a list").iter();
        // tests of a crate may use its siblings
        for used in used.filter(|d| d["kind"].is_null()) {
            let used = used["name"].as_str().unwrap_or_default();
            if DEVELOPMENT.contains(&used) || layers.get(used).is_some_and(|l| l >= layer) {
                wrong.push(format!("{name} uses {used}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn source_files_stay_small() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the workspace");
    let mut long = Vec::new();
    for dir in ["crates", "server", "fuse-mount", "tests", "benches"] {
        for path in lagan_tests::manifest::files(&top.join(dir)).expect("list the sources") {
            if path.extension().is_some_and(|e| e == "rs") {
                let lines = std::fs::read_to_string(&path)
                    .expect("read a source")
                    .lines()
                    .count();
                let most = if path.ends_with(ONE_TRAIT.0) {
                    ONE_TRAIT.1
                } else {
                    LINES_MAX
                };
                if lines > most {
                    long.push(format!("{}: {lines} lines", path.display()));
                }
            }
        }
    }
    assert!(long.is_empty(), "split these: {long:#?}");
}
