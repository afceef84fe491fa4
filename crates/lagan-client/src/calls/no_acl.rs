//! Inodes without access control list or capabilities, by the attributes that the
//! kernel got last.
//!
//! The kernel asks for the list whenever it checks the permissions of somebody
//! who is not the owner, and for capabilities before it executes a file and before
//! the first write, each time right after it got the attributes: their
//! answer says whether there can be any, so that the leader is not asked
//! again. The leader is asked only for what is not known here.

use lagan_types::{Attr, Ino, Time};
use parking_lot::Mutex;
use std::collections::HashMap;

/// Inodes remembered, at most.
const PLACES: u64 = 8192;

/// Inodes without an access control list or without capabilities.
#[derive(Debug, Default)]
pub(crate) struct NoAcl {
    /// Each inode has one place by its number, with its ctime and what it has.
    places: Mutex<HashMap<u64, (Ino, Time, Has)>>,
}

#[derive(Debug, Clone, Copy)]
struct Has {
    xattrs: bool,
    capability: bool,
}

impl NoAcl {
    /// Learns from attributes that the kernel gets.
    pub fn answered(&self, attr: &Attr) {
        let mut places = self.places.lock();
        let place = places.entry(attr.ino.0 % PLACES);
        let has = Has {
            xattrs: attr.has_xattrs(),
            capability: attr.has_capability(),
        };
        let new = (attr.ino, attr.ctime, has);
        let place = place.or_insert(new);
        // Answers may overtake each other; ctime strictly rises.
        if place.0 != attr.ino || place.1 <= attr.ctime {
            *place = new;
        }
    }

    /// Forgets an inode, of which something was set.
    pub fn forget(&self, ino: Ino) {
        let mut places = self.places.lock();
        if places.get(&(ino.0 % PLACES)).is_some_and(|p| p.0 == ino) {
            places.remove(&(ino.0 % PLACES));
        }
    }

    /// Whether it is known that there is no list.
    pub fn has_no_list(&self, ino: Ino) -> bool {
        self.known(ino).is_some_and(|has| !has.xattrs)
    }

    /// Whether it is known that there are no capabilities.
    pub fn has_no_capability(&self, ino: Ino) -> bool {
        self.known(ino).is_some_and(|has| !has.capability)
    }

    fn known(&self, ino: Ino) -> Option<Has> {
        let places = self.places.lock();
        let place = places.get(&(ino.0 % PLACES));
        place.filter(|place| place.0 == ino).map(|place| place.2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lagan_types::attr::{ArchiveState, HAS_CAPABILITY, HAS_XATTRS, Kind};

    fn attr(ino: u64, secs: i64, xattrs: bool) -> Attr {
        let time = Time { secs, nanos: 0 };
        Attr {
            ino: Ino(ino),
            kind: Kind::File,
            mode: if xattrs { 0o644 | HAS_XATTRS } else { 0o644 },
            uid: 0,
            gid: 0,
            nlink: 1,
            size: 0,
            allocated: 0,
            rdev: 0,
            atime: time,
            mtime: time,
            ctime: time,
            btime: time,
            version: 1,
            archive: ArchiveState::Local,
        }
    }

    #[test]
    fn the_newest_attributes_decide_and_the_unknown_is_asked() {
        let known = NoAcl::default();
        assert!(!known.has_no_list(Ino(5)));
        known.answered(&attr(5, 1, false));
        assert!(known.has_no_list(Ino(5)));
        known.answered(&attr(5, 3, true));
        known.answered(&attr(5, 2, false));
        assert!(!known.has_no_list(Ino(5)));
        known.answered(&attr(5, 4, false));
        known.forget(Ino(5));
        assert!(!known.has_no_list(Ino(5)));
    }

    #[test]
    fn other_attributes_are_no_capabilities() {
        let known = NoAcl::default();
        assert!(!known.has_no_capability(Ino(5)));
        known.answered(&attr(5, 1, true));
        assert!(known.has_no_capability(Ino(5)) && !known.has_no_list(Ino(5)));
        let mut capable = attr(5, 2, true);
        capable.mode |= HAS_CAPABILITY;
        known.answered(&capable);
        known.answered(&attr(5, 1, true));
        assert!(!known.has_no_capability(Ino(5)));
    }

    #[test]
    fn inodes_that_share_a_place_are_not_taken_for_each_other() {
        let known = NoAcl::default();
        known.answered(&attr(5, 9, false));
        known.answered(&attr(5 + PLACES, 1, false));
        assert!(!known.has_no_list(Ino(5)) && known.has_no_list(Ino(5 + PLACES)));
        known.forget(Ino(5));
        assert!(known.has_no_list(Ino(5 + PLACES)));
    }
}
