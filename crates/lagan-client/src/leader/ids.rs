//! Chunk ids, by blocks granted to the session.
//!
//! An id is used once. The next block is asked for before the current one is
//! used up, so that writers do not wait. A block is closed when each of its
//! ids was committed or given up: only then may what nobody named be deleted.

use crate::Client;
use lagan_types::{Answer, BlockId, FsError, Op, SessionId};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Weak;
use std::time::Duration;
use tokio::time::Instant;

/// Wait before a block is closed again whose closing got no answer.
const CLOSE_PAUSE: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug)]
pub(crate) struct Ids {
    state: Mutex<State>,
    granting: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct State {
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

/// What became of a block's ids.
#[derive(Debug, Default)]
struct Used {
    /// Neither committed nor given up.
    open: u32,
    /// No further id will be taken.
    exhausted: bool,
}

/// An id that is neither committed nor given up: dropped when it is.
#[derive(Debug)]
pub(crate) struct Lease {
    /// The block.
    pub block: BlockId,
    /// The place in it.
    pub index: u16,
    /// The session that the block was granted to.
    pub session: SessionId,
    client: Weak<Client>,
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(client) = self.client.upgrade() {
            client.id_done(self.session, self.block);
        }
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

    /// The next id, if a block is at hand.
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

    fn put(&mut self, block: BlockId, count: u16) {
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

    /// An id is done with; true if that was the block's last.
    fn done(&mut self, block: BlockId) -> bool {
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

impl Ids {
    /// No block yet.
    pub fn new(session: SessionId) -> Self {
        Ids {
            state: Mutex::new(State::new(session)),
            granting: tokio::sync::Mutex::default(),
        }
    }

    /// A new session: the old one's blocks were closed with it.
    pub fn reset(&self, session: SessionId) {
        *self.state.lock() = State::new(session);
    }
}

impl Client {
    /// Takes an id.
    ///
    /// # Errors
    /// As [`Client::mutate`] when no block is at hand and none is granted.
    pub(crate) async fn take_id(&self, until: Instant) -> Result<Lease, FsError> {
        loop {
            if let Some(lease) = self.try_take_id() {
                return Ok(lease);
            }
            self.grant_block(until, |s| s.current.is_none() && s.spare.is_none())
                .await?;
        }
    }

    fn try_take_id(&self) -> Option<Lease> {
        let mut state = self.ids.state.lock();
        let (block, index) = state.take()?;
        let session = state.session;
        let low = state.is_low();
        state.prefetching |= low;
        drop(state);
        if low {
            self.prefetch_block();
        }
        Some(Lease {
            block,
            index,
            session,
            client: self.me.clone(),
        })
    }

    /// Asks for a block in the background.
    pub(crate) fn prefetch_block(&self) {
        self.spawn(|client| async move {
            let until = client.deadline();
            if let Err(error) = client.grant_block(until, |s| s.spare.is_none()).await {
                tracing::debug!(%error, "no block of chunk ids was granted ahead");
            }
            client.ids.state.lock().prefetching = false;
        });
    }

    async fn grant_block(
        &self,
        until: Instant,
        wanted: impl Fn(&State) -> bool,
    ) -> Result<(), FsError> {
        let turn = tokio::time::timeout_at(until, self.ids.granting.lock());
        let _turn = turn.await.map_err(|_| FsError::TimedOut)?;
        let session = {
            let state = self.ids.state.lock();
            if !wanted(&state) {
                return Ok(());
            }
            state.session
        };
        match self.mutate_by(Op::GrantBlock, Some(session), until).await {
            Ok(Answer::Block { block, count }) => {
                let mut state = self.ids.state.lock();
                if state.session == session {
                    state.put(block, count);
                }
                Ok(())
            }
            // Ended and renewed: the next turn is the new session's.
            Err(FsError::SessionEnded) if self.session() != session => Ok(()),
            Ok(_) => Err(FsError::Malformed),
            Err(error) => Err(error),
        }
    }

    fn id_done(&self, session: SessionId, block: BlockId) {
        let mut state = self.ids.state.lock();
        let last = state.session == session && state.done(block);
        drop(state);
        if last {
            self.spawn(move |client| async move {
                // A block that stays open counts against the session's limit.
                while client.session() == session {
                    let until = client.deadline();
                    let op = Op::CloseBlock { block };
                    match client.mutate_by(op, Some(session), until).await {
                        Err(FsError::TimedOut) => tokio::time::sleep(CLOSE_PAUSE).await,
                        Err(error) => {
                            tracing::debug!(%error, ?block, "close a block of chunk ids");
                            return;
                        }
                        Ok(_) => return,
                    }
                }
            });
        }
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
