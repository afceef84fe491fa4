//! How far the log is on disk, for all that has to wait for it.
//!
//! openraft 0.9 waits in its core for each append. Here an append counts for
//! openraft as soon as it is queued, so that followers write meanwhile; everything
//! that lets others rely on it waits for the disk instead:
//! * a follower's answer "it is in my log", for the entry that it names;
//! * a committed index on its way to others, for the entry of that index;
//! * `apply`, and with it every answer to a proposer and every read, for its
//!   last entry.
//!
//! So when anybody is told of a quorum, the entry is on a quorum of disks. A
//! crash loses only what this process alone knew.
//! Votes, truncation and changes of membership (whose second step is proposed
//! within openraft's core) are still awaited by the core; as there is one stream
//! of records and one order, a vote on disk has all entries before it there too.

use parking_lot::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Appends that may count before they are on disk; the core waits for the
/// next, as it does whenever the disk is slow.
const AHEAD_MAX: u64 = 16;

#[derive(Debug, Clone, Copy, Default)]
struct Synced {
    /// All entries with a lower index are on disk.
    next: u64,
    /// Appends on disk, counted.
    appends: u64,
    /// The writer has ended, by a failure or in order.
    ended: bool,
}

/// The log ended before the entry was on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the log ended before the entry was on disk")]
pub struct NotSynced;

/// Counts appends that are queued and on disk.
#[derive(Debug, Default)]
pub struct Syncs {
    /// Index behind the last queued entry; 0: nothing was queued since the start.
    queued_next: AtomicU64,
    /// Appends queued, counted.
    appends: AtomicU64,
    synced: watch::Sender<Synced>,
    /// Start of the time in which appends have waited and none got to the disk.
    still_since: Mutex<Option<Instant>>,
}

impl Syncs {
    /// Notes that an append goes into the queue, its last entry at `next - 1`. Returns
    /// whether it may count at once.
    pub(super) fn queue(&self, next: u64) -> bool {
        self.queued_next.store(next, Ordering::Release);
        let mut still_since = self.still_since.lock();
        let appends = self.appends.fetch_add(1, Ordering::AcqRel) + 1;
        still_since.get_or_insert_with(Instant::now);
        appends - self.synced.borrow().appends <= AHEAD_MAX
    }

    /// The entries from `next` on are void, also on disk.
    pub(super) fn truncate(&self, next: u64) {
        self.queued_next.fetch_min(next, Ordering::AcqRel);
        self.synced.send_modify(|s| s.next = s.next.min(next));
    }

    /// Notes that `appends` more appends are on disk, the last entry at `next - 1`.
    pub(super) fn advance(&self, appends: u64, next: u64) {
        let mut on_disk = 0;
        self.synced.send_modify(|s| {
            s.appends += appends;
            s.next = next;
            on_disk = s.appends;
        });
        let mut still_since = self.still_since.lock();
        *still_since = (on_disk < self.appends.load(Ordering::Acquire)).then(Instant::now);
    }

    /// Whether appends have waited for longer than `limit` and none got to the disk.
    pub fn is_still(&self, limit: Duration) -> bool {
        let since = *self.still_since.lock();
        since.is_some_and(|since| since.elapsed() > limit)
    }

    /// Waits for all that was queued so far.
    ///
    /// # Errors
    /// Fails as [`Syncs::wait_at_most`] does.
    pub async fn wait_for_all(&self, limit: Duration) -> Result<(), NotSynced> {
        match self.queued_next.load(Ordering::Acquire).checked_sub(1) {
            Some(last) => self.wait_at_most(last, limit).await,
            None => Ok(()),
        }
    }

    /// Nothing more will get to the disk.
    pub(super) fn end(&self) {
        self.synced.send_modify(|s| s.ended = true);
    }

    /// Whether nothing up to that index is still on its way to the disk.
    pub fn has(&self, index: u64) -> bool {
        self.synced.borrow().next > index || self.queued_next.load(Ordering::Acquire) <= index
    }

    /// Waits until [`Syncs::has`] it.
    ///
    /// # Errors
    /// [`NotSynced`]: nobody will ever know whether the entry is on disk.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn wait(&self, index: u64) -> Result<(), NotSynced> {
        if self.has(index) {
            return Ok(());
        }
        let mut synced = self.synced.subscribe();
        let settled = synced.wait_for(|s| s.next > index || s.ended).await;
        match settled {
            Ok(s) if s.next > index => Ok(()),
            Ok(_) | Err(_) => Err(NotSynced),
        }
    }

    /// Waits as [`Syncs::wait`] does, but no longer than `limit`.
    ///
    /// # Errors
    /// [`NotSynced`], also if it takes too long.
    pub async fn wait_at_most(&self, index: u64, limit: Duration) -> Result<(), NotSynced> {
        if self.has(index) {
            return Ok(());
        }
        let waited = tokio::time::timeout(limit, self.wait(index)).await;
        waited.unwrap_or(Err(NotSynced))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[tokio::test]
    async fn what_is_queued_is_waited_for_and_nothing_else() {
        let syncs = Arc::new(Syncs::default());
        assert!(syncs.has(7), "nothing is on its way");
        assert!(syncs.queue(10));
        assert!(!syncs.has(9) && !syncs.has(7));
        assert!(syncs.has(10), "not in the log");
        assert!(
            syncs
                .wait_at_most(9, Duration::from_millis(10))
                .await
                .is_err()
        );
        let waiting = {
            let syncs = syncs.clone();
            tokio::spawn(async move { syncs.wait(9).await })
        };
        tokio::task::yield_now().await;
        syncs.advance(1, 10);
        assert_eq!(waiting.await.unwrap(), Ok(()));
        assert!(syncs.has(9) && syncs.has(7));
    }

    #[tokio::test]
    async fn an_entry_in_place_of_a_void_one_is_waited_for_again() {
        let syncs = Syncs::default();
        syncs.queue(10);
        syncs.advance(1, 10);
        syncs.truncate(8);
        assert!(syncs.has(7));
        syncs.queue(9);
        assert!(!syncs.has(8));
        syncs.advance(1, 9);
        assert!(syncs.has(8));
    }

    #[tokio::test]
    async fn the_end_of_the_log_ends_the_waiting() {
        let syncs = Syncs::default();
        syncs.queue(10);
        syncs.end();
        assert_eq!(syncs.wait(9).await, Err(NotSynced));
        assert!(syncs.wait_for_all(Duration::from_secs(60)).await.is_err());
    }

    #[test]
    fn few_appends_count_before_they_are_on_disk() {
        let syncs = Syncs::default();
        for next in 1..=AHEAD_MAX {
            assert!(syncs.queue(next));
        }
        assert!(!syncs.queue(AHEAD_MAX + 1));
        syncs.advance(2, 2);
        assert!(syncs.queue(AHEAD_MAX + 2));
        assert!(syncs.is_still(Duration::ZERO));
        syncs.advance(AHEAD_MAX, AHEAD_MAX + 2);
        assert!(!syncs.is_still(Duration::ZERO));
    }
}
