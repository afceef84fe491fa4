//! How many clusters run at once: each has five or more processes.

use std::sync::{Condvar, Mutex, PoisonError};

/// With two processors, a third cluster only makes the others slow.
const CLUSTERS: usize = 2;

static TAKEN: Mutex<usize> = Mutex::new(0);
static GIVEN: Condvar = Condvar::new();

/// The right to run one cluster, given back when dropped.
#[derive(Debug)]
pub struct Slot(());

/// Waits for a slot. Tests hold one each and ask for no second, so that this
/// ends as surely as they do.
pub fn take() -> Slot {
    let limit = std::env::var("LAGAN_TEST_CLUSTERS").ok();
    let limit = limit
        .and_then(|n| n.parse().ok())
        .unwrap_or(CLUSTERS)
        .max(1);
    let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
    while *taken >= limit {
        taken = GIVEN.wait(taken).unwrap_or_else(PoisonError::into_inner);
    }
    *taken += 1;
    Slot(())
}

impl Drop for Slot {
    fn drop(&mut self) {
        *TAKEN.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        GIVEN.notify_one();
    }
}
