//! Directories that this mount uses alone, and the files that it made there by itself.
//!
//! Such a file is *local* until a command has made it part of the replicated state. While its
//! directory is this mount's alone nobody else can miss it; before that ends it must be made,
//! and before the leader is asked anything once it has ended ([`Holder::orphans`]).

use super::exclusives::{LOCAL_MAX, Made};
use super::{Attributes, Holder};
use crate::rules::{Rule, kept};
use lagan_types::Ino;
use lagan_types::lease::{Found, Key, Name};

impl<A: Attributes> Holder<A> {
    /// Whether it is of use to have a directory alone: all its names are known.
    pub fn wants_alone(&mut self, dir: Ino, now_ms: u64) -> bool {
        self.is_complete(dir, now_ms) && !self.exclusives.given_up.has(dir)
    }

    /// Whether a directory is this mount's alone, so that it may make files there.
    pub fn is_alone(&mut self, dir: Ino, now_ms: u64) -> bool {
        self.exclusives.dirs.contains_key(&dir) && self.is_complete(dir, now_ms)
    }

    /// Makes a file in a directory by itself, if that may be: the directory is this mount's
    /// alone, its attributes are not lent ([`Holder::loans_of_local`]), and nothing is, or may be,
    /// under the name. `make` is given the directory's attributes, and called last; if it returns
    /// `None`, nothing was done. Returns whether it was made.
    pub fn make(
        &mut self,
        name: &Name,
        now_ms: u64,
        make: impl FnOnce(&A) -> Option<Made<A>>,
    ) -> bool {
        let dir = name.dir;
        if self.exclusives.local.len() >= LOCAL_MAX {
            return false;
        }
        let free = self.name(dir, &name.name, now_ms) == Some(Found::Absent);
        let lent = self.lent.out(dir, now_ms).is_some() && kept(Rule::LoansBackThenMade);
        if !free || lent || !self.is_alone(dir, now_ms) {
            return false;
        }
        let Some(made) = self.exclusives.dirs.get(&dir).and_then(make) else {
            return false;
        };
        self.close(&Key::Name(name.clone()));
        self.stamps.close(&Key::Inode(dir));
        let ino = made.ino;
        if let Some(mut complete) = self.directories.remove(&dir) {
            complete.set(&name.name, Found::Inode(ino));
            let bytes = complete.bytes;
            self.directories.insert(dir, complete, bytes);
        }
        self.follow_order(dir, &name.name, Found::Inode(ino));
        self.inodes.insert(ino, made.attr, 1);
        self.exclusives.dirs.insert(dir, made.dir);
        self.exclusives.local.insert(ino, name.clone());
        true
    }

    /// Gives a local file other attributes, if that may be: its directory is this mount's alone,
    /// and the attributes that it has are not lent. `set` is given those of the directory, and
    /// called last; if it returns `None`, nothing was done. Returns whether it has them.
    pub fn set_local(&mut self, ino: Ino, now_ms: u64, set: impl FnOnce(&A) -> Option<A>) -> bool {
        let Some(dir) = self.exclusives.local.get(&ino).map(|name| name.dir) else {
            return false;
        };
        let lent = self.lent.out(ino, now_ms).is_some();
        if lent || !self.is_alone(dir, now_ms) {
            return false;
        }
        let Some(attr) = self.exclusives.dirs.get(&dir).and_then(set) else {
            return false;
        };
        self.stamps.close(&Key::Inode(ino));
        self.inodes.insert(ino, attr, 1);
        true
    }

    /// Returns the number to give to [`Holder::shows`], before a query is sent.
    pub fn alone_number(&self) -> u64 {
        self.exclusives.dropped
    }

    /// Corrects the attributes of an inode that a leader has shown, if it is a directory of this
    /// mount's alone. False: it was when the query with that number began, and is so no more; ask
    /// again.
    pub fn shows(&self, ino: Ino, number: u64, now_ms: u64, correct: impl FnOnce(&A)) -> bool {
        let alone = self.exclusives.dirs.get(&ino);
        if let Some(attr) = alone {
            correct(attr);
        }
        self.exclusives.dropped == number && (alone.is_none() || self.is_valid(now_ms))
    }

