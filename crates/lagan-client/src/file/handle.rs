//! An open file, and where its reader is.

use crate::file::inode::Inode;
use crate::options::OpenOptions;
use lagan_types::FsError;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// An open file.
#[derive(Debug)]
pub(crate) struct Handle {
    /// The inode that is open.
    pub(super) inode: Arc<Inode>,
    /// How it was opened.
    pub(super) options: OpenOptions,
    /// How many errors of the inode were told through it, or were there before.
    seen_errors: AtomicU64,
    /// Its data or its locks were lost with the session.
    ended: AtomicBool,
    /// The reader's place.
    pub(super) ahead: Mutex<ReadAhead>,
}

/// The place of a sequential reader.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct ReadAhead {
    /// The last read ended here.
    pub next: u64,
    /// Bytes read in a row.
    pub run: u64,
    /// The bytes that were asked for ahead end here.
    pub asked_to: u64,
}

impl Handle {
    /// A new handle of an inode.
    pub fn new(inode: Arc<Inode>, options: OpenOptions) -> Self {
        let seen = inode.state.lock().errors.0;
        Handle {
            inode,
            options,
            seen_errors: AtomicU64::new(seen),
            ended: AtomicBool::new(false),
            ahead: Mutex::default(),
        }
    }

    /// The inode that is open.
    pub fn inode(&self) -> &Arc<Inode> {
        &self.inode
    }

    /// How it was opened.
    pub fn options(&self) -> OpenOptions {
        self.options
    }

    /// From now on the handle fails; it must be opened again.
    pub fn end(&self) {
        self.ended.store(true, Ordering::Release);
    }

    /// Looks whether the handle can be used.
    ///
    /// # Errors
    /// [`FsError::Io`] if it must be opened again.
    pub fn check(&self) -> Result<(), FsError> {
        if self.ended.load(Ordering::Acquire) {
            return Err(FsError::Io);
        }
        Ok(())
    }

    /// Takes the error of deferred writes; each handle gets it once.
    ///
    /// # Errors
    /// The last one that this handle has not told yet.
    pub fn take_error(&self) -> Result<(), FsError> {
        let (count, last) = self.inode.state.lock().errors;
        match last {
            Some(error) if self.seen_errors.swap(count, Ordering::AcqRel) < count => Err(error),
            _ => Ok(()),
        }
    }

    /// Whether reads and writes do not go through the kernel's pages.
    pub fn is_direct(&self) -> bool {
        self.options.direct || self.options.append
    }
}
