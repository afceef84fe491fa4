//! The leader storey's questions and news, for the files that are open.

use crate::file::Files;
use crate::leader::brought::Brought;
use crate::leader::open_files::OpenFiles;
use lagan_types::{Attr, FsError, Ino};
use std::collections::HashSet;

impl OpenFiles for Files {
    fn is_open(&self, ino: Ino) -> bool {
        self.table.is_open(ino)
    }

    fn hold(&self, ino: Ino) {
        self.table.pin(ino);
    }

    fn let_go(&self, ino: Ino) {
        self.unpin(ino);
    }

    fn promise_made(&self, promised: &Attr, made: &Attr) {
        if let Some(inode) = self.table.inode(made.ino) {
            inode.state.lock().replace_attr(promised, made);
        }
    }

    fn promise_lost(&self, ino: Ino) {
        self.table.end_handles(ino);
        self.pages.lost(ino);
        if let Some(inode) = self.table.inode(ino) {
            let mut state = inode.state.lock();
            state.failed(FsError::Io);
            let freed = state.discard();
            drop(state);
            self.room.give_back(freed);
        }
    }

    fn attributes_forgotten(&self, ino: Ino) {
        self.pages.overtaken(ino);
    }

    fn brought(&self, chunks: Vec<Brought>) {
        self.chunks.keep_brought(chunks);
    }

    fn session_lost(&self, lost: &HashSet<Ino>) {
        for inode in self.table.inodes() {
            if lost.contains(&inode.ino) || inode.state.lock().is_dirty() {
                // First the handles, then the data. A write looks at its handle under
                // the lock that `discard` takes: it is dropped here, or refused.
                self.table.end_handles(inode.ino);
                self.pages.lost(inode.ino);
                let freed = inode.state.lock().discard();
                self.room.give_back(freed);
            }
        }
    }
}
