//! Own changes that are under way, by key.

use lagan_types::Ino;
use lagan_types::lease::Key;
use std::collections::{HashMap, HashSet};

/// Most directories that are remembered with a change of unknown outcome.
const LOST_MAX: usize = 1_024;

/// Own changes of one key.
#[derive(Debug, Default)]
struct UnderWay {
    count: u32,
    /// Another change began, or a recall came, while one was under way: no answer to any of
    /// them proves what is there now.
    crossed: bool,
}

/// Own changes under way.
#[derive(Debug, Default)]
pub(super) struct Changes {
    of: HashMap<Key, UnderWay>,
}

impl Changes {
    /// Whether a change of the key is under way.
    pub fn contains(&self, key: &Key) -> bool {
        !self.of.is_empty() && self.of.contains_key(key)
    }

    /// Whether none is under way.
    pub fn is_empty(&self) -> bool {
        self.of.is_empty()
    }

    /// Returns the number of keys.
    pub fn len(&self) -> usize {
        self.of.len()
    }

    /// Begins a change of the key.
    pub fn begin(&mut self, key: &Key) {
        let under_way = self.of.entry(key.clone()).or_default();
        under_way.crossed |= under_way.count > 0;
        under_way.count += 1;
    }

    /// Notes that the key was closed for another reason.
    pub fn cross(&mut self, key: &Key) {
        if let Some(under_way) = self.of.get_mut(key) {
            under_way.crossed = true;
        }
    }

    /// Notes that all keys were closed.
    pub fn cross_all(&mut self) {
        self.of.values_mut().for_each(|u| u.crossed = true);
    }

    /// Ends a change of the key. Returns whether nothing crossed it.
    pub fn end(&mut self, key: &Key) -> bool {
        let Some(under_way) = self.of.get_mut(key) else {
            return false;
        };
        let clean = !under_way.crossed;
        under_way.count -= 1;
        if under_way.count == 0 {
            self.of.remove(key);
        }
        clean
    }
}

/// The directories in which an own change of a name got lost: it may be carried out at any time,
/// even by a later leader, as long as the session lives.
#[derive(Debug, Default)]
pub(super) struct Lost {
    of: HashSet<Ino>,
    /// There are more than are remembered.
    all: bool,
}

impl Lost {
    pub fn has(&self, dir: Ino) -> bool {
        self.all || self.of.contains(&dir)
    }

    /// Notes a change of these keys.
    pub fn add(&mut self, keys: &[Key]) {
        for key in keys {
            if let Key::Name(name) = key {
                self.all |= self.of.len() >= LOST_MAX;
                if !self.all {
                    self.of.insert(name.dir);
                }
            }
        }
    }
}
