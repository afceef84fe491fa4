//! Finds where data and holes begin.

use crate::file::Files;
use crate::file::handle::Handle;
use crate::leader::link::data_error;
use crate::options::Seek;
use lagan_types::FsError;
use tokio::time::Instant;

impl Files {
    /// Finds the next data or hole from `offset` on, after what was written before.
    ///
    /// # Errors
    /// [`FsError::NoSuchOffset`] at or beyond the end, or (for data) if only a
    /// hole follows.
    pub async fn seek(
        &self,
        handle: &Handle,
        offset: u64,
        whence: Seek,
        until: Instant,
    ) -> Result<u64, FsError> {
        let inode = &handle.inode;
        let _ = self.flush_inode(inode, until).await;
        handle.check()?;
        let mut at = offset;
        inode.state.lock().map = None;
        loop {
            self.fetch_map(inode, at, until).await.map_err(data_error)?;
            let (found, known_to, size, known) = {
                let state = inode.state.lock();
                let Some(map) = state.map.as_ref() else {
                    continue;
                };
                let found = map.seek(at, whence == Seek::Data);
                // Another read of the file may have put its own page here.
                let known = map.covers(at, at.saturating_add(1));
                (found, map.known_to(), map.size(), known)
            };
            if offset >= size {
                return Err(FsError::NoSuchOffset);
            }
            match found {
                Some(found) => return Ok(found),
                None if !known => {}
                None if known_to >= size => break end_of(whence, size),
                None => at = known_to.max(at),
            }
            if Instant::now() >= until {
                return Err(FsError::Io);
            }
        }
    }
}

fn end_of(whence: Seek, size: u64) -> Result<u64, FsError> {
    match whence {
        Seek::Hole => Ok(size),
        Seek::Data => Err(FsError::NoSuchOffset),
    }
}
