//! One connection, from the side that opened it.
//!
//! Three tasks serve it: a reader hands answers to the calls that wait for
//! them, a writer sends what the callers could not send at once, and a watch,
//! asleep while nothing is asked, ends calls whose deadline is over and the
//! connection when nobody answers at the other side. Dropping the
//! [`Connection`] ends them and every call.

use crate::error::NetError;
use crate::frame::{Decoder, Frame, FrameError, FrameKind, FrameLimits};
use crate::handshake::{self, Hello};
use crate::message::Response;
use crate::outbox::Outbox;
use crate::pending::{NoSlot, Pending};
use crate::socket::{self, ReadHalf, WriteHalf};
use crate::spent;
use bytes::Bytes;
use lagan_types::ask::{Ask, Part};
use lagan_types::codec;
use lagan_types::message::{Message, RefusalOf};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::io::AsyncReadExt;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

#[cfg(test)]
mod tests;

/// The precision of deadlines: one look at all calls per tick costs less than a timer
/// per call.
const TICK: Duration = Duration::from_millis(20);
/// A watch that slept longer than this was stopped itself: it learned nothing about the
/// other side.
const TICK_MISSED: Duration = Duration::from_millis(500);

/// The settings of a connection.
#[derive(Debug, Clone)]
pub struct ConnectionOptions {
    /// The local address to connect from.
    pub bind_from: Option<IpAddr>,
    /// Bytes that may wait to be sent; further calls wait.
    pub queue_len_max: usize,
    /// Calls that may be unanswered; further calls wait.
    pub calls_max: usize,
    /// While calls wait and nothing is heard for this long, the other side is asked.
    pub ping_after: Duration,
    /// While calls wait and nothing is heard for this long, the connection is dead.
    pub dead_after: Duration,
    /// Bytes that a frame may have.
    pub frame: FrameLimits,
}

impl Default for ConnectionOptions {
    fn default() -> Self {
        ConnectionOptions {
            bind_from: None,
            queue_len_max: 16 * 1024 * 1024,
            calls_max: 4096,
            ping_after: Duration::from_millis(500),
            dead_after: Duration::from_millis(1500),
            frame: FrameLimits::default(),
        }
    }
}

/// One open connection. Many tasks may use all methods at once.
#[derive(Debug)]
pub struct Connection {
    inner: Arc<Inner>,
    tasks: [AbortHandle; 3],
}

#[derive(Debug)]
struct Inner {
    addr: SocketAddr,
    server: Hello,
    version: u16,
    options: ConnectionOptions,
    outbox: Outbox,
    socket: WriteHalf,
    pending: Pending,
    /// Reads that brought bytes; the watch looks whether the number rises.
    reads: AtomicU64,
    /// The watch is awake and will see new calls by itself.
    watching: AtomicBool,
    /// Wakes the watch.
    called: Notify,
    /// The server said that it leaves.
    leaving: AtomicBool,
}

impl Connection {
    /// Connects to `addr` and shakes hands as `hello`, within `deadline`.
    ///
    /// # Errors
    /// [`NetError::Connect`], or [`NetError::Refused`] with the reason.
    pub async fn open(
        addr: SocketAddr,
        bind_from: Option<IpAddr>,
        hello: &Hello,
        deadline: Duration,
    ) -> Result<Connection, NetError> {
        let options = ConnectionOptions {
            bind_from,
            ..ConnectionOptions::default()
        };
        Self::open_with(addr, hello, options, deadline).await
    }

    /// Opens as [`Connection::open`] does, with options.
    ///
    /// # Errors
    /// Fails as [`Connection::open`] does.
    pub async fn open_with(
        addr: SocketAddr,
        hello: &Hello,
        options: ConnectionOptions,
        deadline: Duration,
    ) -> Result<Connection, NetError> {
        let end = Instant::now() + deadline;
        let mut stream = socket::connect(addr, options.bind_from, deadline).await?;
        let rest = end.saturating_duration_since(Instant::now());
        let (version, server) =
            match tokio::time::timeout(rest, handshake::open(&mut stream, hello)).await {
                Ok(done) => done.map_err(|e| e.into_net(addr))?,
                Err(_) => {
                    return Err(NetError::Connect {
                        addr,
                        reason: "no answer to the handshake".to_owned(),
                        silent: true,
                    });
                }
            };
        let (read_half, socket) = stream.into_split();
        let inner = Arc::new(Inner {
            addr,
            server,
            version,
            options,
            outbox: Outbox::default(),
            socket,
            pending: Pending::default(),
            reads: AtomicU64::new(0),
            watching: AtomicBool::new(false),
            called: Notify::new(),
            leaving: AtomicBool::new(false),
        });
        let tasks = [
            tokio::spawn(inner.clone().read(read_half)).abort_handle(),
            tokio::spawn(inner.clone().write()).abort_handle(),
            tokio::spawn(inner.clone().watch()).abort_handle(),
        ];
        Ok(Connection { inner, tasks })
    }

