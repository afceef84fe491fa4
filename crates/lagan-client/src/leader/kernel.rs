//! The kernel over this mount: it believes what it was lent until it is told to forget.
//!
//! Nothing that ends a lease, or makes untrue what is lent, goes on before the loans have come
//! back: the acknowledgement of a recall, an own change, the word to a new leader that
//! nothing is held (docs/DESIGN.md "Sessions and coherence").

use crate::leader::leases::{Leases, now_ms};
use crate::leader::open_files::OpenFiles;
use crate::options::Forget;
use lagan_lease::Loan;
use lagan_types::Ino;
use parking_lot::RwLock;
use std::collections::HashSet;
use std::sync::Weak;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The kernel, as far as it is lent anything.
pub(crate) struct Kernel {
    forget: RwLock<Option<Forget>>,
    files: Weak<dyn OpenFiles>,
    /// The newest term of which nothing older is lent.
    settled: AtomicU64,
}

impl Kernel {
    /// A kernel that is lent nothing before [`Kernel::can_forget`].
    pub fn new(files: Weak<dyn OpenFiles>) -> Self {
        Kernel {
            forget: RwLock::default(),
            files,
            settled: AtomicU64::new(0),
        }
    }

    /// Sets how it is told to forget.
    pub fn forgets_by(&self, forget: Forget) {
        *self.forget.write() = Some(forget);
    }

    /// Notes that it is unmounted: it believes nothing any more.
    pub fn gone(&self) {
        *self.forget.write() = None;
    }

    /// Whether it may be lent anything.
    pub fn can_forget(&self) -> bool {
        self.forget.read().is_some()
    }

    /// Has the kernel forget these loans. Returns when it believes none of them, at the latest
    /// when their time is over.
    pub async fn take_back(&self, leases: &Leases, mut loans: Vec<Loan>) {
        while !loans.is_empty() {
            let now_ms = now_ms();
            let left_ms = loans.iter().map(|loan| loan.left_ms(now_ms)).max();
            let left = Duration::from_millis(left_ms.unwrap_or(0));
            let told = tokio::time::timeout(left, self.tell(&loans));
            let Ok(unknown) = told.await else {
                // They have ended by themselves.
                return;
            };
            loans = returned(leases, loans, &unknown).await;
        }
    }

    /// Tells the kernel to forget. Returns the inodes that it does not know; not at all if it
    /// cannot be told.
    async fn tell(&self, loans: &[Loan]) -> HashSet<Ino> {
        let files = self.files.upgrade();
        let inos: Vec<_> = loans.iter().map(|loan| loan.ino).collect();
        if let Some(files) = files {
            inos.iter().for_each(|ino| files.attributes_forgotten(*ino));
        }
        let forget = self.forget.read().clone();
        let told = forget.map(|forget| forget(inos));
        match told {
            Some(told) => match told.await {
                Ok(unknown) => unknown.into_iter().collect(),
                // The loans end by themselves.
                Err(_) => std::future::pending().await,
            },
            None => HashSet::new(),
        }
    }

    /// Has everything come back that was lent in earlier terms, before a leader is told that
    /// nothing is held of them.
    pub async fn settle(&self, leases: &Leases, term: u64) {
        if self.settled.load(Ordering::Acquire) < term {
            self.take_all_back(leases).await;
            self.settled.fetch_max(term, Ordering::AcqRel);
        }
    }

    /// Has everything come back.
    pub async fn take_all_back(&self, leases: &Leases) {
        self.take_back(leases, leases.loans()).await;
    }
}

/// Notes which loans the kernel has forgotten. Returns those of inodes that it does not know
/// and may yet come to know by an answer that is not processed, when it has had its time.
async fn returned(leases: &Leases, loans: Vec<Loan>, unknown: &HashSet<Ino>) -> Vec<Loan> {
    let now_ms = now_ms();
    let arrives = |loan: &Loan| unknown.contains(&loan.ino) && loan.arriving_ms(now_ms) > 0;
    let (arriving, gone): (Vec<Loan>, Vec<Loan>) = loans.into_iter().partition(arrives);
    leases.returned(&gone);
    if let Some(ms) = arriving.iter().map(|loan| loan.arriving_ms(now_ms)).max() {
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }
    arriving
}

#[cfg(test)]
mod tests;
