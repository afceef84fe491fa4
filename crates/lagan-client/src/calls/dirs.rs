//! Directories: opendir, readdir, fsyncdir, releasedir.
//!
//! The kernel takes a few dozen entries at a time; a handle keeps one page of
//! the leader's answer for it. Reading from the start always asks again
//! (rewinddir(3)).

use crate::Client;
use crate::options::{DirPage, OpenOptions};
use lagan_types::query::Entry;
use lagan_types::{FsError, Ino, Query, QueryAnswer};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Entries asked for at a time.
const PAGE_LEN: u32 = 1024;
/// Entries given at a time: more than fits into one answer to the kernel.
const GIVEN_LEN: usize = 256;
/// A page is used up within this, or asked for again.
const PAGE_AGE: Duration = Duration::from_secs(1);

/// Open directories.
#[derive(Debug, Default)]
pub(crate) struct Dirs {
    open: Mutex<HashMap<u64, Arc<Dir>>>,
}

#[derive(Debug)]
struct Dir {
    ino: Ino,
    /// Opened with O_NOATIME.
    no_atime: bool,
    page: Mutex<Option<Page>>,
}

#[derive(Debug)]
struct Page {
    /// Entries follow this cookie.
    after: u64,
    attrs: bool,
    fetched: Instant,
    entries: Vec<Entry>,
    end: bool,
    parent: Ino,
}

impl Page {
    /// Entries after `cookie`, if this page has some or knows that there are none.
    fn from(&self, cookie: u64, attrs: bool) -> Option<DirPage> {
        let usable = cookie > 0
            && cookie >= self.after
            && (self.attrs || !attrs)
            && self.fetched.elapsed() < PAGE_AGE;
        if !usable {
            return None;
        }
        let first = self.entries.partition_point(|e| e.cookie <= cookie);
        if first == self.entries.len() && !self.end {
            return None;
        }
        Some(self.part(first))
    }

    fn part(&self, first: usize) -> DirPage {
        let last = self.entries.len().min(first + GIVEN_LEN);
        DirPage {
            entries: self.entries[first..last].to_vec(),
            end: self.end && last == self.entries.len(),
            parent: self.parent,
        }
    }
}

impl Client {
    /// Opens a directory. Of `open`, O_NOATIME counts.
    ///
    /// # Errors
    /// None now.
    pub async fn opendir(&self, ino: Ino, open: OpenOptions) -> Result<u64, FsError> {
        let fh = self.files.next_fh();
        let dir = Dir {
            ino,
            no_atime: open.no_atime,
            page: Mutex::default(),
        };
        self.dirs.open.lock().insert(fh, Arc::new(dir));
        Ok(fh)
    }

    /// Entries whose cookie is above `cookie` (0: from the start). What other
    /// mounts add or remove while a directory is being read may be among them
    /// or not (readdir(3)). Moves the directory's access time.
    ///
    /// # Errors
    /// [`FsError::NotFound`] or [`FsError::Stale`] if it is gone,
    /// [`FsError::NotDirectory`], [`FsError::TimedOut`].
    pub async fn readdir(&self, fh: u64, cookie: u64, attrs: bool) -> Result<DirPage, FsError> {
        let dir = self.dirs.open.lock().get(&fh).cloned();
        let dir = dir.ok_or(FsError::Stale)?;
        let kept = dir.page.lock().as_ref().and_then(|p| p.from(cookie, attrs));
        let mut given = match kept {
            Some(given) => given,
            None => self.fetch_entries(&dir, cookie, attrs).await?,
        };
        if !dir.no_atime {
            self.accesses.note_known(dir.ino);
        }
        if attrs {
            for entry in &mut given.entries {
                if let Some(attr) = entry.attr.take() {
                    entry.attr = Some(self.show(attr).await);
                }
            }
        }
        Ok(given)
    }

    async fn fetch_entries(&self, dir: &Dir, cookie: u64, attrs: bool) -> Result<DirPage, FsError> {
        let query = Query::ReadDir {
            ino: dir.ino,
            cookie,
            limit: PAGE_LEN,
            attrs,
        };
        let fetched = Instant::now();
        let QueryAnswer::Entries {
            entries,
            end,
            parent,
        } = self.leader.query(query).await?
        else {
            return Err(FsError::Malformed);
        };
        let page = Page {
            after: cookie,
            attrs,
            fetched,
            entries,
            end,
            parent,
        };
        let given = page.part(0);
        *dir.page.lock() = Some(page);
        Ok(given)
    }

    /// Closes a directory.
    pub async fn releasedir(&self, fh: u64) {
        self.dirs.open.lock().remove(&fh);
    }

    /// fsync(2) of a directory: the names that were promised to this mount in it
    /// are durable. All others were so before their call was answered.
    ///
    /// # Errors
    /// [`FsError::Stale`] for a handle that is not open; [`FsError::Io`], once, if
    /// a promised name was lost; [`FsError::SessionEnded`], [`FsError::TimedOut`].
    pub async fn fsyncdir(&self, fh: u64) -> Result<(), FsError> {
        let dir = self.dirs.open.lock().get(&fh).cloned();
        let dir = dir.ok_or(FsError::Stale)?;
        self.leader
            .make_all_in(dir.ino, self.leader.deadline())
            .await
    }
}
