//! Attributes that the kernel was given to believe without asking, and may believe still.
//!
//! A loan has a time-out that is short against a lease. It counts from the moment at which
//! a program processes the answer, which may be late; so a loan counts as out for
//! [`KERNEL_SLACK_MS`] longer. What is out must come back before the lease is given back.
//!
//! Only what is hot is lent, and was answered several times as it is: a loan must be taken back
//! before its inode changes, and whoever looks at a file once, and changes it, would pay for
//! it. And taking back has the kernel discard an answer that is on its way: whoever asked goes
//! on with what the kernel had before, which is the same then.

use crate::times::{KERNEL_MS, KERNEL_SLACK_MS};
use lagan_types::Ino;
use std::collections::HashMap;
use std::hash::Hash;

/// Most rows of a generation; the kernel asks for what is beyond.
const ROWS_MAX: usize = 65_536;
/// How long a loan is out.
const OUT_MS: u64 = KERNEL_MS + KERNEL_SLACK_MS;
/// Time in which looks at an inode are counted.
const HEAT_MS: u64 = 200;
/// Nothing is lent of an inode that long after something made it unsuitable: who changed it
/// will change it again.
const QUIET_MS: u64 = 200;
/// What is only listed is not lent that long after a loan that was given in vain.
const REGRET_MS: u64 = 1_000;

/// Rows that are forgotten after one to two periods, without being looked through.
#[derive(Debug)]
struct Recent<K, V> {
    young: HashMap<K, V>,
    old: HashMap<K, V>,
    period_ms: u64,
    turned_ms: u64,
}

impl<K: Hash + Eq + Copy, V: Copy> Recent<K, V> {
    fn new(period_ms: u64) -> Self {
        Recent {
            young: HashMap::new(),
            old: HashMap::new(),
            period_ms,
            turned_ms: 0,
        }
    }

    fn turn(&mut self, now_ms: u64) {
        let since = now_ms.saturating_sub(self.turned_ms);
        if since < self.period_ms {
            return;
        }
        std::mem::swap(&mut self.old, &mut self.young);
        self.young.clear();
        if since >= 2 * self.period_ms {
            self.old.clear();
        }
        self.turned_ms = now_ms;
    }

    /// Puts a row in; false: there is no room.
    fn insert(&mut self, key: K, value: V, now_ms: u64) -> bool {
        self.turn(now_ms);
        let room = self.young.len() < ROWS_MAX || self.young.contains_key(&key);
        if room {
            self.young.insert(key, value);
        }
        room
    }

    /// Returns a row that was put in less than a period ago, or perhaps one that is older.
    fn get(&mut self, key: K, now_ms: u64) -> Option<V> {
        self.turn(now_ms);
        let found = self.young.get(&key).or_else(|| self.old.get(&key));
        found.copied()
    }

    fn remove_if(&mut self, key: K, is: impl Fn(&V) -> bool) {
        for rows in [&mut self.young, &mut self.old] {
            if rows.get(&key).is_some_and(&is) {
                rows.remove(&key);
            }
        }
    }
}

/// How the kernel got a loan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way<'a> {
    /// By an answer about the inode, which the kernel has in its cache meanwhile.
    Attributes,
    /// By an answer about this name in that directory: the kernel may learn of the inode
    /// from it.
    Name(Ino, &'a [u8]),
}

/// A loan that is out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Loan {
    /// Its inode.
    pub ino: Ino,
    /// Rises with each loan.
    number: u64,
    /// When it was given last, and when so by an answer about a name.
    at_ms: u64,
    named_ms: Option<u64>,
}

impl Loan {
    fn age_ms(&self, now_ms: u64) -> u64 {
        now_ms.saturating_sub(self.at_ms)
    }

    /// Returns the milliseconds until the kernel believes it no longer, though it was told
    /// nothing; 0: it does not now.
    pub fn left_ms(&self, now_ms: u64) -> u64 {
        OUT_MS.saturating_sub(self.age_ms(now_ms))
    }

    /// Returns the milliseconds in which the kernel may still come to know an inode that it
    /// does not know now, by an answer that was given before.
    pub fn arriving_ms(&self, now_ms: u64) -> u64 {
        let age = |at_ms| now_ms.saturating_sub(at_ms);
        self.named_ms
            .map_or(0, |at_ms| KERNEL_SLACK_MS.saturating_sub(age(at_ms)))
    }
}

/// The loans that are out, and what may be lent.
#[derive(Debug)]
pub(super) struct Lent {
    loans: Recent<Ino, Loan>,
    looks: Recent<Ino, u32>,
    quiet: Recent<Ino, ()>,
    regretted_ms: Option<u64>,
    last: u64,
    hot: u32,
}

impl Lent {
    /// Starts with none. So many looks at an inode make it hot.
    pub fn new(hot: u32) -> Self {
        Lent {
            loans: Recent::new(OUT_MS),
            looks: Recent::new(HEAT_MS),
            quiet: Recent::new(QUIET_MS),
            regretted_ms: None,
            last: 0,
            hot,
        }
    }

    /// Notes a look at an inode, of which the same was shown as before. Returns whether its
    /// attributes are worth a loan.
    pub fn looked(&mut self, ino: Ino, now_ms: u64) -> bool {
        let looks = self.looks.get(ino, now_ms).unwrap_or(0).saturating_add(1);
        self.looks.insert(ino, looks, now_ms);
        looks >= self.hot && !self.is_quiet(ino, now_ms)
    }

