//! What will be looked at next: the neighbours, in the order of a listing, of what was looked
//! at last.
//!
//! Programs walk through directories, and what one of them does at a time would be a round trip
//! for each file. What is asked for ahead is asked of the leader, with leases of its own.

use super::order::Order;
use super::{Attributes, Holder};
use lagan_types::Ino;
use lagan_types::lease::{Found, NameRef};
use std::sync::Arc;

/// Names that will be looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ahead {
    /// All names of the directory are known, so that only attributes are not; else what they lead
    /// to is a guess.
    pub sure: bool,
    /// The inodes, and the names.
    pub names: Vec<(Ino, Arc<[u8]>)>,
}

impl<A: Attributes> Holder<A> {
    /// Notes that a name is looked for.
    pub(super) fn note_look(&mut self, dir: Ino, name: &[u8]) {
        self.recent.note(dir);
        if let Some(order) = self.orders.get_mut(&dir) {
            order.note(name);
        }
    }

    /// Whether an order of the directory is known.
    pub fn has_order(&mut self, dir: Ino) -> bool {
        self.orders.get(&dir).is_some()
    }

    /// Whether a name was looked up that follows the last one in a listing.
    pub(super) fn is_next(&mut self, dir: Ino, name: &[u8]) -> bool {
        self.orders.get(&dir).is_some_and(|o| o.is_next(name))
    }

    /// Has the order of a directory follow an own change.
    pub(super) fn follow_order(&mut self, dir: Ino, name: &Arc<[u8]>, found: Found) {
        if let Some(mut order) = self.orders.remove(&dir) {
            order.set(name, found);
            let bytes = order.bytes;
            self.orders.insert(dir, order, bytes);
        }
    }

    /// Remembers the order of a directory.
    pub(super) fn keep_order(&mut self, dir: Ino, order: Order) {
        let bytes = order.bytes;
        self.orders.insert(dir, order, bytes);
    }

    /// Returns a name, and those that were listed near it, of which nothing is known, some
    /// `count_max` in all: if names near it were looked for before it ([`Holder::name`]), the
    /// others will be looked for next. `None`: ask for this one alone.
    pub fn ahead(&mut self, dir: Ino, name: &[u8], count_max: usize, now_ms: u64) -> Option<Ahead> {
        if !self.is_valid(now_ms) {
            return None;
        }
        let sure = self.complete(dir).is_some();
        let order = self.orders.get_mut(&dir)?;
        let next = order.ahead(name, count_max)?;
        let mut names = order.all[next].to_vec();
        names.retain(|(ino, name)| {
            let named = sure || self.names.get(&(dir, &**name) as &dyn NameRef).is_some();
            !named || self.inodes.get(ino).is_none()
        });
        Some(Ahead { sure, names })
    }

    /// Returns an inode that is about to be opened, after its name was looked for, and those
    /// that were listed near it and are not `known` to be ready for that, some `count_max` in
    /// all: if others near it were opened before it, these will be opened next. `None`: open
    /// this one alone.
    pub fn opens_ahead(
        &mut self,
        ino: Ino,
        count_max: usize,
        now_ms: u64,
        known: impl Fn(&A) -> bool,
    ) -> Option<Vec<Ino>> {
        if !self.is_valid(now_ms) {
            return None;
        }
        let recent = self.recent.0;
        let next = recent.iter().flatten().find_map(|dir| {
            let order = self.orders.get_mut(dir)?;
            let next = order.opens_ahead(ino, count_max)?;
            Some(next.map(|next| order.all[next].to_vec()))
        })??;
        let mut unknown = vec![ino];
        for (of, _) in next {
            if of != ino && !self.inodes.get(&of).is_some_and(&known) {
                unknown.push(of);
            }
        }
        Some(unknown)
    }
}
