//! Space: statfs, fallocate, lseek.

use crate::Client;
use crate::file::commit::Change;
use crate::file::inode::Handle;
use crate::leader::link::{data_error, unanswered};
use crate::options::{Caller, Seek, StatFs};
use lagan_types::cluster::NodeState;
use lagan_types::limits::{FILE_LEN_MAX, NAME_LEN_MAX};
use lagan_types::message::{MetaReply, MetaRequest, NodeStatus, Status};
use lagan_types::op::{SetAttr, SetTime};
use lagan_types::{FsError, Ino};
use std::time::Duration;
use tokio::time::Instant;

/// linux/falloc.h.
const KEEP_SIZE: i32 = 0x01;
const PUNCH_HOLE: i32 = 0x02;
const ZERO_RANGE: i32 = 0x10;
/// How long a write waits for a newer map when the present one says "full".
const FULL_ASK: Duration = Duration::from_secs(1);
/// Between two questions to a leader that has not heard of all servers yet.
const UNHEARD_PAUSE: Duration = Duration::from_millis(50);
/// Inodes that statfs calls free: there is no limit but disk space.
const FREE_FILES: u64 = 1 << 32;

/// What a mode of fallocate(2) means here, where space is not reserved ahead.
#[derive(Debug, PartialEq, Eq)]
struct Plan {
    hole: bool,
    grow: bool,
}

fn plan(mode: i32) -> Result<Plan, FsError> {
    const PUNCH: i32 = PUNCH_HOLE | KEEP_SIZE;
    const ZERO_KEEP: i32 = ZERO_RANGE | KEEP_SIZE;
    let (hole, grow) = match mode {
        0 => (false, true),
        KEEP_SIZE => (false, false),
        PUNCH | ZERO_KEEP => (true, false),
        ZERO_RANGE => (true, true),
        _ => return Err(FsError::Unsupported),
    };
    Ok(Plan { hole, grow })
}

impl Client {
    /// What statfs(2) says: capacity of the servers that answer, divided by copies.
    ///
    /// A new leader waits for the first heartbeats: a mail server that sees no
    /// space for a moment refuses mail.
    ///
    /// # Errors
    /// [`FsError::TimedOut`].
    pub async fn statfs(&self) -> Result<StatFs, FsError> {
        let until = self.leader.deadline();
        loop {
            let status = match self.leader.link().meta(&MetaRequest::Status, until).await {
                Ok(MetaReply::Status(status)) => status,
                other => return Err(unanswered(other)),
            };
            if let Some(stat) = stat_of(&status) {
                return Ok(stat);
            }
            if Instant::now() >= until {
                return Err(FsError::TimedOut);
            }
            tokio::time::sleep(UNHEARD_PAUSE).await;
        }
    }

    /// Whether written bytes could become chunks, as far as the map tells; before
    /// it says no, it asks whether there is a newer one.
    ///
    /// # Errors
    /// [`FsError::NoSpace`] if no set takes chunks because servers are full.
    pub(crate) async fn check_space(&self) -> Result<(), FsError> {
        if !self.leader.cluster().current().full() {
            return Ok(());
        }
        // Without a leader nothing is known: the flush will tell.
        self.leader
            .refresh_map(Instant::now() + FULL_ASK)
            .await
            .map_or(Ok(()), |()| match self.leader.cluster().current().full() {
                true => Err(FsError::NoSpace),
                false => Ok(()),
            })
    }

