//! The calls of one connection that wait for their answers.
//!
//! They are a table of slots under one lock. An id is a slot's index and the number of
//! times that the slot was used, so a late answer never reaches another call. A call
//! that is dropped frees its slot.

use crate::error::NetError;
use crate::message::Response;
use parking_lot::Mutex;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

#[cfg(test)]
mod tests;

#[derive(Debug, Default)]
pub(crate) struct Pending {
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    slots: Vec<Slot>,
    free: Vec<u32>,
    closed: bool,
}

#[derive(Debug)]
struct Slot {
    generation: u32,
    deadline: Instant,
    state: SlotState,
}

#[derive(Debug)]
enum SlotState {
    Free,
    Waiting(Option<Waker>),
    Done(Result<Response, NetError>),
}

/// The reason why a call got no slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoSlot {
    Full,
    Closed,
}

/// The id names no slot that was ever given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NeverAsked;

impl Pending {
    /// Takes a slot for a call that ends by `deadline`; at most `max` are taken at a
    /// time. Returns its id, and whether it is the only call.
    pub(crate) fn begin(&self, deadline: Instant, max: usize) -> Result<(u64, bool), NoSlot> {
        let mut table = self.table.lock();
        if table.closed {
            return Err(NoSlot::Closed);
        }
        if table.live() >= max {
            return Err(NoSlot::Full);
        }
        let index = match table.free.pop() {
            Some(index) => index,
            None => {
                table.slots.push(Slot {
                    generation: 0,
                    deadline,
                    state: SlotState::Free,
                });
                (table.slots.len() - 1) as u32
            }
        };
        let slot = &mut table.slots[index as usize];
        slot.generation = slot.generation.wrapping_add(1);
        slot.deadline = deadline;
        slot.state = SlotState::Waiting(None);
        let id = u64::from(slot.generation) << 32 | u64::from(index);
        Ok((id, table.live() == 1))
    }

    /// Waits for the answer; dropping it forgets the call.
    pub(crate) fn wait(&self, id: u64) -> Answer<'_> {
        Answer { pending: self, id }
    }

    /// Gives the call its answer; an answer that no caller waits for is dropped.
    pub(crate) fn complete(
        &self,
        id: u64,
        result: Result<Response, NetError>,
    ) -> Result<(), NeverAsked> {
        let waker = {
            let mut table = self.table.lock();
            let slot = table.slots.get_mut(id as u32 as usize).ok_or(NeverAsked)?;
            if slot.generation != (id >> 32) as u32 {
                return Ok(());
            }
            slot.finish(result)
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        Ok(())
    }

    /// Ends the calls whose deadline is over.
    pub(crate) fn expire(&self, now: Instant) {
        self.finish_where(
            |slot, _| slot.deadline <= now,
            |_| NetError::TimedOut { sent: true },
        );
    }

    /// Ends all calls and takes no more. `unsent` has the ids of the calls of which no
    /// byte has left.
    pub(crate) fn close(&self, unsent: &[u64]) {
        self.table.lock().closed = true;
        self.finish_where(
            |_, _| true,
            |id| NetError::Closed {
                sent: !unsent.contains(&id),
            },
        );
    }

    /// Calls that have a slot.
    pub(crate) fn live(&self) -> usize {
        self.table.lock().live()
    }

    fn finish_where(&self, chosen: impl Fn(&Slot, u64) -> bool, error: impl Fn(u64) -> NetError) {
        let mut wakers = Vec::new();
        {
            let mut table = self.table.lock();
            if table.live() == 0 {
                return;
            }
            for (index, slot) in table.slots.iter_mut().enumerate() {
                let id = u64::from(slot.generation) << 32 | index as u64;
                if matches!(slot.state, SlotState::Waiting(_)) && chosen(slot, id) {
                    wakers.extend(slot.finish(Err(error(id))));
                }
            }
        }
        wakers.into_iter().for_each(Waker::wake);
    }
}

impl Table {
    fn live(&self) -> usize {
        self.slots.len() - self.free.len()
    }
}

impl Slot {
    /// Sets the result if the call still waits; returns the waker to wake.
    fn finish(&mut self, result: Result<Response, NetError>) -> Option<Waker> {
        match &mut self.state {
            SlotState::Waiting(waker) => {
                let waker = waker.take();
                self.state = SlotState::Done(result);
                waker
            }
            SlotState::Free | SlotState::Done(_) => None,
        }
    }
}

/// The future of a call's answer.
#[derive(Debug)]
pub(crate) struct Answer<'a> {
    pending: &'a Pending,
    id: u64,
}

impl Future for Answer<'_> {
    type Output = Result<Response, NetError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut table = self.pending.table.lock();
        let slot = &mut table.slots[self.id as u32 as usize];
        match std::mem::replace(&mut slot.state, SlotState::Free) {
            SlotState::Done(result) => {
                // The slot itself is freed by drop.
                slot.state = SlotState::Done(Err(NetError::Closed { sent: true }));
                Poll::Ready(result)
            }
            SlotState::Waiting(Some(waker)) if waker.will_wake(context.waker()) => {
                slot.state = SlotState::Waiting(Some(waker));
                Poll::Pending
            }
            SlotState::Waiting(_) | SlotState::Free => {
                slot.state = SlotState::Waiting(Some(context.waker().clone()));
                Poll::Pending
            }
        }
    }
}

impl Drop for Answer<'_> {
    fn drop(&mut self) {
        let mut table = self.pending.table.lock();
        let index = self.id as u32;
        table.slots[index as usize].state = SlotState::Free;
        table.free.push(index);
    }
}
