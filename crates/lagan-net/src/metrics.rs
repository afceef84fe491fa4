//! Gauges of this crate, as /metrics shows them.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Requests without an answer yet, over all connections of this process.
static REQUESTS: AtomicUsize = AtomicUsize::new(0);

/// Requests of this process that have no answer yet.
pub fn requests_in_flight() -> usize {
    REQUESTS.load(Ordering::Relaxed)
}

pub(crate) fn request_came() {
    REQUESTS.fetch_add(1, Ordering::Relaxed);
}

pub(crate) fn request_went() {
    REQUESTS.fetch_sub(1, Ordering::Relaxed);
}
