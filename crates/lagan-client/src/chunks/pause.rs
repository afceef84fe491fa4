//! A pause in which bytes do not come with commits.

use parking_lot::Mutex;
use std::time::Duration;
use tokio::time::Instant;

/// How long bytes go to the chunk stores first after the leader would not have them.
const PAUSE: Duration = Duration::from_secs(1);

/// When bytes may come with commits again.
#[derive(Debug, Default)]
pub(crate) struct InlinePause(Mutex<Option<Instant>>);

impl InlinePause {
    /// The leader would not have them.
    pub fn begin(&self) {
        *self.0.lock() = Some(Instant::now() + PAUSE);
    }

    /// Whether it is time again.
    pub fn is_over(&self) -> bool {
        self.0.lock().is_none_or(|until| until <= Instant::now())
    }
}
