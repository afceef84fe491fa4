//! Loans to the kernel: what it is lent, and what must come back.

use super::lent::{Loan, Way};
use super::{Attributes, Change, Holder};
use crate::rules::{Rule, kept};
use crate::times::{KERNEL_MS, KERNEL_SLACK_MS};
use lagan_types::Ino;
use lagan_types::lease::Key;

impl<A: Attributes> Holder<A> {
    /// Lends the kernel the attributes of an inode that are about to be answered, for
    /// [`KERNEL_MS`], if they are worth it: the inode is hot, or looked up in the order of a
    /// listing, so that nothing but a look will follow. `same` says whether what is held is
    /// what is answered. Call it last: from here on the answer must not wait for anything.
    pub fn lend(
        &mut self,
        ino: Ino,
        way: Way<'_>,
        now_ms: u64,
        same: impl FnOnce(&A) -> bool,
    ) -> bool {
        // A directory of this mount's alone is shown as it was while it changes.
        if self.changes.contains(&Key::Inode(ino)) {
            return false;
        }
        let held = match self.exclusives.dirs.get(&ino) {
            Some(attr) => Some(attr),
            None => self.inodes.get(&ino),
        };
        if !held.is_some_and(same) {
            return false;
        }
        let hot = self.lent.looked(ino, now_ms);
        if !hot && !self.is_listed_next(way, now_ms) {
            return false;
        }
        // An answer that is processed late is still covered.
        let covered_ms = match kept(Rule::LoanEndsFirst) {
            true => now_ms.saturating_add(KERNEL_MS + KERNEL_SLACK_MS),
            false => now_ms,
        };
        covered_ms <= self.lease_end_ms && self.lent.lend(ino, way, now_ms)
    }

    /// Whether a name was looked up that follows the last one in a listing, in a directory
    /// where this mount changes nothing just now. A look-up whose answer is overtaken makes the
    /// kernel ask again.
    fn is_listed_next(&mut self, way: Way<'_>, now_ms: u64) -> bool {
        let Way::Name(dir, name) = way else {
            return false;
        };
        self.lent.are_looks_alone(dir, now_ms) && self.is_next(dir, name)
    }

    /// Lends nothing of an inode for a moment: something is on its way to the kernel that does
    /// not fit new attributes.
    pub fn quieten(&mut self, ino: Ino, now_ms: u64) {
        self.lent.quieten(ino, now_ms);
    }

    /// Returns the loans of these keys that are out. Close the keys before, so that no other is
    /// given.
    pub fn loans_of(&mut self, keys: &[Key], now_ms: u64) -> Vec<Loan> {
        let inodes = keys.iter().filter_map(|key| match key {
            // What is lent of a directory of this mount's alone, no lease on the inode covers.
            Key::Inode(ino) | Key::Exclusive(ino) => Some(*ino),
            // The kernel keeps no names.
            Key::Name(_) | Key::Directory(_) => None,
        });
        inodes
            .filter_map(|ino| self.lent.out(ino, now_ms))
            .collect()
    }

    /// Returns the loans that come back before an own change is sent.
    pub fn loans_of_change(&mut self, change: &Change, now_ms: u64) -> Vec<Loan> {
        let loans = self.loans_of(change.keys(), now_ms);
        if !loans.is_empty() {
            self.lent.regret(now_ms);
        }
        loans
    }

    /// Returns the loans that must come back before a file is made in this directory of this
    /// mount's alone ([`Holder::make`]), or attributes of this file are set that is
    /// ([`Holder::set_local`]). No other is given for a moment.
    pub fn loans_of_local(&mut self, ino: Ino, now_ms: u64) -> Vec<Loan> {
        self.lent.quieten(ino, now_ms);
        self.lent.out(ino, now_ms).into_iter().collect()
    }

    /// Returns all loans that are out.
    pub fn loans(&mut self, now_ms: u64) -> Vec<Loan> {
        self.lent.all(now_ms)
    }

    /// Notes that the kernel has forgotten this loan.
    pub fn returned(&mut self, loan: &Loan) {
        self.lent.returned(loan);
    }
}
