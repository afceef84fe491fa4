//! What stands in the way of exclusive leases, and how a read learns that it came too early.

use lagan_types::lease::Key;
use lagan_types::{Ino, SessionId};
use std::collections::HashMap;

/// Most directories of which the end of an exclusive lease is remembered one by one.
const ENDED_MAX: usize = 4_096;

/// Counts about exclusive leases.
#[derive(Debug, Default)]
pub(super) struct Exclusives {
    /// How many there are.
    count: usize,
    /// How many files are being made that were shown to one mount alone.
    making: usize,
    /// For each directory, how many of its names each session holds.
    names: HashMap<Ino, Vec<(SessionId, u32)>>,
    /// How many have ended.
    clock: u64,
    /// For each directory, the number of the last one of it that ended.
    ended: HashMap<Ino, u64>,
    /// Those of other directories have ended up to this number.
    others_to: u64,
}

impl Exclusives {
    /// Whether there is one.
    pub fn any(&self) -> bool {
        self.count > 0
    }

    /// Whether a file is being made that was shown to one mount alone.
    pub fn is_any_being_made(&self) -> bool {
        self.making > 0
    }

    /// Notes that such a file is being made.
    pub fn making(&mut self) {
        self.making += 1;
    }

    /// Notes that it was, or will not be.
    pub fn made(&mut self) {
        self.making -= 1;
    }

    /// Returns how many have ended.
    pub fn clock(&self) -> u64 {
        self.clock
    }

    /// Whether one of that directory has ended since `clock` was returned.
    pub fn ended_since(&self, dir: Ino, clock: u64) -> bool {
        if self.clock == clock {
            return false;
        }
        let ended = self.ended.get(&dir).copied();
        ended.unwrap_or(self.others_to) > clock
    }

    /// Whether somebody but that session holds a name in the directory.
    pub fn has_names_elsewhere(&self, dir: Ino, session: SessionId) -> bool {
        let names = self.names.get(&dir);
        names.is_some_and(|of| of.iter().any(|(holder, _)| *holder != session))
    }

    /// Notes that a session holds a key.
    pub fn came(&mut self, key: &Key, session: SessionId) {
        match key {
            Key::Name(name) => {
                let of = self.names.entry(name.dir).or_default();
                match of.iter_mut().find(|(holder, _)| *holder == session) {
                    Some((_, count)) => *count += 1,
                    None => of.push((session, 1)),
                }
            }
            Key::Exclusive(_) => self.count += 1,
            Key::Inode(_) | Key::Directory(_) => {}
        }
    }

    /// Notes that it holds it no more.
    pub fn went(&mut self, key: &Key, session: SessionId) {
        match key {
            Key::Name(name) => {
                let Some(of) = self.names.get_mut(&name.dir) else {
                    return;
                };
                if let Some(row) = of.iter_mut().find(|(holder, _)| *holder == session) {
                    row.1 -= 1;
                }
                of.retain(|(_, count)| *count > 0);
                if of.is_empty() {
                    self.names.remove(&name.dir);
                }
            }
            Key::Exclusive(dir) => {
                self.count -= 1;
                self.clock += 1;
                if self.ended.len() >= ENDED_MAX && !self.ended.contains_key(dir) {
                    self.ended.clear();
                    self.others_to = self.clock;
                }
                self.ended.insert(*dir, self.clock);
            }
            Key::Inode(_) | Key::Directory(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: SessionId = SessionId(1);
    const B: SessionId = SessionId(2);

    #[test]
    fn end_is_known_of_each_directory_or_of_all() {
        let mut of = Exclusives::default();
        let (one, two) = (Ino(1), Ino(2));
        of.came(&Key::Exclusive(one), A);
        let before = of.clock();
        assert!(of.any() && !of.ended_since(one, before));
        of.went(&Key::Exclusive(one), A);
        assert!(of.ended_since(one, before) && !of.ended_since(two, before));
        assert!(!of.any() && !of.ended_since(one, of.clock()));
        for dir in 0..ENDED_MAX as u64 + 1 {
            of.came(&Key::Exclusive(Ino(10 + dir)), A);
            of.went(&Key::Exclusive(Ino(10 + dir)), A);
        }
        assert!(of.ended.len() <= ENDED_MAX);
        assert!(of.ended_since(one, before), "it is not forgotten");
        assert!(of.ended_since(two, before), "nobody knows");
        assert!(!of.ended_since(two, of.clock()));
    }

    #[test]
    fn names_are_counted_for_each_session() {
        let mut of = Exclusives::default();
        let (a, b) = (Key::name(Ino(1), b"a"), Key::name(Ino(1), b"b"));
        of.came(&a, A);
        assert!(!of.has_names_elsewhere(Ino(1), A) && of.has_names_elsewhere(Ino(1), B));
        of.came(&a, B);
        of.came(&b, B);
        of.went(&a, B);
        assert!(of.has_names_elsewhere(Ino(1), A));
        of.went(&b, B);
        assert!(!of.has_names_elsewhere(Ino(1), A) && !of.has_names_elsewhere(Ino(2), A));
        of.went(&a, A);
        assert!(of.names.is_empty());
    }
}
