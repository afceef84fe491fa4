//! Inodes that count as open.

use crate::file::Files;
use crate::file::inode::Inode;
use crate::options::OpenOptions;
use lagan_types::Ino;
use std::sync::Arc;

/// An inode that counts as open; it is closed again when this is dropped, unless it was kept.
pub(crate) struct Pin<'a> {
    files: &'a Files,
    inode: Arc<Inode>,
    kept: bool,
}

impl<'a> Pin<'a> {
    /// Counts an open of the inode.
    pub fn new(files: &'a Files, ino: Ino) -> Self {
        Pin {
            files,
            inode: files.table.pin(ino),
            kept: false,
        }
    }

    /// The inode.
    pub fn inode(&self) -> &Arc<Inode> {
        &self.inode
    }

    /// Makes a handle, which counts as the open from here on. Returns its number.
    pub fn keep(mut self, options: OpenOptions) -> u64 {
        self.kept = true;
        self.files.table.insert(self.inode.clone(), options)
    }
}

impl Drop for Pin<'_> {
    fn drop(&mut self) {
        if !self.kept {
            self.files.unpin(self.inode.ino);
        }
    }
}

impl Files {
    /// Ends one open. Bytes that the last one leaves unflushed could not be
    /// committed: they are dropped, and their room is free again.
    pub fn unpin(&self, ino: Ino) {
        if let Some(inode) = self.table.unpin(ino) {
            self.leader.give_up_promise(ino);
            let freed = inode.state.lock().discard();
            if freed > 0 {
                self.pages.lost(ino);
            }
            self.room.give_back(freed);
        }
    }
}
