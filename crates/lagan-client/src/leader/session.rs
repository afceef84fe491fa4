//! The session: its number, and the mutations under way in it.
//!
//! This file does no I/O: `ask.rs` sends the mutations, `renew.rs` replaces a
//! session that was ended.

use crate::leader::window::Window;
use lagan_types::{FsError, Refusal, SessionId};
use parking_lot::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::{MutexGuard, Notify};
use tokio::time::{Instant, timeout_at};

/// The session of this mount.
#[derive(Debug)]
pub(crate) struct Session {
    state: Mutex<State>,
    /// Told whenever a sequence was finished, or the session was replaced.
    room: Notify,
    /// Held by the call that replaces the session.
    renewing: tokio::sync::Mutex<()>,
    /// Set when the session is being closed: no other follows it.
    closing: AtomicBool,
}

#[derive(Debug)]
struct State {
    id: SessionId,
    window: Window,
}

/// A mutation under way; it is finished when this is dropped.
pub(crate) struct Ticket<'a> {
    session: &'a Session,
    /// The session that the mutation is of.
    pub id: SessionId,
    /// The mutation's sequence number.
    pub seq: u64,
    /// The lowest sequence number whose answer was not seen.
    pub unanswered: u64,
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        let mut state = self.session.state.lock();
        if state.id == self.id {
            state.window.finish(self.seq);
        }
        drop(state);
        self.session.room.notify_waiters();
    }
}

impl Session {
    /// Starts the session of that number, with nothing sent.
    pub fn new(id: SessionId) -> Self {
        Session {
            state: Mutex::new(State {
                id,
                window: Window::default(),
            }),
            room: Notify::new(),
            renewing: tokio::sync::Mutex::default(),
            closing: AtomicBool::new(false),
        }
    }

    /// The session's number.
    pub fn id(&self) -> SessionId {
        self.state.lock().id
    }

    /// Whether a mutation could begin now.
    pub fn has_room(&self) -> bool {
        self.state.lock().window.has_room()
    }

    /// Begins a mutation; waits while the window is full. With `only`, it is of
    /// that session or not begun; if it is `reserved` it may take the last places.
    ///
    /// # Errors
    /// [`Refusal::SessionEnded`] if the session is not `only`; [`FsError::TimedOut`].
    pub async fn begin(
        &self,
        only: Option<SessionId>,
        reserved: bool,
        until: Instant,
    ) -> Result<Ticket<'_>, Refusal> {
        loop {
            let room = self.room.notified();
            if let Some(ticket) = self.try_begin(only, reserved)? {
                return Ok(ticket);
            }
            timeout_at(until, room)
                .await
                .map_err(|_| FsError::TimedOut)?;
        }
    }

    fn try_begin(
        &self,
        only: Option<SessionId>,
        reserved: bool,
    ) -> Result<Option<Ticket<'_>>, Refusal> {
        let mut state = self.state.lock();
        if only.is_some_and(|id| id != state.id) {
            return Err(Refusal::SessionEnded);
        }
        Ok(state.window.begin(reserved).map(|seq| Ticket {
            session: self,
            id: state.id,
            seq,
            unanswered: state.window.unanswered(),
        }))
    }

    /// Waits for the turn to replace the session.
    ///
    /// # Errors
    /// [`FsError::TimedOut`].
    pub async fn turn_to_renew(&self, until: Instant) -> Result<MutexGuard<'_, ()>, FsError> {
        let turn = timeout_at(until, self.renewing.lock()).await;
        turn.map_err(|_| FsError::TimedOut)
    }

    /// Puts another session in this one's place.
    pub fn replace(&self, id: SessionId) {
        *self.state.lock() = State {
            id,
            window: Window::default(),
        };
        self.room.notify_waiters();
    }

    /// Notes that the session is being closed.
    pub fn close(&self) {
        self.closing.store(true, Ordering::Release);
    }

    /// Whether the session is being closed.
    pub fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }
}
