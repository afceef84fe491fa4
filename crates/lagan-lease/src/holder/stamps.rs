//! When each key was closed last, in a table of fixed size: keys that fall into one place
//! share it. Sharing makes an answer be used once that could have been kept, nothing worse.

use lagan_types::Ino;
use lagan_types::lease::{Key, NameRef};
use std::hash::{DefaultHasher, Hash, Hasher};

/// Places; a power of two.
const PLACES: usize = 4_096;

/// The number of the last closing of each key.
#[derive(Debug)]
pub(super) struct Stamps {
    places: Box<[u64]>,
    /// All keys were closed at this number.
    all: u64,
    last: u64,
}

impl Default for Stamps {
    fn default() -> Self {
        Stamps {
            places: vec![0; PLACES].into_boxed_slice(),
            all: 0,
            last: 0,
        }
    }
}

impl Stamps {
    /// Returns the next number.
    pub fn number(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    /// Notes that the key is closed now.
    pub fn close(&mut self, key: &Key) {
        self.places[place(key)] = self.number();
    }

    /// Notes that the key was closed at a number of another table.
    pub fn close_at(&mut self, key: &Key, number: u64) {
        self.places[place(key)] = number;
    }

    /// Notes that all keys are closed now.
    pub fn close_all(&mut self) {
        self.all = self.number();
    }

    /// Whether the key was not closed since that number was given.
    pub fn is_open_since(&self, key: &Key, number: u64) -> bool {
        self.all <= number && self.places[place(key)] <= number
    }
}

fn place(key: &Key) -> usize {
    let mut hasher = DefaultHasher::new();
    match key {
        Key::Inode(Ino(ino)) => (0u8, ino).hash(&mut hasher),
        Key::Name(name) => (1u8, name.parts()).hash(&mut hasher),
        Key::Directory(Ino(ino)) => (2u8, ino).hash(&mut hasher),
        Key::Exclusive(Ino(ino)) => (3u8, ino).hash(&mut hasher),
    }
    hasher.finish() as usize % PLACES
}
