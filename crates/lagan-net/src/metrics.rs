//! Figures of this crate, as /metrics shows them.

use lagan_types::message::Service;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Requests without an answer yet, over all connections of this process.
static REQUESTS: AtomicUsize = AtomicUsize::new(0);
/// Requests that came so far, by the place of their service in [`Service::ALL`].
static CAME: [AtomicU64; Service::ALL.len()] = [const { AtomicU64::new(0) }; Service::ALL.len()];

/// Requests of this process that have no answer yet.
pub fn requests_in_flight() -> usize {
    REQUESTS.load(Ordering::Relaxed)
}

/// Requests that came to each service of this process so far.
pub fn requests() -> impl Iterator<Item = (Service, u64)> {
    let came = CAME.iter().map(|count| count.load(Ordering::Relaxed));
    Service::ALL.into_iter().zip(came)
}

pub(crate) fn request_came(service: Service) {
    REQUESTS.fetch_add(1, Ordering::Relaxed);
    CAME[service as usize].fetch_add(1, Ordering::Relaxed);
}

pub(crate) fn request_went() {
    REQUESTS.fetch_sub(1, Ordering::Relaxed);
}
