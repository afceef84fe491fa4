//! Counters of this crate, as /metrics shows them.

use lagan_types::message::{CreateFile, MetaRequest, Mutate};
use lagan_types::{FileOp, Op, Query};
use std::sync::atomic::{AtomicU64, Ordering};

/// Reads that were asked, by their place in [`Query::NAMES`].
static READS: [AtomicU64; Query::NAMES.len()] = [const { AtomicU64::new(0) }; Query::NAMES.len()];
/// Changes of files that were asked, by their place in [`FileOp::NAMES`].
static CHANGES: [AtomicU64; FileOp::NAMES.len()] =
    [const { AtomicU64::new(0) }; FileOp::NAMES.len()];

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

/// Returns how often each read and each change of files was asked of this node so far.
pub fn requests() -> impl Iterator<Item = (&'static str, u64)> {
    let names = Query::NAMES.iter().chain(FileOp::NAMES);
    let counts = READS.iter().chain(&CHANGES);
    names
        .copied()
        .zip(counts.map(|count| count.load(Ordering::Relaxed)))
}

/// Counts a request.
pub(crate) fn asked(request: &MetaRequest) {
    let count = match request {
        MetaRequest::ReadState(ask) => &READS[ask.query.number()],
        MetaRequest::Mutate(Mutate { command, .. })
        | MetaRequest::CreateFile(CreateFile { command, .. }) => match &command.op {
            Op::File(op) => &CHANGES[op.number()],
            Op::System(_) => return,
        },
        MetaRequest::GetMap(_) => return,
    };
    count.fetch_add(1, Ordering::Relaxed);
}
