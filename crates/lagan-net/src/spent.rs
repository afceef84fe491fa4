//! What work costs in requests to other processes: who starts it says where they are counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Requests to other processes, and their bytes.
#[derive(Debug, Default)]
pub struct Spent {
    requests: AtomicU64,
    bytes: AtomicU64,
}

tokio::task_local! {
    static SPENT: Arc<Spent>;
}

/// What nobody has counted for himself.
static OTHERS: Spent = Spent {
    requests: AtomicU64::new(0),
    bytes: AtomicU64::new(0),
};

impl Spent {
    /// Returns the requests that were sent, repeated ones each time.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Returns the bytes of these requests and of their answers, without frames.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    fn add(&self, requests: u64, bytes: usize) {
        self.requests.fetch_add(requests, Ordering::Relaxed);
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

/// Counts the requests of some work there. Those of tasks that the work starts are not its own.
pub fn counted<F: Future>(spent: Arc<Spent>, work: F) -> impl Future<Output = F::Output> {
    SPENT.scope(spent, work)
}

/// Returns what this process has spent on everything that is not counted elsewhere: heartbeats,
/// flushes in the background, tasks of their own.
pub fn others() -> &'static Spent {
    &OTHERS
}

/// Counts requests and bytes for whoever asks.
pub(crate) fn note(requests: u64, bytes: usize) {
    if SPENT.try_with(|spent| spent.add(requests, bytes)).is_err() {
        OTHERS.add(requests, bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn requests_count_for_the_work_that_sends_them() {
        let spent = Arc::new(Spent::default());
        let before = others().requests();
        counted(spent.clone(), async {
            note(1, 10);
            note(0, 5);
            tokio::spawn(async { note(1, 100) }).await.unwrap();
        })
        .await;
        assert_eq!((spent.requests(), spent.bytes()), (1, 15));
        assert!(others().requests() > before);
    }
}
