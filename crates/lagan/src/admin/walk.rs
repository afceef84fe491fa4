//! Turns the paths of a command line into the files at and below them.
//!
//! The mount gives the inode numbers of the paths themselves, which are those of the
//! cluster. The cluster lists the files below them, thousands in an answer. The mount may
//! hang, so the wait for it has a limit.

use crate::exit::{Failure, Outcome};
use crate::net::Cluster;
use lagan_types::limits::READDIR_PAGE_MAX;
use lagan_types::query::{GetAttr, ReadDir};
use lagan_types::{Attr, FsError, Ino, Kind, Refusal};
use std::collections::VecDeque;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Longest wait for the mount: it answers within its own time-out (120 s by default), or
/// not at all.
const SILENCE_MAX: Duration = Duration::from_secs(150);

/// A file that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// The path: a given one, or one below it.
    pub path: PathBuf,
    /// The file's attributes in the cluster.
    pub attr: Attr,
}

/// A directory that is being listed.
struct Folder {
    path: PathBuf,
    ino: Ino,
    /// The cookie of the last entry that was listed.
    cookie: u64,
}

/// A walk over the regular files at and below the paths, in no special order. Symbolic
/// links below the paths are left out; the paths themselves may be links.
pub struct Walk<'a> {
    cluster: &'a Cluster,
    roots: VecDeque<PathBuf>,
    folders: Vec<Folder>,
    found: VecDeque<Item>,
}

impl<'a> Walk<'a> {
    /// Begins a walk over the paths.
    pub fn new(cluster: &'a Cluster, paths: &[PathBuf]) -> Self {
        Walk {
            cluster,
            roots: paths.iter().cloned().collect(),
            folders: Vec::new(),
            found: VecDeque::new(),
        }
    }

    /// Returns up to `count` more files, and none after the last.
    ///
    /// # Errors
    /// A path that does not exist, a mount that does not answer, or those of the cluster.
    pub async fn batch(&mut self, count: usize) -> Outcome<Vec<Item>> {
        while self.found.len() < count {
            if let Some(folder) = self.folders.pop() {
                self.list(folder).await?;
            } else if let Some(root) = self.roots.pop_front() {
                self.enter(root).await?;
            } else {
                break;
            }
        }
        let count = count.min(self.found.len());
        Ok(self.found.drain(..count).collect())
    }

    async fn enter(&mut self, path: PathBuf) -> Outcome<()> {
        let ino = inode(&path).await?;
        match self.cluster.query(GetAttr { ino }).await? {
            Ok(attr) => self.take(path, attr),
            Err(e) if is_gone(e) => {}
            Err(e) => return Err(Failure::error(format!("{}: {e}", path.display()))),
        }
        Ok(())
    }

    async fn list(&mut self, mut folder: Folder) -> Outcome<()> {
        let query = ReadDir {
            ino: folder.ino,
            cookie: folder.cookie,
            limit: READDIR_PAGE_MAX as u32,
            attrs: true,
        };
        let page = match self.cluster.query(query).await? {
            Ok(page) => page,
            // Somebody removed it during the walk.
            Err(e) if is_gone(e) => return Ok(()),
            Err(e) => return Err(Failure::error(format!("{}: {e}", folder.path.display()))),
        };
        let last = page.entries.last().map(|e| e.cookie);
        let path = folder.path.clone();
        if let Some(cookie) = last.filter(|_| !page.end) {
            folder.cookie = cookie;
            self.folders.push(folder);
        }
        for entry in page.entries {
            if let Some(attr) = entry.attr {
                self.take(path.join(OsStr::from_bytes(&entry.name)), attr);
            }
        }
        Ok(())
    }

    fn take(&mut self, path: PathBuf, attr: Attr) {
        match attr.kind {
            Kind::File => self.found.push_back(Item { path, attr }),
            Kind::Directory => self.folders.push(Folder {
                path,
                ino: attr.ino,
                cookie: 0,
            }),
            _ => {}
        }
    }
}

fn is_gone(refusal: Refusal) -> bool {
    matches!(
        refusal,
        Refusal::Fs(FsError::NotFound | FsError::Stale | FsError::NotDirectory)
    )
}

/// The inode number of a path.
async fn inode(path: &Path) -> Outcome<Ino> {
    let named = |e: String| Failure::error(format!("{}: {e}", path.display()));
    let asked = path.to_owned();
    let asking = tokio::task::spawn_blocking(move || std::fs::metadata(asked));
    match tokio::time::timeout(SILENCE_MAX, asking).await {
        Ok(Ok(Ok(meta))) => Ok(Ino(meta.ino())),
        Ok(Ok(Err(e))) => Err(named(e.to_string())),
        Ok(Err(e)) => Err(named(e.to_string())),
        Err(_) => Err(Failure::error("the mount does not answer")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn missing_path_is_an_error_that_names_it() {
        let cluster = Cluster::new(&["127.0.0.1:1".into()]).await.unwrap();
        let mut walk = Walk::new(&cluster, &["/nowhere/at/all".into()]);
        let error = walk.batch(1).await.unwrap_err();
        assert!(error.message.starts_with("/nowhere/at/all"), "{error}");
        assert!(walk.batch(1).await.unwrap().is_empty());
    }
}
