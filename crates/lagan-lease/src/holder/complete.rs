//! All names of a directory.

use lagan_types::Ino;
use lagan_types::lease::Found;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Bytes that a name takes beside its own.
pub const NAME_ROW_BYTES: usize = 128;

/// Most names in doubt of a directory that counts as complete.
pub(super) const DOUBTFUL_MAX: usize = 256;
/// Most own changes of names that one listing follows.
pub(super) const FOLLOWED_MAX: usize = 1_024;

/// All names of a directory, or those that are known so far.
#[derive(Debug)]
pub(super) struct Complete {
    /// What each name leads to.
    pub names: HashMap<Arc<[u8]>, Ino>,
    /// Names of which nobody knows what they lead to.
    pub doubtful: HashSet<Arc<[u8]>>,
    pub bytes: usize,
    /// Own changes that began at this number or later were claimed when the leader had
    /// registered the interest in all names. Older ones are followed only if it says so: what
    /// they did others may have undone before.
    pub since: u64,
    /// A listing is under way.
    pub listing: Option<Listing>,
}

/// A listing that is under way. Whatever closes the directory ends it.
#[derive(Debug)]
pub(super) struct Listing {
    pub token: u64,
    /// Names that own changes have set or taken since it began: pages may show them older.
    pub followed: HashSet<Box<[u8]>>,
}

impl Complete {
    pub fn new(since: u64) -> Self {
        Complete {
            names: HashMap::new(),
            doubtful: HashSet::new(),
            bytes: NAME_ROW_BYTES,
            since,
            listing: None,
        }
    }

    pub fn set(&mut self, name: &Arc<[u8]>, found: Found) {
        let bytes = NAME_ROW_BYTES + name.len();
        match found {
            Found::Inode(ino) => {
                if self.names.insert(name.clone(), ino).is_none() {
                    self.bytes += bytes;
                }
            }
            Found::Absent => {
                if self.names.remove(name).is_some() {
                    self.bytes -= bytes;
                }
            }
        }
    }
}