    /// The address of the other side.
    pub fn addr(&self) -> SocketAddr {
        self.inner.addr
    }

    /// The hello of the other side.
    pub fn server(&self) -> &Hello {
        &self.inner.server
    }

    /// The protocol version that was agreed on.
    pub fn version(&self) -> u16 {
        self.inner.version
    }

    /// True while new calls may go over it: not closed, and the server has not
    /// said that it leaves.
    pub fn is_usable(&self) -> bool {
        !self.inner.leaving.load(Ordering::Relaxed) && !self.inner.outbox.is_closed()
    }

    /// Calls that wait for answers.
    pub fn calls(&self) -> usize {
        self.inner.pending.live()
    }

    /// Sends a call and waits for its answer, for `deadline` at most (kept to about
    /// 20 ms). Waits for room first if the connection is full.
    ///
    /// # Errors
    /// [`NetError::Closed`], [`NetError::TimedOut`], [`NetError::TooLarge`].
    ///
    /// # Cancel safety
    /// Dropping the future forgets the call; it may still be carried out.
    pub async fn call(
        &self,
        head: impl Into<Bytes>,
        data: Bytes,
        deadline: Duration,
    ) -> Result<Response, NetError> {
        let head = head.into();
        let inner = &*self.inner;
        inner.check_len(&head, &data)?;
        let end = Instant::now() + deadline;
        if !inner.has_room() {
            inner.wait_for_room(end).await?;
        }
        let (id, alone) = loop {
            match inner.pending.begin(end, inner.options.calls_max) {
                Ok(begun) => break begun,
                Err(NoSlot::Closed) => return Err(NetError::Closed { sent: false }),
                Err(NoSlot::Full) => inner.wait_for_room(end).await?,
            }
        };
        let answer = GiveRoom {
            answer: inner.pending.wait(id),
            inner,
        };
        let len = head.len() + data.len();
        let frame = Frame {
            kind: FrameKind::Call,
            id,
            head,
            data,
        };
        if inner.outbox.push(frame, !alone).is_err() {
            return Err(NetError::Closed { sent: false });
        }
        spent::note(1, len);
        if alone {
            // Nobody to share a write with: save the hop to the writer task.
            inner.outbox.flush_now(&inner.socket);
        }
        if !inner.watching.load(Ordering::SeqCst) {
            inner.called.notify_one();
        }
        let response = answer.wait().await?;
        spent::note(0, response.head.len() + response.data.len());
        Ok(response)
    }

    /// Asks as [`Connection::call`] does, over a connection for the request's service.
    ///
    /// # Errors
    /// Fails as [`Connection::call`] does; [`NetError::Protocol`] for what is no answer to
    /// that. The inner error is the server's refusal.
    pub async fn ask<A: Message>(&self, ask: A, data: Bytes, deadline: Duration) -> Answered<A> {
        let head = codec::encode(&ask.into());
        decode_answer::<A>(self.call(head, data, deadline).await?)
    }

    /// Ends the connection and every call on it.
    pub fn close(&self) {
        self.inner.fail();
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.close();
    }
}

/// What comes of asking one server: its answer or refusal with the data beside it, or
/// neither.
pub type Answered<A> = Result<(Result<<A as Ask>::Answer, RefusalOf<A>>, Bytes), NetError>;

/// Decodes the head of an answer.
pub(crate) fn decode_answer<A: Message>(response: Response) -> Answered<A> {
    let answer = match decode_reply::<A>(&response)? {
        Ok(reply) => Ok(own_answer::<A>(reply)?),
        Err(refusal) => Err(refusal),
    };
    Ok((answer, response.data))
}

/// Decodes the head of an answer, whatever request of the service it is to.
pub(crate) fn decode_reply<A: Message>(
    response: &Response,
) -> Result<Result<A::Reply, RefusalOf<A>>, NetError> {
    let reply = response.decode();
    reply.map_err(|e| NetError::Protocol(format!("answer: {e}")))
}

/// Takes the answer to this request out of a reply.
pub(crate) fn own_answer<A: Message>(reply: A::Reply) -> Result<A::Answer, NetError> {
    let other = || NetError::Protocol("the answer is to another kind of request".into());
    A::Answer::unwrap(reply).ok_or_else(other)
}

/// An awaited answer; its end makes room for another call.
struct GiveRoom<'a> {
    answer: crate::pending::Answer<'a>,
    inner: &'a Inner,
}

impl GiveRoom<'_> {
    async fn wait(mut self) -> Result<Response, NetError> {
        (&mut self.answer).await
    }
}

impl Drop for GiveRoom<'_> {
    fn drop(&mut self) {
        self.inner.outbox.give_room();
    }
}

