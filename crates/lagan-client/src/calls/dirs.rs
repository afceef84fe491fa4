//! Directories: opendir, readdir, fsyncdir, releasedir.
//!
//! The kernel takes a few dozen entries at a time; a handle keeps one page of
//! the leader's answer for it. Reading from the start always asks again
//! (rewinddir(3)).

use crate::Client;
use crate::calls::open_dirs::{OpenDir, Page};
use crate::options::{DirPage, OpenOptions};
use lagan_types::query::ReadDir;
use lagan_types::{FsError, Ino};
use tokio::time::Instant;

/// Entries asked for at a time.
const PAGE_LEN: u32 = 1024;

impl Client {
    /// Opens a directory. Only O_NOATIME of `open` counts.
    ///
    /// # Errors
    /// None now.
    pub async fn opendir(&self, ino: Ino, open: OpenOptions) -> Result<u64, FsError> {
        let fh = self.files.table().next_fh();
        self.dirs.insert(fh, ino, open.no_atime);
        Ok(fh)
    }

    /// Entries whose cookie is above `cookie` (0: from the start). Entries that
    /// others add or remove meanwhile may or may not be listed (readdir(3)). Moves
    /// the directory's access time.
    ///
    /// # Errors
    /// [`FsError::NotFound`] or [`FsError::Stale`] if it is gone,
    /// [`FsError::NotDirectory`], [`FsError::TimedOut`].
    pub async fn readdir(&self, fh: u64, cookie: u64, attrs: bool) -> Result<DirPage, FsError> {
        let dir = self.dirs.get(fh)?;
        let mut given = match dir.kept(cookie, attrs) {
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

    async fn fetch_entries(
        &self,
        dir: &OpenDir,
        cookie: u64,
        attrs: bool,
    ) -> Result<DirPage, FsError> {
        let query = ReadDir {
            ino: dir.ino,
            cookie,
            limit: PAGE_LEN,
            attrs,
        };
        let fetched = Instant::now();
        let listing = dir.take_listing(cookie);
        let (found, listing) = self.leader.list(query, listing).await?;
        dir.set_listing(listing);
        Ok(dir.keep(Page {
            after: cookie,
            attrs,
            fetched,
            entries: found.entries,
            end: found.end,
            parent: found.parent,
        }))
    }

    /// Closes a directory.
    pub async fn releasedir(&self, fh: u64) {
        self.dirs.remove(fh);
    }

    /// fsync(2) of a directory: the names that were promised to this mount in it
    /// are durable. All others were so before their call was answered.
    ///
    /// # Errors
    /// [`FsError::Stale`] for a handle that is not open; [`FsError::Io`], once, if
    /// a promised name was lost; [`FsError::TimedOut`].
    pub async fn fsyncdir(&self, fh: u64) -> Result<(), FsError> {
        let dir = self.dirs.get(fh)?;
        self.leader
            .make_all_in(dir.ino, self.leader.deadline())
            .await
    }
}
