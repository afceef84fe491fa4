//! From the paths of a command line to the inodes that they mean.
//!
//! The mount is asked, since its inode numbers are the cluster's. It may hang,
//! so a thread of its own walks, and is given up when it shows no progress.

use crate::exit::{Failure, Outcome};
use lagan_types::Ino;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

/// A file that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// As it was given, or below that.
    pub path: PathBuf,
    /// Its inode.
    pub ino: Ino,
    /// Bytes.
    pub len: u64,
}

/// Items that wait for their reader.
const QUEUE_LEN: usize = 1024;
/// A mount answers within its own time-out (120 s by default) or not at all.
const SILENCE_MAX: Duration = Duration::from_secs(150);

/// The regular files at and below the paths, in no special order; symbolic
/// links and other mounts below them are left out.
pub struct Walk {
    items: Receiver<Outcome<Item>>,
}

impl Walk {
    /// Starts walking.
    ///
    /// # Errors
    /// When no thread can be made.
    pub fn start(paths: &[PathBuf]) -> Outcome<Self> {
        let (send, items) = sync_channel(QUEUE_LEN);
        let paths = paths.to_vec();
        std::thread::Builder::new()
            .name("walk".into())
            .spawn(move || {
                for path in &paths {
                    if walk(path, &send).is_none() {
                        return;
                    }
                }
            })
            .map_err(|e| Failure::error(format!("start a thread: {e}")))?;
        Ok(Walk { items })
    }

    /// The next file; `None` after the last.
    ///
    /// # Errors
    /// What cannot be read, and a mount that does not answer.
    pub fn next(&self) -> Option<Outcome<Item>> {
        match self.items.recv_timeout(SILENCE_MAX) {
            Ok(item) => Some(item),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => {
                Some(Err(Failure::error("the mount does not answer")))
            }
        }
    }

    /// Up to `count` more files; empty after the last.
    ///
    /// # Errors
    /// As [`Walk::next`].
    pub fn batch(&self, count: usize) -> Outcome<Vec<Item>> {
        let mut batch = Vec::new();
        while batch.len() < count {
            match self.next() {
                Some(item) => batch.push(item?),
                None => break,
            }
        }
        Ok(batch)
    }
}

/// `None`: nobody listens any more.
fn walk(root: &Path, out: &SyncSender<Outcome<Item>>) -> Option<()> {
    let meta = match std::fs::metadata(root) {
        Ok(meta) => meta,
        Err(e) => return out.send(Err(failure(root, &e))).ok(),
    };
    let device = meta.dev();
    let mut folders = Vec::new();
    if meta.is_dir() {
        folders.push(root.to_owned());
    } else {
        send_file(root, &meta, out)?;
    }
    while let Some(folder) = folders.pop() {
        let entries = match std::fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(e) => {
                out.send(Err(failure(&folder, &e))).ok()?;
                continue;
            }
        };
        for entry in entries {
            let found = entry.and_then(|e| Ok((e.path(), e.metadata()?)));
            match found {
                Ok((_, meta)) if meta.dev() != device => {}
                Ok((path, meta)) if meta.is_dir() => folders.push(path),
                Ok((path, meta)) => send_file(&path, &meta, out)?,
                // Removed while we walk.
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                Err(e) => out.send(Err(failure(&folder, &e))).ok()?,
            }
        }
    }
    Some(())
}

fn send_file(path: &Path, meta: &std::fs::Metadata, out: &SyncSender<Outcome<Item>>) -> Option<()> {
    if !meta.is_file() {
        return Some(());
    }
    let item = Item {
        path: path.to_owned(),
        ino: Ino(meta.ino()),
        len: meta.len(),
    };
    out.send(Ok(item)).ok()
}

fn failure(path: &Path, error: &std::io::Error) -> Failure {
    Failure::error(format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regular_files_below_are_found_once() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("a/b")).unwrap();
        for name in ["one", "a/two", "a/b/three"] {
            std::fs::write(dir.path().join(name), name).unwrap();
        }
        std::os::unix::fs::symlink("one", dir.path().join("link")).unwrap();
        let walk = Walk::start(&[dir.path().to_owned()]).unwrap();
        let mut found = walk.batch(10).unwrap();
        found.sort_by_key(|i| i.path.clone());
        let names: Vec<_> = found
            .iter()
            .map(|i| i.path.strip_prefix(dir.path()).unwrap().to_owned())
            .collect();
        assert_eq!(names, ["a/b/three", "a/two", "one"].map(PathBuf::from));
        assert_eq!(found[2].len, 3);
        assert!(walk.batch(1).unwrap().is_empty());
    }

    #[test]
    fn missing_path_is_an_error_that_names_it() {
        let walk = Walk::start(&["/nowhere/at/all".into()]).unwrap();
        let error = walk.next().unwrap().unwrap_err();
        assert!(error.message.starts_with("/nowhere/at/all"), "{error}");
        assert!(walk.next().is_none());
    }
}
