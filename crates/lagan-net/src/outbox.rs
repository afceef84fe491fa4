//! The frames that wait to be written to one connection.
//!
//! Small frames are copied into one growing tail, so that a busy connection
//! writes many of them with one system call; large parts are queued as they
//! are and written without a copy. A caller that finds the socket idle may write
//! ([`Outbox::flush_now`]); the bytes that the socket does not take at once are left to
//! the writer task ([`Outbox::run`]). Only one of them writes at a time.

use crate::frame::{Frame, encode_header};
use crate::socket::WriteHalf;
use bytes::{Buf, Bytes, BytesMut};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::Notify;

#[cfg(test)]
mod tests;

/// Parts longer than this are written from where they are.
const COPY_LEN_MAX: usize = 8 * 1024;
/// Small frames are coalesced up to about this.
const TAIL_LEN_MAX: usize = 64 * 1024;
/// Parts that one write may gather.
const SLICES_MAX: usize = 32;
/// A peer that takes no byte for this long is given up.
const WRITE_STALL: Duration = Duration::from_secs(30);

/// The queue of frames to one socket.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    state: Mutex<State>,
    /// Bytes queued and not yet handed to the kernel.
    queued: AtomicUsize,
    /// The same sum over all connections that share a limit.
    total: Arc<AtomicUsize>,
    /// Wakes the writer task.
    work: Notify,
    /// Wakes those in [`Outbox::room`].
    room: Notify,
    /// Somebody waits for room.
    room_wanted: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    parts: VecDeque<Bytes>,
    tail: BytesMut,
    /// Calls whose bytes no writer has taken yet.
    untaken: Vec<u64>,
    /// A writer holds a batch.
    writing: bool,
    /// The reader will flush at the end of its batch: wake nobody.
    corked: bool,
    closed: bool,
}

/// The connection takes no more frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OutboxClosed;

enum Take {
    Batch(VecDeque<Bytes>),
    Nothing,
    Closed,
}

impl Outbox {
    /// An empty outbox whose queued bytes also count in `total`.
    pub(crate) fn counted(total: Arc<AtomicUsize>) -> Self {
        Outbox {
            total,
            state: Mutex::default(),
            queued: AtomicUsize::new(0),
            work: Notify::new(),
            room: Notify::new(),
            room_wanted: AtomicBool::new(false),
        }
    }

    /// Queues `frame`. With `wake` the writer task is told; without, the
    /// caller flushes.
    pub(crate) fn push(&self, frame: Frame, wake: bool) -> Result<(), OutboxClosed> {
        let header = encode_header(frame.kind, frame.id, &frame.head, frame.data.len());
        let len = header.len() + frame.head.len() + frame.data.len();
        let mut state = self.state.lock();
        if state.closed {
            return Err(OutboxClosed);
        }
        state.append(&header);
        state.append_part(frame.head);
        state.append_part(frame.data);
        state.untaken.push(frame.id);
        self.queued.fetch_add(len, Ordering::Relaxed);
        self.total.fetch_add(len, Ordering::Relaxed);
        let wake = wake && !state.corked && !state.writing;
        drop(state);
        if wake {
            self.work.notify_one();
        }
        Ok(())
    }

    /// Bytes that wait for the socket.
    pub(crate) fn queued(&self) -> usize {
        self.queued.load(Ordering::Relaxed)
    }

    /// From here to [`Outbox::uncork`], pushes wake nobody.
    pub(crate) fn cork(&self) {
        self.state.lock().corked = true;
    }

    /// Ends [`Outbox::cork`] and writes what the socket takes at once.
    pub(crate) fn uncork(&self, socket: &WriteHalf) {
        self.state.lock().corked = false;
        self.flush_now(socket);
    }

    /// Does what [`Outbox::flush_now`] does, unless the reader will do so at the end of
    /// its batch.
    pub(crate) fn flush_uncorked(&self, socket: &WriteHalf) {
        if !self.state.lock().corked {
            self.flush_now(socket);
        }
    }

    /// Writes what the socket takes at once; wakes the writer task for the rest.
    pub(crate) fn flush_now(&self, socket: &WriteHalf) {
        let Take::Batch(mut batch) = self.take() else {
            return;
        };
        let mut failed = false;
        while !batch.is_empty() {
            match write_some(socket, &mut batch) {
                Ok(len) => self.written(len),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // The writer task meets the same error and ends the connection.
                Err(_) => {
                    failed = true;
                    break;
                }
            }
        }
        let more = failed || !batch.is_empty();
        if self.put_back(batch) || more {
            self.work.notify_one();
        }
    }

