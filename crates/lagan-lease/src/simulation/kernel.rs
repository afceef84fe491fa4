//! The kernel under a mount: it believes what it was lent for a while, by its own time, and
//! goes on when the mount is stopped.

use super::cx::Cx;
use super::message::{AtKernel, Event, Value};
use crate::holder::Way;
use crate::times::{KERNEL_MS, KERNEL_SLACK_MS};
use lagan_types::Ino;
use std::collections::BTreeMap;

/// An inode in the kernel's cache.
#[derive(Debug, Default)]
struct Cached {
    /// Attributes that it was lent, and until when.
    lent: Option<(Value, u64)>,
    /// Its version: it rises when an answer is taken and when it is told to forget; answers that
    /// were asked for before are discarded.
    version: u64,
}

#[derive(Debug, Default)]
pub(super) struct Kernel {
    cached: BTreeMap<Ino, Cached>,
    /// The newest version of any inode, and how many were dropped.
    version: u64,
    evicted: u64,
    /// Answers that are not processed, about inodes that stay in the cache meanwhile.
    held: BTreeMap<Ino, u64>,
}

impl Kernel {
    /// Takes an answer with a loan, which is processed later.
    pub fn answer(&mut self, cx: &mut Cx, mount: usize, lent: (Ino, Value), way: Way<'_>) {
        if way == Way::Attributes && !self.cached.contains_key(&lent.0) {
            // It took an answer without a loan before it asked.
            self.version += 1;
            let version = self.version;
            self.cached.insert(
                lent.0,
                Cached {
                    lent: None,
                    version,
                },
            );
        }
        let holds = self.cached.contains_key(&lent.0);
        if holds {
            *self.held.entry(lent.0).or_default() += 1;
        }
        // A program that waits for a processor; clocks differ by a tenth.
        let late = cx.random.percent(5);
        let us_max = if late { 850 * KERNEL_SLACK_MS } else { 1_000 };
        let install = AtKernel {
            lent,
            asked: self.version,
            evicted: self.evicted,
            holds,
        };
        cx.soon(us_max, Event::Kernel(mount, install));
    }

    /// A program processes an answer.
    pub fn install(&mut self, now: u64, answer: &AtKernel) {
        let (ino, value) = answer.lent;
        if answer.holds
            && let Some(count) = self.held.get_mut(&ino)
        {
            *count -= 1;
        }
        // Of an inode that it did not know it believes nothing if it dropped any since.
        let new = !self.cached.contains_key(&ino);
        let cached = self.cached.entry(ino).or_default();
        if new && self.evicted > answer.evicted {
            self.version += 1;
            cached.version = self.version;
            return;
        }
        if cached.version <= answer.asked {
            self.version += 1;
            cached.version = self.version;
            cached.lent = Some((value, now + 1_000 * KERNEL_MS));
        }
    }

    /// Forgets the attributes of an inode. Returns whether it knows the inode.
    pub fn forget(&mut self, ino: Ino) -> bool {
        self.version += 1;
        let Some(cached) = self.cached.get_mut(&ino) else {
            return false;
        };
        cached.lent = None;
        cached.version = self.version;
        true
    }

    /// Drops an inode from the cache, if nobody needs it.
    pub fn evict(&mut self, ino: Ino) {
        if self.held.get(&ino).is_none_or(|count| *count == 0) {
            let known = self.cached.remove(&ino);
            self.evicted += u64::from(known.is_some());
        }
    }

    /// Whatever is believed now must be so now.
    pub fn audit(&self, cx: &mut Cx, mount: usize) {
        for (ino, cached) in &self.cached {
            let Some((value, until)) = cached.lent.filter(|(_, until)| cx.now < *until) else {
                continue;
            };
            let truth = cx.truth.true_value(*ino);
            if value.0 != truth.0 {
                let now = cx.now;
                cx.wrong.push(format!(
                    "{now} us: the kernel of mount {mount} believes {value:?} of {ino} until \
                     {until} us, which is {truth:?}"
                ));
            }
        }
    }
}
