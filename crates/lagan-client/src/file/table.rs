//! The open inodes and handles.
//!
//! Lock order: inodes, handles, one inode's state. None is held across an await.

use crate::file::handle::Handle;
use crate::file::inode::Inode;
use crate::options::OpenOptions;
use lagan_types::{FsError, Ino};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The open inodes and handles.
#[derive(Debug, Default)]
pub(crate) struct Table {
    /// Each with the number of its opens.
    inodes: Mutex<HashMap<Ino, (Arc<Inode>, u64)>>,
    handles: Mutex<HashMap<u64, Arc<Handle>>>,
    next_fh: AtomicU64,
}

impl Table {
    /// Takes a number for a new handle, of a file or a directory.
    pub fn next_fh(&self) -> u64 {
        self.next_fh.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Counts an open of the inode, before the leader is asked: from now on it
    /// is not reported as closed. It is undone by [`Table::unpin`].
    pub fn pin(&self, ino: Ino) -> Arc<Inode> {
        let mut inodes = self.inodes.lock();
        let new = || (Arc::new(Inode::new(ino)), 0);
        let entry = inodes.entry(ino).or_insert_with(new);
        entry.1 += 1;
        entry.0.clone()
    }

    /// Undoes one [`Table::pin`]. The last one returns the inode, which may hold
    /// bytes that could not be flushed.
    pub fn unpin(&self, ino: Ino) -> Option<Arc<Inode>> {
        let mut inodes = self.inodes.lock();
        let entry = inodes.get_mut(&ino)?;
        entry.1 -= 1;
        if entry.1 > 0 {
            return None;
        }
        inodes.remove(&ino).map(|(inode, _)| inode)
    }

    /// The inode, if it is open.
    pub fn inode(&self, ino: Ino) -> Option<Arc<Inode>> {
        self.inodes.lock().get(&ino).map(|(i, _)| i.clone())
    }

    /// Whether the inode is open, or being opened.
    pub fn is_open(&self, ino: Ino) -> bool {
        self.inodes.lock().contains_key(&ino)
    }

    /// How many opens of the inode count.
    pub fn opens(&self, ino: Ino) -> u64 {
        self.inodes.lock().get(&ino).map_or(0, |(_, n)| *n)
    }

    /// All open inodes.
    pub fn inodes(&self) -> Vec<Arc<Inode>> {
        let inodes = self.inodes.lock();
        inodes.values().map(|(i, _)| i.clone()).collect()
    }

    /// Makes a handle of a pinned inode.
    pub fn insert(&self, inode: Arc<Inode>, options: OpenOptions) -> u64 {
        let fh = self.next_fh();
        let handle = Arc::new(Handle::new(inode, options));
        self.handles.lock().insert(fh, handle);
        fh
    }

    /// The handle.
    ///
    /// # Errors
    /// [`FsError::Stale`] for a handle that is not open.
    pub fn handle(&self, fh: u64) -> Result<Arc<Handle>, FsError> {
        self.handles.lock().get(&fh).cloned().ok_or(FsError::Stale)
    }

    /// Takes a handle out; its inode stays pinned.
    pub fn remove(&self, fh: u64) -> Option<Arc<Handle>> {
        self.handles.lock().remove(&fh)
    }

    /// Makes all handles of the inode fail; they must be opened again.
    pub fn end_handles(&self, ino: Ino) {
        for handle in self.handles.lock().values() {
            if handle.inode.ino == ino {
                handle.end();
            }
        }
    }
}
