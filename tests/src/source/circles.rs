//! Circles: files of a crate of which each uses the next, and the last the first.
//!
//! A file uses another one by what it imports and by the paths in its code. A
//! re-export counts for the file that defines the item, not for the one that passes
//! it on, and makes no use by itself; neither does `mod child;`.

use super::load::Crate;
use super::resolve::Target;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};

/// Names by which one file uses another.
pub type Names = BTreeSet<String>;
/// From a file to the files that it uses.
type Graph = BTreeMap<PathBuf, BTreeMap<PathBuf, Names>>;

/// A largest set of files that reach each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Circle {
    /// Paths below `src`.
    pub files: BTreeSet<PathBuf>,
    /// User, used, and the names that tie them.
    pub ties: Vec<(PathBuf, PathBuf, Names)>,
}

impl Circle {
    /// Whether the files stand in more than one folder. The file `a.rs` counts to its
    /// own folder or to the folder `a`, whichever makes them one.
    pub fn is_across(&self) -> bool {
        let mut folders = self.files.iter().map(|file| homes(file));
        let mut common = folders.next().unwrap_or_default();
        for homes in folders {
            common.retain(|home| homes.contains(home));
        }
        common.is_empty()
    }
}

/// The folders that a file may count to.
fn homes(file: &Path) -> Vec<PathBuf> {
    let folder = file.parent().unwrap_or(Path::new("")).to_owned();
    let own = match file.to_str() {
        Some("lib.rs" | "main.rs") => PathBuf::new(),
        _ => file.with_extension(""),
    };
    vec![folder, own]
}

impl fmt::Display for Circle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let across = if self.is_across() {
            ", across folders"
        } else {
            ""
        };
        writeln!(f, "circle of {}{across}:", self.files.len())?;
        for (user, used, names) in &self.ties {
            let names: Vec<_> = names.iter().map(String::as_str).collect();
            let (user, used) = (user.display(), used.display());
            writeln!(f, "  {user} -> {used}: {}", names.join(", "))?;
        }
        Ok(())
    }
}

/// The circles of a crate, in the order of their first files.
pub fn of(krate: &Crate) -> Vec<Circle> {
    let graph = graph(krate);
    let reach: BTreeMap<_, _> = graph
        .keys()
        .map(|file| (file, reached(&graph, file)))
        .collect();
    let mut seen = BTreeSet::new();
    let mut circles = Vec::new();
    for file in graph.keys() {
        // a file that does not reach itself is in no circle
        if !reach[file].contains(file) || seen.contains(file) {
            continue;
        }
        let mutual = reach[file]
            .iter()
            .filter(|other| reach.get(*other).is_some_and(|back| back.contains(file)));
        let files: BTreeSet<_> = mutual.cloned().collect();
        seen.extend(files.iter().cloned());
        let ties = ties(&graph, &files);
        circles.push(Circle { files, ties });
    }
    circles
}

/// Which file of the crate uses which.
fn graph(krate: &Crate) -> Graph {
    let mut graph = Graph::new();
    for (index, module) in krate.modules.iter().enumerate() {
        let imports = module.uses.iter().filter(|u| !u.exported);
        let imports = imports.map(|import| (&import.path, import.name.is_none()));
        let mentions = module.mentions.iter().map(|mention| (&mention.path, false));
        for (path, glob) in imports.chain(mentions) {
            let (at, name) = match krate.resolve(index, path) {
                Some(Target::Item(at, name)) => (at, name),
                Some(Target::Module(at)) if glob => (at, "*".to_owned()),
                _ => continue,
            };
            let used = &krate.modules[at].file;
            if *used != module.file {
                let ties = graph.entry(module.file.clone()).or_default();
                ties.entry(used.clone()).or_default().insert(name);
            }
        }
    }
    graph
}

/// The files that `from` uses, directly or through others.
fn reached(graph: &Graph, from: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let mut open = vec![from];
    while let Some(file) = open.pop() {
        for used in graph.get(file).into_iter().flat_map(BTreeMap::keys) {
            if found.insert(used.clone()) {
                open.push(used);
            }
        }
    }
    found
}

fn ties(graph: &Graph, files: &BTreeSet<PathBuf>) -> Vec<(PathBuf, PathBuf, Names)> {
    let mut ties = Vec::new();
    for user in files {
        for (used, names) in graph.get(user).into_iter().flatten() {
            if files.contains(used) {
                ties.push((user.clone(), used.clone(), names.clone()));
            }
        }
    }
    ties
}
