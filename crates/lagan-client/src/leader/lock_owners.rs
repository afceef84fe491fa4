//! Owners of this mount that may hold advisory locks in its session.

use lagan_types::Ino;
use parking_lot::Mutex;
use std::collections::{HashMap, HashSet};

/// Owners that may hold locks. All others need no unlock call at close.
#[derive(Debug, Default)]
pub(crate) struct LockOwners {
    owners: Mutex<HashSet<(Ino, u64)>>,
    /// The owners that locked through each handle. The kernel names the owner when
    /// a process' lock or a flock ends, but not for a lock that belongs to an open
    /// file description (F_OFD_SETLK): that one ends with its handle.
    through: Mutex<HashMap<u64, HashSet<u64>>>,
}

impl LockOwners {
    /// Whether the owner may hold a lock on the inode.
    pub fn has(&self, ino: Ino, owner: u64) -> bool {
        self.owners.lock().contains(&(ino, owner))
    }

    /// Notes that the owner may hold a lock on the inode.
    pub fn note(&self, ino: Ino, owner: u64) {
        self.owners.lock().insert((ino, owner));
    }

    /// Notes that the owner locks through the handle.
    pub fn note_through(&self, fh: u64, owner: u64) {
        self.through.lock().entry(fh).or_default().insert(owner);
    }

    /// Notes that the owner holds no lock on the inode.
    pub fn forget(&self, ino: Ino, owner: u64) {
        self.owners.lock().remove(&(ino, owner));
    }

    /// Notes that all locks which a process took through a handle ended: what it
    /// locks anew must not end with that handle.
    pub fn left(&self, fh: u64, owner: u64) {
        let mut through = self.through.lock();
        if let Some(owners) = through.get_mut(&fh) {
            owners.remove(&owner);
            if owners.is_empty() {
                through.remove(&fh);
            }
        }
    }

    /// Forgets a handle that ends. Returns the owners that locked through it and did not leave.
    pub fn closed(&self, fh: u64) -> HashSet<u64> {
        self.through.lock().remove(&fh).unwrap_or_default()
    }

    /// Forgets all locks; returns the inodes that had some.
    pub fn clear(&self) -> HashSet<Ino> {
        self.through.lock().clear();
        self.owners.lock().drain().map(|(ino, _)| ino).collect()
    }
}
