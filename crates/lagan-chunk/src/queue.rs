//! Writes on their way to the log thread.

use crate::error::ChunkError;
use crate::index::Place;
use crate::pool::Class;
use crate::record::{self, Kind};
use bytes::Bytes;
use lagan_types::ChunkId;
use parking_lot::{Condvar, Mutex};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Bytes of records that may wait: enough to keep the disk busy, little
/// beside a server's memory.
const WAITING_LEN_MAX: usize = 64 << 20;
/// Records that may wait.
const WAITING_MAX: usize = 16 * 1024;
/// How long a writer waits for room.
const ROOM_WAIT: Duration = Duration::from_secs(10);

/// Called once when a write is on disk or has failed, on the log thread: it
/// must be short, must not wait, and must not call the store's blocking calls.
pub type Done = Box<dyn FnOnce(Result<(), ChunkError>) + Send>;

/// The effect of a record on the index once the record is on disk.
pub(crate) enum Effect {
    /// A new chunk.
    Write { id: ChunkId, len: u32, crc: u32 },
    /// A chunk moves here, if it is still at `from`.
    Move {
        id: ChunkId,
        len: u32,
        crc: u32,
        from: Place,
    },
    /// Chunks go away; the places are those of the look-up before.
    Delete(Vec<(ChunkId, Place)>),
    /// Delete entries carried out of a segment that is compacted.
    Carry(Vec<(ChunkId, u64)>),
    /// No record and no effect: it is answered after all ops before it.
    Await(ChunkId),
}

/// A record to append, and the callback for its outcome.
pub(crate) struct Op {
    /// From [`record::new_head`]; empty if there is no record.
    pub head: Vec<u8>,
    /// The payload.
    pub data: Bytes,
    /// Its effect on the index.
    pub effect: Effect,
    /// Called once.
    pub done: Done,
}

impl Op {
    /// A deletes record with that effect.
    pub fn deletes(items: &[(ChunkId, u64)], effect: Effect, done: Done) -> Op {
        let data = Bytes::from(record::encode_deletes(items));
        let crc = crc32fast::hash(&data);
        Op {
            head: record::new_head(Kind::Deletes, ChunkId(0), data.len() as u32, crc, &[]),
            data,
            effect,
            done,
        }
    }

    /// Bytes of the record with its padding; 0 if there is none.
    pub fn record_len(&self) -> u64 {
        record::align((self.head.len() + self.data.len()) as u64)
    }

    /// Whether it may use the reserve.
    pub fn class(&self) -> Class {
        match self.effect {
            Effect::Write { .. } | Effect::Await(_) => Class::Chunk,
            Effect::Move { .. } | Effect::Delete(_) | Effect::Carry(_) => Class::Upkeep,
        }
    }
}

#[derive(Default)]
struct Waiting {
    ops: VecDeque<Op>,
    /// Bytes pushed and not yet released.
    len: usize,
    /// Ops pushed and not yet released.
    count: usize,
    closed: bool,
    idle: bool,
}

impl Waiting {
    /// A closed queue refuses at once, which is no wait.
    fn has_room(&self, len: usize) -> bool {
        let room = self.len + len <= WAITING_LEN_MAX || self.len == 0;
        self.closed || (room && self.count < WAITING_MAX)
    }
}

/// A bounded queue of ops with one consumer.
#[derive(Default)]
pub(crate) struct Queue {
    waiting: Mutex<Waiting>,
    filled: Condvar,
    released: Condvar,
}

impl Queue {
    /// Whether an op with `len` bytes would be taken at once.
    pub fn has_room(&self, len: usize) -> bool {
        self.waiting.lock().has_room(len)
    }

    /// Appends an op; waits for room, but not for ever.
    ///
    /// # Errors
    /// The op and [`ChunkError::Busy`] or [`ChunkError::Closed`].
    pub fn push(&self, op: Op) -> Result<(), Box<(Op, ChunkError)>> {
        let len = op.data.len();
        let deadline = Instant::now() + ROOM_WAIT;
        let mut waiting = self.waiting.lock();
        loop {
            if waiting.closed {
                return Err(Box::new((op, ChunkError::Closed)));
            }
            if waiting.has_room(len) {
                break;
            }
            if self.released.wait_until(&mut waiting, deadline).timed_out() {
                return Err(Box::new((op, ChunkError::Busy)));
            }
        }
        waiting.len += len;
        waiting.count += 1;
        waiting.ops.push_back(op);
        if waiting.idle {
            waiting.idle = false;
            self.filled.notify_one();
        }
        Ok(())
    }

    /// Takes the waiting ops up to about `len_max` bytes, waiting for the
    /// first. `None` when the queue is closed and empty.
    pub fn take(&self, len_max: usize) -> Option<Vec<Op>> {
        let mut waiting = self.waiting.lock();
        while waiting.ops.is_empty() {
            if waiting.closed {
                return None;
            }
            waiting.idle = true;
            self.filled.wait(&mut waiting);
        }
        waiting.idle = false;
        let mut len = 0;
        let mut count = 0;
        for op in &waiting.ops {
            if count > 0 && len + op.data.len() > len_max {
                break;
            }
            len += op.data.len();
            count += 1;
        }
        Some(waiting.ops.drain(..count).collect())
    }

    /// Gives back the room of `count` ops with `len` bytes of payload.
    pub fn release(&self, count: usize, len: usize) {
        let mut waiting = self.waiting.lock();
        waiting.len -= len;
        waiting.count -= count;
        drop(waiting);
        self.released.notify_all();
    }

    /// Takes no more ops; those waiting are still taken.
    pub fn close(&self) {
        self.waiting.lock().closed = true;
        self.filled.notify_all();
        self.released.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn op(len: usize) -> Op {
        Op {
            head: Vec::new(),
            data: Bytes::from(vec![0; len]),
            effect: Effect::Await(ChunkId(1)),
            done: Box::new(|_| {}),
        }
    }

    #[test]
    fn room_is_told_before_a_push_would_wait() {
        let queue = Queue::default();
        assert!(
            queue.has_room(WAITING_LEN_MAX + 1),
            "an idle queue takes all"
        );
        assert!(queue.push(op(WAITING_LEN_MAX)).is_ok());
        assert!(queue.has_room(0) && !queue.has_room(1));
        queue.release(1, WAITING_LEN_MAX);
        assert!(queue.has_room(1));
    }

    #[test]
    fn closed_queue_refuses_without_a_wait() {
        let queue = Queue::default();
        assert!(queue.push(op(WAITING_LEN_MAX)).is_ok());
        queue.close();
        assert!(queue.has_room(1));
        assert!(queue.push(op(1)).is_err());
    }
}
