//! The rules of the source tree that no compiler checks.

use lagan_tests::source::{self, Crate, calls, circles, cites, functions, visible};
use lagan_tests::{command, manifest};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// Crates and their layers: one depends on lower layers only.
const LAYERS: [(&str, u8); 15] = [
    ("lagan-types", 0),
    ("lagan-host", 0),
    ("lagan-meta", 1),
    ("lagan-chunk", 1),
    ("lagan-net", 1),
    ("lagan-object", 1),
    ("lagan-s3", 1),
    ("lagan-lease", 1),
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
/// Packages that only tests depend on.
const DEVELOPMENT: [&str; 3] = ["lagan-tests", "lagan-benches", "lagan-testing"];
/// Crates without a clock, chance or I/O, and what they may depend on. Their
/// `clippy.toml` forbids what the standard library has of these.
const PURE: [(&str, &[&str]); 3] = [
    (
        "lagan-types",
        &["bincode", "bytes", "crc32fast", "serde", "thiserror"],
    ),
    ("lagan-meta", &["lagan-types", "thiserror"]),
    ("lagan-lease", &["lagan-types"]),
];
/// Circles of each crate, and the files in them; other crates have none. These
/// numbers only fall: who opens a circle lowers them.
const CIRCLES: [(&str, usize, usize); 0] = [];
/// Circles with files of more than one folder, in all crates; only falls.
const CIRCLES_ACROSS: usize = 0;
/// Items, modules and methods that another crate can name, of crates that others
/// only start; only falls. The compiler sees dead code among all the rest.
const VISIBLE: [(&str, usize); 2] = [("fuse-mount", 1), ("server", 2)];
/// Lines of a function, at most.
const FUNCTION_LINES_MAX: usize = 73;
/// Longer ones: the file, the function and its lines. No new ones.
const LONG_FUNCTIONS: [(&str, &str, usize); 0] = [];
/// Where the one volume's number is said; it only falls elsewhere.
const VOLUME_HOME: &str = "lagan-types/src/id.rs";
/// How often it is said elsewhere.
const VOLUMES: usize = 0;

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
    let top = source::workspace();
    let mut long = Vec::new();
    for dir in ["crates", "server", "fuse-mount", "tests", "benches"] {
        for path in manifest::files(&top.join(dir)).expect("list the sources") {
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

fn crates() -> BTreeMap<String, Crate> {
    source::crates(source::workspace()).expect("parse the crates")
}

/// A number that only falls: above `most` is a failure, and below, until `most` is
/// lowered.
fn falls(wrong: &mut Vec<String>, what: &str, now: usize, most: usize) {
    match now.cmp(&most) {
        std::cmp::Ordering::Greater => {
            wrong.push(format!("{what}: {now}, at most {most}"));
        }
        std::cmp::Ordering::Less => wrong.push(format!(
            "{what}: {now} instead of {most}. Well done: lower the number in this test"
        )),
        std::cmp::Ordering::Equal => {}
    }
}

#[test]
fn circles_of_files_only_fall() {
    let allowed: BTreeMap<_, _> = CIRCLES.iter().map(|(k, n, f)| (*k, (*n, *f))).collect();
    let (mut wrong, mut across) = (Vec::new(), Vec::new());
    let crates = crates();
    for name in allowed.keys().filter(|name| !crates.contains_key(**name)) {
        wrong.push(format!("there is no crate {name}"));
    }
    for (name, krate) in &crates {
        let found = circles::of(krate);
        let files = found.iter().map(|c| c.files.len()).sum();
        let (count_max, files_max) = allowed.get(name.as_str()).copied().unwrap_or_default();
        let before = wrong.len();
        falls(
            &mut wrong,
            &format!("{name}: circles"),
            found.len(),
            count_max,
        );
        falls(
            &mut wrong,
            &format!("{name}: files in circles"),
            files,
            files_max,
        );
        if wrong.len() > before {
            wrong.extend(found.iter().map(|circle| format!("{name}: {circle}")));
        }
        let here = found.iter().filter(|c| c.is_across());
        across.extend(here.map(|circle| format!("{name}: {circle}")));
    }
    let before = wrong.len();
    falls(
        &mut wrong,
        "circles across folders",
        across.len(),
        CIRCLES_ACROSS,
    );
    if wrong.len() > before {
        wrong.extend(across);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn crates_that_others_only_start_show_little() {
    let (crates, mut wrong) = (crates(), Vec::new());
    for (name, most) in VISIBLE {
        let shown = visible::items(&crates[name]);
        let before = wrong.len();
        falls(
            &mut wrong,
            &format!("{name}: visible items"),
            shown.len(),
            most,
        );
        if wrong.len() > before {
            wrong.extend(shown);
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn functions_stay_short() {
    let (mut crates, mut wrong) = (crates(), Vec::new());
    let mut known: BTreeSet<_> = LONG_FUNCTIONS.into_iter().collect();
    for dir in source::crate_dirs(source::workspace()).expect("list the crates") {
        let src = dir.join("src");
        let below = src.strip_prefix(source::workspace()).expect("it is below");
        let name = dir.file_name().expect("a name").to_string_lossy();
        let Some(krate) = crates.remove(&*name) else {
            continue;
        };
        let all = krate.files.iter();
        for function in all.flat_map(|(path, parsed)| functions::all(path, parsed)) {
            if function.lines <= FUNCTION_LINES_MAX {
                continue;
            }
            let file = below.join(&function.file);
            let found = known.iter().copied().find(|(path, name, lines)| {
                file == Path::new(path) && function.name == *name && function.lines <= *lines
            });
            match found {
                Some(entry) => _ = known.remove(&entry),
                None => wrong.push(format!(
                    "{}: {} has {} lines",
                    file.display(),
                    function.name,
                    function.lines
                )),
            }
        }
    }
    let gone = known
        .iter()
        .map(|(path, name, _)| format!("{path}: {name} is short now"));
    wrong.extend(gone);
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn number_of_the_one_volume_is_said_once() {
    let mut found = Vec::new();
    for (name, krate) in crates() {
        for (path, parsed) in &krate.files {
            let file = Path::new(&name).join("src").join(path);
            if file != Path::new(VOLUME_HOME) {
                let lines = calls::lines(parsed, "VolumeId", "1");
                found.extend(lines.iter().map(|l| format!("{}:{l}", file.display())));
            }
        }
    }
    let mut wrong = Vec::new();
    falls(&mut wrong, "the volume's number", found.len(), VOLUMES);
    assert!(wrong.is_empty(), "{wrong:?} {found:#?}");
}

#[test]
fn unsafe_is_in_modules_named_sys() {
    // The lint denies it; these are the exceptions.
    let lint = ["unsafe", "code"].join("_");
    let mut wrong = Vec::new();
    for text in cites::texts(source::workspace()).expect("read the tree") {
        let is_code = text.path.extension().is_some_and(|e| e == "rs");
        for line in text.text.lines().filter(|l| is_code && l.contains(&lint)) {
            if !text.path.ends_with("sys.rs") || !line.contains("reason = ") {
                let path = text.path.display();
                wrong.push(format!("{path}: {line}"));
            }
        }
    }
    wrong.retain(|line| !line.contains("fn unsafe_is_in_modules_named_sys"));
    assert!(wrong.is_empty(), "{wrong:#?}");
    let root = std::fs::read_to_string(source::workspace().join("Cargo.toml")).expect("read it");
    assert!(root.contains(&format!("\n{lint} = \"deny\"\n")));
}

#[test]
fn what_is_cited_exists() {
    let texts = cites::texts(source::workspace()).expect("read the tree");
    let broken = cites::broken(&texts);
    assert!(broken.is_empty(), "{broken:#?}");
    // numbers of sections change: the design is cited by headings and INV-n
    let section = ["DESIGN", "\u{a7}"].join(" ");
    let mut found = Vec::new();
    for text in &texts {
        // a citation may go on in the next line of a comment
        let lines = text
            .text
            .lines()
            .map(|line| line.trim().trim_start_matches(['/', '!', '#']));
        let words: Vec<_> = lines.flat_map(str::split_whitespace).collect();
        let count = words.join(" ").matches(&section).count();
        found.extend(std::iter::repeat_n(text.path.display().to_string(), count));
    }
    assert!(found.is_empty(), "sections are cited by number: {found:#?}");
}

#[test]
fn every_crate_keeps_the_lints_of_the_workspace() {
    let top = source::workspace();
    let read = |path: &Path| std::fs::read_to_string(path).expect("read a file");
    let clippy = read(&top.join("clippy.toml"));
    let mut wrong = Vec::new();
    for package in packages() {
        let manifest = Path::new(package["manifest_path"].as_str().expect("a path"));
        if !read(manifest).contains("[lints]\nworkspace = true\n") {
            wrong.push(format!("{}: no [lints]", manifest.display()));
        }
        // clippy reads the nearest file alone
        let own = manifest.with_file_name("clippy.toml");
        if own.exists() {
            let own_lines: BTreeSet<String> = read(&own).lines().map(str::to_owned).collect();
            let missing = clippy.lines().filter(|line| !own_lines.contains(*line));
            wrong.extend(missing.map(|line| format!("{}: {line}", own.display())));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn pure_crates_have_no_clock_and_no_chance() {
    let packages = packages();
    for (name, allowed) in PURE {
        let package = packages.iter().find(|p| p["name"] == name);
        let package = package.unwrap_or_else(|| panic!("there is no {name}"));
        let used = package["dependencies"].as_array().expect("a list").iter();
        let used = used.filter(|d| d["kind"].is_null());
        let used = used.filter_map(|d| d["name"].as_str());
        let others: Vec<_> = used.filter(|used| !allowed.contains(used)).collect();
        assert!(others.is_empty(), "{name} uses {others:?}");
        let manifest = Path::new(package["manifest_path"].as_str().expect("a path"));
        let clippy = std::fs::read_to_string(manifest.with_file_name("clippy.toml"));
        let clippy = clippy.unwrap_or_else(|e| panic!("clippy.toml of {name}: {e}"));
        for call in ["std::time::Instant::now", "std::time::SystemTime::now"] {
            assert!(
                clippy.contains(&format!("\"{call}\"")),
                "{name} may call {call}"
            );
        }
    }
}