    /// Gives up directories that a change is about as a whole, if no local file is there: what
    /// is to be closed beside the keys of the change.
    pub fn give_back(&mut self, keys: &[Key]) -> Vec<Key> {
        let named = |dir: Ino| {
            keys.iter()
                .any(|k| matches!(k, Key::Name(n) if n.dir == dir))
        };
        let mut given = Vec::new();
        for key in keys {
            if let Key::Inode(dir) = key
                && self.exclusives.dirs.contains_key(dir)
                && !named(*dir)
                && !self.local_files().any(|(_, of)| of == *dir)
            {
                given.push(Key::Exclusive(*dir));
            }
        }
        given.iter().for_each(|key| self.close(key));
        given
    }

    /// Whether a file was made here and is not part of the replicated state yet.
    pub fn is_local(&self, ino: Ino) -> bool {
        self.exclusives.local.contains_key(&ino)
    }

    /// Returns the local files that lie in no directory of this mount's alone: have them made
    /// before anything is asked of a leader, and before a recall is acknowledged.
    pub fn orphans(&mut self, now_ms: u64) -> Vec<Ino> {
        if self.exclusives.local.is_empty() {
            return Vec::new();
        }
        let local: Vec<(Ino, Ino)> = self.local_files().collect();
        let orphans = local
            .into_iter()
            .filter(|(_, dir)| !self.is_alone(*dir, now_ms));
        orphans.map(|(ino, _)| ino).collect()
    }

    fn local_files(&self) -> impl Iterator<Item = (Ino, Ino)> {
        let local = self.exclusives.local.iter();
        local.map(|(ino, name)| (*ino, name.dir))
    }

    /// Whether one of these names leads to a local file, or one of these inodes is one.
    pub fn is_any_local(&self, names: &[(Ino, &[u8])], inos: &[Ino]) -> bool {
        let local = self.exclusives.local.values();
        let mut named = local.map(|name| (name.dir, &*name.name));
        named.any(|name| names.contains(&name)) || inos.iter().any(|ino| self.is_local(*ino))
    }

    /// Notes that a local file became part of the replicated state, or never will.
    pub fn made(&mut self, ino: Ino) {
        self.exclusives.local.remove(&ino);
    }

    /// Notes that nobody wants a local file any more, which may yet be made.
    pub fn give_up(&mut self, ino: Ino) {
        if let Some(name) = self.exclusives.local.remove(&ino) {
            let dir = name.dir;
            self.exclusives.given_up.add(&[Key::Name(name)]);
            self.close(&Key::Exclusive(dir));
            self.close(&Key::Directory(dir));
            self.close(&Key::Inode(dir));
        }
    }

    /// Gives an exclusive directory the attributes that the answer to an own change shows.
    pub(super) fn learn_alone(&mut self, dir: Ino, attr: A) {
        if let Some(shown) = self.exclusives.dirs.remove(&dir) {
            self.exclusives.dirs.insert(dir, attr.over(&shown));
        }
    }

    /// Takes the exclusive lease on a directory, of which the answer to a change that began
    /// with that number shows the attributes, and which it proves to be known as a whole.
    pub(super) fn take_alone(&mut self, dir: Ino, began: u64, now_ms: u64) {
        let key = Key::Exclusive(dir);
        let open = self.stamps.is_open_since(&key, began) || !kept(Rule::ExclusiveNotOvertaken);
        if !open || !self.wants_alone(dir, now_ms) || self.exclusives.dirs.contains_key(&dir) {
            return;
        }
        let orphaned = self.local_files().any(|(_, of)| of == dir);
        if !orphaned && let Some(attr) = self.inodes.remove(&dir) {
            self.exclusives.dirs.insert(dir, attr);
        }
    }

    /// Gives a directory up: what is known of it was known to this mount alone.
    pub(super) fn drop_alone(&mut self, dir: Ino) {
        if self.exclusives.dirs.remove(&dir).is_none() {
            return;
        }
        self.exclusives.dropped += 1;
        // What a leader showed of it meanwhile lacked what only this mount knew.
        self.inodes.remove(&dir);
        self.stamps.close(&Key::Inode(dir));
        // Answers to own changes that are on their way lack it, too.
        self.changes.cross(&Key::Inode(dir));
        let local: Vec<Ino> = self
            .local_files()
            .filter(|(_, of)| *of == dir)
            .map(|(ino, _)| ino)
            .collect();
        for ino in local {
            self.inodes.remove(&ino);
        }
    }
}

#[cfg(test)]
mod tests;
