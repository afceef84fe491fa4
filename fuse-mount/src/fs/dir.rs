//! Directory listings: the kernel's offsets, and the pages that join its small requests
//! to the client's large answers.
//!
//! An entry's offset is where the next listing goes on *after* it: 1 for `.`,
//! 2 for `..`, cookie + 2 for the others. Cookies are persistent, so an offset
//! means the same in every mount and after any change of the directory.
//!
//! A handle keeps the page that it got last. After a step back to the start (rewinddir)
//! the page is fetched again, so that a listing never shows a state older than its start.

use lagan_client::{Client, DirPage};
use lagan_types::query::Entry;
use lagan_types::{FsError, Ino};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;

#[cfg(test)]
mod tests;

/// Offset after `.`.
pub(crate) const AFTER_DOT: u64 = 1;
/// Offset after `..`; the cookies of entries are shifted by it.
pub(crate) const AFTER_DOTS: u64 = 2;

/// A page of a listing.
#[derive(Debug)]
struct Page {
    /// The cookie that the page was fetched for: its entries have higher ones.
    after: u64,
    page: DirPage,
}

/// The open directories.
pub(crate) struct Dirs {
    client: Arc<Client>,
    /// The last page of each handle.
    pages: Mutex<HashMap<u64, Arc<Page>>>,
}

/// A page, and the offset after which a request wants its entries.
#[derive(Debug)]
pub(crate) struct Listing {
    page: Arc<Page>,
    offset: u64,
}

/// One entry of a listing with its offset.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Item<'a> {
    /// `.` or `..`, its inode and offset.
    Dot(&'static str, Ino, u64),
    /// Any other entry, with its offset.
    Entry(&'a Entry, u64),
}

impl Dirs {
    /// Makes the value without any open directory.
    pub(crate) fn new(client: Arc<Client>) -> Self {
        Dirs {
            client,
            pages: Mutex::default(),
        }
    }

    /// The entries of the open directory that follow `offset`.
    pub(crate) async fn list(&self, fh: u64, offset: u64, attrs: bool) -> Result<Listing, FsError> {
        let known = self.pages.lock().get(&fh).cloned();
        let page = match known.filter(|page| page.serves(offset, attrs)) {
            Some(page) => page,
            None => self.fetch(fh, offset, attrs).await?,
        };
        Ok(Listing { page, offset })
    }

    async fn fetch(&self, fh: u64, offset: u64, attrs: bool) -> Result<Arc<Page>, FsError> {
        let after = offset.saturating_sub(AFTER_DOTS);
        let page = self.client.readdir(fh, after, attrs).await?;
        let page = Arc::new(Page { after, page });
        self.pages.lock().insert(fh, page.clone());
        Ok(page)
    }

    /// Forgets a handle that was closed.
    pub(crate) fn forget(&self, fh: u64) {
        self.pages.lock().remove(&fh);
    }
}

impl Page {
    /// Whether the entries that follow `offset` begin in this page.
    fn serves(&self, offset: u64, attrs: bool) -> bool {
        let cookie = offset.saturating_sub(AFTER_DOTS);
        // A listing is fetched again from its start; `..` alone is no start.
        offset != 0
            && cookie >= self.after
            && (self.page.end || self.page.entries.last().is_some_and(|e| e.cookie > cookie))
            && (!attrs || self.page.entries.iter().all(|e| e.attr.is_some()))
    }
}

impl Listing {
    /// The entries after the offset, in order; none at the end of the listing.
    pub(crate) fn items<'a>(&'a self, own: Ino) -> impl Iterator<Item = Item<'a>> + 'a {
        let dots = [
            Item::Dot(".", own, AFTER_DOT),
            Item::Dot("..", self.page.page.parent, AFTER_DOTS),
        ];
        let given = usize::try_from(self.offset.min(AFTER_DOTS)).unwrap_or(2);
        let cookie = self.offset.saturating_sub(AFTER_DOTS);
        let entries = &self.page.page.entries;
        let first = entries.partition_point(|e| e.cookie <= cookie);
        let entries = entries.iter().skip(first);
        dots.into_iter()
            .skip(given)
            .chain(entries.map(|e| Item::Entry(e, e.cookie.saturating_add(AFTER_DOTS))))
    }
}