    /// The writer task: ends when the outbox is closed and empty.
    ///
    /// # Errors
    /// Those of write(2); `TimedOut` if the peer takes nothing for long.
    pub(crate) async fn run(&self, socket: &WriteHalf) -> io::Result<()> {
        loop {
            match self.take() {
                Take::Batch(mut batch) => {
                    while !batch.is_empty() {
                        match write_some(socket, &mut batch) {
                            Ok(len) => self.written(len),
                            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                                tokio::time::timeout(WRITE_STALL, socket.writable())
                                    .await
                                    .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
                            }
                            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                            Err(error) => return Err(error),
                        }
                    }
                    self.put_back(batch);
                }
                Take::Nothing => self.work.notified().await,
                Take::Closed => return Ok(()),
            }
        }
    }

    /// Closes: queued frames are still written if `drain`, else dropped. Returns the ids
    /// of the frames of which no byte has left and none will.
    pub(crate) fn close(&self, drain: bool) -> Vec<u64> {
        let mut state = self.state.lock();
        state.closed = true;
        state.corked = false;
        let mut unsent = Vec::new();
        if !drain {
            state.parts.clear();
            state.tail.clear();
            unsent = std::mem::take(&mut state.untaken);
        }
        drop(state);
        self.work.notify_one();
        self.room.notify_waiters();
        unsent
    }

    /// Waits until `has_room` holds or the outbox is closed. A change that may make
    /// `has_room` true must call [`Outbox::give_room`].
    pub(crate) async fn room(&self, has_room: impl Fn() -> bool) {
        loop {
            let notified = self.room.notified();
            tokio::pin!(notified);
            notified.as_mut().enable();
            self.room_wanted.store(true, Ordering::SeqCst);
            if has_room() || self.is_closed() {
                return;
            }
            notified.await;
        }
    }

    /// Tells those in [`Outbox::room`] to look again.
    pub(crate) fn give_room(&self) {
        if self.room_wanted.load(Ordering::SeqCst) && self.room_wanted.swap(false, Ordering::SeqCst)
        {
            self.room.notify_waiters();
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.state.lock().closed
    }

    fn take(&self) -> Take {
        let mut state = self.state.lock();
        if state.writing {
            return Take::Nothing;
        }
        state.cut_tail();
        if state.parts.is_empty() {
            return if state.closed {
                Take::Closed
            } else {
                Take::Nothing
            };
        }
        state.writing = true;
        state.untaken.clear();
        Take::Batch(std::mem::take(&mut state.parts))
    }

    /// Ends a batch; `rest` was not written. True if there is more to write.
    fn put_back(&self, mut rest: VecDeque<Bytes>) -> bool {
        let mut state = self.state.lock();
        state.writing = false;
        if !rest.is_empty() {
            rest.append(&mut state.parts);
            state.parts = rest;
        } else if state.parts.is_empty() {
            // Keeps the allocation for the next batch.
            state.parts = rest;
        }
        !state.parts.is_empty() || !state.tail.is_empty() || state.closed
    }

    fn written(&self, len: usize) {
        self.queued.fetch_sub(len, Ordering::SeqCst);
        self.total.fetch_sub(len, Ordering::SeqCst);
        self.give_room();
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        let dropped = *self.queued.get_mut();
        self.total.fetch_sub(dropped, Ordering::SeqCst);
    }
}

impl State {
    fn append(&mut self, bytes: &[u8]) {
        self.tail.extend_from_slice(bytes);
        if self.tail.len() >= TAIL_LEN_MAX {
            self.cut_tail();
        }
    }

    fn append_part(&mut self, part: Bytes) {
        if part.len() <= COPY_LEN_MAX {
            self.append(&part);
        } else {
            self.cut_tail();
            self.parts.push_back(part);
        }
    }

    fn cut_tail(&mut self) {
        if !self.tail.is_empty() {
            let tail = self.tail.split().freeze();
            self.parts.push_back(tail);
        }
    }
}

/// Writes the batch's first parts once and cuts off the written bytes.
fn write_some(socket: &WriteHalf, batch: &mut VecDeque<Bytes>) -> io::Result<usize> {
    let mut slices = [IoSlice::new(&[]); SLICES_MAX];
    let mut count = 0;
    for (slice, part) in slices.iter_mut().zip(batch.iter()) {
        *slice = IoSlice::new(part);
        count += 1;
    }
    let written = socket.try_write_vectored(&slices[..count])?;
    if written == 0 {
        return Err(io::Error::from(io::ErrorKind::WriteZero));
    }
    let mut rest = written;
    while rest > 0 {
        let Some(first) = batch.front_mut() else {
            break;
        };
        if first.len() <= rest {
            rest -= first.len();
            batch.pop_front();
        } else {
            first.advance(rest);
            rest = 0;
        }
    }
    Ok(written)
}
