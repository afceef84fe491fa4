//! What an open shows: attributes and the first extents, and of a small file the bytes.

use crate::leader::Leader;
use crate::leader::brought::brought;
use crate::leader::leases::Leases;
use crate::leader::link::fs_error;
use lagan_types::limits::{ALONG_ALL_LEN_MAX, ALONG_LEN_MAX};
use lagan_types::message::StateRead;
use lagan_types::query::{Open, OpenAll, Opened};
use lagan_types::{FsError, Ino, Query, answer_to};
use tokio::time::Instant;

impl Leader {
    /// Opens a file; with `reads` the bytes of a small one come along, and those of its
    /// neighbours, if files are opened in the order of their directory
    /// ([`crate::leader::open_files::OpenFiles::brought`]).
    ///
    /// # Errors
    /// [`FsError::Stale`] if it is gone or an orphan, [`FsError::TimedOut`].
    pub async fn open(&self, ino: Ino, reads: bool) -> Result<Opened, FsError> {
        let query = Open { ino }.into();
        if let Some(opened) = self.opened(&query) {
            return opened;
        }
        let until = self.deadline();
        self.make_touched_by_query(&query, until).await?;
        if reads {
            self.open_neighbours(ino, until).await?;
            if let Some(opened) = self.opened(&query) {
                return opened;
            }
        }
        let limit = if reads { ALONG_LEN_MAX } else { 0 };
        let answer = self.ask_along(&query, limit, until).await?;
        answer_to::<Open>(answer.answer).map_err(fs_error)
    }

    /// Asks for a file together with those that will be opened next, or waits for whoever does;
    /// nothing, if it is opened alone.
    async fn open_neighbours(&self, ino: Ino, until: Instant) -> Result<(), FsError> {
        if self.opens.ended(ino).await {
            return Ok(());
        }
        let Some(inos) = self.leases.opens_ahead(ino) else {
            return Ok(());
        };
        let group = self.opens.begin(inos);
        let inos = group.inos().to_vec();
        if !inos.contains(&ino) {
            drop(group);
            self.opens.ended(ino).await;
            return Ok(());
        }
        let ask = OpenAll { inos }.into();
        self.ask_along(&ask, ALONG_ALL_LEN_MAX, until).await?;
        Ok(())
    }

    /// What is remembered of the file.
    fn opened(&self, query: &Query) -> Option<Result<Opened, FsError>> {
        let found = self.leases.find(query)?;
        Some(answer_to::<Open>(found).map_err(fs_error))
    }

    /// Asks, remembers the answer if that may be, and hands on the bytes that came with it.
    async fn ask_along(
        &self,
        query: &Query,
        limit: u32,
        until: Instant,
    ) -> Result<StateRead, FsError> {
        let asked = self.leases.ask(query);
        let wish = Leases::wish(asked, false);
        let mut read = self.read(query, (wish, limit), until).await?;
        // Whoever finds the file in the cache looks for its bytes next.
        let brought = brought(&read.answer, std::mem::take(&mut read.chunks));
        if let Some(files) = self.files.upgrade().filter(|_| !brought.is_empty()) {
            files.brought(brought);
        }
        if let (Some(asked), Some(leased)) = (asked, &read.leased) {
            self.leases.keep(asked, query, &read.answer, leased);
        }
        Ok(read)
    }
}
