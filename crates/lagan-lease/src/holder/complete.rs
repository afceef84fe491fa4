//! All names of a directory.

use lagan_types::Ino;
use lagan_types::lease::Found;
use std::cell::Cell;
use std::collections::{HashMap, HashSet};

/// Bytes that a name takes beside its own.
pub const NAME_ROW_BYTES: usize = 128;

/// All names of a directory, or those that are known so far.
#[derive(Debug, Default)]
pub(super) struct Complete {
    /// What each name leads to, and its place in the order.
    pub names: HashMap<Box<[u8]>, (Ino, usize)>,
    /// The inodes in the order in which they were listed, those of names that are gone too.
    pub order: Vec<Ino>,
    /// The places of the two names that were asked for last, the last one first.
    pub asked: Cell<[usize; 2]>,
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
    pub fn new(since: u64, names: impl IntoIterator<Item = (Box<[u8]>, Ino)>) -> Self {
        let mut complete = Complete {
            names: HashMap::new(),
            order: Vec::new(),
            asked: Cell::new([usize::MAX; 2]),
            bytes: NAME_ROW_BYTES,
            since,
            listing: None,
        };
        for (name, ino) in names {
            complete.set(&name, Found::Inode(ino));
        }
        complete
    }

    pub fn note_asked(&self, place: usize) {
        let [last, _] = self.asked.get();
        if last != place {
            self.asked.set([place, last]);
        }
    }

    /// Whether the name was asked for last, and the one before it in the listing before it.
    pub fn is_in_order(&self, name: &[u8]) -> bool {
        let [last, before] = self.asked.get();
        let place = self.names.get(name).map(|(_, place)| *place);
        place == Some(last) && before.wrapping_add(1) == last
    }

    /// Forgets the places of names that are gone, when most are.
    pub fn tidy_order(&mut self) {
        if self.order.len() <= 2 * self.names.len() + 64 {
            return;
        }
        let mut places: Vec<&mut (Ino, usize)> = self.names.values_mut().collect();
        places.sort_unstable_by_key(|(_, place)| *place);
        self.order.clear();
        for (ino, place) in places {
            *place = self.order.len();
            self.order.push(*ino);
        }
        self.asked.set([usize::MAX; 2]);
    }

    pub fn set(&mut self, name: &[u8], found: Found) {
        let bytes = NAME_ROW_BYTES + name.len();
        match found {
            Found::Inode(ino) => {
                self.tidy_order();
                let place = (ino, self.order.len());
                self.order.push(ino);
                if self.names.insert(name.into(), place).is_none() {
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
