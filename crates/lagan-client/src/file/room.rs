//! Room for written bytes: how many all files together may hold until they are committed.

use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

/// The room of a mount.
#[derive(Debug)]
pub(crate) struct Room {
    free: Semaphore,
    all_bytes: usize,
}

impl Room {
    /// Starts with all of it free.
    pub fn new(all_bytes: usize) -> Self {
        Room {
            free: Semaphore::new(all_bytes),
            all_bytes,
        }
    }

    /// How many bytes there is room for in all.
    pub fn all_bytes(&self) -> u64 {
        self.all_bytes as u64
    }

    /// Takes room if it is free now; never waits.
    pub fn try_take(&self, bytes: u32) -> bool {
        let room = self.free.try_acquire_many(bytes);
        room.map(|room| room.forget()).is_ok()
    }

    /// Takes room; waits for it until then. Returns whether it got some.
    pub async fn take(&self, bytes: u32, until: Instant) -> bool {
        match timeout_at(until, self.free.acquire_many(bytes)).await {
            Ok(Ok(room)) => {
                room.forget();
                true
            }
            _ => false,
        }
    }

    /// Gives room back.
    pub fn give_back(&self, bytes: u64) {
        if bytes > 0 {
            self.free.add_permits(bytes as usize);
        }
    }
}

/// Room that was taken and holds no bytes (yet); what is left of it is given back
/// when this is dropped.
pub(crate) struct Taken<'a> {
    room: &'a Room,
    bytes: u64,
}

impl<'a> Taken<'a> {
    /// Guards room that was taken.
    pub fn new(room: &'a Room, bytes: u64) -> Self {
        Taken { room, bytes }
    }

    /// Notes that so many bytes hold room of their own from now on.
    pub fn used(&mut self, bytes: u64) {
        self.bytes = self.bytes.saturating_sub(bytes);
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.room.give_back(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test]
    async fn room_that_is_not_used_is_given_back() {
        let room = Room::new(100);
        assert!(room.try_take(60) && !room.try_take(60));
        let mut taken = Taken::new(&room, 60);
        taken.used(20);
        drop(taken);
        let soon = Instant::now() + Duration::from_millis(1);
        assert!(!room.take(81, soon).await);
        assert!(room.take(80, soon).await);
        room.give_back(100);
        assert!(room.try_take(100));
    }
}
