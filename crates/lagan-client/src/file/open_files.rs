//! The leader storey's questions and news, for the files that are open.

use crate::Client;
use crate::file::inode::Inode;
use crate::leader::open_files::OpenFiles;
use lagan_types::{Attr, FsError, Ino};
use std::collections::HashSet;
use std::sync::Arc;

impl OpenFiles for Client {
    fn is_open(&self, ino: Ino) -> bool {
        self.files.is_open(ino)
    }

    fn hold(&self, ino: Ino) {
        self.files.pin(ino);
    }

    fn let_go(&self, ino: Ino) {
        self.unpin(ino);
    }

    fn promise_made(&self, promised: &Attr, made: &Attr) {
        if let Some(inode) = self.files.inode(made.ino) {
            inode.state.lock().replace_attr(promised, made);
        }
    }

    fn promise_lost(&self, ino: Ino) {
        self.files.end_handles(ino);
        self.pages.lost(ino);
        if let Some(inode) = self.files.inode(ino) {
            let mut state = inode.state.lock();
            state.failed(FsError::Io);
            let freed = state.discard();
            drop(state);
            self.give_back(freed);
        }
    }

    fn session_lost(&self, lost: &HashSet<Ino>) {
        let is_lost =
            |inode: &Arc<Inode>| lost.contains(&inode.ino) || inode.state.lock().is_dirty();
        for inode in self.files.inodes().iter().filter(|i| is_lost(i)) {
            // The handles are first: what is written after this is refused.
            self.files.end_handles(inode.ino);
            self.pages.lost(inode.ino);
            let freed = inode.state.lock().discard();
            self.give_back(freed);
        }
    }
}
