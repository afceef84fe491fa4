//! Ranges of a file that become holes, and sizes that grow without data.

use crate::file::Files;
use crate::file::commit::Change;
use crate::file::handle::Handle;
use crate::leader::link::data_error;
use lagan_types::FsError;
use tokio::time::Instant;

/// An effect of fallocate(2) on a range. Space is never set aside ahead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Allocation {
    /// The range becomes a hole.
    pub hole: bool,
    /// The file ends where the range does, or later.
    pub grow: bool,
}

impl Files {
    /// Does that to `offset..end`, after what was written before. Returns whether
    /// anything changed.
    ///
    /// # Errors
    /// Those of a flush and of a commit.
    pub async fn allocate(
        &self,
        handle: &Handle,
        what: Allocation,
        (offset, end): (u64, u64),
        kill_suid: bool,
        until: Instant,
    ) -> Result<bool, FsError> {
        let inode = &handle.inode;
        let flushed = self.flush_inode(inode, until).await;
        handle.take_error().and(flushed)?;
        let turn = tokio::time::timeout_at(until, inode.turn.lock());
        let _turn = turn.await.map_err(|_| FsError::Io)?;
        let mut change = Change::new(inode.ino, Vec::new());
        if what.hole {
            change.holes = vec![(offset, end - offset)];
        }
        if what.grow {
            change.size_min = end;
        }
        change.kill_suid = kill_suid;
        if what.hole && !what.grow {
            self.cut_holes(handle, &mut change, until).await?;
        }
        if change.holes.is_empty() && !what.grow {
            return Ok(false);
        }
        let done = self.commit(&mut change, until).await?;
        self.note_commit(inode, &change, &done);
        Ok(done.before != done.attr.version)
    }

    /// Cuts holes at the end of the file: beyond it nothing may grow.
    async fn cut_holes(
        &self,
        handle: &Handle,
        change: &mut Change,
        until: Instant,
    ) -> Result<(), FsError> {
        let (inode, from) = (&handle.inode, change.holes.first().map_or(0, |h| h.0));
        self.fetch_map(inode, from, until)
            .await
            .map_err(data_error)?;
        let size = {
            let state = inode.state.lock();
            let map = state.map.as_ref().map_or(0, |m| m.size());
            map.max(state.buffer.end())
        };
        change.holes.retain_mut(|(offset, len)| {
            *len = (*len).min(size.saturating_sub(*offset));
            *len > 0
        });
        Ok(())
    }
}