    /// fallocate(2): mode 0, KEEP_SIZE, PUNCH_HOLE with KEEP_SIZE, ZERO_RANGE
    /// with or without KEEP_SIZE.
    ///
    /// # Errors
    /// [`FsError::Unsupported`] for other modes, [`FsError::Invalid`] for no
    /// bytes, [`FsError::FileTooLarge`], and those of [`Client::fsync`].
    pub async fn fallocate(
        &self,
        caller: Caller,
        fh: u64,
        offset: u64,
        len: u64,
        mode: i32,
    ) -> Result<(), FsError> {
        let handle = self.files.handle(fh)?;
        handle.check()?;
        let plan = plan(mode)?;
        if len == 0 {
            return Err(FsError::Invalid);
        }
        let end = offset.checked_add(len).ok_or(FsError::FileTooLarge)?;
        if end > FILE_LEN_MAX {
            return Err(FsError::FileTooLarge);
        }
        let until = self.leader.deadline();
        let inode = &handle.inode;
        let flushed = self.flush_inode(inode, until).await;
        handle.take_error().and(flushed)?;
        let turn = tokio::time::timeout_at(until, inode.turn.lock());
        let turn = turn.await.map_err(|_| FsError::Io)?;
        let mut change = Change::new(inode.ino, Vec::new());
        if plan.hole {
            change.holes = vec![(offset, len)];
        }
        if plan.grow {
            change.size_min = end;
        }
        change.kill_suid = !caller.privileged();
        if plan.hole && !plan.grow {
            self.cut_holes(&handle, &mut change, until).await?;
        }
        if !change.holes.is_empty() || plan.grow {
            let done = self.commit(&mut change, until).await?;
            self.note_commit(inode, &change, &done);
            if done.before != done.attr.version {
                return Ok(());
            }
        }
        drop(turn);
        self.touch(caller, inode.ino).await
    }

    /// No byte changed; the times do all the same.
    async fn touch(&self, caller: Caller, ino: Ino) -> Result<(), FsError> {
        let set = SetAttr {
            mtime: Some(SetTime::Now),
            kill_suid: !caller.privileged(),
            ..SetAttr::default()
        };
        self.setattr(caller, ino, set).await.map(|_| ())
    }

    /// A hole ends at the end of the file: beyond it nothing may grow.
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

    /// lseek(2) with SEEK_DATA or SEEK_HOLE.
    ///
    /// # Errors
    /// [`FsError::NoSuchOffset`] at or beyond the end, or (for data) if only a
    /// hole follows.
    pub async fn lseek(&self, fh: u64, offset: u64, whence: Seek) -> Result<u64, FsError> {
        let handle = self.files.handle(fh)?;
        let until = self.leader.deadline();
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
                None if known_to >= size => break self.end_of(whence, size),
                None => at = known_to.max(at),
            }
            if Instant::now() >= until {
                return Err(FsError::Io);
            }
        }
    }

    fn end_of(&self, whence: Seek, size: u64) -> Result<u64, FsError> {
        match whence {
            Seek::Hole => Ok(size),
            Seek::Data => Err(FsError::NoSuchOffset),
        }
    }
}

/// `None`: the leader has not heard yet of a server that nobody calls down.
fn stat_of(status: &Status) -> Option<StatFs> {
    let (mut total, mut free) = (0u64, 0u64);
    let answering = status.map.nodes.iter();
    for node in answering.filter(|n| n.state != NodeState::Down) {
        let said = status.nodes.iter().find(|n| n.node == node.id)?;
        let heard = said.silent_ms != NodeStatus::NOT_HEARD;
        let (used_bytes, free_bytes) = heard.then_some((said.used_bytes, said.free_bytes))?;
        total = total.saturating_add(used_bytes).saturating_add(free_bytes);
        free = free.saturating_add(free_bytes);
    }
    let copies = status.map.config.copies.max(1) as u64;
    Some(StatFs {
        total_bytes: total / copies,
        free_bytes: free / copies,
        files: status.counters.inodes.saturating_add(FREE_FILES),
        free_files: FREE_FILES,
        name_len_max: NAME_LEN_MAX as u32,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_that_move_bytes_are_not_supported() {
        let grow = |hole| Ok(Plan { hole, grow: true });
        let keep = |hole| Ok(Plan { hole, grow: false });
        assert_eq!(plan(0), grow(false));
        assert_eq!(plan(KEEP_SIZE), keep(false));
        assert_eq!(plan(PUNCH_HOLE | KEEP_SIZE), keep(true));
        assert_eq!(plan(ZERO_RANGE), grow(true));
        for bad in [PUNCH_HOLE, 0x08, 0x20, 0x40, -1] {
            assert_eq!(plan(bad), Err(FsError::Unsupported));
        }
    }
}
