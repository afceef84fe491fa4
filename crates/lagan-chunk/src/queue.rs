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
/// Bytes of lazy records after which they are written: a sync then costs little a record.
const LAZY_LEN: usize = 4 << 20;
/// Longest wait of a lazy record for others.
const LAZY_WAIT: Duration = Duration::from_secs(1);
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
    /// No record and no effect: it is answered after all lazy ops before it.
    Settle,
}

/// A record to append, and the callback for its outcome.
pub(crate) struct Op {
    /// From [`record::new_head`]; empty if there is no record.
    pub head: Vec<u8>,
    /// The payload.
    pub data: Bytes,
    /// Its effect on the index.
    pub effect: Effect,
    /// Nobody waits for it soon: it may gather with others.
    pub lazy: bool,
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
            lazy: false,
            done,
        }
    }

    /// An op that is answered after all before it, lazy ones too.
    pub fn settle(done: Done) -> Op {
        Op {
            head: Vec::new(),
            data: Bytes::new(),
            effect: Effect::Settle,
            lazy: false,
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
            // What the log has was promised already.
            Effect::Write { .. } if self.lazy => Class::Staged,
            Effect::Write { .. } | Effect::Await(_) | Effect::Settle => Class::Chunk,
            Effect::Move { .. } | Effect::Delete(_) | Effect::Carry(_) => Class::Upkeep,
        }
    }
}

#[derive(Default)]
struct Waiting {
    ops: VecDeque<Op>,
    /// Bytes pushed and not yet released, but for lazy ops.
    len: usize,
    /// Ops pushed and not yet released, but for lazy ones.
    count: usize,
    lazy: Lazy,
    closed: bool,
    idle: bool,
}

/// Ops that gather until there are many bytes, some time has passed, or somebody waits.
#[derive(Default)]
struct Lazy {
    ops: Vec<Op>,
    len: usize,
    /// When the first of them came.
    since: Option<Instant>,
}

impl Lazy {
    fn add(&mut self, op: Op) {
        self.since.get_or_insert_with(Instant::now);
        self.len += op.data.len();
        self.ops.push(op);
    }

    /// When they are to be written; `None`: there are none.
    fn due(&self) -> Option<Instant> {
        self.since.map(|since| since + LAZY_WAIT)
    }
}

impl Waiting {
    /// The lazy ops wait no longer.
    fn hurry(&mut self) {
        let lazy = std::mem::take(&mut self.lazy);
        self.ops.extend(lazy.ops);
    }

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
            // A settle takes no room, and its caller must not wait.
            if waiting.has_room(len) || matches!(op.effect, Effect::Settle) {
                break;
            }
            if self.released.wait_until(&mut waiting, deadline).timed_out() {
                return Err(Box::new((op, ChunkError::Busy)));
            }
        }
        waiting.len += len;
        waiting.count += 1;
        if matches!(op.effect, Effect::Await(_) | Effect::Settle) {
            // What it waits for may be lazy.
            waiting.hurry();
        }
        waiting.ops.push_back(op);
        self.wake(&mut waiting);
        Ok(())
    }

    /// Appends a lazy op; never waits.
    ///
    /// # Errors
    /// The op and [`ChunkError::Closed`].
    pub fn push_lazy(&self, op: Op) -> Result<(), Box<(Op, ChunkError)>> {
        let mut waiting = self.waiting.lock();
        if waiting.closed {
            return Err(Box::new((op, ChunkError::Closed)));
        }
        let first = waiting.lazy.ops.is_empty();
        waiting.lazy.add(op);
        let many = waiting.lazy.len >= LAZY_LEN;
        if many {
            waiting.hurry();
        }
        if first || many {
            self.wake(&mut waiting);
        }
        Ok(())
    }

    fn wake(&self, waiting: &mut Waiting) {
        if waiting.idle {
            waiting.idle = false;
            self.filled.notify_one();
        }
    }

    /// Takes the waiting ops up to about `len_max` bytes, waiting for the
    /// first. `None` when the queue is closed and empty.
    pub fn take(&self, len_max: usize) -> Option<Vec<Op>> {
        let mut waiting = self.waiting.lock();
        loop {
            let due = waiting.lazy.due();
            if due.is_some_and(|due| waiting.closed || due <= Instant::now()) {
                waiting.hurry();
            }
            if !waiting.ops.is_empty() {
                break;
            }
            if waiting.closed {
                return None;
            }
            waiting.idle = true;
            match due {
                Some(due) => drop(self.filled.wait_until(&mut waiting, due)),
                None => self.filled.wait(&mut waiting),
            }
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
            lazy: false,
            done: Box::new(|_| {}),
        }
    }

    fn lazy(len: usize) -> Op {
        Op {
            effect: Effect::Carry(Vec::new()),
            lazy: true,
            ..op(len)
        }
    }

    #[test]
    fn lazy_ops_gather_until_somebody_waits() {
        let queue = Queue::default();
        assert!(queue.push_lazy(lazy(1)).is_ok() && queue.push_lazy(lazy(2)).is_ok());
        assert!(
            queue
                .push(Op {
                    effect: Effect::Carry(Vec::new()),
                    ..op(3)
                })
                .is_ok()
        );
        let lens = |ops: Vec<Op>| ops.iter().map(|op| op.data.len()).collect::<Vec<_>>();
        assert_eq!(lens(queue.take(100).unwrap()), [3], "lazy ones wait");
        assert!(
            queue
                .push(Op {
                    effect: Effect::Settle,
                    ..op(0)
                })
                .is_ok()
        );
        assert_eq!(lens(queue.take(100).unwrap()), [1, 2, 0]);
    }

    #[test]
    fn many_lazy_bytes_and_a_closed_queue_do_not_wait() {
        let queue = Queue::default();
        assert!(queue.push_lazy(lazy(LAZY_LEN)).is_ok());
        assert_eq!(queue.take(1).unwrap().len(), 1);
        assert!(queue.push_lazy(lazy(1)).is_ok());
        queue.close();
        assert_eq!(queue.take(1).unwrap().len(), 1);
        assert!(queue.take(1).is_none());
        assert!(queue.push_lazy(lazy(1)).is_err());
    }

    #[test]
    fn lazy_op_is_written_after_a_while_though_nothing_follows() {
        let queue = std::sync::Arc::new(Queue::default());
        let taking = {
            let queue = queue.clone();
            std::thread::spawn(move || queue.take(100).map(|ops| ops.len()))
        };
        assert!(queue.push_lazy(lazy(1)).is_ok());
        assert_eq!(taking.join().unwrap(), Some(1));
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
