//! Creates under way: the inode that one of them opens has no number yet.

use parking_lot::Mutex;
use std::collections::BTreeSet;

/// The creates under way, numbered in the order in which they began.
#[derive(Debug, Default)]
pub(crate) struct Creates {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// Number of the last create that began.
    last: u64,
    running: BTreeSet<u64>,
}

/// One create under way.
pub(crate) struct CreateTicket<'a>(&'a Creates, u64);

impl Drop for CreateTicket<'_> {
    fn drop(&mut self) {
        self.0.inner.lock().running.remove(&self.1);
    }
}

impl Creates {
    /// Begins a create; it ends when the ticket is dropped.
    pub fn begin(&self) -> CreateTicket<'_> {
        let mut inner = self.inner.lock();
        inner.last += 1;
        let number = inner.last;
        inner.running.insert(number);
        CreateTicket(self, number)
    }

    /// The number of the last create that began.
    pub fn last(&self) -> u64 {
        self.inner.lock().last
    }

    /// Whether all creates up to that number have ended.
    pub fn ended(&self, through: u64) -> bool {
        let inner = self.inner.lock();
        inner.running.first().is_none_or(|n| *n > through)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn creates_have_ended_when_the_oldest_has() {
        let creates = Creates::default();
        assert!(creates.ended(creates.last()));
        let (first, second) = (creates.begin(), creates.begin());
        let through = creates.last();
        drop(second);
        assert!(!creates.ended(through));
        let later = creates.begin();
        drop(first);
        assert!(creates.ended(through) && !creates.ended(creates.last()));
        drop(later);
    }
}
