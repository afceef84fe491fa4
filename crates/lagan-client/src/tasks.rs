//! The background tasks of a mount. Every storey starts its own here, and all end together.

use std::future::Future;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The tasks that are running, and how they end.
///
/// A task keeps the storey that started it alive, so that what is under way (a
/// report, a chunk on its way) is finished when the last handle of a mount is
/// dropped. After [`Tasks::end`], and when no storey is left, none runs on.
#[derive(Debug)]
pub(crate) struct Tasks {
    tracker: TaskTracker,
    cancel: CancellationToken,
    runtime: Handle,
}

impl Tasks {
    /// Starts with no task. Must be called in a runtime, which all tasks run in.
    pub fn new() -> Self {
        Tasks {
            tracker: TaskTracker::new(),
            cancel: CancellationToken::new(),
            runtime: Handle::current(),
        }
    }

    /// The token that ends all tasks.
    pub fn cancel_token(&self) -> CancellationToken {
        self.cancel.clone()
    }

    /// Runs a task for its owner, unless that is gone. May be called on any thread.
    pub fn spawn<S, F, T>(&self, owner: &Weak<S>, task: F)
    where
        F: FnOnce(Arc<S>) -> T,
        T: Future<Output = ()> + Send + 'static,
    {
        let Some(owner) = owner.upgrade() else {
            return;
        };
        let cancel = self.cancel.clone();
        let task = task(owner);
        self.run(async move {
            tokio::select! {
                () = cancel.cancelled() => {}
                () = task => {}
            }
        });
    }

    /// Does some work again and again, with a period between the starts, until
    /// the owner is gone. The owner is not kept alive between two rounds.
    pub fn every<S, F, T>(&self, period: Duration, owner: Weak<S>, work: F)
    where
        S: Send + Sync + 'static,
        F: Fn(Arc<S>) -> T + Send + 'static,
        T: Future<Output = ()> + Send,
    {
        let cancel = self.cancel.clone();
        self.run(async move {
            let mut tick = tokio::time::interval(period);
            tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                tokio::select! {
                    () = cancel.cancelled() => return,
                    _ = tick.tick() => {}
                }
                let Some(owner) = owner.upgrade() else {
                    return;
                };
                tokio::select! {
                    () = cancel.cancelled() => return,
                    () = work(owner) => {}
                }
            }
        });
    }

    /// Runs a task that looks at [`Tasks::cancel_token`] itself.
    pub fn run(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tracker.spawn_on(task, &self.runtime);
    }

    /// Waits until no task is left.
    #[cfg(test)]
    pub async fn idle(&self) {
        let ended = async {
            while !self.tracker.is_empty() {
                tokio::task::yield_now().await;
            }
        };
        let ended = tokio::time::timeout(Duration::from_secs(60), ended).await;
        ended.expect("a task does not end");
    }

    /// Ends all tasks and waits for them, until `until` at the latest.
    pub async fn end(&self, until: Instant) {
        self.cancel.cancel();
        self.tracker.close();
        // Only fetches and sends that nobody waits for are left.
        let _ = tokio::time::timeout_at(until, self.tracker.wait()).await;
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[tokio::test]
    async fn repeated_work_ends_with_its_owner() {
        let tasks = Tasks::new();
        let owner = Arc::new(AtomicU32::new(0));
        let rounds = owner.clone();
        let period = Duration::from_millis(1);
        tasks.every(period, Arc::downgrade(&owner), |owner| async move {
            owner.fetch_add(1, Ordering::Relaxed);
        });
        while rounds.load(Ordering::Relaxed) < 3 {
            tokio::time::sleep(period).await;
        }
        drop((owner, rounds));
        tasks.tracker.close();
        tasks.tracker.wait().await;
    }

    #[tokio::test]
    async fn a_task_keeps_its_owner_until_the_mount_ends() {
        let tasks = Tasks::new();
        let owner = Arc::new(());
        let weak = Arc::downgrade(&owner);
        tasks.spawn(&weak, |owner| async move {
            std::future::pending::<()>().await;
            drop(owner);
        });
        drop(owner);
        tokio::task::yield_now().await;
        assert!(weak.upgrade().is_some());
        tasks.end(Instant::now() + Duration::from_secs(60)).await;
        assert!(weak.upgrade().is_none());
    }
}
