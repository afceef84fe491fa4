//! Keys: what a lease is about.
//!
//! A [`Name`] can be looked up in a map by its directory and bytes, without making one
//! ([`NameRef`]): the holder does so for each component of each path.

use lagan_types::Ino;
use std::borrow::Borrow;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// Something that a mount may remember while it holds a lease on it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Key {
    /// The attributes of an inode.
    Inode(Ino),
    /// The inode that a name leads to, or that there is no such name.
    Name(Name),
    /// All names of a directory, so that any other name is known to be absent.
    Directory(Ino),
}

impl Key {
    /// Makes the key of a name.
    pub fn name(dir: Ino, name: &[u8]) -> Self {
        Key::Name(Name::new(dir, name))
    }

    /// Returns the directory whose completeness a change of this key breaks: that of a
    /// name.
    pub fn directory(&self) -> Option<Key> {
        match self {
            Key::Name(name) => Some(Key::Directory(name.dir)),
            Key::Inode(_) | Key::Directory(_) => None,
        }
    }

    /// Returns about how many bytes a table spends on the key.
    pub(crate) fn bytes(&self) -> usize {
        /// A row of the map, one of the order, and their share of free space.
        const ROW_BYTES: usize = 160;
        match self {
            Key::Name(name) => ROW_BYTES + name.name.len(),
            Key::Inode(_) | Key::Directory(_) => ROW_BYTES,
        }
    }
}

/// A directory and a name in it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name {
    /// The directory.
    pub dir: Ino,
    /// The name's bytes.
    pub name: Arc<[u8]>,
}

impl Name {
    /// Makes it from its parts.
    pub fn new(dir: Ino, name: &[u8]) -> Self {
        let name = name.into();
        Name { dir, name }
    }
}

impl Hash for Name {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self as &dyn NameRef).hash(state);
    }
}

/// A name that may be borrowed. The maps of names are asked with
/// `&(dir, bytes) as &dyn NameRef`.
pub(crate) trait NameRef {
    /// Returns the directory and the name's bytes.
    fn parts(&self) -> (Ino, &[u8]);
}

impl NameRef for Name {
    fn parts(&self) -> (Ino, &[u8]) {
        (self.dir, &self.name)
    }
}

impl NameRef for (Ino, &[u8]) {
    fn parts(&self) -> (Ino, &[u8]) {
        *self
    }
}

impl Hash for dyn NameRef + '_ {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.parts().hash(state);
    }
}

impl PartialEq for dyn NameRef + '_ {
    fn eq(&self, other: &Self) -> bool {
        self.parts() == other.parts()
    }
}

impl Eq for dyn NameRef + '_ {}

impl<'a> Borrow<dyn NameRef + 'a> for Name {
    fn borrow(&self) -> &(dyn NameRef + 'a) {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    #[test]
    fn name_is_found_by_its_borrowed_parts() {
        let mut map = HashMap::new();
        map.insert(Name::new(Ino(7), b"a"), 1);
        let find = |dir, name: &[u8]| map.get(&(Ino(dir), name) as &dyn NameRef).copied();
        assert_eq!(find(7, b"a"), Some(1));
        assert_eq!(find(8, b"a"), None);
        assert_eq!(find(7, b"ab"), None);
    }
}
