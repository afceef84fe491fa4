//! The contents of a tree: the checksum and length of each file.

use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Files read at the same time.
const READERS: usize = 8;
/// Differences that a failure shows.
const SHOWN: usize = 10;

/// Length and checksum of one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Bytes.
    pub len: u64,
    /// CRC-32.
    pub crc: u32,
}

impl Entry {
    /// Length and checksum of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Entry {
            len: bytes.len() as u64,
            crc: crc32fast::hash(bytes),
        }
    }
}

/// Every file of a tree, by its path below the top.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Manifest(pub BTreeMap<PathBuf, Entry>);

impl Manifest {
    /// Reads a whole tree.
    ///
    /// # Errors
    /// The first file or directory that cannot be read.
    pub fn of(top: &Path) -> Result<Self> {
        let paths = files(top)?;
        let part = paths.len().div_ceil(READERS).max(1);
        let read = |path: &PathBuf| -> Result<(PathBuf, Entry)> {
            let bytes = std::fs::read(path).with_context(|| format!("read {}", path.display()))?;
            Ok((path.strip_prefix(top)?.to_owned(), Entry::of(&bytes)))
        };
        let read = &read;
        std::thread::scope(|scope| {
            let parts: Vec<_> = paths
                .chunks(part)
                .map(|part| scope.spawn(move || part.iter().map(read).collect::<Result<Vec<_>>>()))
                .collect();
            let mut all = BTreeMap::new();
            for part in parts {
                all.extend(part.join().expect("readers do not panic")?);
            }
            Ok(Manifest(all))
        })
    }

    /// Sum of the lengths.
    pub fn bytes(&self) -> u64 {
        self.0.values().map(|entry| entry.len).sum()
    }

    /// Fails unless the tree holds exactly this.
    ///
    /// # Panics
    /// With the first differences.
    #[track_caller]
    pub fn check(&self, top: &Path) {
        let found = match Manifest::of(top) {
            Ok(found) => found,
            Err(error) => panic!("{}: {error:#}", top.display()),
        };
        let mut wrong = Vec::new();
        for (path, want) in &self.0 {
            match found.0.get(path) {
                Some(entry) if entry == want => {}
                other => wrong.push(format!("{}: {other:?}, not {want:?}", path.display())),
            }
        }
        let strange = found.0.keys().filter(|path| !self.0.contains_key(*path));
        wrong.extend(strange.map(|path| format!("{}: nobody wrote it", path.display())));
        let shown: Vec<_> = wrong.iter().take(SHOWN).collect();
        assert!(
            wrong.is_empty(),
            "{} of {} files differ in {}: {shown:#?}",
            wrong.len(),
            self.0.len(),
            top.display()
        );
    }
}

/// Paths of all files below a directory, sorted.
///
/// # Errors
/// The first directory that cannot be read.
pub fn files(top: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut dirs = vec![top.to_owned()];
    while let Some(dir) = dirs.pop() {
        let entries = std::fs::read_dir(&dir).with_context(|| format!("list {}", dir.display()))?;
        for entry in entries {
            let entry = entry.with_context(|| format!("list {}", dir.display()))?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                dirs.push(entry.path());
            } else if kind.is_file() {
                found.push(entry.path());
            }
        }
    }
    found.sort();
    Ok(found)
}
