//! Chunk ids, by blocks granted to the session.
//!
//! An id is used once. The next block is asked for before the current one is
//! used up, so that writers do not wait. A block is closed when each of its
//! ids was committed or given up: only then may what nobody named be deleted.

use crate::leader::Leader;
use crate::leader::id_blocks::State;
use crate::leader::link::fs_error;
use lagan_types::op::{CloseBlock, GrantBlock};
use lagan_types::{BlockId, FsError, Refusal, SessionId};
use std::sync::Weak;
use std::time::Duration;
use tokio::time::Instant;

/// Wait before a block is closed again whose closing got no answer.
const CLOSE_PAUSE: Duration = Duration::from_secs(1);

/// An id that is neither committed nor given up; it is dropped when it is.
#[derive(Debug)]
pub(crate) struct IdTicket {
    /// The block.
    pub block: BlockId,
    /// The place in it.
    pub index: u16,
    /// The session that the block was granted to.
    pub session: SessionId,
    leader: Weak<Leader>,
}

impl Drop for IdTicket {
    fn drop(&mut self) {
        if let Some(leader) = self.leader.upgrade() {
            leader.id_done(self.session, self.block);
        }
    }
}

impl Leader {
    /// Takes an id.
    ///
    /// # Errors
    /// Those of [`Leader::mutate`] when no block is at hand and none is granted.
    pub async fn take_id(&self, until: Instant) -> Result<IdTicket, FsError> {
        loop {
            if let Some(ticket) = self.try_take_id() {
                return Ok(ticket);
            }
            self.grant_block(until, State::is_empty).await?;
        }
    }

    fn try_take_id(&self) -> Option<IdTicket> {
        let mut state = self.ids.state();
        let (block, index, low) = state.take_and_look()?;
        let session = state.session();
        drop(state);
        if low {
            self.prefetch_block();
        }
        Some(IdTicket {
            block,
            index,
            session,
            leader: self.me.clone(),
        })
    }

    /// Asks for a block in the background.
    pub(super) fn prefetch_block(&self) {
        self.tasks.spawn(&self.me, |leader| async move {
            let until = leader.deadline();
            if let Err(error) = leader.grant_block(until, |s| !s.has_spare()).await {
                tracing::debug!(%error, "no block of chunk ids was granted ahead");
            }
            leader.ids.state().prefetched();
        });
    }

    async fn grant_block(
        &self,
        until: Instant,
        wanted: impl Fn(&State) -> bool,
    ) -> Result<(), FsError> {
        let turn = tokio::time::timeout_at(until, self.ids.granting().lock());
        let _turn = turn.await.map_err(|_| FsError::TimedOut)?;
        let session = {
            let state = self.ids.state();
            if !wanted(&state) {
                return Ok(());
            }
            state.session()
        };
        match self.mutate_by(GrantBlock, Some(session), until).await {
            Ok(granted) => {
                let mut state = self.ids.state();
                if state.session() == session {
                    state.put(granted.block, granted.count);
                }
                Ok(())
            }
            // It was ended and renewed: the next turn is the new session's.
            Err(Refusal::SessionEnded) if self.session() != session => Ok(()),
            Err(refusal) => Err(fs_error(refusal)),
        }
    }

    fn id_done(&self, session: SessionId, block: BlockId) {
        let mut state = self.ids.state();
        let last = state.session() == session && state.done(block);
        drop(state);
        if last {
            self.tasks.spawn(&self.me, move |leader| async move {
                leader.close_block(session, block).await;
            });
        }
    }

    /// Closes a block, over and over: one that stays open counts against the session's limit.
    async fn close_block(&self, session: SessionId, block: BlockId) {
        while self.session() == session {
            let op = CloseBlock { block };
            match self.mutate_by(op, Some(session), self.deadline()).await {
                Err(Refusal::Fs(FsError::TimedOut)) => tokio::time::sleep(CLOSE_PAUSE).await,
                Err(error) => {
                    tracing::debug!(%error, ?block, "close a block of chunk ids");
                    return;
                }
                Ok(()) => return,
            }
        }
    }
}
