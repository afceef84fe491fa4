//! Space: statfs, fallocate, lseek.

use crate::Client;
use crate::file::allocate::Allocation;
use crate::leader::link::unanswered;
use crate::options::{Caller, Seek, StatFs};
use lagan_types::cluster::NodeState;
use lagan_types::limits::{FILE_LEN_MAX, NAME_LEN_MAX};
use lagan_types::message::{GetStatus, NodeStatus, Status};
use lagan_types::op::{SetAttr, SetTime};
use lagan_types::{FsError, Ino};
use std::time::Duration;
use tokio::time::Instant;

/// linux/falloc.h.
const KEEP_SIZE: i32 = 0x01;
const PUNCH_HOLE: i32 = 0x02;
const ZERO_RANGE: i32 = 0x10;
/// Wait between two questions to a leader that has not heard of all servers yet.
const UNHEARD_PAUSE: Duration = Duration::from_millis(50);
/// Inodes that statfs calls free: there is no limit but disk space.
const FREE_FILES: u64 = 1 << 32;

/// Decodes a mode of fallocate(2).
fn allocation(mode: i32) -> Result<Allocation, FsError> {
    const PUNCH: i32 = PUNCH_HOLE | KEEP_SIZE;
    const ZERO_KEEP: i32 = ZERO_RANGE | KEEP_SIZE;
    let (hole, grow) = match mode {
        0 => (false, true),
        KEEP_SIZE => (false, false),
        PUNCH | ZERO_KEEP => (true, false),
        ZERO_RANGE => (true, true),
        _ => return Err(FsError::Unsupported),
    };
    Ok(Allocation { hole, grow })
}

impl Client {
    /// Answers statfs(2): the capacity of the servers that answer, divided by copies.
    ///
    /// A new leader waits for the first heartbeats: a mail server that sees no
    /// space for a moment refuses mail.
    ///
    /// # Errors
    /// [`FsError::TimedOut`].
    pub async fn statfs(&self) -> Result<StatFs, FsError> {
        let until = self.leader.deadline();
        loop {
            let status = self.leader.link().ask(GetStatus, until).await;
            let status = status.map_err(unanswered)?;
            if let Some(stat) = stat_of(&status) {
                return Ok(stat);
            }
            if Instant::now() >= until {
                return Err(FsError::TimedOut);
            }
            tokio::time::sleep(UNHEARD_PAUSE).await;
        }
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
        let handle = self.files.table().handle(fh)?;
        handle.check()?;
        let what = allocation(mode)?;
        if len == 0 {
            return Err(FsError::Invalid);
        }
        let end = offset.checked_add(len).ok_or(FsError::FileTooLarge)?;
        if end > FILE_LEN_MAX {
            return Err(FsError::FileTooLarge);
        }
        let (range, kill_suid) = ((offset, end), !caller.privileged());
        let until = self.leader.deadline();
        let changed = self.files.allocate(&handle, what, range, kill_suid, until);
        if changed.await? {
            return Ok(());
        }
        self.touch(caller, handle.inode().ino).await
    }

    /// Changes the times alone: they change also where no byte did.
    async fn touch(&self, caller: Caller, ino: Ino) -> Result<(), FsError> {
        let set = SetAttr {
            mtime: Some(SetTime::Now),
            kill_suid: !caller.privileged(),
            ..SetAttr::default()
        };
        self.setattr(caller, ino, set).await.map(|_| ())
    }

    /// lseek(2) with SEEK_DATA or SEEK_HOLE.
    ///
    /// # Errors
    /// [`FsError::NoSuchOffset`] at or beyond the end, or (for data) if only a
    /// hole follows.
    pub async fn lseek(&self, fh: u64, offset: u64, whence: Seek) -> Result<u64, FsError> {
        let handle = self.files.table().handle(fh)?;
        let until = self.leader.deadline();
        self.files.seek(&handle, offset, whence, until).await
    }
}

/// The answer that follows from the cluster's status; `None`: the leader has not heard yet of a server that
/// nobody calls down.
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
        let grow = |hole| Ok(Allocation { hole, grow: true });
        let keep = |hole| Ok(Allocation { hole, grow: false });
        assert_eq!(allocation(0), grow(false));
        assert_eq!(allocation(KEEP_SIZE), keep(false));
        assert_eq!(allocation(PUNCH_HOLE | KEEP_SIZE), keep(true));
        assert_eq!(allocation(ZERO_RANGE), grow(true));
        for bad in [PUNCH_HOLE, 0x08, 0x20, 0x40, -1] {
            assert_eq!(allocation(bad), Err(FsError::Unsupported));
        }
    }
}
