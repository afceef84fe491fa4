//! Documents that the tree cites: in comments of code and scripts, and in documents.

use crate::manifest;
use anyhow::{Context, Result};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Directories at the top that are not of the tree.
const SKIPPED: [&str; 2] = [".git", "target"];
/// The document whose table defines the invariants.
const INVARIANTS: &str = "ARCHITECTURE.md";

/// One file of the tree that is text.
pub struct Text {
    /// Its path below the workspace.
    pub path: PathBuf,
    /// What it holds.
    pub text: String,
}

impl Text {
    /// The part that people read: of a document all, else the comments.
    pub fn prose(&self) -> String {
        let mark = match self.path.extension().and_then(|e| e.to_str()) {
            Some("md") => return self.text.clone(),
            Some("rs") => "//",
            _ => "#",
        };
        let comments = self.text.lines().filter_map(|line| {
            let (code, comment) = line.split_once(mark)?;
            // behind code it may be in a string
            (code.trim().is_empty() || !comment.contains('"')).then_some(comment)
        });
        comments.map(|comment| format!("{comment}\n")).collect()
    }
}

/// All texts of the tree at `top`.
///
/// # Errors
/// A file or directory that cannot be read.
pub fn texts(top: &Path) -> Result<Vec<Text>> {
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(top).with_context(|| format!("list {}", top.display()))? {
        let entry = entry?;
        let skipped = SKIPPED.iter().any(|name| entry.file_name() == *name);
        if entry.file_type()?.is_dir() && !skipped {
            paths.extend(manifest::files(&entry.path())?);
        } else if entry.file_type()?.is_file() {
            paths.push(entry.path());
        }
    }
    paths.sort();
    let mut texts = Vec::new();
    for path in paths {
        let bytes = std::fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        if let Ok(text) = String::from_utf8(bytes) {
            let path = path.strip_prefix(top)?.to_owned();
            texts.push(Text { path, text });
        }
    }
    Ok(texts)
}

/// What is cited and does not exist: a document, looked for from the top, in `docs`
/// and beside the file that cites it; an invariant that the table does not have.
pub fn broken(texts: &[Text]) -> Vec<String> {
    let paths: BTreeSet<_> = texts.iter().map(|t| t.path.as_path()).collect();
    let table = texts.iter().find(|t| t.path == Path::new(INVARIANTS));
    let rows = table.map_or("", |t| &t.text).lines();
    let rows = rows.filter(|line| line.starts_with("| INV-"));
    let known: BTreeSet<_> = rows
        .filter_map(|row| invariants(row).into_iter().next())
        .collect();
    let mut broken = Vec::new();
    for text in texts {
        let beside = text.path.parent().unwrap_or(Path::new(""));
        let prose = text.prose();
        let missing = documents(&prose).into_iter().filter(|name| {
            let places = [Path::new(""), Path::new("docs"), beside];
            let mut places = places.iter().map(|place| plain(&place.join(name)));
            !places.any(|path| paths.contains(path.as_path()))
        });
        let unknown = invariants(&prose)
            .into_iter()
            .filter(|i| !known.contains(i));
        for cited in missing.chain(unknown) {
            broken.push(format!("{}: {cited}", text.path.display()));
        }
    }
    broken.dedup();
    broken
}

/// The names of documents in a text: words that end in `.md`.
pub fn documents(prose: &str) -> Vec<&str> {
    let is_of_path = |c: char| c.is_ascii_alphanumeric() || "._-/".contains(c);
    let words = prose.split(|c| !is_of_path(c));
    let words = words.map(|word| word.trim_end_matches('.'));
    words
        .filter(|word| {
            word.strip_suffix(".md")
                .is_some_and(|stem| !stem.is_empty())
        })
        .collect()
}

/// The invariants named in a text, as `INV-6a`.
pub fn invariants(prose: &str) -> Vec<&str> {
    let starts = prose.match_indices("INV-").map(|(at, _)| &prose[at..]);
    let ends = starts.filter_map(|rest| {
        let digits = rest["INV-".len()..].find(|c: char| !c.is_ascii_digit());
        let digits = digits.unwrap_or(rest.len() - "INV-".len());
        let after = &rest["INV-".len() + digits..];
        let mut letters = after.chars().take_while(char::is_ascii_alphanumeric);
        let letter = usize::from(matches!((letters.next(), letters.next()), (Some(_), None)));
        (digits > 0).then(|| &rest[.."INV-".len() + digits + letter])
    });
    ends.collect()
}

/// The path without `..`.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            std::path::Component::ParentDir => {
                plain.pop();
            }
            std::path::Component::CurDir => {}
            part => plain.push(part),
        }
    }
    plain
}
