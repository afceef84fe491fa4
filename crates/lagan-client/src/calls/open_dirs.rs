//! Open directories, each with one page of the leader's answer.

use crate::leader::leases::Listing;
use crate::options::DirPage;
use lagan_types::query::Entry;
use lagan_types::{FsError, Ino};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Entries given at a time: more than fits into one answer to the kernel.
const GIVEN_LEN: usize = 256;
/// A page is used up within this, or asked for again.
const PAGE_AGE: Duration = Duration::from_secs(1);

/// Open directories.
#[derive(Debug, Default)]
pub(crate) struct OpenDirs {
    open: Mutex<HashMap<u64, Arc<OpenDir>>>,
}

impl OpenDirs {
    /// Opens a directory under that handle.
    pub fn insert(&self, fh: u64, ino: Ino, no_atime: bool) {
        let dir = OpenDir {
            ino,
            no_atime,
            page: Mutex::default(),
            listing: Mutex::default(),
        };
        self.open.lock().insert(fh, Arc::new(dir));
    }

    /// The open directory.
    ///
    /// # Errors
    /// [`FsError::Stale`] for a handle that is not open.
    pub fn get(&self, fh: u64) -> Result<Arc<OpenDir>, FsError> {
        self.open.lock().get(&fh).cloned().ok_or(FsError::Stale)
    }

    /// Closes a directory.
    pub fn remove(&self, fh: u64) {
        self.open.lock().remove(&fh);
    }
}

/// An open directory.
#[derive(Debug)]
pub(crate) struct OpenDir {
    /// The directory.
    pub ino: Ino,
    /// It was opened with O_NOATIME.
    pub no_atime: bool,
    page: Mutex<Option<Page>>,
    /// What was listed so far, from the first page on.
    listing: Mutex<Option<Listing>>,
}

impl OpenDir {
    /// Takes the listing that a page after `cookie` goes on with.
    pub fn take_listing(&self, cookie: u64) -> Option<Listing> {
        let listing = self.listing.lock().take();
        listing.filter(|listing| cookie > 0 && listing.goes_on(cookie))
    }

    /// Keeps a listing that goes on.
    pub fn set_listing(&self, listing: Option<Listing>) {
        *self.listing.lock() = listing;
    }

    /// Entries after `cookie` that are at hand, if there are some or it is known that there are none.
    pub fn kept(&self, cookie: u64, attrs: bool) -> Option<DirPage> {
        self.page.lock().as_ref()?.from(cookie, attrs)
    }

    /// Keeps a page. Returns its first entries.
    pub fn keep(&self, page: Page) -> DirPage {
        let given = page.part(0);
        *self.page.lock() = Some(page);
        given
    }
}

/// A page of the leader's answer.
#[derive(Debug)]
pub(crate) struct Page {
    /// The entries follow this cookie.
    pub after: u64,
    /// The entries have attributes.
    pub attrs: bool,
    /// When the leader was asked.
    pub fetched: Instant,
    /// The entries, in order of cookie.
    pub entries: Vec<Entry>,
    /// No entry follows these.
    pub end: bool,
    /// The directory's parent.
    pub parent: Ino,
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