    fn is_quiet(&mut self, ino: Ino, now_ms: u64) -> bool {
        self.quiet.get(ino, now_ms).is_some()
    }

    /// Whether programs seem to do nothing but look in that directory: its names do not
    /// change here, and no loan was given in vain lately.
    pub fn are_looks_alone(&mut self, dir: Ino, now_ms: u64) -> bool {
        let regretted = self.regretted_ms;
        let lately = regretted.is_some_and(|at_ms| now_ms.saturating_sub(at_ms) < REGRET_MS);
        !lately && !self.is_quiet(dir, now_ms)
    }

    /// Notes that an own change waited for a loan: whoever looks at files one after the other
    /// changes each of them (chmod -R).
    pub fn regret(&mut self, now_ms: u64) {
        self.regretted_ms = Some(now_ms);
    }

    /// Counts looks at an inode from the beginning: something else will be shown.
    pub fn cool(&mut self, ino: Ino) {
        self.looks.remove_if(ino, |_| true);
    }

    /// Counts looks at all inodes from the beginning.
    pub fn cool_all(&mut self) {
        self.looks = Recent::new(HEAT_MS);
    }

    /// Lends nothing of the inode for a while.
    pub fn quieten(&mut self, ino: Ino, now_ms: u64) {
        self.quiet.insert(ino, (), now_ms);
    }

    /// Notes that attributes are lent; false: there is no room.
    pub fn lend(&mut self, ino: Ino, way: Way<'_>, now_ms: u64) -> bool {
        self.last += 1;
        let before = self.out(ino, now_ms).and_then(|loan| loan.named_ms);
        let loan = Loan {
            ino,
            number: self.last,
            at_ms: now_ms,
            named_ms: match way {
                Way::Name(..) => Some(now_ms),
                Way::Attributes => before,
            },
        };
        self.loans.insert(ino, loan, now_ms)
    }

    /// Returns the loan of an inode, if it is out.
    pub fn out(&mut self, ino: Ino, now_ms: u64) -> Option<Loan> {
        let loan = self.loans.get(ino, now_ms);
        loan.filter(|loan| loan.left_ms(now_ms) > 0)
    }

    /// Returns all that are out.
    pub fn all(&mut self, now_ms: u64) -> Vec<Loan> {
        self.loans.turn(now_ms);
        let rows = self.loans.young.iter().chain(&self.loans.old);
        // A loan that was given again is in both.
        let newest = |ino: &Ino, loan: &Loan| {
            let young = self.loans.young.get(ino);
            young.is_none_or(|young| young.number <= loan.number)
        };
        rows.filter(|(ino, loan)| loan.left_ms(now_ms) > 0 && newest(ino, loan))
            .map(|(_, loan)| *loan)
            .collect()
    }

    /// Notes that the kernel has forgotten this loan; one that was given since stays out.
    pub fn returned(&mut self, loan: &Loan) {
        self.loans.remove_if(loan.ino, |l| l.number <= loan.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const F: Ino = Ino(7);

    #[test]
    fn only_what_is_hot_and_not_quiet_is_worth_a_loan() {
        let mut lent = Lent::new(4);
        let hot: Vec<bool> = (0..5).map(|i| lent.looked(F, 1_000 + i)).collect();
        assert_eq!(hot, [false, false, false, true, true]);
        lent.quieten(F, 1_010);
        assert!(!lent.looked(F, 1_011) && !lent.looked(F, 1_209));
        assert!((0..5).any(|i| lent.looked(F, 1_500 + i)));
        assert!(!lent.looked(F, 9_000), "it has cooled down");
    }

    #[test]
    fn loan_is_out_until_it_returns_or_its_time_is_over() {
        let mut lent = Lent::new(4);
        for at_ms in [1_000, 1_399, 1_401, 2_000] {
            assert!(lent.lend(F, Way::Attributes, at_ms));
            for age_ms in 0..OUT_MS {
                let loan = lent.out(F, at_ms + age_ms).expect("it is out");
                assert_eq!(loan.left_ms(at_ms + age_ms), OUT_MS - age_ms);
                assert_eq!(lent.all(at_ms + age_ms), [loan]);
            }
            assert_eq!(lent.out(F, at_ms + OUT_MS), None);
        }
        lent.lend(F, Way::Attributes, 3_000);
        let first = lent.out(F, 3_000).unwrap();
        lent.lend(F, Way::Attributes, 3_100);
        lent.returned(&first);
        let second = lent.out(F, 3_101).expect("it was given again");
        lent.returned(&second);
        assert_eq!(lent.out(F, 3_101), None);
        assert!(lent.all(3_101).is_empty());
    }

    #[test]
    fn answer_about_a_name_may_arrive_late() {
        let mut lent = Lent::new(4);
        lent.lend(F, Way::Attributes, 1_000);
        assert_eq!(lent.out(F, 1_000).unwrap().arriving_ms(1_000), 0);
        lent.lend(F, Way::Name(Ino(1), b"f"), 1_010);
        lent.lend(F, Way::Attributes, 1_050);
        let loan = lent.out(F, 1_060).unwrap();
        assert_eq!(loan.arriving_ms(1_060), KERNEL_SLACK_MS - 50);
        assert_eq!(loan.age_ms(1_060), 10);
    }
}
