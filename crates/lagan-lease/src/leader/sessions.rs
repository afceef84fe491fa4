//! What the leader knows of one session: its lease, the order of its keys, the recalls that
//! it has not acknowledged.

use crate::key::bytes_of;
use crate::rules::{Rule, kept};
use crate::times::{LEADER_LEASE_MS, MAKING_PATIENCE_MS, RECALL_PATIENCE_MS};
use lagan_types::Ino;
use lagan_types::lease::Key;
use std::collections::{BTreeMap, VecDeque};

/// A recall that is not acknowledged.
#[derive(Debug)]
pub(crate) struct Recall {
    /// Its number; rises within the table, so within each session.
    pub number: u64,
    /// The key to close.
    pub key: Key,
    queued_ms: u64,
}

/// One session.
#[derive(Debug)]
pub(crate) struct Session {
    /// When its lease ends, unless it is renewed.
    pub end_ms: u64,
    /// It gets no lease any more, since it is about to be ended.
    pub retired: bool,
    /// It was ended; the row goes with its lease.
    pub ended: bool,
    /// The keys that it holds and that are not recalled, by the order of registration, one
    /// map for each kind.
    held: [BTreeMap<u64, Key>; 4],
    bytes: usize,
    recalls: VecDeque<Recall>,
    /// The highest number that was handed out.
    handed: u64,
    /// The recalls up to this number are acknowledged, or their lease has ended.
    pub closed_to: u64,
}

/// Most keys that a session may hold.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HeldMax {
    /// By kind: inodes, names, directories, exclusive leases.
    pub keys: [usize; 4],
    /// Bytes that the table spends on all of them.
    pub bytes: usize,
}

fn kind(key: &Key) -> usize {
    match key {
        Key::Inode(_) => 0,
        Key::Name(_) => 1,
        Key::Directory(_) => 2,
        Key::Exclusive(_) => 3,
    }
}

impl Session {
    /// Makes a session that holds nothing; recalls up to `number` are none of its own.
    pub fn new(number: u64) -> Self {
        Session {
            end_ms: 0,
            retired: false,
            ended: false,
            held: Default::default(),
            bytes: 0,
            recalls: VecDeque::new(),
            handed: number,
            closed_to: number,
        }
    }

    /// Whether its lease is valid.
    pub fn is_valid(&self, now_ms: u64) -> bool {
        now_ms < self.end_ms
    }

    /// Lets the lease end later, after a heartbeat that was received then. False: it does
    /// not, since the session is to end or leaves recalls unanswered. `is_making`: it is making
    /// files for everybody in that directory.
    pub fn renew(
        &mut self,
        received_ms: u64,
        now_ms: u64,
        is_making: impl Fn(Ino) -> bool,
    ) -> bool {
        let since_ms = self.recalls.front().map(|recall| recall.queued_ms);
        let waited_ms = since_ms.map_or(0, |ms| now_ms.saturating_sub(ms));
        let making = |recall: &Recall| matches!(recall.key, Key::Exclusive(dir) if is_making(dir));
        let patience_ms = match waited_ms > RECALL_PATIENCE_MS && self.recalls.iter().any(making) {
            true => MAKING_PATIENCE_MS,
            false => RECALL_PATIENCE_MS,
        };
        let patient = waited_ms <= patience_ms;
        if self.retired || (!patient && kept(Rule::SilentPollEndsLease)) {
            return false;
        }
        let lease_ms = match kept(Rule::LeaderEndsLater) {
            true => LEADER_LEASE_MS,
            false => LEADER_LEASE_MS / 2,
        };
        self.end_ms = self.end_ms.max(received_ms.saturating_add(lease_ms));
        self.is_valid(now_ms)
    }

    // -- keys -----------------------------------------------------------------

    /// Notes that the session holds the key.
    pub fn hold(&mut self, order: u64, key: &Key) {
        self.bytes += bytes_of(key);
        self.held[kind(key)].insert(order, key.clone());
    }

    /// Notes that it does not hold the key of that place any more, or is recalled from.
    pub fn let_go(&mut self, order: u64, key: &Key) {
        if self.held[kind(key)].remove(&order).is_some() {
            self.bytes -= bytes_of(key);
        }
    }

    /// Returns the key to give up so that the bounds hold: the one of the oldest
    /// registration, of the kind of which there are too many.
    pub fn surplus(&self, max: &HeldMax) -> Option<Key> {
        let over = (0..4).find(|&kind| self.held[kind].len() > max.keys[kind]);
        if let Some(kind) = over {
            return self.held[kind].values().next().cloned();
        }
        if self.bytes <= max.bytes {
            return None;
        }
        let firsts = self.held.iter().filter_map(|of| of.first_key_value());
        firsts
            .min_by_key(|(order, _)| **order)
            .map(|(_, k)| k.clone())
    }

    /// Takes all keys that it holds or that are being recalled from it; its recalls are done.
    pub fn lapse(&mut self, number: u64) -> Vec<Key> {
        let held = std::mem::take(&mut self.held);
        let recalls = std::mem::take(&mut self.recalls);
        self.bytes = 0;
        self.closed_to = number;
        let held = held.into_iter().flat_map(BTreeMap::into_values);
        held.chain(recalls.into_iter().map(|r| r.key)).collect()
    }

    // -- recalls --------------------------------------------------------------

    /// Queues a recall.
    pub fn recall(&mut self, number: u64, key: Key, now_ms: u64) {
        self.recalls.push_back(Recall {
            number,
            key,
            queued_ms: now_ms,
        });
    }

    /// Returns the number of recalls that are not acknowledged.
    pub fn recalls_count(&self) -> usize {
        self.recalls.len()
    }

    /// Returns the number of keys that it holds.
    pub fn held_count(&self) -> usize {
        self.held.iter().map(BTreeMap::len).sum()
    }

    /// Takes an acknowledgement of all recalls up to `number`, and returns them. One of a
    /// number that was not handed out is ignored.
    pub fn acknowledge(&mut self, number: u64) -> Vec<Recall> {
        if number > self.handed {
            return Vec::new();
        }
        let number = match kept(Rule::AckCountsForItself) {
            true => number,
            false => self.recalls.back().map_or(number, |last| last.number),
        };
        self.closed_to = self.closed_to.max(number);
        let count = self.recalls.partition_point(|r| r.number <= number);
        self.recalls.drain(..count).collect()
    }

    /// Hands out the oldest recalls, `keys_max` at most, again those that were handed out
    /// and not acknowledged: the number of the last one, and the keys.
    pub fn hand_out(&mut self, keys_max: usize) -> Option<(u64, Vec<Key>)> {
        let keys: Vec<&Recall> = self.recalls.iter().take(keys_max).collect();
        let last = keys.last()?.number;
        self.handed = self.handed.max(last);
        Some((last, keys.into_iter().map(|r| r.key.clone()).collect()))
    }
}
