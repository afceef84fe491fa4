//! A map that forgets what was not used for long: each entry that is about to be forgotten
//! and was used since the last round stays for one more (the CLOCK algorithm, near to LRU).
//!
//! A hit is one look-up in a hash map and sets a flag; nothing is moved.

use std::borrow::Borrow;
use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

/// The map. Its weight, the sum of what [`SecondChance::insert`] was told, stays within
/// a bound.
#[derive(Debug)]
pub(crate) struct SecondChance<K, V> {
    slots: HashMap<K, Slot<V>>,
    /// Keys in the order in which they are judged, each with the number of its slot. One
    /// whose slot has another number, or is gone, is passed over.
    ring: VecDeque<(u64, K)>,
    next: u64,
    weight: usize,
    weight_max: usize,
}

#[derive(Debug)]
struct Slot<V> {
    number: u64,
    value: V,
    weight: usize,
    used: bool,
}

impl<K: Hash + Eq + Clone, V> SecondChance<K, V> {
    /// Makes an empty map of at most that weight.
    pub fn new(weight_max: usize) -> Self {
        SecondChance {
            slots: HashMap::new(),
            ring: VecDeque::new(),
            next: 0,
            weight: 0,
            weight_max,
        }
    }

    /// Returns the value of the key, and notes that it was used.
    pub fn get<Q>(&mut self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let slot = self.slots.get_mut(key)?;
        slot.used = true;
        Some(&slot.value)
    }

    /// Returns the value of the key to change it, with the weight that it has, and notes that it
    /// was used.
    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        let slot = self.slots.get_mut(key)?;
        slot.used = true;
        Some(&mut slot.value)
    }

    /// Puts a value in, and forgets others until the weight is within the bound.
    pub fn insert(&mut self, key: K, value: V, weight: usize) {
        self.remove(&key);
        if weight > self.weight_max {
            return;
        }
        self.next += 1;
        self.weight += weight;
        self.ring.push_back((self.next, key.clone()));
        let slot = Slot {
            number: self.next,
            value,
            weight,
            used: false,
        };
        self.slots.insert(key, slot);
        while self.weight > self.weight_max && self.judge() {}
        if self.ring.len() > 2 * self.slots.len() + 64 {
            let slots = &self.slots;
            self.ring
                .retain(|(number, key)| slots.get(key).is_some_and(|s| s.number == *number));
        }
    }

    /// Judges the next key of the ring; false: there is none.
    fn judge(&mut self) -> bool {
        let Some((number, key)) = self.ring.pop_front() else {
            return false;
        };
        match self.slots.get_mut(&key) {
            Some(slot) if slot.number == number && slot.used => {
                slot.used = false;
                self.ring.push_back((number, key));
            }
            Some(slot) if slot.number == number => {
                self.remove(&key);
            }
            _ => {}
        }
        true
    }

    /// Takes a value out.
    pub fn remove<Q>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let slot = self.slots.remove(key)?;
        self.weight -= slot.weight;
        Some(slot.value)
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.slots.clear();
        self.ring.clear();
        self.weight = 0;
    }

    /// Returns the number of entries.
    pub fn len(&self) -> usize {
        self.slots.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_used_outlives_what_was_not() {
        let mut map = SecondChance::new(3);
        for key in 0..3 {
            map.insert(key, key, 1);
        }
        assert_eq!(map.get(&0), Some(&0));
        map.insert(3, 3, 1);
        assert_eq!(map.get(&1), None);
        assert_eq!(map.len(), 3);
        assert_eq!(map.get(&0), Some(&0));
    }

    #[test]
    fn weight_and_ring_stay_bounded() {
        let mut map = SecondChance::new(100);
        for n in 0..10_000u64 {
            map.insert(n % 150, n, 1 + (n % 7) as usize);
            map.get(&(n % 20));
            map.remove(&(n % 33));
            assert!(map.weight <= 100 && map.ring.len() <= 2 * map.len() + 65);
        }
        map.insert(1, 1, 101);
        assert_eq!(map.get(&1), None, "it is heavier than all may be");
        map.clear();
        assert_eq!((map.len(), map.weight), (0, 0));
    }
}
