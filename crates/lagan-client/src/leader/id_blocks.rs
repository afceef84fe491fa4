//! The blocks of chunk ids that the session was granted, and what became of their ids. Pure.

use lagan_types::{BlockId, SessionId};
use parking_lot::{Mutex, MutexGuard};
use std::collections::HashMap;

/// The blocks of this mount.
#[derive(Debug)]
pub(crate) struct IdBlocks {
    state: Mutex<State>,
    /// Held by the call that asks for a block.
    granting: tokio::sync::Mutex<()>,
}

/// The blocks of one session.
#[derive(Debug)]
pub(super) struct State {
    session: SessionId,
    current: Option<Grant>,
    spare: Option<Grant>,
    prefetching: bool,
    used: HashMap<BlockId, Used>,
}

#[derive(Debug, Clone, Copy)]
struct Grant {
    block: BlockId,
    next: u16,
    count: u16,
}

/// The fate of a block's ids.
#[derive(Debug, Default)]
struct Used {
    /// Ids that are neither committed nor given up.
    open: u32,
    /// No further id will be taken.
    exhausted: bool,
}

impl IdBlocks {
    /// Starts without a block.
    pub fn new(session: SessionId) -> Self {
        IdBlocks {
            state: Mutex::new(State::new(session)),
            granting: tokio::sync::Mutex::default(),
        }
    }

    /// Begins with a new session; the old one's blocks were closed with it.
    pub fn reset(&self, session: SessionId) {
        *self.state.lock() = State::new(session);
    }

    /// The blocks; the lock must not be held across an await.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Held by the call that asks for a block.
    pub fn granting(&self) -> &tokio::sync::Mutex<()> {
        &self.granting
    }
}

impl State {
    fn new(session: SessionId) -> Self {
        State {
            session,
            current: None,
            spare: None,
            prefetching: false,
            used: HashMap::new(),
        }
    }

    /// The session that the blocks were granted to.
    pub fn session(&self) -> SessionId {
        self.session
    }

    /// Whether no id can be taken.
    pub fn is_empty(&self) -> bool {
        self.current.is_none() && self.spare.is_none()
    }

    /// Whether a block waits behind the current one.
    pub fn has_spare(&self) -> bool {
        self.spare.is_some()
    }

    /// Takes the next id, if a block is at hand. True: another block should be
    /// asked for now, by the caller.
    pub fn take_and_look(&mut self) -> Option<(BlockId, u16, bool)> {
        let (block, index) = self.take()?;
        let low = self.is_low();
        self.prefetching |= low;
        Some((block, index, low))
    }

    /// The block that was asked for ahead came, or will not.
    pub fn prefetched(&mut self) {
        self.prefetching = false;
    }

    /// Takes the next id, if a block is at hand.
    fn take(&mut self) -> Option<(BlockId, u16)> {
        if self.current.is_none() {
            self.current = self.spare.take();
        }
        let grant = self.current.as_mut()?;
        let taken = (grant.block, grant.next);
        grant.next += 1;
        let exhausted = grant.next >= grant.count;
        let used = self.used.entry(grant.block).or_default();
        used.open += 1;
        used.exhausted = exhausted;
        if exhausted {
            self.current = None;
        }
        Some(taken)
    }

    /// Whether another block should be asked for now.
    fn is_low(&self) -> bool {
        self.spare.is_none()
            && !self.prefetching
            && self
                .current
                .is_none_or(|g| g.count - g.next < g.count.div_ceil(4))
    }

    /// Adds a block that was granted.
    pub fn put(&mut self, block: BlockId, count: u16) {
        if count == 0 {
            return;
        }
        let grant = Grant {
            block,
            next: 0,
            count,
        };
        if self.current.is_none() {
            self.current = Some(grant);
        } else {
            self.spare = Some(grant);
        }
    }

    /// Notes that an id was committed or given up; true if it was the block's last.
    pub fn done(&mut self, block: BlockId) -> bool {
        let Some(used) = self.used.get_mut(&block) else {
            return false;
        };
        used.open -= 1;
        let last = used.open == 0 && used.exhausted;
        if last {
            self.used.remove(&block);
        }
        last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_done_when_its_last_id_is() {
        let mut s = State::new(SessionId(1));
        s.put(BlockId(7), 2);
        let (a, b) = (s.take().unwrap(), s.take().unwrap());
        assert_eq!((a, b), ((BlockId(7), 0), (BlockId(7), 1)));
        assert!(s.take().is_none());
        assert!(!s.done(BlockId(7)));
        assert!(s.done(BlockId(7)));
    }

    #[test]
    fn ids_given_back_early_do_not_close_a_block_that_has_more() {
        let mut s = State::new(SessionId(1));
        s.put(BlockId(7), 2);
        s.take().unwrap();
        assert!(!s.done(BlockId(7)));
        s.take().unwrap();
        assert!(s.done(BlockId(7)));
    }

    #[test]
    fn the_next_block_is_wanted_before_the_current_one_ends() {
        let mut s = State::new(SessionId(1));
        s.put(BlockId(7), 8);
        for _ in 0..6 {
            s.take().unwrap();
            assert!(!s.is_low());
        }
        s.take().unwrap();
        assert!(s.is_low());
        s.put(BlockId(8), 8);
        assert!(!s.is_low());
        s.take().unwrap();
        assert_eq!(s.take().unwrap(), (BlockId(8), 0));
    }
}
