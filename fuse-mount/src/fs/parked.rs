//! A request between its first poll and its first wake-up.
//!
//! ```text
//! poll ---- pending ----> parked ---- woken ----> goes on, on the runtime
//!   '-- woken meanwhile ----> goes on    '-- past the deadline --> refused
//! ```
//! Most requests send one message and wait for its answer. The runtime gets no task
//! before the answer has come, so only the thread that receives it wakes. The one that
//! takes a job out of its stage ends it; that happens once.

use parking_lot::Mutex;
use std::sync::{Arc, Weak};
use std::task::{Wake, Waker};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;

/// Longest pause between two looks at deadlines. One look at all parked jobs costs less
/// than a timer for each.
const SWEEP_MAX: Duration = Duration::from_secs(1);

/// A job that can be parked.
pub(super) trait Job: Send + 'static {
    /// Runs the job to its end after it was woken, by the deadline if it has one.
    fn go_on(self, runtime: &Handle, deadline: Option<Instant>);
    /// Refuses the job, since its deadline is over.
    fn refuse(self);
}

/// The stage of one job. Lock order: a stage, then the table of the lot.
struct Parked<J> {
    stage: Mutex<Stage<J>>,
    lot: Arc<Lot>,
    deadline: Option<Instant>,
}

enum Stage<J> {
    /// Another thread polls the job for the first time.
    Polling,
    /// Another thread polls it for the first time, and it was woken already.
    Woken,
    /// It waits; with the number of its slot in the lot, if it has a deadline.
    Waiting(J, Option<usize>),
    /// It went on or was refused.
    Gone,
}

/// All parked jobs.
pub(super) struct Lot {
    runtime: Handle,
    slots: Mutex<Slots>,
}

#[derive(Default)]
struct Slots {
    taken: Vec<Option<(Instant, Arc<dyn Expire>)>>,
    free: Vec<usize>,
}

trait Expire: Send + Sync {
    fn expire(&self);
}

/// A job's place as its first poll has it, which tells the place how it went.
pub(super) struct Place<J>(Arc<Parked<J>>);

impl Lot {
    /// Makes an empty lot. `patience`, the usual time of a job, decides how often it looks at
    /// deadlines.
    pub(super) fn new(runtime: Handle, patience: Duration) -> Arc<Self> {
        let lot = Arc::new(Lot {
            runtime: runtime.clone(),
            slots: Mutex::default(),
        });
        let every = (patience / 8).clamp(Duration::from_millis(5), SWEEP_MAX);
        runtime.spawn(sweep(Arc::downgrade(&lot), every));
        lot
    }

    /// Makes a place for a job that is polled now, and the waker to poll it with.
    pub(super) fn place<J: Job>(self: &Arc<Self>, deadline: Option<Instant>) -> (Place<J>, Waker) {
        let parked = Arc::new(Parked {
            stage: Mutex::new(Stage::Polling),
            lot: self.clone(),
            deadline,
        });
        (Place(parked.clone()), Waker::from(parked))
    }

    fn add(&self, deadline: Instant, expire: Arc<dyn Expire>) -> usize {
        let mut slots = self.slots.lock();
        let entry = Some((deadline, expire));
        match slots.free.pop() {
            Some(slot) => {
                slots.taken[slot] = entry;
                slot
            }
            None => {
                slots.taken.push(entry);
                slots.taken.len() - 1
            }
        }
    }

    fn remove(&self, slot: usize) {
        let mut slots = self.slots.lock();
        let removed = slots.taken[slot].take();
        slots.free.push(slot);
        drop(slots);
        drop(removed);
    }

    fn late(&self, now: Instant) -> Vec<Arc<dyn Expire>> {
        let slots = self.slots.lock();
        let late = slots.taken.iter().flatten().filter(|(end, _)| *end <= now);
        late.map(|(_, parked)| parked.clone()).collect()
    }
}

async fn sweep(lot: Weak<Lot>, every: Duration) {
    loop {
        tokio::time::sleep(every).await;
        let Some(lot) = lot.upgrade() else { return };
        for parked in lot.late(Instant::now()) {
            parked.expire();
        }
    }
}

impl<J: Job> Place<J> {
    /// Parks a job that is pending, or lets it go on if it was woken already.
    pub(super) fn park(self, job: J) {
        let parked = self.0;
        let mut stage = parked.stage.lock();
        if matches!(*stage, Stage::Woken) {
            *stage = Stage::Gone;
            drop(stage);
            job.go_on(&parked.lot.runtime, parked.deadline);
            return;
        }
        let slot = parked
            .deadline
            .map(|deadline| parked.lot.add(deadline, parked.clone()));
        *stage = Stage::Waiting(job, slot);
    }
}

impl<J: Job> Parked<J> {
    /// Takes the job out, unless somebody did.
    fn take(&self) -> Option<J> {
        let mut stage = self.stage.lock();
        match std::mem::replace(&mut *stage, Stage::Gone) {
            Stage::Polling | Stage::Woken => {
                *stage = Stage::Woken;
                None
            }
            Stage::Waiting(job, slot) => {
                drop(stage);
                if let Some(slot) = slot {
                    self.lot.remove(slot);
                }
                Some(job)
            }
            Stage::Gone => None,
        }
    }
}

impl<J: Job> Wake for Parked<J> {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if let Some(job) = self.take() {
            job.go_on(&self.lot.runtime, self.deadline);
        }
    }
}

impl<J: Job> Expire for Parked<J> {
    fn expire(&self) {
        if let Some(job) = self.take() {
            job.refuse();
        }
    }
}

#[cfg(test)]
mod tests;
