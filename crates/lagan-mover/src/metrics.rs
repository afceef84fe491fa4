//! Counters and gauges of this crate, as /metrics shows them.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number that only rises.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    const fn new() -> Self {
        Counter(AtomicU64::new(0))
    }

    pub(crate) fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// The number now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A number of things that go on now. Each is counted as long as its `Held` lives, so
/// that the gauge is back at zero however they end.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    const fn new() -> Self {
        Gauge(AtomicU64::new(0))
    }

    pub(crate) fn hold(&'static self) -> Held {
        self.0.fetch_add(1, Ordering::Relaxed);
        Held(self)
    }

    /// The number now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// One of what a [`Gauge`] counts.
#[derive(Debug)]
pub(crate) struct Held(&'static Gauge);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// All counters and gauges.
#[derive(Debug)]
pub struct Metrics {
    /// Files that S3 has, verified.
    pub uploads: Counter,
    /// Bytes of those files.
    pub upload_bytes: Counter,
    /// Uploads that failed; each is tried again.
    pub upload_failures: Counter,
    /// Uploads of files whose upload failed before.
    pub upload_retries: Counter,
    /// Uploads that were read back, since the endpoint verifies nothing.
    pub read_backs: Counter,
    /// Ranges of released files that readers asked for.
    pub recalls: Counter,
    /// Bytes that recalls gave.
    pub recall_bytes: Counter,
    /// Recalls that failed, but for objects that are not the file's any more.
    pub recall_failures: Counter,
    /// Bytes that recalls fetched from S3.
    pub fetched_bytes: Counter,
    /// Objects deleted.
    pub deletes: Counter,
    /// Parts of the mover that ended by a panic.
    pub defects: Counter,
    /// Uploads under way.
    pub uploading: Gauge,
    /// Recalls under way.
    pub recalling: Gauge,
}

/// This process' counters.
pub static METRICS: Metrics = Metrics {
    uploads: Counter::new(),
    upload_bytes: Counter::new(),
    upload_failures: Counter::new(),
    upload_retries: Counter::new(),
    read_backs: Counter::new(),
    recalls: Counter::new(),
    recall_bytes: Counter::new(),
    recall_failures: Counter::new(),
    fetched_bytes: Counter::new(),
    deletes: Counter::new(),
    defects: Counter::new(),
    uploading: Gauge::new(),
    recalling: Gauge::new(),
};

/// Name, help and value.
type Shown = (&'static str, &'static str, u64);

impl Metrics {
    /// The counters.
    pub fn counters(&self) -> [Shown; 11] {
        let m = self;
        [
            (
                "lagan_mover_uploads_total",
                "Files uploaded and verified",
                m.uploads.get(),
            ),
            (
                "lagan_mover_upload_bytes_total",
                "Bytes of these files",
                m.upload_bytes.get(),
            ),
            (
                "lagan_mover_upload_failures_total",
                "Uploads that failed and are tried again",
                m.upload_failures.get(),
            ),
            (
                "lagan_mover_upload_retries_total",
                "Uploads of files whose upload failed before",
                m.upload_retries.get(),
            ),
            (
                "lagan_mover_read_backs_total",
                "Uploads read back because the endpoint verifies nothing",
                m.read_backs.get(),
            ),
            (
                "lagan_mover_recalls_total",
                "Ranges of released files asked for",
                m.recalls.get(),
            ),
            (
                "lagan_mover_recall_bytes_total",
                "Bytes of these ranges that were given",
                m.recall_bytes.get(),
            ),
            (
                "lagan_mover_recall_failures_total",
                "Ranges that could not be given",
                m.recall_failures.get(),
            ),
            (
                "lagan_mover_fetched_bytes_total",
                "Bytes fetched from S3 for recalls",
                m.fetched_bytes.get(),
            ),
            (
                "lagan_mover_deletes_total",
                "Objects deleted in S3",
                m.deletes.get(),
            ),
            (
                "lagan_mover_defects_total",
                "Uploads and parts of the mover that ended by a defect",
                m.defects.get(),
            ),
        ]
    }

    /// The gauges.
    pub fn gauges(&self) -> [Shown; 2] {
        [
            (
                "lagan_mover_uploading",
                "Uploads under way on this server",
                self.uploading.get(),
            ),
            (
                "lagan_mover_recalling",
                "Recalls under way on this server",
                self.recalling.get(),
            ),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gauge_falls_when_what_it_counts_is_dropped() {
        static GAUGE: Gauge = Gauge::new();
        let (one, two) = (GAUGE.hold(), GAUGE.hold());
        assert_eq!(GAUGE.get(), 2);
        drop(one);
        let panicked = std::panic::catch_unwind(move || {
            let _two = two;
            panic!("on purpose");
        });
        assert!(panicked.is_err());
        assert_eq!(GAUGE.get(), 0);
    }
}
