//! The names of a forgetful disk: those that programs see, and those that a power cut
//! leaves.

use crate::random::Random;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

/// A directory's inode and a name in it.
pub type Place = (u64, OsString);

/// Names as programs see them, and what of them is durable.
#[derive(Debug, Default)]
pub struct Names {
    live: BTreeMap<Place, u64>,
    durable: BTreeMap<Place, u64>,
    /// Changes that are not durable, in order.
    pending: Vec<Change>,
}

/// One call: the places that it changes, and the inode that each then has. A power cut
/// leaves all of it or nothing.
#[derive(Debug, Clone)]
struct Change(Vec<(Place, Option<u64>)>);

impl Change {
    fn carry_out(&self, on: &mut BTreeMap<Place, u64>) {
        for (place, inode) in &self.0 {
            match inode {
                Some(inode) => _ = on.insert(place.clone(), *inode),
                None => _ = on.remove(place),
            }
        }
    }

    fn places(&self) -> impl Iterator<Item = &Place> {
        self.0.iter().map(|(place, _)| place)
    }
}

impl Names {
    /// The inode of a name.
    pub fn find(&self, dir: u64, name: &OsStr) -> Option<u64> {
        self.live.get(&(dir, name.to_owned())).copied()
    }

    /// Names in a directory, sorted, and their inodes.
    pub fn list(&self, dir: u64) -> impl Iterator<Item = (&OsString, u64)> {
        let from = self.live.range((dir, OsString::new())..);
        let here = from.take_while(move |((parent, _), _)| *parent == dir);
        here.map(|((_, name), inode)| (name, *inode))
    }

    /// The path of an inode from the top; of one without a name, nothing.
    pub fn path_of(&self, mut inode: u64) -> PathBuf {
        let mut path = PathBuf::new();
        while let Some(((dir, name), _)) = self.live.iter().find(|(_, of)| **of == inode) {
            path = Path::new(name).join(path);
            inode = *dir;
        }
        path
    }

    /// Gives a name to an inode, which has none.
    pub fn add(&mut self, place: Place, inode: u64) {
        self.change(vec![(place, Some(inode))]);
    }

    /// Removes a name.
    pub fn remove(&mut self, place: Place) {
        self.change(vec![(place, None)]);
    }

    /// Moves an inode from a name to another, which may be taken.
    pub fn rename(&mut self, from: Place, to: Place, inode: u64) {
        self.change(vec![(from, None), (to, Some(inode))]);
    }

    fn change(&mut self, places: Vec<(Place, Option<u64>)>) {
        let change = Change(places);
        change.carry_out(&mut self.live);
        self.pending.push(change);
    }

    /// Makes a directory's names durable, and what they came from: a change before one
    /// of them that was of the same place.
    pub fn sync(&mut self, dir: u64) {
        let mut places = BTreeSet::new();
        let mut is_due = |change: &Change| {
            let mut all = change.places();
            let due = all.any(|place| place.0 == dir || places.contains(place));
            if due {
                places.extend(change.places().cloned());
            }
            due
        };
        let mut due: Vec<bool> = self.pending.iter().rev().map(&mut is_due).collect();
        due.reverse();
        for (change, due) in std::mem::take(&mut self.pending).into_iter().zip(due) {
            match due {
                true => change.carry_out(&mut self.durable),
                false => self.pending.push(change),
            }
        }
    }

    /// Loses power: of the changes that are not durable some are kept. At each place
    /// these are the first ones, and places do not wait for each other.
    pub fn forget(&mut self, random: &mut Random) {
        // all, most, a half or nothing: of few changes one is often the first
        let (of, kept) = [(1, 1), (8, 7), (2, 1), (1, 0)][random.below(4) as usize];
        let mut cut = BTreeSet::new();
        for change in std::mem::take(&mut self.pending) {
            let broken = change.places().any(|place| cut.contains(place));
            if !broken && random.below(of) < kept {
                change.carry_out(&mut self.durable);
            } else {
                cut.extend(change.places().cloned());
            }
        }
        self.live = self.durable.clone();
    }

    /// Loses power, and with it each change that is not durable.
    pub fn forget_all(&mut self) {
        self.pending.clear();
        self.live = self.durable.clone();
    }

    /// Every inode that has a name, or may have one after a power cut.
    pub fn inodes(&self) -> BTreeSet<u64> {
        let pending = self.pending.iter().flat_map(|change| &change.0);
        let pending = pending.filter_map(|(_, inode)| *inode);
        let named = self.live.values().chain(self.durable.values());
        named.copied().chain(pending).collect()
    }

    /// Changes that are not durable.
    pub fn unsynced(&self) -> usize {
        self.pending.len()
    }
}