impl Inner {
    fn check_len(&self, head: &Bytes, data: &Bytes) -> Result<(), NetError> {
        let limits = &self.options.frame;
        for (len, max) in [
            (head.len(), limits.head_len_max as usize),
            (data.len(), limits.data_len_max as usize),
        ] {
            if len > max {
                return Err(NetError::TooLarge { len, max });
            }
        }
        Ok(())
    }

    fn has_room(&self) -> bool {
        self.outbox.queued() < self.options.queue_len_max
    }

    async fn wait_for_room(&self, end: Instant) -> Result<(), NetError> {
        let room = self
            .outbox
            .room(|| self.has_room() && self.pending.live() < self.options.calls_max);
        tokio::time::timeout_at(end.into(), room)
            .await
            .map_err(|_| NetError::TimedOut { sent: false })
    }

    /// Ends the connection: every call gets its error, none is taken any more.
    fn fail(&self) {
        let unsent = self.outbox.close(false);
        self.pending.close(&unsent);
        socket::shutdown(&self.socket);
    }

    async fn read(self: Arc<Self>, half: ReadHalf) {
        match self.read_frames(half).await {
            Ok(()) => tracing::debug!(peer = %self.addr, "connection closed by the server"),
            Err(ReadError::Io(error)) => {
                tracing::info!(peer = %self.addr, %error, "connection lost");
            }
            Err(error) => {
                tracing::warn!(peer = %self.addr, %error, "bad bytes, connection closed");
            }
        }
        self.fail();
    }

    async fn read_frames(&self, mut half: ReadHalf) -> Result<(), ReadError> {
        let mut decoder = Decoder::new(self.options.frame);
        while half.read_buf(&mut decoder.space()).await? > 0 {
            self.reads.fetch_add(1, Ordering::Relaxed);
            while let Some(frame) = decoder.next_frame()? {
                self.receive(frame)?;
            }
        }
        Ok(())
    }

    fn receive(&self, frame: Frame) -> Result<(), ReadError> {
        let result = match frame.kind {
            FrameKind::Answer => Ok(Response {
                head: frame.head,
                data: frame.data,
            }),
            FrameKind::Dropped => Err(NetError::Closed { sent: true }),
            FrameKind::Pong => return Ok(()),
            FrameKind::Goodbye => {
                self.leaving.store(true, Ordering::Relaxed);
                return Ok(());
            }
            kind @ (FrameKind::Call | FrameKind::Ping) => {
                return Err(ReadError::Unexpected(kind));
            }
        };
        self.pending
            .complete(frame.id, result)
            .map_err(|_| ReadError::NeverAsked(frame.id))
    }

    async fn write(self: Arc<Self>) {
        if let Err(error) = self.outbox.run(&self.socket).await {
            tracing::debug!(peer = %self.addr, %error, "write to connection");
            self.fail();
        }
    }

    /// Ends late calls, and the connection when the other side is silent.
    async fn watch(self: Arc<Self>) {
        let mut heard = self.reads.load(Ordering::Relaxed);
        let mut quiet_since = Instant::now();
        let mut pinged = false;
        while !self.outbox.is_closed() {
            let mut before = Instant::now();
            if self.pending.live() == 0 {
                self.sleep_until_called().await;
                before = Instant::now();
                quiet_since = before;
            }
            tokio::time::sleep(TICK).await;
            let now = Instant::now();
            self.pending.expire(now);
            let reads = self.reads.load(Ordering::Relaxed);
            if reads != heard || now.duration_since(before) > TICK_MISSED {
                heard = reads;
                quiet_since = now;
                pinged = false;
            }
            let quiet = now.duration_since(quiet_since);
            if quiet >= self.options.dead_after {
                tracing::warn!(peer = %self.addr, elapsed_ms = quiet.as_millis() as u64, "connection is silent, given up");
                self.fail();
            } else if quiet >= self.options.ping_after && !pinged {
                pinged = true;
                self.ping();
            }
        }
    }

    async fn sleep_until_called(&self) {
        self.watching.store(false, Ordering::SeqCst);
        if self.pending.live() == 0 {
            self.called.notified().await;
        }
        self.watching.store(true, Ordering::SeqCst);
    }

    fn ping(&self) {
        let ping = Frame {
            kind: FrameKind::Ping,
            id: 0,
            head: Bytes::new(),
            data: Bytes::new(),
        };
        // A closed outbox ends the watch at its next look.
        let _ = self.outbox.push(ping, true);
    }
}

#[derive(Debug, thiserror::Error)]
enum ReadError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Frame(#[from] FrameError),
    #[error("unexpected frame {0:?}")]
    Unexpected(FrameKind),
    #[error("answer to a call that was never made: {0:#x}")]
    NeverAsked(u64),
}
