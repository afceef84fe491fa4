//! What leases are about, and what requests and answers say of them.
//!
//! A mount may remember what it was shown of a [`Key`] while it holds a lease on it
//! (`lagan-lease`). A query says that its mount wants to remember ([`Wish`]), and the answer of
//! which keys it may ([`Leased`]). A mutation says which keys its mount has closed
//! ([`Closed`]), and the answer what is there after it ([`Proof`]).
//!
//! A [`Name`] can be looked up in a map by its directory and bytes, without making one
//! ([`NameRef`]): the holder does so for each component of each path.

use crate::attr::{Attr, Time};
use crate::codec::{Decode, Encode};
use crate::id::Ino;
use std::borrow::Borrow;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// Something that a mount may remember while it holds a lease on it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Encode, Decode)]
pub enum Key {
    /// The attributes of an inode.
    Inode(Ino),
    /// The inode that a name leads to, or that there is no such name.
    Name(Name),
    /// All names of a directory, so that any other name is known to be absent.
    Directory(Ino),
    /// The names and attributes of a directory, for one mount alone: it may make files there by
    /// itself. It comes with the answer to a create ([`Proof::exclusive`]), never to a query.
    Exclusive(Ino),
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
            Key::Inode(_) | Key::Directory(_) | Key::Exclusive(_) => None,
        }
    }

    /// Returns the inode that it is about, or the directory of a name.
    pub fn ino(&self) -> Ino {
        match self {
            Key::Name(name) => name.dir,
            Key::Inode(ino) | Key::Directory(ino) | Key::Exclusive(ino) => *ino,
        }
    }
}

/// A directory and a name in it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
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
pub trait NameRef {
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

/// What a name leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum Found {
    /// An inode.
    Inode(Ino),
    /// Nothing: there is no such name.
    Absent,
}

impl From<Option<Ino>> for Found {
    fn from(ino: Option<Ino>) -> Self {
        ino.map_or(Found::Absent, Found::Inode)
    }
}

/// A query's mount wants to remember the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Wish {
    /// The query's number at its mount; rises with each query and each change.
    pub asked: u64,
    /// It is the first page of a listing, which may be remembered as a whole.
    pub listing: bool,
}

/// The keys of which a query's mount may remember the answer.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Leased {
    /// The leader's term.
    pub term: u64,
    /// For each key of [`crate::Query::keys`], in its order, whether it may.
    pub keys: Vec<bool>,
}

/// Most keys that the mount of one mutation closes: those of a rename, with the inodes under
/// both names, which it may have used alone.
pub const CLOSED_MAX: usize = 8;

/// The keys that the mount of a mutation has closed: it remembers nothing of them that it
/// asked for before the mutation began.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Closed {
    /// The mutation's number at its mount; rises with each query and each change.
    pub began: u64,
    /// The keys, at most [`CLOSED_MAX`].
    pub keys: Vec<Key>,
    /// For a create: the mount knows all names of the directory, or makes it, and wants to use it
    /// alone, with so many inode numbers for files that it makes in directories by itself; at
    /// most [`EXCLUSIVE_INOS_MAX`].
    pub exclusive: Option<u32>,
}

/// Most inode numbers that come with one exclusive lease.
pub const EXCLUSIVE_INOS_MAX: u32 = 512;

/// What is there after a mutation.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Proof {
    /// The leader's term.
    pub term: u64,
    /// Each fact, and whether the mount may remember it for itself. One that it may not still
    /// corrects what it knows of the directory that the name is in.
    pub facts: Vec<(Fact, bool)>,
    /// The directories of which the mount may know all names, and might when the mutation began.
    pub listed: Vec<Ino>,
    /// A directory that the mount may use alone from now on.
    pub exclusive: Option<Exclusive>,
}

/// A directory that one mount uses alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Exclusive {
    /// The directory.
    pub dir: Ino,
    /// The first of the inode numbers that are granted with it.
    pub first: Ino,
    /// How many they are; 0: none, whatever `first` is.
    pub count: u32,
    /// The leader's clock: files are not made later than that.
    pub now: Time,
}

/// Something that the answer to a mutation proves.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Fact {
    /// The attributes of an inode.
    Inode(Attr),
    /// What a name leads to.
    Name(Name, Found),
    /// A new directory, in which no name is.
    Empty(Ino),
}

impl Fact {
    /// Returns the key that it is about.
    pub fn key(&self) -> Key {
        match self {
            Fact::Inode(attr) => Key::Inode(attr.ino),
            Fact::Name(name, _) => Key::Name(name.clone()),
            Fact::Empty(dir) => Key::Directory(*dir),
        }
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
