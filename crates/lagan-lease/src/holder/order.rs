//! The names of a directory in the order of a listing, and walks through it.
//!
//! Programs that share a walk, or files that were made by several at once, come nearly in order.
//! The order is a hint, and no lease is needed for it: names in it may be gone, and lead elsewhere
//! by now.

use super::complete::NAME_ROW_BYTES;
use lagan_types::Ino;
use lagan_types::lease::Found;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

/// Looks follow one another if their places in the listing are this near.
pub const NEAR: usize = 16;
/// So many that follow one another are a walk.
const WALK: u32 = 2;
/// Places that are fetched ahead at first; each time twice as many.
const AHEAD_MIN: usize = 8;
/// Directories in which names were looked for last.
const RECENT: usize = 4;

/// Looks in the order of a listing.
#[derive(Debug, Default)]
struct Walk {
    /// The place of the last look.
    place: usize,
    /// The places that were fetched last.
    fetched: Range<usize>,
    /// How many are fetched next.
    next: usize,
    /// Looks that followed one another.
    count: u32,
}

impl Walk {
    /// Notes a look at that place.
    fn note(&mut self, place: usize) {
        if self.count > 0 && place == self.place {
            return;
        }
        let last = self.fetched.end.max(self.place);
        let near = self.place.saturating_sub(NEAR)..=last + NEAR;
        if self.count == 0 || !near.contains(&place) {
            *self = Walk::default();
        }
        self.count = self.count.saturating_add(1);
        self.place = place;
    }

    /// Returns the places to fetch with the last look, if it is one of a walk: those near
    /// before it, which may have been passed over, and up to `count_max` from it on. What was
    /// fetched and is not known all the same is not asked for again: it could not be kept.
    fn ahead(&mut self, count_max: usize, all: usize) -> Option<Range<usize>> {
        if self.count < WALK || self.fetched.contains(&self.place) {
            return None;
        }
        let count = self.next.clamp(AHEAD_MIN, count_max.max(AHEAD_MIN));
        self.next = 2 * count;
        let end = all.min(self.place.saturating_add(count));
        let mut start = self.place.saturating_sub(NEAR);
        if self.place >= self.fetched.end {
            start = start.max(self.fetched.end);
        }
        self.fetched = start..end;
        Some(self.fetched.clone())
    }
}

/// The names of a directory in the order of a listing, as far as they are known.
#[derive(Debug)]
pub(super) struct Order {
    places: HashMap<Arc<[u8]>, usize>,
    pub all: Vec<(Ino, Arc<[u8]>)>,
    /// The places of the two names that were looked for last, the last one first.
    last: [usize; 2],
    looks: Walk,
    opens: Walk,
    /// Bytes of its names, each with [`NAME_ROW_BYTES`].
    pub bytes: usize,
}

impl Order {
    pub fn new(names: impl IntoIterator<Item = (Arc<[u8]>, Ino)>) -> Self {
        let mut order = Order {
            places: HashMap::new(),
            all: Vec::new(),
            last: [usize::MAX; 2],
            looks: Walk::default(),
            opens: Walk::default(),
            bytes: NAME_ROW_BYTES,
        };
        for (name, ino) in names {
            order.add(name, ino);
        }
        order
    }

    fn add(&mut self, name: Arc<[u8]>, ino: Ino) {
        let bytes = NAME_ROW_BYTES + name.len();
        if self.places.insert(name.clone(), self.all.len()).is_none() {
            self.bytes += bytes;
        }
        self.all.push((ino, name));
    }

    /// Follows a change of a name.
    pub fn set(&mut self, name: &Arc<[u8]>, found: Found) {
        match found {
            Found::Inode(ino) => {
                self.tidy();
                self.add(name.clone(), ino);
            }
            Found::Absent => {
                if self.places.remove(name).is_some() {
                    self.bytes -= NAME_ROW_BYTES + name.len();
                }
            }
        }
    }

    /// Forgets the places of names that are gone, when most are.
    fn tidy(&mut self) {
        if self.all.len() <= 2 * self.places.len() + 64 {
            return;
        }
        let all = std::mem::take(&mut self.all);
        for (place, (ino, name)) in all.into_iter().enumerate() {
            if self.places.get(&name) == Some(&place) {
                self.places.insert(name.clone(), self.all.len());
                self.all.push((ino, name));
            }
        }
        self.last = [usize::MAX; 2];
        (self.looks, self.opens) = Default::default();
    }

    /// Notes that a name is looked for.
    pub fn note(&mut self, name: &[u8]) {
        if let Some(place) = self.places.get(name).copied()
            && self.last[0] != place
        {
            self.last = [place, self.last[0]];
            self.looks.note(place);
        }
    }

    /// Whether the name was looked for last, and the one before it in the listing before it.
    pub fn is_next(&self, name: &[u8]) -> bool {
        let [last, before] = self.last;
        self.places.get(name) == Some(&last) && before.checked_add(1) == Some(last)
    }

    /// Returns the places to look at with that name.
    pub fn ahead(&mut self, name: &[u8], count_max: usize) -> Option<Range<usize>> {
        let place = self.places.get(name);
        match place == Some(&self.looks.place) {
            true => self.looks.ahead(count_max, self.all.len()),
            false => None,
        }
    }

    /// Returns the places of files to open with one whose name was looked for a moment ago;
    /// the outer `None`: it is not here.
    pub fn opens_ahead(&mut self, ino: Ino, count_max: usize) -> Option<Option<Range<usize>>> {
        let all = self.all.len();
        let last = self.last[0].min(all);
        let near = last.saturating_sub(NEAR)..all.min(last + NEAR);
        let place = self.all[near.clone()].iter().position(|(of, _)| *of == ino);
        self.opens.note(near.start + place?);
        Some(self.opens.ahead(count_max, all))
    }
}

/// The directories in which names were looked for last, the last one first.
#[derive(Debug, Default)]
pub(super) struct Recent(pub [Option<Ino>; RECENT]);

impl Recent {
    /// Notes a look in a directory.
    pub fn note(&mut self, dir: Ino) {
        if self.0[0] == Some(dir) {
            return;
        }
        let at = self.0.iter().position(|of| *of == Some(dir));
        self.0[..=at.unwrap_or(RECENT - 1)].rotate_right(1);
        self.0[0] = Some(dir);
    }
}
