//! Counters of this crate, as /metrics shows them.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts the bytes of files that were released because disks were full.
pub(crate) static RELEASED_BYTES: AtomicU64 = AtomicU64::new(0);

/// Returns name, help and value of each counter. The name says *mover* as it did
/// when the mover released files: dashboards know it so.
pub fn counters() -> [(&'static str, &'static str, u64); 1] {
    [(
        "lagan_mover_released_bytes_total",
        "Bytes of files released because disks were full",
        RELEASED_BYTES.load(Ordering::Relaxed),
    )]
}
